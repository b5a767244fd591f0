"""The cloud: registry, base model, augmentation, filters, ledger, and the Flower strategy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from strategy.cdcda import CdcdaPlm

__all__ = ["CdcdaPlm"]


def __getattr__(name: str) -> Any:
    """Load the strategy, and Flower with it, when it is asked for."""
    if name == "CdcdaPlm":
        from strategy.cdcda import CdcdaPlm

        return CdcdaPlm
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
