"""A disk that is full or read-only, or a path that is none, ends in one clear line."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conf.errors import RunError

REMEDIES = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room in your quota",
    errno.EFBIG: "raise the limit on file sizes",
    errno.EROFS: "make the disk writable",
    errno.EACCES: "make the folder writable",
    errno.EPERM: "make the folder writable",
    errno.ENOLCK: "take a folder on a file system with locks",
    errno.ENOTDIR: "name a folder where a file is",
    errno.EEXIST: "name a folder where a file is",
    errno.EISDIR: "name a file where a folder is",
    errno.ENAMETOOLONG: "take a shorter name",
    errno.ELOOP: "take a folder without links in a circle",
    errno.EIO: "check the disk",
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses in the block into an error with its remedy.

    Raises:
        RunError: If ``path`` cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        raise RunError(
            f"{path.parent.name}/{path.name}: cannot be written ({error.strerror}); "
            f"{REMEDIES[error.errno]}"
        ) from error
