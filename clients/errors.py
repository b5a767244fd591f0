"""A Flower mod around all handlers: errors leave as a class name, their words stay on the device.

<folder>/errors.jsonl   when, which message, which error, and its whole trace
"""

from __future__ import annotations

import traceback
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from flwr.app import Context, Error, Message
from flwr.clientapp.typing import ClientAppCallable
from flwr.common.constant import ErrorCode

from clients import paths
from protocol.errors import DETAILS, class_of
from storage import jsonlines


def errors_stay(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Flower mod: answer an error of whatever kind with the name of its class alone."""
    try:
        return call_next(message, context)
    except Exception as error:
        with suppress(Exception):  # no folder, a full disk: the reply must not say so either
            keep(paths.own_folder(context), message.metadata.message_type, error)
        failed = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, class_of(error))
        return Message(failed, reply_to=message)


def keep(own: Path, kind: str, error: Exception) -> None:
    """Write what happened into the folder of the device."""
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "message": kind,
        "error": class_of(error),
        "text": str(error),
        "trace": "".join(traceback.format_exception(error)),
    }
    jsonlines.append(own / DETAILS, [line])
