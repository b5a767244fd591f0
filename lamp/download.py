"""Fetch the official LaMP files: streamed, resumed after a cut, checked, then moved into place.

What has arrived waits in ``<name>.part`` with a note of the file's length and version on the server
beside it. The next attempt, in this run or another, asks for the rest only; a server that ignores
the request, or whose file has changed meanwhile, gets the file fetched from its start. A file that
is already in place is never touched.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx2

from conf.errors import ConfigError, DataError
from lamp.official import file_names, server_place
from lamp.tasks import Task
from storage import atomic
from storage.proxies import proxy_refusal
from storage.text_files import display_name

OFFICIAL_URL = "https://ciir.cs.umass.edu/downloads/LaMP"
TIMEOUT_S = 60.0
LONGEST_WAIT_S = 60.0
OK, PARTIAL, NOT_FOUND, GONE, RANGE_NOT_SATISFIABLE = 200, 206, 404, 410, 416
RETRY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class DownloadProgress:
    """How far one file has come.

    Attributes:
        file: Folder and name of the file.
        done: Bytes on the disk.
        total: Bytes of the whole file; None where the server does not say.
    """

    file: str
    done: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Retry:
    """How patient a download is.

    Attributes:
        attempts: Attempts in a row that bring no new byte before the download gives up.
        first_wait_s: Wait after the first of them; doubled after each further one.
    """

    attempts: int = 5
    first_wait_s: float = 1.0

    def wait_s(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row."""
        return min(self.first_wait_s * 2.0 ** (failures - 1), LONGEST_WAIT_S)


def download(
    task: Task,
    split: Literal["time", "user"],
    part: Literal["train", "dev", "test"],
    folder: Path,
    base_url: str = OFFICIAL_URL,
    progress: Callable[[DownloadProgress], None] = lambda _: None,
    retry: Retry | None = None,
) -> tuple[Path, Path]:
    """Fetch the question and the output file of one task.

    Args:
        task: Task to fetch.
        split: "time" for the time-based files, "user" for the user-based ones.
        part: Which official file.
        folder: Data folder; gets the layout of the server.
        base_url: Address above ``LaMP_n`` and ``time/LaMP_n``.
        progress: Called after every chunk.
        retry: How patient to be; None for the usual patience.

    Returns:
        The paths of the question and of the output file.

    Raises:
        DataError: If the server has no such file, cannot be reached, or sends something that is no
            JSON. What has arrived is kept for the next attempt.
        ConfigError: If the environment names a proxy that cannot be used.
    """
    place = server_place(task, split, part)
    for name in file_names(part):
        path = folder / place / name
        try:
            _fetch(f"{base_url.rstrip('/')}/{place}/{name}", path, progress, retry or Retry())
        except OSError as error:
            raise DataError(
                f"{display_name(path)}: cannot be written ({error.strerror}); "
                "check the folder and the disk"
            ) from error
    questions, outputs = (folder / place / name for name in file_names(part))
    return questions, outputs


class _AgainError(Exception):
    """The attempt failed in a way that another may not."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _Part:
    """What has arrived of a file, and beside it what it is a part of."""

    def __init__(self, final: Path, url: str) -> None:
        self.name = display_name(final)
        self.path = final.with_name(f"{final.name}.part")
        self._note_path = final.with_name(f"{final.name}.part.json")
        self._url = url
        if self._note().get("url") != url:  # begun at another address, or its note was lost
            self.discard()

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note_path.unlink(missing_ok=True)

    def range_headers(self) -> dict[str, str]:
        """Ask for the missing rest, and for the whole file if it is no longer the same."""
        if not self.size:
            return {}
        version = self._note()["version"]
        return {"Range": f"bytes={self.size}-"} | ({"If-Range": version} if version else {})

    def is_whole(self, total: int | None) -> bool:
        return total == self.size and self._note().get("total") in (None, total)

    def accept(self, response: httpx2.Response) -> tuple[int, int | None]:
        """Make ready for the body of ``response``; return where it starts and the file's length."""
        if response.status_code == PARTIAL:
            start, total = _content_range(response)
            if start != self.size or self._note().get("total") not in (None, total):
                self.discard()
                raise _AgainError("the file on the server has changed")
            return self.size, total
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        self.discard()
        note = {"url": self._url, "total": total, "version": _version(response)}
        atomic.write_json(self._note_path, note)
        return 0, total

    def _note(self) -> dict[str, Any]:
        try:
            note = json.loads(self._note_path.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return note if isinstance(note, dict) else {}


def _fetch(
    url: str, path: Path, progress: Callable[[DownloadProgress], None], retry: Retry
) -> None:
    if path.is_file():
        size = path.stat().st_size
        progress(DownloadProgress(display_name(path), size, size))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _Part(path, url)
    _complete(url, part, progress, retry)
    try:
        json.loads(part.path.read_bytes())
    except ValueError:
        part.discard()
        raise DataError(
            f"{part.name}: expected JSON from the server, got something else; open the address in "
            "a browser: the file may have moved, or the network may want a login"
        ) from None
    part.path.replace(path)
    part.discard()


def _complete(
    url: str, part: _Part, progress: Callable[[DownloadProgress], None], retry: Retry
) -> None:
    """Fetch ``part`` until it is whole; attempts that brought new bytes do not count as failed."""
    failures, most = 0, part.size
    with _client() as client:
        while True:
            try:
                _attempt(client, url, part, progress)
                return
            except (httpx2.InvalidURL, httpx2.UnsupportedProtocol):
                raise DataError(
                    f"{part.name}: expected an http or https address, got '{url}'; correct it"
                ) from None
            except (_AgainError, httpx2.RequestError) as error:
                failures = 1 if part.size > most else failures + 1
                most = max(most, part.size)
                if failures >= retry.attempts:
                    raise _gave_up(part, failures, error) from error
                asked = error.wait_s if isinstance(error, _AgainError) else 0.0
                time.sleep(max(retry.wait_s(failures), min(asked, LONGEST_WAIT_S)))


def _client() -> httpx2.Client:
    try:
        return httpx2.Client(timeout=TIMEOUT_S, follow_redirects=True)
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        raise ConfigError(proxy_refusal(error)) from error


def _attempt(
    client: httpx2.Client, url: str, part: _Part, progress: Callable[[DownloadProgress], None]
) -> None:
    # identity: a range counts the bytes as they are sent
    headers = {"Accept-Encoding": "identity", **part.range_headers()}
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == RANGE_NOT_SATISFIABLE:
            if part.is_whole(_content_range(response)[1]):
                return
            part.discard()
            raise _AgainError("the file on the server has changed")
        _refuse_status(response, part.name)
        done, total = part.accept(response)
        with part.path.open("ab") as file:
            for chunk in response.iter_raw():
                done += file.write(chunk)
                progress(DownloadProgress(part.name, done, total))
    if total is not None and done != total:
        raise _AgainError(f"{done} of {total} bytes have arrived")


def _refuse_status(response: httpx2.Response, name: str) -> None:
    status = response.status_code
    if status in (OK, PARTIAL):
        return
    if status in RETRY_STATUS:
        after = response.headers.get("Retry-After", "")
        raise _AgainError(f"status {status}", float(after) if after.isdecimal() else 0.0)
    if status in (NOT_FOUND, GONE):
        raise DataError(
            f"{name}: the server has no such file (status {status}); check task, split and part: "
            "not every part has public answers"
        )
    raise DataError(
        f"{name}: expected the file, got status {status} from the server; "
        "open the address in a browser to see what it wants"
    )


def _gave_up(part: _Part, failures: int, error: Exception) -> DataError:
    reason = str(error) if isinstance(error, _AgainError) else type(error).__name__
    return DataError(
        f"{part.name}: the server could not be reached or stopped {failures} times in a row "
        f"({reason}); check the network and run the download again, {part.size} bytes are kept"
    )


def _content_range(response: httpx2.Response) -> tuple[int | None, int | None]:
    """Read "bytes 10-99/100" or "bytes */100" as (start, total); None for what is not there."""
    match = re.fullmatch(
        r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "")
    )
    start, total = match.groups() if match else (None, None)
    return int(start) if start else None, int(total) if total and total != "*" else None


def _version(response: httpx2.Response) -> str | None:
    """Return what If-Range can compare: a strong ETag, or else the date of the last change."""
    etag: str | None = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
