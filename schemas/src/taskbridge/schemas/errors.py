"""The tree of errors, named by who acts next.

TaskbridgeError
├── CallerError          the sender of one request: answered 4xx
├── OperatorError        whoever is on call: answered 503, and an alert
├── RecordError          nobody now: the record is parked with its reason, and the stream goes on
└── ConfigurationError   whoever set it up: the program says so in one line and exits at start
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from taskbridge.schemas.dead_letters import DlqReason


class TaskbridgeError(Exception):
    """An error that taskbridge foresees; its message is one line that a person can act on."""


class CallerError(TaskbridgeError):
    """The request cannot be accepted as it is."""


class OperatorError(TaskbridgeError):
    """Something that the service needs is away; the request may succeed later."""


class RecordError(TaskbridgeError):
    """A record that cannot be read or applied, whatever is tried again."""

    dlq_reason: ClassVar[DlqReason]
    """For which it is parked; each class declares its own."""


class ConfigurationError(TaskbridgeError):
    """Settings, files or the surroundings do not allow the program to run."""
