"""Why a call gave nothing, by who acts next.

OperatorError
├── Later                nobody: time mends it; ``retry_at_ms`` says when it may be tried again
│   ├── TooFast          DingTalk's limit of calls in one second
│   ├── AddressLimited   DingTalk answers this address with a page, for minutes
│   ├── Unreachable      the network, or a fault of DingTalk's
│   └── Spent            the calls that the administrator allows, or those of the organisation's month
├── Refused              the administrator: a secret, a permission or a setting is not right
└── Unexpected           the administrator, and then us: an answer that we do not understand
RecordError's cousin
└── Absent               nobody: DingTalk says that there is no such instance
"""

from __future__ import annotations

from taskbridge.schemas.errors import OperatorError, TaskbridgeError


class Later(OperatorError):
    """It may be tried again at ``retry_at_ms``, and not before."""

    def __init__(self, message: str, *, retry_at_ms: int) -> None:
        super().__init__(message)
        self.retry_at_ms = retry_at_ms


class TooFast(Later):
    """DingTalk refused the call, for there were too many in this second."""


class AddressLimited(Later):
    """DingTalk answers this address with a page instead of data: it does so for five minutes."""


class Unreachable(Later):
    """DingTalk cannot be reached, or fails."""


class Spent(Later):
    """No more calls may be made in this day or month."""


class Refused(OperatorError):
    """DingTalk does not let us ask this; who administers the app must change something."""


class Unexpected(OperatorError):
    """DingTalk answered what we do not understand. Nothing is concluded from it."""


class Absent(TaskbridgeError):
    """DingTalk says that there is no such instance. That it says so once proves nothing."""
