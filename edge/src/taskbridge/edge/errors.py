"""Why a callback is rejected, by the response that its sender gets.

CallerError
└── Rejection              ``reason`` is a short code for the log, the metric and the quarantine, which never changes
    ├── Malformed          400: the request cannot be understood
    ├── Unverified         401: the sender is not verified; all causes get the same response
    ├── UnknownPath        404: it may have been a callback, but the path names no known action
    ├── TooSlow            408: the body did not arrive in time
    ├── TooLarge           413
    ├── UnsupportedType    415
    └── Overloaded         503: too many large bodies are being received at once
OperatorError
└── NotDurable             503: parsed and verified, but neither Kafka nor the spool can store the event now
"""

from __future__ import annotations

from typing import ClassVar

from taskbridge.schemas.errors import CallerError, OperatorError

UNVERIFIED = "The request is not verified: no configured credentials match it. Check the signature and the credentials."
"""Every Unverified has this text: the failed check would show a forger how far they got."""

OTHER_SCHEME = "other-signing-scheme"

REASONS = (
    *("unknown-app", "no-sign", "wrong-sign", "other-corp", "delete-extra-key", "no-bearer", "wrong-bearer"),
    *("unknown-source", "untimely", "cloudevent", "batch", "unknown-event", "no-app_type", "bad-app_type"),
    *("no-instance_id", "bad-instance_id", "no-task_id", "bad-task_id"),
    *("source-network", "cross-action-replay", "altered-replay", OTHER_SCHEME),
    *("no-app", "bad-appType", "task-json", "two-corps", "no-corpId", "bad-corpId", "no-formInstId", "bad-formInstId"),
    *("no-taskId", "bad-taskId", "json", "percent-escape", "invalid-utf-8", "multipart", "file-part", "gzip"),
    *("duplicate-key", "too-many-parameters", "content-type", "charset", "content-encoding"),
    *("unknown-path", "too-large", "unpacks-too-large", "record-size", "slow-body", "overloaded"),
)
"""All reasons. Each is counted from zero: a counter that appears with its first loss does not seem to rise."""
OTHER_SCHEME_HINT = (
    " It has the parameter __signature of Yida's service registration;"
    " the edge accepts callbacks of the Integration Center, which are signed in the parameter sign."
)


class Rejection(CallerError):
    """The callback is not accepted. The message is for its sender and repeats no part of the request.

    Each subclass names its HTTP status and the kind of its problem document.
    """

    status: ClassVar[int]
    kind: ClassVar[str]

    def __init_subclass__(cls, *, status: int, kind: str) -> None:
        cls.status, cls.kind = status, kind

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.app_type: str | None = None
        """The app that the callback names, or the other system, where it was understood so far; not verified."""
        self.proven = False
        """Its signature was right, so that a known sender sent it, or somebody who saw it send something."""


class Malformed(Rejection, status=400, kind="malformed"):
    """The request cannot be parsed."""


MAX_PARAMETERS = 256
"""Yida sends eight. Without a limit, a request with a million keys would delay all others."""


def too_many_parameters() -> Malformed:
    return Malformed("too-many-parameters", f"More than {MAX_PARAMETERS} parameters.")


class Unverified(Rejection, status=401, kind="unverified"):
    """The request is not verified: its signature or token matches no configured sender."""

    def __init__(self, reason: str, *, other_scheme: bool = False) -> None:
        super().__init__(
            OTHER_SCHEME if other_scheme else reason, UNVERIFIED + (OTHER_SCHEME_HINT if other_scheme else "")
        )


class UnknownPath(Rejection, status=404, kind="unknown-path"):
    """The path names no known action."""

    def __init__(self) -> None:
        super().__init__(
            "unknown-path",
            "Unknown path. Post to /yida/tasks/ACTION or /sources/NAME/tasks/ACTION: create, "
            "complete, cancel, delete or cc.",
        )


class TooSlow(Rejection, status=408, kind="too-slow"):
    """The body did not arrive in time."""


class TooLarge(Rejection, status=413, kind="too-large"):
    """The request is larger than the limit."""


class UnsupportedType(Rejection, status=415, kind="unsupported-type"):
    """The body's content type, encoding or character set is not supported."""


class Overloaded(Rejection, status=503, kind="overloaded"):
    """Too many large bodies are being received at once."""


class NotDurable(OperatorError):
    """Neither Kafka nor the spool can store the event now. The log names the cause."""

    status, kind = 503, "not-durable"
    detail = "The event cannot be stored now. Send it again later."
