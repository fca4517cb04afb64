"""What formats have in common: what they get, what they answer, and how they call."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from taskbridge.runtime.settings import masked
from taskbridge.schemas.events import Change, Person, Status, TaskNotification, View
from taskbridge.schemas.json_forms import to_json

M = TypeVar("M", bound=BaseModel)

JSON = "application/json"
_TOKEN_MARGIN_S = 300
_REMEMBERED = 16
_SAID = ("code", "message", "msg")
"""The fields of a vendor's refusal that are shown: others may have a token."""

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

    @property
    def is_success(self) -> bool:
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES


NOTHING_TO_SEND = Answer(HTTPStatus.NO_CONTENT)
"""The receiver does not show this list."""

Call = Callable[[str, str, Mapping[str, str], bytes], Awaitable[Answer]]
"""Method, URL, headers and body. Raises DeliveryProblem if there is no answer."""


class DeliveryProblem(Exception):
    """An attempt that failed without an answer, or with one that says so in its body. The text is for an operator."""


class Tokens:
    """The access tokens of an endpoint, by the path at which each was obtained."""

    def __init__(self) -> None:
        self._usable: dict[str, tuple[str, float]] = {}
        self.known: deque[str] = deque(maxlen=_REMEMBERED)
        """Also those that were refused: no text that is shown may have one of them."""

    def usable(self, path: str, at_s: float) -> str | None:
        token, until_s = self._usable.get(path, ("", 0.0))
        return token if until_s > at_s else None

    def put(self, path: str, token: str, until_s: float) -> None:
        self._usable[path] = token, until_s
        self.known.append(token)

    def drop(self, path: str, token: str) -> None:
        """It was refused. Not another one that was obtained meanwhile."""
        if self._usable.get(path, ("", 0.0))[0] == token:
            del self._usable[path]


class Attempt(NamedTuple):
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
    tokens: Tokens

    @property
    def data(self) -> dict[str, Any]:
        return msgspec.json.decode(self.event)["data"]

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context of the notification, for the receiver to continue."""
        return msgspec.json.decode(self.event, type=_Traced).traceparent


class Format(Protocol):
    """A module of this package, or what an entry point of the group ``taskbridge.webhook_formats`` names."""

    def options(self, given: Mapping[str, Any], read: Callable[[str], str]) -> Any:
        """The options of an endpoint, checked; ``read`` reads a secret elsewhere. ValueError repeats no value."""
        ...

    async def send(self, attempt: Attempt, call: Call) -> Answer:
        """Send a notification; raises DeliveryProblem if that failed."""
        ...


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @property
    def secrets(self) -> set[str]:
        """No text that is shown may have one of them."""
        return {value.get_secret_value() for _, value in self if isinstance(value, SecretStr)}


def checked(model: type[M], given: Mapping[str, Any], read: Callable[[str], str]) -> M:
    """The options with their secrets, which ``read`` finds. Raises ValueError in words."""
    try:
        found = model.model_validate(dict(given))
    except ValidationError as error:
        raise ValueError("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())) from None
    secrets = {name: SecretStr(read(each.get_secret_value())) for name, each in found if isinstance(each, SecretStr)}
    return found.model_copy(update=secrets)


class TokenRequest(NamedTuple):
    """How a vendor gives an access token; ``fields`` of the answer have the token and its lifetime in seconds."""

    path: str
    body: Mapping[str, str]
    fields: tuple[str, str]


async def with_token(
    attempt: Attempt,
    call: Call,
    request: TokenRequest,
    send: Callable[[str], Awaitable[Answer]],
    is_refused: Callable[[Answer], bool],
) -> Answer:
    """The answer to what ``send`` sends with a token. If the vendor refuses a token, once more with a new one."""
    for is_last in (False, True):
        token = await _access_token(attempt, call, request)
        answer = await send(token)
        if not is_refused(answer):
            break
        attempt.tokens.drop(request.path, token)
        if is_last:
            break
    return answer


async def _access_token(attempt: Attempt, call: Call, request: TokenRequest) -> str:
    token = attempt.tokens.usable(request.path, attempt.at_s)
    if token is not None:
        return token
    url = attempt.url.rstrip("/") + request.path
    answer = await call("POST", url, {"content-type": JSON}, to_json(request.body))
    found = object_of(answer.body)
    token, lifetime_s = map(found.get, request.fields)
    if not (answer.is_success and isinstance(token, str) and isinstance(lifetime_s, int)):
        said = " ".join(text(found[each]) for each in _SAID if each in found)
        raise DeliveryProblem(f"no access token: {answer.status} {masked(said, request.body.values())}".strip())
    attempt.tokens.put(request.path, token, attempt.at_s + lifetime_s - _TOKEN_MARGIN_S)
    return token


def accepted(answer: Answer, by: str, *, is_documented: Callable[[Mapping[str, Any]], bool]) -> Answer:
    """The answer, if its body says success or its status says failure: a sign-in page has status 200 too.

    Raises DeliveryProblem.
    """
    if answer.is_success and not is_documented(object_of(answer.body)):
        raise DeliveryProblem(f"{by} refuses it: {answer.status} {answer.body.decode('utf-8', 'replace')}".strip())
    return answer


def object_of(body: bytes) -> dict[str, Any]:
    """The JSON object in an answer; empty if it is none."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}


def text(value: object) -> str:
    return "" if value is None else str(value)
