"""One rule for a training that runs out of memory: the step again in halves, counted, or an end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from accelerate.utils.memory import should_reduce_batch_size

from conf.errors import ModelError

T = TypeVar("T")


class DoesNotFitError(ModelError):
    """A training ran out of memory in its smallest parts."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that there is no memory, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(should_reduce_batch_size(error))


class Shrinking:
    """Computes steps again in micro-batches of half the size where memory runs out.

    Later steps go on with the smaller size, so the training ends as one whose micro-batches had it
    from this step on.

    Attributes:
        most_tokens: Tokens of a micro-batch, about.
        reductions: How often memory ran out and a step went on in a smaller way.
    """

    def __init__(self, most_tokens: int, otherwise: Callable[[], bool] = lambda: False) -> None:
        """Begin with ``most_tokens``.

        Args:
            most_tokens: As the attribute.
            otherwise: Asked where single rows do not fit: whether there is another way now.
        """
        self.most_tokens, self.reductions = most_tokens, 0
        self._otherwise = otherwise

    def compute(
        self,
        attempt: Callable[[], T],
        largest: Callable[[int], int],
        again: Callable[[], None],
        users: int = 1,
    ) -> T:
        """Return what ``attempt`` computes in micro-batches of ``most_tokens``.

        Args:
            attempt: The step; reads ``most_tokens`` at each call.
            largest: Tokens of the step's largest micro-batch, of the size it is called with.
            again: Takes everything back to where the step began.
            users: Who are trained together, for the error.

        Raises:
            DoesNotFitError: If memory runs out and nothing can be made smaller.
        """
        while True:
            found, said = _tried(attempt)
            if said is None:
                return found[0]
            # here the error is gone, and with it the frames that held the step's tensors
            again()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
            self._reduce(largest, users, said)

    def _reduce(self, largest: Callable[[int], int], users: int, said: str) -> None:
        most = largest(self.most_tokens)
        smaller = min(self.most_tokens, most) // 2
        while smaller and largest(smaller) >= most:
            smaller //= 2
        if smaller:
            self.most_tokens = smaller
        elif not self._otherwise():
            raise DoesNotFitError(
                f"training: out of memory with {most} tokens of {users} users at once, the fewest "
                f"there are ({said}); take a smaller device model or qlora.max_seq_len"
            )
        self.reductions += 1


def _tried(attempt: Callable[[], T]) -> tuple[list[T], str | None]:
    """What was computed, or what was said where memory ran out."""
    try:
        return [attempt()], None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return [], str(error).partition("\n")[0]


@contextmanager
def no_other_lack(users: int) -> Iterator[None]:
    """Turn a lack of memory beside the forward pass, for adapters or moments, into our own error.

    Raises:
        DoesNotFitError: If there is one.
    """
    said: str | None = None
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        said = str(error).partition("\n")[0]
    if said is not None:  # behind the handler, so that the error holds nothing of the step
        raise DoesNotFitError(
            f"training: out of memory for the adapters of {users} users ({said}); take a smaller "
            "device model or a smaller qlora.rank"
        )
