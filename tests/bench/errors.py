from __future__ import annotations

from taskbridge.schemas.errors import OperatorError


class NotCounted(OperatorError):
    """A measurement was not what it should be; the message says how."""
