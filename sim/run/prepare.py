"""From a configuration to a run folder that is ready to start.

Everything that can be refused is refused here, before any model is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from clients import folder as device_folder
from clients import share_order
from clients.folder import Device
from conf.checks import WORLD
from conf.compose import to_json
from conf.errors import RunError
from conf.schema import Config
from lamp import bertscore, dataset, eda, world
from lamp.dataset import LampData
from lamp.records import Pair, UserHistory
from models import sources
from models.llamacpp import runtime
from protocol.recipe import Stream
from protocol.settings import settings_of
from sim.folders import RunFolder, locked, new_run_folder, refuse_begun
from sim.leakage.canaries import plant, vocabulary
from sim.run import provision
from sim.run.counts import judge_to_build, scorer_of
from sim.run.manifest import make_manifest
from sim.run.placement import with_cohort
from sim.run.server import ServerInputs, configured_lexicons, public_tuning
from sim.run.tracker import check_installed
from storage import atomic
from strategy import candidates, public
from strategy.arms import check_methods, configured_arms
from strategy.augmenter_tuning import ensure_augmenter
from strategy.base_model import ensure_untuned
from strategy.diagnosis import Truth, Verdict
from strategy.endpoint import open_client
from strategy.methods import has_oracle
from strategy.progress import Progress, StepProgress
from strategy.prompting import make_prompt
from strategy.public import PublicUsers
from strategy.recipes import thesaurus_of


def check(config: Config) -> LampData:
    """Refuse what can be refused without a model, and load the data.

    Raises:
        ConfigError: If methods, ratios or policies do not fit.
        ModelError: If a checkpoint is not there or cannot be loaded.
        DataError: If the data cannot be used.
    """
    check_methods(config)
    arms = configured_arms(config)
    if any(arm.method.local == "eda" for arm in arms):
        eda.thesaurus(thesaurus_of(config.baselines, config.data))
    check_installed(config.trackers)
    if config.augmenter.endpoint.base_url is not None:
        open_client(config.augmenter.endpoint)
    if config.augmenter.file is not None:
        candidates.read(Path(config.augmenter.file))
    if (scorer := scorer_of(config)) is not None:
        bertscore.check_source(scorer)
    if config.evaluation.runtime == "llamacpp":
        runtime.binding()
    data = dataset.load(config)
    make_prompt(config.augmenter, data.task, data.public, config.seed)
    judged = any(arm.method.needs_augmentation for arm in arms)
    sources.check(
        config.model,
        config.augmenter.models,
        Path(config.paths.cache),
        config.filters.judge if judged else None,
    )
    if config.engine.name == "deployment":
        return _all_public(data)
    for user in data.targets:
        share_order.check_dates(user, config.privacy.select)
    provision.draw_preferences([user.user_id for user in data.targets], config.privacy, config.seed)
    return data


def _all_public(data: LampData) -> LampData:
    """The data of a server with real devices: all of its users are public, D_u is elsewhere."""
    everybody = sorted((*data.targets, *data.public), key=lambda user: user.user_id)
    return replace(data, targets=(), public=tuple(everybody), contaminated={})


def prepare(config: Config, progress: Progress) -> RunFolder:
    """Begin a run and set it up."""
    data = check(config)
    folder = new_run_folder(config)
    with locked(folder):
        begin(config, folder)
        set_up(config, data, folder, progress)
    return folder


def begin(config: Config, folder: RunFolder) -> None:
    """Note what was asked for; from here on the run can be resumed.

    Raises:
        RunError: If another process began it in the meantime.
    """
    refuse_begun(folder)
    atomic.write_text(folder.requested, to_json(config) + "\n")


def set_up(config: Config, data: LampData, folder: RunFolder, progress: Progress) -> None:
    """Build the models where needed and make the device folders; doing it twice changes nothing."""
    for note in data.notes:
        progress.note(note)
    config, models = with_models(config, data, progress)
    config = with_cohort(config)
    users = public.write(Path(config.paths.cache) / "public", data.public)
    config = _with_augmenter(config, users, progress)
    if config.engine.name != "deployment":  # real devices hold what is theirs already
        _provision(config, data, folder, users)
    atomic.write_json(
        folder.server, {"public": str(users.path), "content_hash": users.content_hash}
    )
    atomic.write_json(folder.manifest, make_manifest(config, data, models))
    atomic.write_text(folder.config, to_json(config) + "\n")  # last: the run is ready to start


def _with_augmenter(config: Config, users: PublicUsers, progress: Progress) -> Config:
    """Tune what writes similar pairs where the configuration asks for it and a method needs it."""
    if not any(arm.method.needs_augmentation for arm in configured_arms(config)):
        return config
    tuning = public_tuning(config, users)
    adapter = ensure_augmenter(config.augmenter, config.model.cloud, tuning, progress)
    if adapter is None:
        return config
    return replace(config, augmenter=replace(config.augmenter, adapter=str(adapter)))


def _provision(config: Config, data: LampData, folder: RunFolder, users: PublicUsers) -> None:
    """Make the device folders of the simulated users.

    The policies are the simulator's own record, for plots.
    """
    preferences = provision.provision(
        folder.devices,
        _planted(config, data),
        config,
    )
    provision.fix_orders(folder.devices, scorer(config, users))
    provision.write_policies(folder.path / "policies.csv", preferences)


def _planted(config: Config, data: LampData) -> list[UserHistory]:
    """The simulated users' histories, with canaries where leaks are to be measured."""
    if not (number := config.privacy.canaries):
        return list(data.targets)
    words = vocabulary(config.privacy.canary_words, data.public)
    return [plant(user, data.task, number, config.seed, words) for user in data.targets]


def scorer(config: Config, users: PublicUsers) -> Callable[[Device], None] | None:
    """How devices whose users share by the DAC'24 scores score their records, at set-up.

    With the device model as it comes and the simulator's lexicons: no server chooses either.
    """
    if config.privacy.select != "dac24":
        return None
    from clients import base
    from clients.dac24 import usefulness

    model = ensure_untuned(config.model.device, public_tuning(config, users)).folder
    loaded = base.load(model, config.qlora, config.resources.torch_threads)
    stream = Stream(settings=config.stream, lexicons=configured_lexicons(config, users))
    settings = settings_of(config)
    return lambda device: usefulness.keep_order(device, loaded, stream, settings)


def server_inputs(folder: RunFolder) -> ServerInputs:
    """Read back what the server holds.

    Raises:
        RunError: If the run was not set up.
    """
    try:
        config = folder.read_config()
        server = json.loads(folder.server.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{folder.path.name}: {error.strerror}; the run was not set up") from error
    return ServerInputs(
        config=config,
        run_folder=folder.path,
        public=PublicUsers(Path(server["public"]), server["content_hash"]),
        histories=_histories(folder) if has_oracle(config.methods) else None,
        truth=_truth(config) if config.data == "miniature" else None,
    )


def _truth(config: Config) -> Truth:
    """What the miniature world knows of a synthetic pair; the report's knowledge alone."""
    task = config.task.name

    def judge(user: str, shared: Pair, written: Pair) -> Verdict:
        answer = world.answer(task, user, config.world, written.input)
        return Verdict(
            same_facts=world.same_facts(shared.input, written.input),
            right_label=None if answer is None else answer == written.response,
        )

    return judge


def _histories(folder: RunFolder) -> Callable[[], list[UserHistory]]:
    """How an oracle reads the users' histories: from their devices' folders, past the wire."""
    return lambda: [
        device_folder.read(path).history for path in device_folder.device_folders(folder.devices)
    ]


def with_models(
    config: Config, data: LampData, progress: Progress
) -> tuple[Config, dict[str, Any]]:
    """Build the models where the configuration asks for it; else find the given ones."""
    if config.model.build is None:
        return _found_models(config, data, progress)
    from models.miniature import build

    with StepProgress(progress) as steps:
        max_words, cache = config.task.max_field_words, Path(config.paths.cache)
        built = replace(config, model=build(config.model, data, max_words, cache, steps))
    report = json.loads((Path(built.model.device.path).parent / "report.json").read_text())
    return built, _with_bytes(built, {"name": config.model.name, **report})


def _found_models(
    config: Config, data: LampData, progress: Progress
) -> tuple[Config, dict[str, Any]]:
    """Find the given models, and train the judge where it is to be trained."""
    with StepProgress(progress) as steps:
        resolved, facts = sources.resolve(config, steps)
        nli = resolved.model.nli
        folder = _trained_judge(resolved, data, steps)
    if folder is not None:
        from models.loading import context_size  # seconds

        figures = json.loads((folder / atomic.MARKER).read_text(encoding="utf-8"))
        facts["nli"] |= {"accuracy": figures["accuracy"], "pairs": figures["pairs"]}
        progress.note(f"NLI model: {figures['accuracy']:.1%} of held-out pairs right")
        most = min(nli.max_length, context_size(folder))
        nli = replace(nli, path=str(folder), revision=None, nli_data=None, max_length=most)
    resolved = replace(resolved, model=replace(resolved.model, nli=nli))
    return resolved, _with_bytes(resolved, {"name": config.model.name, **facts})


def _trained_judge(config: Config, data: LampData, steps: StepProgress) -> Path | None:
    """The folder of a judge that this project trains; None where the checkpoint is one."""
    nli, cache = config.model.nli, Path(config.paths.cache)
    if nli.path == WORLD:
        from models.miniature import world_judge

        settings = judge_to_build(config)
        assert settings is not None  # the world's judge is built
        return world_judge.ensure(data, config.task.max_field_words, settings, cache, steps)
    if nli.nli_data is not None:
        from models import nli_head

        return nli_head.ensure(nli, Path(nli.nli_data).expanduser(), cache, steps)
    return None


def _with_bytes(config: Config, models: dict[str, Any]) -> dict[str, Any]:
    """Add what each local model's weights take on disk."""
    for name in ("cloud", "device", "nli"):
        files = Path(getattr(config.model, name).path).glob("*.safetensors")
        if size := sum(file.stat().st_size for file in files):
            models[name] = {**models.get(name, {}), "bytes": size}
    return models
