"""The teacher's logits on disk: one file per user, read when that user's message is made."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import mkdtemp

from safetensors import safe_open
from safetensors.numpy import save_file

from protocol.codec import Arrays

PREFIX = "teacher-"  # of a folder of logits in the folder of a run


class StoredLogits(Mapping[str, Arrays]):
    """Per user what the teacher says of shared pairs; a look-up reads the user's file.

    The folder goes with the object: the logits follow from records that a user may take back.
    """

    def __init__(self, run_folder: Path) -> None:
        """Make an empty folder in ``run_folder``; what a killed process left there goes."""
        forget_logits(run_folder)
        self._folder = Path(mkdtemp(prefix=PREFIX, dir=run_folder))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._pairs: dict[str, tuple[str, ...]] = {}
        self._files: dict[str, Path] = {}
        self.bytes = 0

    def add(self, user: str, logits: Arrays) -> None:
        """Write one user's logits by pair id."""
        arrays = {str(place): rows for place, rows in enumerate(logits.values())}
        self._pairs[user] = tuple(logits)
        self._files[user] = self._folder / f"{len(self._files)}.safetensors"
        save_file(arrays, self._files[user])
        self.bytes += sum(rows.nbytes for rows in arrays.values())

    def __getitem__(self, user: str) -> Arrays:
        """Read all of one user's logits, by pair id."""
        return self.read(user, self._pairs[user])

    def read(self, user: str, pairs: Sequence[str]) -> Arrays:
        """Read one user's logits on some pairs."""
        places = {pair: str(place) for place, pair in enumerate(self._pairs[user])}
        with safe_open(self._files[user], framework="numpy") as file:
            return {pair: file.get_tensor(places[pair]) for pair in pairs}

    def __iter__(self) -> Iterator[str]:
        """The users."""
        return iter(self._pairs)

    def __len__(self) -> int:
        """How many users there are."""
        return len(self._pairs)


class ChosenLogits(Mapping[str, Arrays]):
    """The logits of some pairs of each user; nothing is read before a user is looked up."""

    def __init__(self, logits: Mapping[str, Arrays], chosen: Mapping[str, Sequence[str]]) -> None:
        """Take the pairs ``chosen`` of each user of ``logits``."""
        self._logits, self._chosen = logits, chosen

    def __getitem__(self, user: str) -> Arrays:
        """Read one user's logits on the chosen pairs."""
        if isinstance(self._logits, StoredLogits):
            return self._logits.read(user, self._chosen[user])
        own = self._logits[user]
        return {pair: own[pair] for pair in self._chosen[user]}

    def __iter__(self) -> Iterator[str]:
        """The users with logits."""
        return iter(self._logits)

    def __len__(self) -> int:
        """How many users have logits."""
        return len(self._logits)


def forget_logits(run_folder: Path) -> None:
    """Delete what a process that was killed left of the teacher's logits."""
    for left in run_folder.glob(f"{PREFIX}*"):
        shutil.rmtree(left)
