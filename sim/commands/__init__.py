"""One module per command of ``python -m sim``, each with ``main(argv) -> exit status``."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

DEFAULT = "run"
COMMANDS: Mapping[str, str] = {  # name, as the command line spells it: one line for --help
    "run": "Simulate one experiment and report it (the default).",
    "resume": "Go on with a run that was ended, at whatever moment.",
    "runs": "List the runs there are, with what they found.",
    "report": "Rebuild table, report and plots of finished runs.",
    "ledger": "Show what crossed the wire, per user.",
    "withdraw": "Lower what one user shares, and forget the rest.",
    "leakage": "Attack a finished run and report what leaked.",
    "cache": "Prune what nobody holds from the cache of generations.",
    "answer": "Ask one user's device a query, offline.",
    "export": "Write users' models for llama.cpp or PEFT.",
    "diagnose": "Measure a run's adapters on records and queries.",
    "lexicons": "Make lexicons for the dac24 methods from texts.",
    "device-demo": "A run's users through llama.cpp, in a table.",
    "deploy-demo": "Real devices on loopback beside a simulation.",
    "gateway": "Let devices reach a SuperLink, and not its operator's side.",
    "pretrained": "Fetch the small pretrained checkpoints.",
    "tune": "Choose settings on public users; write a preset.",
    "download": "Fetch the official LaMP files of a task.",
}


def load(name: str) -> Callable[..., int]:
    """Import the function of a command; nobody waits for the modules of the others."""
    module: Any = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    return module.main  # type: ignore[no-any-return]
