from __future__ import annotations

from taskbridge.schemas.errors import OperatorError


class NotCounted(OperatorError):
    """A measurement is invalid; the message says why."""
