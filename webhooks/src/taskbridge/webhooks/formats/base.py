"""What formats have in common: what they get, what they answer, and how they call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, ValidationError

from taskbridge.runtime.settings import masked
from taskbridge.schemas.events import Change, Person, Status, TaskNotification, View
from taskbridge.schemas.json_forms import to_json

M = TypeVar("M", bound=BaseModel)

JSON = "application/json"
_TOKEN_MARGIN_S = 300
TRACEPARENT = "traceparent"

EXAMPLE = TaskNotification(
    notification_id="test",
    corp_id="test",
    recipient_id="test",
    view=View.PENDING,
    change=Change.ADDED,
    instance_id="taskbridge-test",
    task_id="taskbridge-test",
    title="Test of taskbridge webhooks",
    url=None,
    app_type="TEST",
    originator=Person("test"),
    actor_id=None,
    status=Status.PENDING,
    occurred_at=0,
    event_id="test",
    entered_at=0,
    updated_at=0,
)
"""Sent by ``taskbridge webhooks test``; a template is tried with it."""


class _Traced(msgspec.Struct):
    traceparent: str | None = None


class Answer(NamedTuple):
    """An HTTP answer. ``body`` is its beginning."""

    status: int
    body: bytes = b""
    retry_after_s: float | None = None
    date: str | None = None

    @property
    def is_success(self) -> bool:
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES


NOTHING_TO_SEND = Answer(HTTPStatus.NO_CONTENT)
"""The receiver does not show this list."""

Call = Callable[[str, str, Mapping[str, str], bytes], Awaitable[Answer]]
"""Method, URL, headers and body. Raises DeliveryProblem if there is no answer."""


class DeliveryProblem(Exception):
    """An attempt that failed without an answer, or with one that says so in its body. The text is for an operator."""


class Sending(NamedTuple):
    """One attempt."""

    url: str
    keys: Sequence[bytes]
    """Of Standard Webhooks: each makes a signature."""
    options: Any
    """What ``options`` of the format has returned."""
    webhook_id: str
    event: bytes
    """The notification as CloudEvents JSON."""
    at_s: int
    """Seconds since 1970."""
    other_id: Callable[[str, str, str], Awaitable[str | None]]
    """Of a corp and a user the id of that name in the people topic."""
    tokens: dict[str, tuple[str, float]]
    """Access tokens of this endpoint that were obtained before, with the time of their end."""

    @property
    def data(self) -> dict[str, Any]:
        return msgspec.json.decode(self.event)["data"]

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context of the notification, for the receiver to continue."""
        return msgspec.json.decode(self.event, type=_Traced).traceparent


class Format(Protocol):
    """A module of ``taskbridge.webhooks.formats``."""

    def options(self, given: Mapping[str, Any], read: Callable[[str], str]) -> Any:
        """The options of an endpoint, checked; ``read`` reads a secret elsewhere. ValueError repeats no value."""
        ...

    async def send(self, sending: Sending, call: Call) -> Answer:
        """Send a notification; raises DeliveryProblem if that failed."""
        ...


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def checked(model: type[M], given: Mapping[str, Any]) -> M:
    """Raises ValueError in words."""
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        raise ValueError("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())) from None


async def access_token(
    sending: Sending, call: Call, path: str, body: Mapping[str, str], fields: tuple[str, str]
) -> str:
    """A vendor's token, until it ends; ``fields`` of the answer have the token and its lifetime in seconds."""
    token, ends_s = sending.tokens.get(path, ("", 0.0))
    if ends_s > sending.at_s:
        return token
    answer = await call("POST", sending.url.rstrip("/") + path, {"content-type": JSON}, to_json(body))
    found, lifetime_s = map(object_of(answer.body).get, fields)
    if not (answer.is_success and isinstance(found, str) and isinstance(lifetime_s, int)):
        said = masked(answer.body.decode("utf-8", "replace"), body.values())
        raise DeliveryProblem(f"no access token: {answer.status} {said}")
    sending.tokens[path] = found, sending.at_s + lifetime_s - _TOKEN_MARGIN_S
    return found


def object_of(body: bytes) -> dict[str, Any]:
    """The JSON object in an answer; empty if it is none."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}


def text(value: object) -> str:
    return "" if value is None else str(value)
