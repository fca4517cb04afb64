from __future__ import annotations

from taskbridge.schemas.errors import ConfigurationError


class StackError(ConfigurationError):
    """Kafka and the schema registry cannot run here; the message says what to do."""
