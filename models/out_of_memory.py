"""What running out of memory looks like, and the error that says that nothing smaller was left."""

from __future__ import annotations

import torch
from accelerate.utils.memory import should_reduce_batch_size

from conf.errors import ModelError


class DoesNotFitError(ModelError):
    """A training ran out of memory in its smallest parts."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that there is no memory, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(should_reduce_batch_size(error))
