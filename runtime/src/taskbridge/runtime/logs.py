"""Structured logs on standard error: readable lines, or one JSON object per line."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Literal

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

LogFormat = Literal["text", "json"]

_THROTTLE_S = 10.0
_THROTTLE_KEY = 60

NOISY = ("aiokafka", "faust", "mode", "httpx2", "httpcore2", "librdkafka", "opentelemetry", "uvicorn.access", "alembic")
"""Below WARNING these hide our own lines; at DEBUG, aiokafka and faust cost a fifth of the CPU too."""

_TRACEBACKS = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
"""Without local variables, which may contain tokens and form values."""


class _Throttle(logging.Filter):
    """Limits how often a library logs a message: a client that reconnects logs it 20 times a second."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(NOISY):
            return True
        # The template, because the text contains offsets and ports.
        key = str(record.msg)[:_THROTTLE_KEY]
        due = record.created - self._last.get(key, 0) >= _THROTTLE_S
        if due:
            self._last[key] = record.created
        return due


def configure_logs(log_format: LogFormat, level: str) -> None:
    """Send our events and those of libraries through one formatter. Call it once, at the start of the process."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        _one_line,
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    if log_format == "json":
        final: list[Processor] = [
            structlog.processors.ExceptionRenderer(_TRACEBACKS),
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    else:
        final = [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final]
        )
    )
    handler.addFilter(_Throttle())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _one_line(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    # A line break in a value from outside would forge a second log line.
    return {
        key: value.replace("\r", "\\r").replace("\n", "\\n") if isinstance(value, str) and key != "exception" else value
        for key, value in event.items()
    }
