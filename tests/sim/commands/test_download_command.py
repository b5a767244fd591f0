"""``python -m sim download`` against a local server that serves two tasks."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from conf.errors import ConfigError, DataError
from lamp.tasks import TASKS
from sim.commands import download


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    for task in ("lamp_4", "lamp_5"):
        for place in (TASKS[task].folder, f"time/{TASKS[task].folder}"):
            folder = tmp_path / "server" / place / "dev"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "dev_questions.json").write_text(json.dumps([place]))
            (folder / "dev_outputs.json").write_text(json.dumps({"task": task}))
    handler = functools.partial(Quiet, directory=str(tmp_path / "server"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_files_land_where_data_says(
    tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "lamp"
    assert download.main(["--from", address, "task=lamp_4,lamp_5", f"data={folder}"]) == 0
    for name in ("LaMP_4", "LaMP_5"):
        questions = folder / "time" / name / "dev" / "dev_questions.json"
        assert json.loads(questions.read_text()) == [f"time/{name}"]
    assert capsys.readouterr().out.endswith(
        f"Use them: python -m sim -m task=lamp_4,lamp_5 data={folder}\n"
    )


def test_the_default_place_is_the_cache(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDCDA_CACHE", str(tmp_path / "cache"))
    assert download.main(["task=lamp_4", "split=user", "--from", address]) == 0
    assert (tmp_path / "cache" / "lamp" / "LaMP_4" / "dev" / "dev_outputs.json").is_file()


def test_a_missing_file_and_a_missing_address_are_named(tmp_path: Path, address: str) -> None:
    with pytest.raises(DataError, match=r"dev_questions\.json: the server has no such file"):
        download.main(["task=lamp_2", f"data={tmp_path / 'lamp'}", "--from", address])
    with pytest.raises(ConfigError, match=r"--from: expected an address after it"):
        download.main(["task=lamp_2", "--from"])


def test_help_names_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert download.main(["--help"]) == 0
    assert "split=time" in capsys.readouterr().out
