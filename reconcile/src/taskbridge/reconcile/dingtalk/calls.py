"""One call of the open API: its token, its turn, what it is answered, and when it is tried again.

Of what is refused only DingTalk's code, its request id and its words are told, with every secret of ours taken out:
addresses hold the app's secret in their query.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import httpx2
import msgspec

from taskbridge.reconcile.dingtalk import wire
from taskbridge.reconcile.dingtalk.errors import (
    Absent,
    AddressLimited,
    Refused,
    Spent,
    TooFast,
    Unexpected,
    Unreachable,
)
from taskbridge.reconcile.dingtalk.moments import next_month_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from taskbridge.reconcile.apps import Corp
    from taskbridge.reconcile.clock import Clock

T = TypeVar("T")

_PUNISHED_MS = 5 * 60 * 1000
"""How long DingTalk answers an address with a page that asked too often."""
_RENEWED_BEFORE_S = 300
_BACKOFF_S, _BACKOFF_MAX_S = 1.0, 60.0
_RETRY_MS = 60_000
"""After a call that was tried often enough."""
_MESSAGE_CHARACTERS = 200
_TOO_MANY, _SERVER_ERROR = 429, 500


class CallBudget(Protocol):
    """Who says when a call may be made, and keeps count."""

    async def take(self, corp_id: str) -> None: ...

    async def pace(self, corp_id: str) -> None: ...

    def close(self, corp_id: str, *, until_ms: int, reason: str) -> None: ...


class _Call(NamedTuple):
    method: str
    path: str
    query: Mapping[str, Any]
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = {}

    @property
    def name(self) -> str:
        """The path without an instance's id."""
        return wire.GetInstanceById.path if self.path.startswith(wire.GetInstanceById.path) else self.path

    def secrets(self) -> Iterator[str]:
        """What is not to be repeated, even where DingTalk repeats it."""
        for place in (self.query, self.body or {}, self.headers):
            yield from (str(value) for name, value in place.items() if name in wire.SECRETS and value)


class Calls:
    """Calls in the name of one organisation's application."""

    def __init__(
        self,
        http: httpx2.AsyncClient,
        corp: Corp,
        budget: CallBudget,
        clock: Clock,
        *,
        attempts: int,
        count: Callable[[str, str], None] | None = None,
    ) -> None:
        """``count`` hears of each that is made: its path, and ``ok`` or the error's name."""
        self._http = http
        self._corp = corp
        self._budget = budget
        self._clock = clock
        self._attempts = attempts
        self._count = count
        self._token: str | None = None
        self._token_until_ms = 0
        self._closed_until_ms = 0

    async def get(self, request: wire.Request, answer: type[T], *, path_end: str = "", page: int | None = None) -> T:
        """The answer to a request whose fields stand in the query.

        Raises:
            Later, Refused, Unexpected, Absent: as their docstrings say.
        """
        query = {**_plain(request), **_paging(page)}
        return await self._ask(_Call("GET", request.path + path_end, query), answer)

    async def post(self, request: wire.Request, answer: type[T], *, page: int | None = None) -> T:
        """The answer to a request whose fields are the body; otherwise as ``get``."""
        return await self._ask(_Call("POST", request.path, _paging(page), _plain(request)), answer)

    async def _ask(self, call: _Call, answer: type[T]) -> T:
        renewed = False
        attempt = 0
        while True:
            attempt += 1
            try:
                token = await self._access_token()
                await self._budget.take(self._corp.corp_id)
                return await self._counted(call._replace(headers={wire.TOKEN_HEADER: token}), answer)
            except _TokenRefused as refused:
                if renewed:
                    raise Refused(str(refused)) from None
                renewed, self._token = True, None
            except (TooFast, Unreachable):
                if attempt >= self._attempts:
                    raise
                await self._clock.sleep(min(_BACKOFF_S * 2 ** (attempt - 1), _BACKOFF_MAX_S))

    async def _counted(self, call: _Call, answer: type[T]) -> T:
        outcome = "ok"
        try:
            return await self._send(call, answer)
        except Exception as error:
            outcome = type(error).__name__.strip("_")
            raise
        finally:
            if self._count is not None:
                self._count(call.name, outcome)

    async def _access_token(self) -> str:
        now = self._clock.now_ms()
        if self._token is None or now >= self._token_until_ms:
            await self._budget.pace(self._corp.corp_id)
            request = wire.GetAccessToken(self._corp.app_key, self._corp.app_secret.get_secret_value())
            found = await self._send(_Call("POST", request.path, {}, _plain(request)), wire.AccessToken)
            self._token = found.access_token
            self._token_until_ms = now + max(found.expire_in - _RENEWED_BEFORE_S, found.expire_in // 2) * 1000
        return self._token

    async def _send(self, call: _Call, answer: type[T]) -> T:
        now, path = self._clock.now_ms(), call.path
        if now < self._closed_until_ms:
            raise AddressLimited("DingTalk rate-limits this address", retry_at_ms=self._closed_until_ms)
        try:
            response = await self._http.request(
                call.method, path, params=call.query, json=call.body, headers=call.headers
            )
        except httpx2.HTTPError as error:
            # Not as its cause: what it holds is the address, with the app's secret.
            base = self._http.base_url
            why = f"DingTalk at {base.scheme}://{base.host} does not answer to {path} ({type(error).__name__})"
            raise Unreachable(f"{why}; check RECONCILE_API_URL", retry_at_ms=now + _RETRY_MS) from None
        if _is_punishment(response.headers.get("content-type", ""), response.content):
            self._closed_until_ms = now + _PUNISHED_MS
            raise AddressLimited("DingTalk rate-limits this address: too many calls", retry_at_ms=self._closed_until_ms)
        if not response.is_success:
            raise self._error_of(call, response.status_code, response.content)
        try:
            return msgspec.json.decode(response.content, type=answer)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Unexpected(f"{path}: the response is not a valid {answer.__name__}: {error}") from None

    def _error_of(self, call: _Call, status: int, content: bytes) -> Exception:
        now = self._clock.now_ms()
        try:
            problem = msgspec.json.decode(content, type=wire.Problem)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            problem = wire.Problem(code="")
        message = problem.message
        for secret in call.secrets():
            message = message.replace(secret, "…")
        said = f"{call.path}: {status} {problem.code} {message[:_MESSAGE_CHARACTERS]} {problem.requestid}".strip()
        if problem.code == wire.CODE_MONTH:
            until = next_month_ms(now)
            self._budget.close(self._corp.corp_id, until_ms=until, reason=said)
            return Spent(said, retry_at_ms=until)
        if problem.code in wire.CODE_QPS or status == _TOO_MANY:
            return TooFast(said, retry_at_ms=now + _RETRY_MS)
        if problem.code in wire.CODE_TOKEN:
            return _TokenRefused(said)
        if problem.code in wire.CODE_ABSENT:
            return Absent(said)
        if status >= _SERVER_ERROR:
            return Unreachable(said, retry_at_ms=now + _RETRY_MS)
        return Refused(said)


class _TokenRefused(Exception):
    """The access token is not taken: once, that is no surprise."""


def open_http(url: str, *, timeout_s: float) -> httpx2.AsyncClient:
    """A client of this address, to be closed by who asked for it. It goes through no proxy of the environment's."""
    # Its own log has each address, whose query holds the app's secret.
    logging.getLogger("httpx2").addFilter(_without_addresses)
    return httpx2.AsyncClient(base_url=url, timeout=timeout_s, trust_env=False, follow_redirects=False)


def _without_addresses(record: logging.LogRecord) -> bool:
    return "HTTP Request" not in str(record.msg)


def _plain(request: Any) -> dict[str, Any]:
    return msgspec.to_builtins(request)


def _paging(page: int | None) -> dict[str, Any]:
    return {} if page is None else {wire.PAGE_NUMBER: page, wire.PAGE_SIZE: wire.PAGE_ROWS}


def _is_punishment(content_type: str, content: bytes) -> bool:
    return "html" in content_type or content[:1] == b"<" or (b'"punish"' in content and b'"x5"' in content)
