from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from conf.errors import DataError
from lamp.download import DownloadProgress, Retry, download
from lamp.official import find_files
from lamp.tasks import TASKS

QUESTIONS = json.dumps([{"id": str(n), "text": "x" * 50} for n in range(3000)]).encode()
OUTPUTS = b'{"task": "LaMP_4", "golds": []}'
PLACE = "LaMP_4/dev/dev_questions.json"
IMPATIENT = Retry(attempts=3, first_wait_s=0.0)


@dataclass
class Site:
    """What the local server has and how it misbehaves; every request is noted."""

    files: dict[str, bytes]
    cuts: list[int] = field(default_factory=list)  # bytes sent before each next cut
    statuses: list[int] = field(default_factory=list)  # answered before anything else
    ranges: bool = True
    validators: bool = True
    lengths: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, site, *arguments):
        self.site = site
        super().__init__(*arguments)

    def log_message(self, *_):
        pass

    def do_GET(self):
        site, path, wanted = self.site, self.path.lstrip("/"), self.headers.get("Range")
        site.requests.append((path, wanted))
        self.close_connection = True
        if site.statuses or path not in site.files:
            self.send_response(site.statuses.pop(0) if site.statuses else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = site.files[path]
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        first = int(re.fullmatch(r"bytes=(\d+)-", wanted).group(1)) if wanted else 0
        partial_answer = site.ranges and wanted and self.headers.get("If-Range", etag) == etag
        if partial_answer and first >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = content[first:] if partial_answer else content
        self.send_response(206 if partial_answer else 200)
        if partial_answer:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if site.validators:
            self.send_header("ETag", etag)
        if site.lengths:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = site.cuts.pop(0) if site.cuts else len(body)
        self.wfile.write(body[:cut])


@pytest.fixture
def site(monkeypatch) -> Iterator[Site]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    site = Site({PLACE: QUESTIONS, "LaMP_4/dev/dev_outputs.json": OUTPUTS})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, site))
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def fetch(site, tmp_path):
    def fetch(task="lamp_4", split="user", part="dev", progress=lambda _: None, url=None):
        address = url or site.url
        return download(TASKS[task], split, part, tmp_path, address, progress, IMPATIENT)

    return fetch


def ranges(site):
    """Return what was asked of the question file, range by range."""
    return [wanted for path, wanted in site.requests if path == PLACE]


def test_both_files_are_fetched_with_progress(fetch, tmp_path):
    seen: list[DownloadProgress] = []
    questions, outputs = fetch(progress=seen.append)
    assert questions == tmp_path / PLACE
    assert questions.read_bytes() == QUESTIONS
    assert outputs.read_bytes() == OUTPUTS
    assert sorted(path.name for path in questions.parent.iterdir()) == [
        "dev_outputs.json",
        "dev_questions.json",
    ]
    done = [each.done for each in seen if each.file == PLACE]
    assert done == sorted(done)
    assert done[-1] == len(QUESTIONS)
    assert {each.total for each in seen if each.file == PLACE} == {len(QUESTIONS)}


@pytest.mark.parametrize(
    ("task", "split", "place"),
    [
        ("lamp_4", "time", "time/LaMP_4/train"),
        ("lamp_1", "user", "LaMP_1/train"),
        ("lamp_2", "user", "LaMP_2/new/train"),
        ("lamp_2", "time", "time/LaMP_2/new/train"),
    ],
)
def test_the_addresses_are_lamps(site, fetch, tmp_path, task, split, place):
    for kind in ("questions", "outputs"):
        site.files[f"{place}/train_{kind}.json"] = b"[]"
    questions, _ = fetch(task, split, "train")
    assert questions == tmp_path / place / "train_questions.json"


def test_what_is_fetched_from_the_servers_layout_is_found(site, fetch, tmp_path):
    for place, split in (("time/LaMP_2/new", "time"), ("LaMP_2/new", "user")):
        for kind in ("questions", "outputs"):
            site.files[f"{place}/dev/dev_{kind}.json"] = b"[]"
        fetched = fetch("lamp_2", split)
        assert find_files(tmp_path, TASKS["lamp_2"], "dev", split) == fetched


def test_what_is_there_is_not_fetched_again(site, fetch):
    fetch()
    site.requests.clear()
    seen: list[DownloadProgress] = []
    fetch(progress=seen.append)
    assert site.requests == []
    assert seen[0] == DownloadProgress(PLACE, len(QUESTIONS), len(QUESTIONS))


def test_a_cut_connection_is_resumed_where_it_broke(site, fetch):
    site.cuts = [70_000, 50_000]
    questions, _ = fetch()
    assert questions.read_bytes() == QUESTIONS
    assert ranges(site) == [None, "bytes=70000-", "bytes=120000-"]


def test_another_run_resumes_what_an_earlier_one_left(site, fetch, tmp_path):
    site.cuts = [70_000, 0, 0]
    with pytest.raises(DataError, match=r"stopped 3 times in a row.*70000 bytes are kept"):
        fetch()
    assert not (tmp_path / PLACE).exists()
    site.requests.clear()
    questions, _ = fetch()
    assert questions.read_bytes() == QUESTIONS
    assert ranges(site) == ["bytes=70000-"]


def test_attempts_that_bring_bytes_do_not_use_up_the_patience(site, fetch):
    site.cuts = [20_000] * 7
    questions, _ = fetch()
    assert questions.read_bytes() == QUESTIONS


def test_a_server_without_ranges_is_read_from_the_start(site, fetch):
    site.cuts, site.ranges = [70_000], False
    questions, _ = fetch()
    assert questions.read_bytes() == QUESTIONS
    assert ranges(site) == [None, "bytes=70000-"]


@pytest.mark.parametrize("validators", [True, False])
def test_a_file_that_changed_meanwhile_is_fetched_anew(site, fetch, validators):
    site.cuts, site.validators = [70_000, 0, 0], validators
    with pytest.raises(DataError):
        fetch()
    site.files[PLACE] = QUESTIONS.replace(b"x", b"y") + b"     "
    questions, _ = fetch()
    assert questions.read_bytes() == site.files[PLACE]


def test_a_file_that_shrank_below_the_part_is_fetched_anew(site, fetch):
    site.cuts, site.validators = [70_000, 0, 0], False
    with pytest.raises(DataError):
        fetch()
    site.files[PLACE] = b"[]"
    questions, _ = fetch()
    assert questions.read_bytes() == b"[]"


def test_a_part_that_is_whole_is_only_moved_into_place(site, fetch, tmp_path):
    site.cuts = [len(QUESTIONS) - 1, 0, 0]
    with pytest.raises(DataError):
        fetch()
    with (tmp_path / f"{PLACE}.part").open("ab") as part:
        part.write(QUESTIONS[-1:])
    questions, _ = fetch()
    assert questions.read_bytes() == QUESTIONS


def test_a_part_from_another_address_is_not_continued(site, fetch):
    site.cuts = [70_000, 0, 0]
    with pytest.raises(DataError):
        fetch()
    site.files = {f"mirror/{path}": content for path, content in site.files.items()}
    site.requests.clear()
    questions, _ = fetch(url=f"{site.url}/mirror/")
    assert questions.read_bytes() == QUESTIONS
    assert site.requests[0] == (f"mirror/{PLACE}", None)


def test_a_server_that_does_not_tell_the_length_is_believed(site, fetch):
    site.lengths = False
    seen: list[DownloadProgress] = []
    questions, _ = fetch(progress=seen.append)
    assert questions.read_bytes() == QUESTIONS
    assert seen[0].total is None


def test_a_busy_server_is_asked_again(site, fetch):
    site.statuses = [503, 429]
    assert fetch()[0].read_bytes() == QUESTIONS


def test_a_server_that_stays_busy_is_given_up(site, fetch):
    site.statuses = [500] * 9
    with pytest.raises(DataError, match=r"3 times in a row \(status 500\).*0 bytes are kept"):
        fetch()


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, r"the server has no such file \(status 404\); check task, split and part"),
        (403, r"got status 403 from the server; open the address in a browser"),
    ],
)
def test_a_refusal_is_final_and_names_the_file(site, fetch, status, message):
    site.statuses = [status]
    with pytest.raises(DataError, match=rf"LaMP_4/dev/dev_questions\.json: .*{message}"):
        fetch()
    assert len(site.requests) == 1


def test_a_page_in_the_place_of_the_file_is_refused_and_not_kept(site, fetch, tmp_path):
    site.files[PLACE] = b"<html>Please log in</html>"
    with pytest.raises(DataError, match=r"expected JSON from the server, got something else"):
        fetch()
    assert list((tmp_path / "LaMP_4/dev").iterdir()) == []


def test_an_unreachable_server_is_named_with_its_reason(fetch):
    with pytest.raises(DataError, match=r"3 times in a row \(ConnectError\); check the network"):
        fetch(url="http://127.0.0.1:1")


@pytest.mark.parametrize("url", ["data/lamp", "ftp://example.org"])
def test_an_address_that_is_none_is_refused_at_once(fetch, url):
    with pytest.raises(DataError, match="expected an http or https address"):
        fetch(url=url)


def test_a_folder_that_cannot_be_written_is_named(fetch, tmp_path):
    (tmp_path / "LaMP_4").write_text("a file in the way")
    with pytest.raises(DataError, match=r"LaMP_4/dev/dev_questions\.json: cannot be written"):
        fetch()


def test_waits_are_doubled_up_to_a_minute():
    assert [Retry().wait_s(failures) for failures in (1, 2, 3, 20)] == [1.0, 2.0, 4.0, 60.0]
