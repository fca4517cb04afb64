"""What a request of the fake DingTalk gives, and how it refuses one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


@dataclass(frozen=True)
class Given:
    fields: dict[str, Any]
    path_end: str
    has_body: bool
    """Without one, numbers are text."""

    def read(self, kind: type[T]) -> T:
        try:
            return msgspec.convert(self.fields, type=kind, strict=self.has_body)
        except msgspec.ValidationError as error:
            raise Refused(400, "MissingParameter", str(error)) from None


def by_minute(at_ms: int) -> str:
    """The minute, as in published answers."""
    return f"{datetime.fromtimestamp(at_ms / 1000, timezone.utc):%Y-%m-%dT%H:%M}Z"  # noqa: UP017 - see dingtalk.moments


class Refused(Exception):
    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(code)
        self.status, self.code, self.message = status, code, message
