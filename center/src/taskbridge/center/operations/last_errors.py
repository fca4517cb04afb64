"""The last warnings and errors of this process, for people who cannot read its log at the moment."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, cast

from taskbridge.schemas.cloudevents import iso

STORED = 50
_MESSAGE_MAX = 400
_SHOWN = ("problem", "reason", "topic", "partition", "offset", "url", "records")
"""Of an event's values only those: they name places and causes. Others may come from callbacks, or name people."""


class LastErrors(logging.Handler):
    """Stores what was logged at WARNING and above; the same message again is counted with the first."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._stored: deque[dict[str, Any]] = deque(maxlen=STORED)

    def emit(self, record: logging.LogRecord) -> None:
        message = _message(record)
        for each in self._stored:
            if each["message"] == message:
                each["at"], each["times"] = record.created, each["times"] + 1
                return
        self._stored.append({"at": record.created, "level": record.levelname, "message": message, "times": 1})

    def share(self) -> list[dict[str, Any]]:
        """The latest first."""
        stored = sorted(self._stored, key=lambda each: each["at"], reverse=True)
        return [{**each, "at": iso(round(each["at"] * 1000))} for each in stored]


def _message(record: logging.LogRecord) -> str:
    if not isinstance(record.msg, dict):
        return record.getMessage()[:_MESSAGE_MAX]
    said = cast("dict[str, Any]", record.msg)
    shown = ", ".join(f"{name} {said[name]}" for name in _SHOWN if name in said)
    return (f"{said.get('event', '')}" + (f": {shown}" if shown else ""))[:_MESSAGE_MAX]
