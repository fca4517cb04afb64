"""Why a callback is turned away, by what its sender is told.

CallerError
└── Rejection              ``reason`` is a short code for the log, the metric and the quarantine, the same for ever
    ├── Malformed          400: the request cannot be understood
    ├── Unverified         401: who sent it is not proven; all of these look alike from outside
    ├── UnknownPath        404: it may have been a callback, but no action is known at this path
    ├── TooSlow            408: the body did not arrive in time
    ├── TooLarge           413
    ├── UnsupportedType    415
    └── Overloaded         503: too much is being received at once
OperatorError
└── NotDurable             503: understood and verified, but nothing can keep the event now
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.schemas.errors import CallerError, OperatorError

if TYPE_CHECKING:
    from taskbridge.edge.received import Received

UNVERIFIED = (
    "The request is not proven to come from a sender that is known here. Check the signature and the credentials."
)
"""Which of the checks failed would tell a forger how far they got, so every Unverified says this."""

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
"""All there are: each is counted from zero, for a counter that appears with its first loss does not seem to rise."""
OTHER_SCHEME_HINT = (
    " It carries __signature, which belongs to Yida's service registration;"
    " callbacks of the Integration Center are signed by another scheme, in the parameter sign."
)


class Rejection(CallerError):
    """The callback is not accepted; the message is for its sender and repeats nothing of the request."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.app_type: str | None = None
        """The app that the callback names, or the other system, where it was understood so far; not verified."""
        self.proven = False
        """Its signature was right, so that a known sender sent it, or somebody who saw it send something."""
        self.head: Received | None = None
        """How the request began, where it was not received whole."""


class Malformed(Rejection):
    """The request cannot be understood."""


MAX_PARAMETERS = 256
"""Yida sends eight. The bound keeps a request of a million keys from holding up everyone else's."""


def too_many_parameters() -> Malformed:
    return Malformed("too-many-parameters", f"More than {MAX_PARAMETERS} parameters.")


class Unverified(Rejection):
    """Nothing proves that a known sender sent the request."""

    def __init__(self, reason: str, *, other_scheme: bool = False) -> None:
        super().__init__(
            OTHER_SCHEME if other_scheme else reason, UNVERIFIED + (OTHER_SCHEME_HINT if other_scheme else "")
        )


class UnknownPath(Rejection):
    """It was posted where no action is known."""

    def __init__(self) -> None:
        super().__init__(
            "unknown-path", "Post to /yida/tasks/ or /sources/NAME/tasks/, and create, complete, cancel, delete or cc."
        )


class TooSlow(Rejection):
    """The body did not arrive in time."""


class TooLarge(Rejection):
    """The request is over the limit."""


class UnsupportedType(Rejection):
    """The body's type or character set is none that is accepted."""


class Overloaded(Rejection):
    """More is being received at once than memory is set aside for."""


class NotDurable(OperatorError):
    """Nothing can keep the event now; the message says what is away."""
