"""The device: consent, private adaptation, offline answering. One LaMP user is one device."""

import os

import models  # noqa: F401 - before PEFT, which loads bitsandbytes: its advice is silenced there

# Nothing here needs torch.compile; bitsandbytes would import its machinery, two seconds a process.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
