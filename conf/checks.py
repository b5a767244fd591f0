"""What only shows across keys: sums, orders, and settings that exclude each other.

The schema bounds each value by itself; a rule here looks at several. A rule is a function that
yields one clause per violation, so a message can name them all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from datetime import date
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from conf.errors import ConfigError
from conf.schema import Config, PrivacyConfig, ThresholdsConfig, TransformerSize

BUILT = "built"
WORLD = "world"
GGUF = ".gguf"
MINIATURE = "miniature"
THRESHOLD_OF_JUDGE = {"nli": "eps_scf", "embedding": "eps_embedding"}
LOADED = ("cloud", "device", "nli")


def check(config: Config) -> None:
    """Hold ``config`` against every rule.

    Raises:
        ConfigError: If a rule is violated; the message names all violations.
    """
    violations = [clause for rule in RULES for clause in rule(config)]
    if violations:
        raise ConfigError("; ".join(violations))


def _contrasts(config: Config) -> Iterator[str]:
    for contrast in config.contrasts:
        first, dash, second = contrast.partition(" - ")
        if not dash or not first.isidentifier() or not second.isidentifier() or first == second:
            yield f"contrasts: expected 'method - method', got '{contrast}'"
    yield from _repeated("contrasts", config.contrasts)


def _privacy(config: Config) -> Iterator[str]:
    privacy = config.privacy
    if privacy.kind == "mixed":
        yield from _groups(privacy)
    if privacy.kind == "uniform" and privacy.low > privacy.high:
        yield f"privacy.low must be <= privacy.high, got {privacy.low:g} > {privacy.high:g}"
    if privacy.kind == "per_user" and not privacy.csv:
        yield "privacy.csv is required: set privacy.csv=<file with the columns user_id, ratio>"
    if privacy.canary_words != "random" and not privacy.canaries:
        yield "privacy.canary_words has no effect while privacy.canaries is 0"
    yield from _repeated("privacy.redact", privacy.redact)


def _groups(privacy: PrivacyConfig) -> Iterator[str]:
    total = math.fsum(group.share for group in privacy.groups)
    if not math.isclose(total, 1, abs_tol=1e-9):
        yield f"the shares of privacy.groups must add up to 1, got {total:g}"
    for group in privacy.groups:
        if group.low > group.high:
            yield (
                f"privacy.groups: low must be <= high in '{group.name}', "
                f"got {group.low:g} > {group.high:g}"
            )
    yield from _repeated("privacy.groups", (group.name for group in privacy.groups))


def _filters(config: Config) -> Iterator[str]:
    yield from _lengths("filters", config.filters.eps_min_len, config.filters.eps_max_len)
    judge = config.filters.judge
    for place, given in enumerate(config.thresholds):
        for other, key in THRESHOLD_OF_JUDGE.items():
            if other != judge and getattr(given, key) is not None:
                yield f"thresholds.{place}.{key} has no effect while filters.judge is {judge}"


def _keep_share(path: str, given: ThresholdsConfig, configured: float | None) -> Iterator[str]:
    bounds = (value for key, value in asdict(given).items() if key != "keep_share")
    if any(bound is not None for bound in bounds) and (given.keep_share or configured) is not None:
        set_by = f"{path}.keep_share" if given.keep_share else "filters.keep_share"
        yield f"the thresholds of {path} have no effect while {set_by} is set; leave one out"


def _lengths(path: str, low: float, high: float) -> Iterator[str]:
    if low > high:
        yield f"{path}.eps_min_len must be <= {path}.eps_max_len, got {low:g} > {high:g}"


def _arms(config: Config) -> Iterator[str]:
    if not config.methods:
        yield "methods must name at least one method"
    yield from _repeated("methods", config.methods)
    if config.ratios is not None:
        if not config.ratios:
            yield "ratios must hold at least one ratio; ratios=null asks for all that users allow"
        yield from _repeated("ratios", (f"{ratio:g}" for ratio in config.ratios))
    if config.ks is not None:
        if not config.ks:
            yield "ks must hold at least one number; ks=null takes augmenter.k"
        yield from _repeated("ks", map(str, config.ks))
    for place, given in enumerate(config.thresholds):
        yield from _keep_share(f"thresholds.{place}", given, config.filters.keep_share)
        yield from _lengths(
            f"thresholds.{place}",
            config.filters.eps_min_len if given.eps_min_len is None else given.eps_min_len,
            config.filters.eps_max_len if given.eps_max_len is None else given.eps_max_len,
        )


def _world(config: Config) -> Iterator[str]:
    if config.data != MINIATURE:
        return
    world = config.world
    if world.history_min > world.history_max:
        yield (
            "world.history_min must be <= world.history_max, "
            f"got {world.history_min} > {world.history_max}"
        )
    reserved = config.skip_users + config.users
    if config.model.build is not None:
        reserved = max(reserved, config.model.build.holdout)
    if reserved >= world.population:
        yield (
            f"world.population must be > {reserved} to leave public users beside the target users "
            f"(users, skip_users, model.build.holdout), got {world.population}"
        )


def _drift(config: Config) -> Iterator[str]:
    drift = config.drift
    if drift.cut is None:
        if drift.refresh:
            yield "drift.refresh has no effect without a date; set drift.cut=YYYY-MM-DD"
        return
    if not _is_date(drift.cut):
        yield f"drift.cut must be a date YYYY-MM-DD, got '{drift.cut}'"
    if drift.refresh >= drift.years:
        yield f"drift.refresh must be < drift.years, got {drift.refresh} >= {drift.years}"
    if config.evaluation.disclose != "queries":
        yield (
            "drift.cut needs evaluation.disclose=queries: sums over a user's queries do not tell "
            "their ages apart"
        )
    if config.engine.name == "deployment":
        yield "drift.cut exists for simulated devices only: real ones hold their own D_u"


def _portion(config: Config) -> Iterator[str]:
    taken = {
        "split=holdout": config.split == "holdout",
        "max_records": config.max_records is not None,
        "target_records": config.target_records is not None,
        "max_queries": config.max_queries is not None,
    }
    for key in (key for key, is_given in taken.items() if is_given):
        if config.drift.cut is not None:
            yield f"{key} and drift.cut exclude each other: both say what is asked and trained on"


def _files(config: Config) -> Iterator[str]:
    if config.files != "oppu":
        return
    if config.data == MINIATURE:
        yield "files=oppu needs data=<folder with OPPU's processed data>"
    if config.split != "auto":
        yield f"files=oppu needs split=auto, got {config.split}: its files say who is asked what"
    if config.part != "dev":
        yield f"files=oppu has no parts, got part={config.part}; leave it out"
    if config.drift.cut is not None:
        yield "files=oppu and drift.cut exclude each other: both say what is asked and trained on"


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _tune(config: Config) -> Iterator[str]:
    tune = config.tune
    if tune.least_kept > tune.most_kept:
        yield (
            "tune.least_kept must be <= tune.most_kept, "
            f"got {tune.least_kept:g} > {tune.most_kept:g}"
        )
    yield from _repeated("tune.stages", tune.stages)


def _build(config: Config) -> Iterator[str]:
    model, build = config.model, config.model.build
    if build is None:
        for name in LOADED:
            if getattr(model, name).path == BUILT:
                yield f"model.{name}.path is '{BUILT}' but model.build is not given"
        return
    yield from _network("model.build.cloud", build.cloud, multiple=2)  # rotary halves
    yield from _network("model.build.device", build.device, multiple=2)
    yield from _network("model.build.nli", build.nli, multiple=1)


def _checkpoints(config: Config) -> Iterator[str]:
    models = {"model.cloud": config.model.cloud, "model.device": config.model.device}
    further = config.augmenter.models
    for name, model in {
        **models,
        **{f"augmenter.models.{n}": m for n, m in enumerate(further)},
    }.items():
        if model.path.endswith(GGUF) and model.gguf_file is not None:
            yield f"{name}.gguf_file has no effect while {name}.path is a GGUF file itself"
        if model.sha256 is not None and not (model.path.endswith(GGUF) or model.gguf_file):
            yield f"{name}.sha256 is checked for GGUF files only; set {name}.gguf_file=<file>"


def _judge(config: Config) -> Iterator[str]:
    nli, judge = config.model.nli, config.filters.judge
    if nli.path == WORLD and config.data != MINIATURE:
        yield f"model.nli.path={WORLD} needs data={MINIATURE}: its network knows no other texts"
    if nli.path == WORLD and judge != "nli":
        yield f"model.nli.path={WORLD} is an NLI network; add filters.judge=nli"
    if nli.nli_data is None:
        return
    if nli.path in (WORLD, BUILT):
        yield "model.nli.nli_data needs model.nli.path=<an encoder's folder or hub name>"
    if judge != "nli":
        yield "model.nli.nli_data has no effect while filters.judge is embedding"


def _network(path: str, size: TransformerSize, multiple: int) -> Iterator[str]:
    if size.width % (size.heads * multiple):
        factor = f"{multiple} x " if multiple > 1 else ""
        yield (
            f"{path}.width must be a multiple of {factor}{path}.heads, "
            f"got {size.width} and {size.heads}"
        )


def _resources(config: Config) -> Iterator[str]:
    resources = config.resources
    if resources.cluster:
        yield from _cluster(config)
        return
    for unit, whole, part in (
        ("cpus", resources.num_cpus, resources.client_cpus),
        ("gpus", resources.num_gpus, resources.client_gpus),
    ):
        if whole is not None and part > whole:
            yield (
                f"resources.client_{unit} must be <= resources.num_{unit}, got {part:g} > {whole}"
            )
        if part > 1 and part != int(part):  # Ray's rule for every resource
            yield f"resources.client_{unit} must be whole when above 1, got {part:g}"


def _cluster(config: Config) -> Iterator[str]:
    resources = config.resources
    if resources.backend != "ray" or config.engine.name != "simulation":
        yield (
            "resources.cluster needs engine=simulation with resources.backend=ray, got "
            f"{config.engine.name} with {resources.backend}"
        )
    if resources.num_cpus is not None or resources.num_gpus:
        yield "resources.num_cpus and num_gpus are the cluster's own while resources.cluster is on"


def _cloud_workers(config: Config) -> Iterator[str]:
    resources = config.resources
    count, device = resources.cloud_workers, resources.cloud_device
    if count == 1:
        return
    if device not in ("cpu", "cuda"):
        yield (
            "resources.cloud_device must be cpu or cuda beside resources.cloud_workers="
            f"{count}, got {device}: each worker sees one GPU; or set resources.cloud_workers=1"
        )
    if count == "per_gpu" and device == "cpu":
        yield "resources.cloud_workers=per_gpu needs resources.cloud_device=cuda"
    if device != "cuda" or resources.cluster:
        return
    most = resources.num_gpus * resources.cloud_workers_per_gpu
    if not most or (isinstance(count, int) and count > most):
        yield (
            f"resources.cloud_workers={count} does not fit on resources.num_gpus="
            f"{resources.num_gpus} with resources.cloud_gpus={resources.cloud_gpus:g}"
        )


def _augmenter(config: Config) -> Iterator[str]:
    augmenter = config.augmenter
    if augmenter.tuning is None:
        return
    if config.model.build is not None:
        yield "augmenter.tuning has no effect on a cloud model that model.build trains for it"
    if augmenter.endpoint.base_url is not None:
        yield "augmenter.tuning needs a cloud model that is loaded here, not an endpoint"
    if augmenter.file is not None:
        yield "augmenter.tuning has no effect while augmenter.file is set: nothing is written anew"


def _system_turn(config: Config) -> Iterator[str]:
    for name in ("cloud", "device"):
        model = getattr(config.model, name)
        if model.system_turn == "user" and model.system_prompt is None:
            yield (
                f"model.{name}.system_turn=user has no effect without a text; set "
                f"model.{name}.system_prompt"
            )


def _endpoint(config: Config) -> Iterator[str]:
    endpoint = config.augmenter.endpoint
    if endpoint.base_url is None:
        return
    if not endpoint.model:
        yield "augmenter.endpoint.model is required beside augmenter.endpoint.base_url"
    parts = urlsplit(endpoint.base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        yield "augmenter.endpoint.base_url must be an http or https address"
    if parts.scheme == "http" and not is_loopback(parts.hostname) and not endpoint.allow_http:
        yield (
            "augmenter.endpoint.base_url must be an https address, or one of this machine: shared "
            "records would cross the network in the clear; augmenter.endpoint.allow_http=true "
            "takes it nevertheless"
        )
    if parts.username or parts.password or parts.query:
        yield (  # the address is written to config and manifest
            "augmenter.endpoint.base_url must hold no key, user or password; "
            "export the key and name its variable in augmenter.endpoint.key_variable"
        )


def _asking(config: Config) -> Iterator[str]:
    augmenter = config.augmenter
    if augmenter.name == "replay" and augmenter.file is None:
        yield "augmenter.file is required: set augmenter.file=<candidates.jsonl of another run>"
    if augmenter.file is not None and augmenter.name != "replay":
        yield "augmenter.file has no effect without augmenter=replay"
    if augmenter.prefill and augmenter.endpoint.base_url is not None:
        yield (
            "augmenter.prefill exists for models that are loaded here: an endpoint cannot be told "
            "how its reply begins"
        )
    built = config.model.build is not None and config.model.cloud.path == BUILT
    if built and augmenter.endpoint.base_url is None and augmenter.prompt != "paper":
        yield (
            f"augmenter.prompt={augmenter.prompt} needs a pretrained cloud model: the miniature "
            "has learned the prompt 'paper' alone; choose another model.cloud.path"
        )


def is_loopback(host: str | None) -> bool:
    """Whether ``host`` is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ip_address((host or "").strip("[]")).is_loopback
    except ValueError:
        return False


def _engine(config: Config) -> Iterator[str]:
    engine = config.engine
    host = (engine.superlink or "").rpartition(":")[0]
    if engine.superlink and engine.root_certificates is None and not is_loopback(host):
        yield (
            f"engine.root_certificates is required for {engine.superlink}, which is not this "
            "machine: without TLS anybody between could read and change every message"
        )
    for key in ("nodes", "signing_key"):
        if getattr(engine, key) is not None and engine.name != "deployment":
            yield f"engine.{key} has no effect without engine=deployment"
    if engine.trust_local_users and engine.name != "flwr_run":
        yield "engine.trust_local_users has no effect without engine=flwr_run"
    if engine.name == "deployment" and not engine.superlink:
        yield "engine.superlink is required: set engine.superlink=<host:port of the SuperLink>"
    if engine.name == "deployment" and config.data == MINIATURE:
        yield (
            "engine=deployment needs data=<folder with the public users' records>: the devices "
            "bring their own"
        )
    if engine.name != "simulation" and config.resources.backend == "inline":
        yield f"resources.backend=inline exists for engine=simulation only, not {engine.name}"
    if engine.name == "flwr_run" and config.resources.client_cpus % 1:
        yield (
            "resources.client_cpus must be whole for engine=flwr_run, got "
            f"{config.resources.client_cpus:g}; flwr run takes no parts of a CPU"
        )


def _paths(config: Config) -> Iterator[str]:
    for key, value in (("cache", config.paths.cache), ("runs", config.paths.runs)):
        remedy = "unset CDCDA_CACHE or name a folder" if key == "cache" else "name a folder"
        if not value.strip():
            yield f"paths.{key} must name a folder, got an empty one; {remedy}"
            continue
        try:
            Path(value).expanduser()
        except RuntimeError:
            yield f"paths.{key}: no home folder is known for '{value}'; set HOME, or {remedy}"


def _name(config: Config) -> Iterator[str]:
    name = config.name
    if name is not None and len(name.encode()) > LONGEST_NAME:
        yield f"name must have at most {LONGEST_NAME} bytes, got {len(name.encode())}"
    if name is not None and (name in {"", ".", ".."} or "/" in name or "\\" in name):
        yield f"name must be one folder name (the folder it goes in is paths.runs), got '{name}'"


def _repeated(path: str, names: Iterable[str]) -> Iterator[str]:
    for name, times in Counter(names).items():
        if times > 1:
            yield f"{path} must not repeat '{name}'"


LONGEST_NAME = 200  # of 255 that file systems take; what is written beside needs some
RULES: tuple[Callable[[Config], Iterator[str]], ...] = (
    _contrasts,
    _privacy,
    _filters,
    _arms,
    _world,
    _drift,
    _portion,
    _files,
    _tune,
    _build,
    _checkpoints,
    _system_turn,
    _resources,
    _cloud_workers,
    _augmenter,
    _endpoint,
    _asking,
    _engine,
    _name,
    _paths,
)
