"""The tree of errors, named by who acts next.

TaskbridgeError
├── CallerError          the sender of the request: answered 4xx
├── OperatorError        the operator: answered 503, with an alert
├── RecordError          nobody now: the record becomes a dead letter, and the stream goes on
└── ConfigurationError   the administrator: the program prints one line and exits at start
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskbridge.schemas.dead_letters import DlqReason


class TaskbridgeError(Exception):
    """An expected error. Its message is one line that a person can act on."""


class CallerError(TaskbridgeError):
    """The request cannot be accepted as it is."""


class OperatorError(TaskbridgeError):
    """Something that the service needs does not answer. The request may succeed later."""


class RecordError(TaskbridgeError):
    """A record that cannot be read or applied, also not by a retry."""

    dlq_reason: DlqReason
    """The reason of its dead letter."""


class ConfigurationError(TaskbridgeError):
    """Settings, files or the environment do not allow the program to run."""
