"""A disk that is full or read-only ends in one clear line, and the run can go on later."""

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
            f"{REMEDIES[error.errno]}, then go on with `python -m sim resume`"
        ) from error
