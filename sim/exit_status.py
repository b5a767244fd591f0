"""How a command ends, for scripts and job managers."""

from __future__ import annotations

OK = 0
FAILED = 1  # the run ended early, or nobody got a result; `resume` goes on with it
REFUSED = 2  # the configuration, the data or the usage is refused; nothing was begun
PARTIAL = 3  # some users failed or went without augmentation; report and terminal name them
INTERRUPTED = 130
