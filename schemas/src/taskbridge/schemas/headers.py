"""Headers and bytes of any record, also of one that is not ours."""

from __future__ import annotations

import base64
from operator import methodcaller
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from taskbridge.schemas.cloudevents import Header


_given = methodcaller("headers")
"""Not called as a method is: the interpreter sees each error of it."""
_MARK = "\ufffd"
_NULL = "(<NULL>"


class WithHeaders(Protocol):
    """A message of confluent_kafka, for who does not import that."""

    def headers(self) -> Any: ...


def headers_of(message: WithHeaders) -> list[Header]:
    """In their order; one without a value is empty."""
    return [(name, value or b"") for name, value in named(message)]


def named(message: WithHeaders) -> list[tuple[str, bytes | None]]:
    """Names and values in their order; a name that is no UTF-8 is a mark.

    Of such a name confluent-kafka leaves a null pointer in the pair, which ends the process that touches it, and an
    error that an optimised call does not see. The pair as text is safe, and so is its value.
    """
    try:
        pairs = _given(message)
    except SystemError:
        pairs = _given(message)
    return [(_MARK, each[1]) if repr(each).startswith(_NULL) else each for each in pairs or ()]


def text_of(value: Any) -> str | None:
    """Bytes as text, or as base64 where they are none."""
    if value is None or isinstance(value, str):
        return value
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(value).decode()
