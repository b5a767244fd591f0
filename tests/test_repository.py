"""Habits of the tree: nothing goes to site-packages, no machine paths, documents keep up."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from conf.compose import compose
from conf.groups import groups
from conf.keys import keys

ROOT = Path(__file__).resolve().parents[1]
MACHINE_PATH = re.compile(r"(?<![\w.}>-])/(?:home|root|tmp|work|Users|mnt|opt|srv)/[\w.]")
NAMES_OF_LIBRARIES = {"datasets", "evaluate", "flwr", "hydra", "peft", "ray", "tokenizers", "torch"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def tree() -> list[Path]:
    """Files that are tracked, or would be with ``git add``."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_machines_path_stands_in_the_tree() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tree()
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []


def test_installing_puts_no_module_into_site_packages(project: dict[str, Any]) -> None:
    assert project["tool"]["setuptools"] == {"packages": [], "py-modules": []}
    assert project["tool"]["uv"] == {"package": False}
    assert project["build-system"]["build-backend"] == "setuptools.build_meta"
    assert not {"setup.py", "setup.cfg", "MANIFEST.in"} & {path.name for path in ROOT.iterdir()}


def test_flower_installs_nothing_for_a_run(project: dict[str, Any]) -> None:
    assert project["project"]["dependencies"] == []
    assert re.fullmatch(r"[A-Za-z0-9-]{1,32}", project["project"]["name"])


def test_flower_finds_both_apps(project: dict[str, Any]) -> None:
    for name in project["tool"]["flwr"]["app"]["components"].values():
        module, _, attribute = name.partition(":")
        source = ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8")
        assert re.search(rf"^{attribute} = (Client|Server)App\(", source, re.MULTILINE), name


def test_flowers_keys_are_flat(project: dict[str, Any]) -> None:
    values = project["tool"]["flwr"]["app"]["config"].values()
    assert all(isinstance(value, str | int | float | bool) for value in values)


def test_no_folder_hides_a_library() -> None:
    assert not NAMES_OF_LIBRARIES & {path.name for path in ROOT.iterdir() if path.is_dir()}


def test_every_direct_dependency_is_locked_within_its_bounds(project: dict[str, Any]) -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    hashed, torch = (
        (ROOT / f"requirements{part}.lock").read_text(encoding="utf-8").splitlines()
        for part in ("", "-torch")
    )
    lines = [line.removesuffix(" \\") for line in (*hashed, *torch) if line[:1] not in ("#", " ")]
    pins = [Requirement(line) for line in lines if line]
    locked = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    assert not [version for version in locked.values() if "+" in version]
    groups_of_project = project["dependency-groups"]
    for line in (*groups_of_project["run"], *groups_of_project["dev"]):
        if isinstance(line, str):
            requirement = Requirement(line)
            assert locked[canonicalize_name(requirement.name)] in requirement.specifier, line


def test_every_locked_file_has_its_hash() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    for entry in re.split(r"\n(?=[a-z])", text)[1:]:
        assert re.search(r" \\\n    --hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]
    assert "--require-hashes --no-deps" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_continuous_integration_runs_the_readers_command() -> None:
    script = ROOT / ".ci" / "run"
    lines = script.read_text(encoding="utf-8").splitlines()
    assert lines.index("make pretrained") < lines.index("make test")
    assert script.stat().st_mode & 0o100


ROW = re.compile(r"^\| `(?P<key>[\w.]+)` \| (?P<value>[^|]+) \|", re.MULTILINE)


def test_documented_assumptions_are_what_composes() -> None:
    config = compose(["model=qwen2.5"])
    text = (ROOT / "docs" / "assumptions.md").read_text(encoding="utf-8")
    documented = {row["key"]: row["value"].strip() for row in ROW.finditer(text)}
    actual = {key: attrgetter(key)(config) for key in documented}
    shown = {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in actual.items()
    }
    assert len(documented) > 25
    assert {key: number(value) for key, value in shown.items()} == {
        key: number(value) for key, value in documented.items()
    }


def number(text: str) -> float | str:
    """1e-4 and 0.0001 are the same."""
    try:
        return float(text)
    except ValueError:
        return text


@pytest.mark.parametrize("name", ["README.md", "docs/architecture.md", "docs/assumptions.md"])
def test_words_of_documented_commands_exist(name: str) -> None:
    if not (ROOT / name).is_file():
        pytest.skip(f"{name} is not written yet")
    text = (ROOT / name).read_text(encoding="utf-8")
    words = re.findall(r"`(?:python -m sim [^`]*?)?([a-z_]+(?:\.[a-z_]+)*)=([\w.]*)", text)
    for key, value in words:
        names = groups().get(key)
        assert names is not None or key in keys() or key in {"texts", "run", "runs", "user"}, key
        assert not names or not value or value in names, f"{key}={value}"
