"""A Unix domain socket below a device's folder that nobody but its owner opens.

    <device folder>/trainer/   0700, so that nobody else reaches what lies in it
        socket                 0600; where its path is too long for one, `address` names another
        address                path of the socket, in a 0700 folder for temporary files
        pid                    process that listens
        lock                   held by that process
        log                    what it and its libraries say; no user's text

Both ends look at the other's user id where the system tells it. What goes over the socket is
bytes with their length before them.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from conf.errors import RunError
from storage import atomic

MAX_PATH_BYTES = 100  # 108 on Linux, 104 elsewhere, the ending zero included
MAX_BYTES = (1 << 31) - 1  # the longest that protobuf reads
_BACKLOG = 8
_LENGTH = struct.Struct(">Q")
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


def folder_of(own: Path) -> Path:
    """The folder for socket, lock and log of the device with the folder ``own``."""
    return own / "trainer"


def make_folder(own: Path) -> Path:
    """Make that folder, for its owner alone."""
    path = folder_of(own)
    path.mkdir(mode=0o700, exist_ok=True)
    path.chmod(0o700)
    _require_private(path)
    return path


@dataclass(frozen=True, slots=True)
class Listener:
    """Who listens for a device.

    Attributes:
        own: The device's folder.
        path: Of the socket.
        bound: The socket.
    """

    own: Path
    path: Path
    bound: socket.socket

    def is_there(self) -> bool:
        """Whether the device's folder and the socket still lie where they did."""
        return (self.own / "history.json").is_file() and self.path.exists()

    def close(self) -> None:
        """Stop listening and leave no socket behind."""
        self.bound.close()
        with suppress(OSError):  # the folder may be gone
            self.path.unlink(missing_ok=True)
            if self.path.parent != folder_of(self.own):
                self.path.parent.rmdir()
            for name in ("pid", "address"):
                (folder_of(self.own) / name).unlink(missing_ok=True)


def listen(own: Path) -> Listener:
    """Listen for the device with the folder ``own``; the caller holds the lock.

    Raises:
        RunError: If the folder is not its owner's alone.
    """
    path = _choose_path(make_folder(own))
    path.unlink(missing_ok=True)  # of one that was killed
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound.bind(str(path))
    path.chmod(0o600)
    bound.listen(_BACKLOG)
    atomic.write_text(folder_of(own) / "pid", f"{os.getpid()}\n")
    return Listener(own, path, bound)


def connect(own: Path, timeout_s: float) -> socket.socket | None:
    """Connect to who listens for the device; None if nobody does.

    Raises:
        RunError: If somebody else could have put the socket there, or listens at it.
    """
    path = _path(folder_of(own))
    if not path.exists():
        return None
    _require_private(path.parent)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout_s)
    try:
        connection.connect(str(path))
    except OSError:  # it was killed, or is on its way to the end
        connection.close()
        return None
    if not is_owners(connection):
        connection.close()
        raise RunError(f"{own.name}/trainer: another user listens there; remove the folder")
    return connection


def is_owners(connection: socket.socket) -> bool:
    """Whether a process of this process's own user is at the other end, as far as one can know."""
    credentials = _peer(connection)
    return credentials is None or credentials[1] == os.geteuid()


def listener_pid(own: Path, connection: socket.socket) -> int | None:
    """Id of the process that listens at the other end."""
    credentials = _peer(connection)
    return (credentials and credentials[0]) or written_pid(own)


def written_pid(own: Path) -> int | None:
    """Id of the process that listens for the device, or did until it was killed."""
    try:
        return int((folder_of(own) / "pid").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def send(connection: socket.socket, content: bytes) -> None:
    """Send ``content`` with its length before it."""
    connection.sendall(_LENGTH.pack(len(content)) + content)


def receive(connection: socket.socket) -> bytes:
    """Receive what :func:`send` sent.

    Raises:
        ConnectionError: If the other end is gone, or sends what is no such thing.
    """
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    if length > MAX_BYTES:
        raise ConnectionError(f"expected at most {MAX_BYTES} bytes, {length} announced")
    return _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    content = bytearray()
    while len(content) < count:
        part = connection.recv(min(1 << 20, count - len(content)))
        if not part:
            raise ConnectionError("the other end is gone")
        content += part
    return bytes(content)


def _peer(connection: socket.socket) -> tuple[int, int, int] | None:
    """Process, user and group at the other end, where the system tells it."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    found = connection.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(found)
    return pid, uid, gid


def _choose_path(private: Path) -> Path:
    _remove_address(private)
    path = private / "socket"
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        path = Path(tempfile.mkdtemp(prefix="trainer-")) / "socket"  # mkdtemp makes it 0700
        atomic.write_text(private / "address", str(path))
    return path


def _remove_address(private: Path) -> None:
    """Remove the other path of one that was killed, if it had any."""
    path = _path(private)
    if path.parent == private:
        return
    with suppress(OSError):
        path.unlink(missing_ok=True)
        path.parent.rmdir()
    (private / "address").unlink()


def _path(private: Path) -> Path:
    try:
        return Path((private / "address").read_text(encoding="utf-8"))
    except OSError:
        return private / "socket"


def _require_private(path: Path) -> None:
    found = path.lstat()
    alone = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
    if not alone or found.st_uid != os.geteuid():
        raise RunError(
            f"{path.parent.name}/{path.name}: expected a folder that its owner alone may enter; "
            "remove it, it is made anew"
        )
