"""Gives the memory of models that nobody holds any more back, to the devices' processes."""

from __future__ import annotations

import gc


def free_unused(device: str) -> None:
    """Collect dropped models, which may stand in circles of references, and empty a GPU's cache.

    Args:
        device: Where they lay, as torch names it.
    """
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
