"""The buffer of a streaming device: a fixed number of bins, each of a fixed number of bytes.

Invariant, at every step: no bin holds more than its bytes, so the buffer never exceeds
``bins * bin_bytes``. A bin holds what Qin et al. (DAC'24) put into it: domain, data, embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clients.dac24.scores import ALONE
from conf.errors import RunError
from lamp.records import Pair

BYTES_OF_A_SCORE = 8


@dataclass(frozen=True, slots=True, eq=False)
class BufferEntry:
    """One record of the stream, as a bin holds it.

    Attributes:
        pair: What the user typed, and the response that the user prefers.
        domain: Dominant domain, "" for none.
        vector: (D,) float32 embedding of length 1.
        entropy: Embedding entropy.
        domain_score: Domain-specific score.
    """

    pair: Pair
    domain: str
    vector: NDArray[np.float32]
    entropy: float
    domain_score: float

    @property
    def num_bytes(self) -> int:
        """Bytes in a bin: texts in UTF-8, embedding, two scores."""
        texts = (self.pair.id, self.pair.input, self.pair.response, self.domain)
        text_bytes = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
        return text_bytes + self.vector.nbytes + 2 * BYTES_OF_A_SCORE


class Buffer:
    """Bins of fixed size, filled in order and then replaced one by one."""

    def __init__(self, bins: int, bin_bytes: int) -> None:
        """Make ``bins`` empty bins of ``bin_bytes`` each."""
        self._bins, self._bin_bytes = bins, bin_bytes
        self._kept: list[BufferEntry] = []
        self._arrivals: list[int] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[BufferEntry]:
        return iter(self._kept)

    @property
    def full(self) -> bool:
        """Whether every bin is taken."""
        return len(self._kept) == self._bins

    @property
    def bins(self) -> int:
        """Number of bins, empty ones included."""
        return self._bins

    @property
    def num_bytes(self) -> int:
        """Bytes in use."""
        return sum(each.num_bytes for each in self._kept)

    @property
    def oldest(self) -> int:
        """Place of the record that came first."""
        return int(np.argmin(self._arrivals))

    def fits(self, record: BufferEntry) -> bool:
        """Whether a bin can hold ``record``."""
        return record.num_bytes <= self._bin_bytes

    def put(self, record: BufferEntry, place: int | None = None) -> None:
        """Put ``record`` into an empty bin, or in the place of another record.

        Raises:
            RunError: If it is too large for a bin, or no bin is empty and no place is given.
        """
        if not self.fits(record):
            raise RunError(
                f"buffer: expected a record of at most {self._bin_bytes} bytes, got "
                f"{record.num_bytes}; raise stream.bin_bytes or leave the record out"
            )
        if place is None and self.full:
            raise RunError(f"buffer: all {self._bins} bins are taken; name a place to replace")
        self._count += 1
        if place is None:
            self._kept.append(record)
            self._arrivals.append(self._count)
        else:
            self._kept[place], self._arrivals[place] = record, self._count

    def vectors(self, domain: str | None = None) -> NDArray[np.float32]:
        """(R, D) embeddings of the kept records, of one domain or of all."""
        own = [each.vector for each in self._kept if domain is None or each.domain == domain]
        return np.stack(own) if own else np.zeros((0, 0), dtype=np.float32)

    def dissimilarities(self) -> NDArray[np.float64]:
        """(R,) for each kept record its dissimilarity to the others of its domain."""
        vectors = self.vectors()
        domains = np.array([each.domain for each in self._kept])
        same = (domains[:, None] == domains[None, :]) & ~np.eye(len(domains), dtype=bool)
        others = same.sum(axis=1)
        summed = np.where(same, 1.0 - vectors @ vectors.T, 0.0).sum(axis=1)
        return np.where(others > 0, summed / np.maximum(others, 1), ALONE)
