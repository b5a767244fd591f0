"""The errors that may leave a device: a class name of this list, and nothing else.

What raised an error, with which words and where, stays in a file on the device. The list is closed,
so an error tells a server at most log2 of its length in bits.
"""

from __future__ import annotations

OTHER = "DeviceError"  # whatever is not in the list: a library's error, a fault of ours
MEANINGS: dict[str, str] = {
    "BudgetError": "the device's user lets no more leave, or not what was asked for",
    "ConfigError": "the device is not set up for this run",
    "DataError": "a file on the device cannot be used",
    "ModelError": "the device cannot hold or train the model, or a loss was not finite",
    "ProtocolError": "the device refuses the message: malformed, or outside its own bounds",
    "RunError": "the device lacks something the message builds on, such as an adapter",
    OTHER: "the device failed",
}
ERROR_CLASSES = tuple(MEANINGS)
DETAILS = "errors.jsonl"  # in the device's folder


def class_of(error: BaseException) -> str:
    """The name under which ``error`` leaves a device: its nearest class of the list."""
    names = [each.__name__ for each in type(error).__mro__ if each.__module__ == "conf.errors"]
    return next((name for name in names if name in MEANINGS), OTHER)


def told(name: str) -> str:
    """What a server may write of an error with this name; of names outside the list, nothing."""
    meaning = MEANINGS.get(name)
    return f"{meaning}; {DETAILS} in its folder says why" if meaning else ""
