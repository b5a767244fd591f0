"""The project's exceptions, one tree; a message says where, what was expected and came, what to do.

    CdcdaError
    ├── ConfigError     a key, name or value of the configuration is refused
    ├── DataError       a file, record or field of the data cannot be used
    ├── ModelError      a model folder lacks what the run needs
    ├── BudgetError     what a device's user lets go is spent
    ├── ProtocolError   a message does not have the shape that its kind prescribes
    └── RunError        a run cannot start, go on or be read

No message carries users' text: records are named by file, user id and record id.
"""

from __future__ import annotations


class CdcdaError(Exception):
    """Base of every error that the project raises on purpose."""


class ConfigError(CdcdaError):
    """A configuration key, name or value is refused."""


class DataError(CdcdaError):
    """A data file, record or field cannot be used."""


class ModelError(CdcdaError):
    """A model, tokenizer or adapter folder lacks what the run needs."""


class BudgetError(CdcdaError):
    """What a device's user lets go is spent, or the message asks for what the policy keeps."""


class ProtocolError(CdcdaError):
    """A message does not have the shape that its kind prescribes."""


class RunError(CdcdaError):
    """A run cannot start, go on or be read."""
