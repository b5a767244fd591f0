from __future__ import annotations

import os
from dataclasses import replace

import pytest

from conf.compose import compose
from conf.errors import ConfigError
from sim import exit_status
from sim.cli import main
from sim.run import engine, surroundings


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    composed = compose([])
    paths = replace(composed.paths, cache=str(tmp_path / "cache"), runs=str(tmp_path / "runs"))
    return replace(composed, paths=paths)


def with_paths(config, **paths):
    return replace(config, paths=replace(config.paths, **paths))


def test_what_can_be_used_passes_and_only_the_cache_is_made(config, tmp_path):
    surroundings.check(config)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


@pytest.mark.parametrize("key", ["cache", "runs"])
@pytest.mark.parametrize("below", ["", "x/y"])
def test_a_file_in_the_place_of_a_folder_is_refused(config, tmp_path, key, below):
    (tmp_path / "file").touch()
    given = with_paths(config, **{key: str(tmp_path / "file" / below)})
    with pytest.raises(ConfigError, match=rf"paths\.{key}: expected a folder, .*file is a file"):
        surroundings.check(given)


def test_a_folder_that_cannot_be_made_is_refused(config):
    with pytest.raises(ConfigError, match=r"paths\.cache: /proc/x cannot be (made|written)"):
        surroundings.check(with_paths(config, cache="/proc/x"))


def test_a_folder_that_cannot_be_written_is_refused(config, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(tmp_path))
    with pytest.raises(ConfigError, match=r"paths\.cache: .* cannot be written; set CDCDA_CACHE"):
        surroundings.check(config)


def test_a_temporary_folder_too_long_for_a_socket_is_refused(config, tmp_path, monkeypatch):
    long = tmp_path / ("t" * 60)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    with pytest.raises(ConfigError, match=r"TMPDIR: expected a path of at most 39 bytes.*RAY_TMP"):
        surroundings.check(config)
    inline = replace(config, resources=replace(config.resources, backend="inline"))
    surroundings.check(inline)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    surroundings.check(config)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("seed=" + "9" * 5000, "seed: expected a number of usual size"),
        ("name=" + "n" * 300, "name must have at most 200 bytes, got 300"),
        ("paths.cache=''", "paths.cache must name a folder, got an empty one; unset CDCDA_CACHE"),
        ("paths.cache=/proc/x", "paths.cache: /proc/x cannot be"),
    ],
)
def test_a_dry_run_refuses_in_one_line(word, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([word, "--dry-run"]) == exit_status.REFUSED
    said = capsys.readouterr().err
    assert said.startswith(f"error: {message}")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_a_home_folder_the_cache_has_to_be_named(monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # nobody knows the user
    with pytest.raises(ConfigError, match=r"paths\.cache: no home folder is known for '~/.cache"):
        compose(["paths.cache='~/.cache/cdcda'"])


def test_this_machine_is_never_reached_through_a_proxy(monkeypatch):
    for name in ("OMP_WAIT_POLICY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "example.org")
    engine.set_environment()
    assert os.environ["NO_PROXY"] == "example.org,127.0.0.1,localhost"
    assert os.environ["no_proxy"] == "127.0.0.1,localhost"
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
