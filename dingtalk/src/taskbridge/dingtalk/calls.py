"""Calls of DingTalk's open API: their pace, the access token, retries, and the errors.

The path and query of a request contain the app's secret. So an error has only DingTalk's code, message and request id,
with every secret of ours removed.

OperatorError
├── Later                nobody: it passes; ``retry_at_ms`` says when to try again
│   ├── TooFast          DingTalk's limit of calls per second
│   ├── AddressLimited   DingTalk answers this address with a page, for minutes
│   ├── Unreachable      the network, or a fault of DingTalk
│   │   └── Unsent       the network, before the request was sent
│   └── Spent            the calls that the administrator allows, or those of the corp's month, are used up
├── Refused              the administrator: a secret, a permission or a setting is wrong
│   ├── NotOffered       nobody: this DingTalk lacks the call, and what needs it is off
│   └── TooMuch          nobody: the request must be for fewer days or ids
└── Unexpected           the administrator, then us: an answer that we do not understand
TaskbridgeError
└── Absent               nobody: DingTalk has no such instance, form or app
"""

from __future__ import annotations

import math
import re
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar
from urllib.parse import quote, urlsplit

import httpx2
import msgspec
import structlog

from taskbridge.dingtalk import wire
from taskbridge.dingtalk.times import next_month_ms
from taskbridge.runtime.bounded_http import NOT_JSON, UNSENT_ERRORS, AnswerTooLarge
from taskbridge.runtime.settings import masked
from taskbridge.schemas.errors import OperatorError, TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence

    from taskbridge.dingtalk.apps import Corp
    from taskbridge.runtime.clock import Clock

    Allowed = Callable[[], Awaitable[bool]]
    """Whether a change may still be sent."""

_log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")
P = TypeVar("P", bound="Page")

_PUNISHED_MS = 5 * 60 * 1000
"""How long DingTalk answers a rate-limited address with a page."""
_RENEWED_BEFORE_S = 300
_BACKOFF_S, _BACKOFF_MAX_S = 1.0, 60.0
_RETRY_MS = 60_000
"""When to try again after the last attempt of a call."""
_AFTER_DIGITS = 5
"""Of a `Retry-After`: a day at most."""
_MESSAGE_CHARACTERS = 200
_TOO_MANY, _SERVER_ERROR = 429, 500
_NO_SUCH_CALL = (404, 405, 501)
_HALF = re.compile(
    rb"(?<!\\)((?:\\\\)*)\\u(?:d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f]..)", re.IGNORECASE | re.DOTALL
)
"""Half of a character of two, in JSON: what is left of an emoji where a program cut a text."""
_PUNISH = re.compile(rb'"punish"\s*:')
"""A key of an answer: values may be anything that somebody wrote into a form."""
_OF_FORMS = frozenset({wire.GetOpenUrl.path, wire.SaveFormRemark.path, wire.PreviewPublishedProcess.path})
"""Calls with a value that anybody may have written: a gateway may answer a page for what it takes for an attack."""
_NOT_OFFERED_S = 3600.0
"""How long a call that is not offered is not tried again: a cluster may have been upgraded."""


class Later(OperatorError):
    """The call may be tried again at ``retry_at_ms``, and not before."""

    def __init__(self, message: str, *, retry_at_ms: int, after_s: int = 0) -> None:
        """``after_s``: how long the answer says to wait."""
        super().__init__(message)
        self.retry_at_ms, self.after_s = retry_at_ms, after_s


class TooFast(Later):
    """DingTalk refused the call: too many in this second."""


class AddressLimited(Later):
    """DingTalk answers this address with a page instead of data, for five minutes."""


class Unreachable(Later):
    """DingTalk cannot be reached, or has a fault."""


class Unsent(Unreachable):
    """DingTalk cannot be connected to: it has not got the request."""


class Spent(Later):
    """The calls of this day or month are used up."""


class Refused(OperatorError):
    """DingTalk refuses the call until somebody changes something; ``reason`` is its message and its code."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class TooMuch(Refused):
    """DingTalk does not answer for so many rows or ids at once."""


class NotOffered(Refused):
    """The call does not exist at this DingTalk: a dedicated cluster may lack newer ones.

    Without a ``reason``, its gateway said so, which may have no service behind it for the moment.
    """


class Unexpected(OperatorError):
    """DingTalk's answer is not understood. Nothing is concluded from it."""


class Absent(TaskbridgeError):
    """DingTalk has no such instance, form or app. A single absence proves nothing."""


_NOT_COUNTED = (TooFast, AddressLimited, Unsent)
"""DingTalk counts no call that a limit refused or that did not reach it (its page on billing of May 2026)."""


class Pace:
    """Calls at the limit per second, of each corp. A quota that is used up closes the corp's calls for this process.

    It follows a clock that nobody sets. A limit of this address holds for all corps.
    """

    def __init__(self, per_second: float, clock: Clock) -> None:
        self._per_second = per_second
        self._clock = clock
        self._free_at_s: dict[str, float] = {}
        self._address_free_at_s = 0.0
        self._closed: dict[str, tuple[int, str]] = {}

    async def acquire(self, corp_id: str) -> None:
        """Wait until one more call may be made.

        Raises:
            Spent: No call may be made until then.
        """
        self.check_open(corp_id)
        await self.pace(corp_id)

    def check_open(self, corp_id: str) -> None:
        """Return if a call may be made; raise as ``acquire`` if not."""
        until_ms, reason = self._closed.get(corp_id, (0, ""))
        if until_ms > self._clock.now_ms():
            raise Spent(reason, retry_at_ms=until_ms)

    def give_back(self, corp_id: str) -> None:
        """A call that was acquired does not count."""

    async def pace(self, corp_id: str) -> None:
        """Wait as long as the limit per second requires, and count nothing: DingTalk does not count token calls."""
        now_s = self._clock.monotonic_s()
        turn_s = max(self._free_at_s.get(corp_id, now_s), now_s)
        self._free_at_s[corp_id] = turn_s + 1 / self._per_second
        if turn_s > now_s:
            await self._clock.sleep(turn_s - now_s)

    def limit_address(self) -> None:
        """Allow no call of any corp for as long as DingTalk limits this address."""
        self._address_free_at_s = self._clock.monotonic_s() + _PUNISHED_MS / 1000

    def address_limited_ms(self) -> int:
        """How long no call may be made, because DingTalk limits this address."""
        return max(0, math.ceil((self._address_free_at_s - self._clock.monotonic_s()) * 1000))

    def close(self, corp_id: str, *, until_ms: int, reason: str) -> None:
        """Allow no call of this corp until then, because DingTalk says that its quota is used up."""
        self._closed[corp_id] = (until_ms, reason)


async def always() -> bool:
    return True


class Page(Protocol):
    @property
    def data(self) -> Sequence[object]: ...

    @property
    def total_count(self) -> int:
        """The rows of all pages."""
        ...


class _Call(NamedTuple):
    method: str
    name: str
    """The path without ids."""
    query: Mapping[str, Any]
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = {}
    path_end: str = ""
    base: str = ""
    """The URL of a dedicated cluster; empty for the URL in the settings."""
    is_old: bool = False
    """Of the older API: another host, the token in the query, and errors in answers of status 200."""

    @property
    def path(self) -> str:
        return self.name + self.path_end

    def secrets(self) -> Iterator[str]:
        """The values that must not be in any error, even if DingTalk's message repeats them."""
        for fields in (self.query, self.body or {}, self.headers):
            for name, value in fields.items():
                if name in wire.SECRETS and value:
                    yield str(value)
                if name == wire.FILE_URL:
                    # DingTalk's own form has no host.
                    host_end = len(urlsplit(value)._replace(path="", query="").geturl())
                    yield from (value[host_end:], quote(value, safe=""), quote(value[host_end:], safe=""))


def calls_by_corp(
    http: httpx2.AsyncClient,
    pace: Pace,
    clock: Clock,
    *,
    attempts: int,
    on_call: Callable[[str, str], None] | None = None,
    float_hook: Callable[[str], Any] | None = None,
) -> Callable[[Corp], Calls]:
    """The calls of each corp, whose access token is used again; parameters as of ``Calls``."""

    @cache
    def calls(corp: Corp) -> Calls:
        return Calls(http, corp, pace, clock, attempts=attempts, on_call=on_call, float_hook=float_hook)

    return calls


class Calls:
    """Calls with the credentials of one corp."""

    def __init__(
        self,
        http: httpx2.AsyncClient,
        corp: Corp,
        pace: Pace,
        clock: Clock,
        *,
        attempts: int,
        on_call: Callable[[str, str], None] | None = None,
        float_hook: Callable[[str], Any] | None = None,
    ) -> None:
        """``on_call`` gets the path of each call, and ``ok`` or the name of its error.

        ``float_hook`` makes of the text of a number with a fraction what values of forms have; the default is a float.
        """
        self._http = http
        self.corp = corp
        self._pace = pace
        self._clock = clock
        self._attempts = attempts
        self._on_call, self._float_hook = on_call, float_hook
        self._tokens: dict[str, tuple[str, float]] = {}
        """By base: an access token, and until when it is used."""
        self._not_offered: dict[str, tuple[str, float]] = {}
        """By path: what DingTalk said, and until when it is not called again."""

    async def get(self, request: wire.Call, answer: type[T], *, path_end: str = "", page: int | None = None) -> T:
        """The answer to a request whose fields are in the query.

        Raises:
            Later, Refused, Unexpected, Absent: As their docstrings say.
        """
        query = {**self._fields(request), **_paging(page)}
        return await self._call(_Call("GET", request.path, query, path_end=path_end), answer)

    async def pages(self, request: wire.Call, answer: type[P], *, path_end: str = "") -> AsyncIterator[P]:
        """All pages of a list, each as of ``get``. One with nothing new is the last: the count may be wrong."""
        page, rows = 0, None
        while True:
            page += 1
            found = await self.get(request, answer, path_end=path_end, page=page)
            yield found
            if page * wire.PAGE_ROWS >= found.total_count or not found.data or found.data == rows:
                return
            rows = found.data

    async def post(self, request: wire.Call, answer: type[T], *, page: int | None = None) -> T:
        """The answer to a request whose fields are the body; otherwise as ``get``."""
        return await self._call(_Call("POST", request.path, _paging(page), self._fields(request)), answer)

    async def open(self, path: str, body: Mapping[str, Any], answer: type[T], *, base: str = "") -> T:
        """The answer to one POST without an access token. DingTalk counts none of these.

        Raises:
            Later, Refused, Unexpected, Absent: As their docstrings say.
        """
        try:
            return await self._send(_Call("POST", path, {}, body, base=base), answer)
        except _TokenRefused as refused:
            raise Refused(str(refused)) from None
        except NotOffered as error:
            raise Refused(f"{error}; check yida_url and yida_auth in the apps file") from None

    def not_offered(self) -> list[str]:
        """The calls, by path, that this DingTalk was found to lack."""
        return sorted(self._not_offered)

    @property
    def is_encrypted(self) -> bool:
        return self._http.base_url.scheme == "https"

    async def change(
        self, request: wire.Call, *, method: str = "POST", answer: type[object] = object, allowed: Allowed = always
    ) -> None:
        """Have DingTalk change something: what it may have received is not sent again.

        PUT, and what is answered with an ``Outcome``, have the fields in the query.

        ``allowed`` is called after all waiting, right before the request leaves: if it says no, the request is Unsent.

        Raises:
            TooFast, AddressLimited, Unsent, Spent: It changed nothing, and would later.
            Refused, Absent: It changed nothing, and says why.
            Unreachable, Unexpected: It may have changed it.
        """
        fields = self._fields(request)
        in_query = method == "PUT" or answer is wire.Outcome
        call = _Call(method, request.path, fields) if in_query else _Call(method, request.path, {}, fields)
        await self._once(call, answer, allowed)

    async def change_by_old_api(self, path: str, fields: Mapping[str, Any]) -> None:
        """As ``change``, by a POST to DingTalk's older API."""
        await self._once(_Call("POST", path, {}, fields, is_old=True), wire.OldAnswer, always)

    async def _once(self, call: _Call, answer: type[object], allowed: Allowed) -> None:
        try:
            await self._access_token(self._base_of(call.name))
        except (Unreachable, Unexpected) as error:
            retry_at_ms = error.retry_at_ms if isinstance(error, Unreachable) else self._clock.now_ms() + _RETRY_MS
            raise Unsent(str(error), retry_at_ms=retry_at_ms) from None
        try:
            await self._call(call, answer, attempts=1, allowed=allowed)
        except NotOffered as error:
            # Somebody waits for it: the next one is sent all the same.
            self._not_offered.pop(call.name, None)
            if error.reason:
                raise
            # A gateway without its service answers like this, and perhaps a service behind it.
            raise Unreachable(str(error), retry_at_ms=self._clock.now_ms() + _RETRY_MS) from None

    def _base_of(self, path: str) -> str:
        """The URL of a dedicated cluster, or empty: an address that the settings name too is none."""
        base = self.corp.base_of(path)
        return "" if base and httpx2.URL(base).netloc == self._http.base_url.netloc else base

    def _remember(self, call: _Call, error: NotOffered) -> None:
        """Make the call no more for an hour, unless its path has an id, which may be what is not found."""
        # Without a reason it was a gateway, perhaps one without its service for a moment.
        if error.reason:
            if call.name not in self._not_offered:
                _log.warning("call_not_offered", corp_id=self.corp.corp_id, path=call.name)
            until_s = 0.0 if call.path_end else self._clock.monotonic_s() + _NOT_OFFERED_S
            self._not_offered[call.name] = str(error), until_s

    def _fields(self, request: wire.Call) -> dict[str, Any]:
        site = {} if request.site is None or self.corp.env is None else {request.site: self.corp.env}
        return {**msgspec.to_builtins(request), **site}

    async def _call(self, call: _Call, answer: type[T], *, attempts: int | None = None, allowed: Allowed = always) -> T:
        base, renewed = self._base_of(call.name), False
        attempt = 0
        missing, until_s = self._not_offered.get(call.name, ("", 0.0))
        if self._clock.monotonic_s() < until_s:
            raise NotOffered(missing, wire.CODE_NOT_OFFERED)
        while True:
            attempt += 1
            try:
                token = await self._access_token(base)
                await self._pace.acquire(self.corp.corp_id)
                if not await allowed():
                    self._pace.give_back(self.corp.corp_id)
                    raise Unsent(f"{call.name}: its turn came too late", retry_at_ms=self._clock.now_ms())
                ready = call._replace(base=base, headers={wire.TOKEN_HEADER: token})
                if call.is_old:
                    is_public = self._http.base_url.host == wire.API_HOST
                    old = base or (wire.OLD_API if is_public else "")
                    ready = call._replace(base=old, query={wire.OLD_TOKEN: token})
                return await self._reported(ready, answer)
            except _TokenRefused as refused:
                if renewed:
                    raise Refused(str(refused)) from None
                renewed = True
                self._tokens.pop(base, None)
            except NotOffered as error:
                self._remember(call, error)
                raise
            except (TooFast, Unreachable) as error:
                pause_s = max(min(_BACKOFF_S * 2 ** (attempt - 1), _BACKOFF_MAX_S), error.after_s)
                if attempt >= (attempts or self._attempts) or pause_s > _BACKOFF_MAX_S:
                    raise
                await self._clock.sleep(pause_s)

    async def _reported(self, call: _Call, answer: type[T]) -> T:
        outcome = "ok"
        try:
            return await self._send(call, answer)
        except Exception as error:
            outcome = type(error).__name__.strip("_")
            if isinstance(error, _NOT_COUNTED):
                self._pace.give_back(self.corp.corp_id)
            raise
        finally:
            if self._on_call is not None:
                self._on_call(call.name, outcome)

    async def _access_token(self, base: str) -> str:
        corp, now_s = self.corp, self._clock.monotonic_s()
        token, until_s = self._tokens.get(base, ("", 0.0))
        if now_s >= until_s:
            await self._pace.pace(corp.corp_id)
            secret = corp.app_secret.get_secret_value()
            if not corp.corp_id or (base and base == corp.yida_url and not corp.yida_auth_by_corp):
                request = wire.GetAccessToken(corp.app_key, secret)
                answer = await self.open(request.path, msgspec.to_builtins(request), wire.AccessToken, base=base)
                token, lasts_s = answer.access_token, answer.expire_in
            else:
                path, body = wire.token_request(corp.corp_id, corp.app_key, secret)
                found = await self.open(path, body, wire.Token, base=base)
                token, lasts_s = found.access_token, found.expires_in
            self._tokens[base] = token, now_s + max(lasts_s - _RENEWED_BEFORE_S, lasts_s // 2)
        return token

    async def _send(self, call: _Call, answer: type[T]) -> T:
        now, path = self._clock.now_ms(), call.path
        if not call.base and (limited_ms := self._pace.address_limited_ms()):
            raise AddressLimited("DingTalk rate-limits this address", retry_at_ms=now + limited_ms)
        try:
            response = await self._http.request(
                call.method, call.base + path, params=call.query, json=call.body, headers=call.headers
            )
        except AnswerTooLarge as error:
            raise Unexpected(f"{path}: {error}") from None
        except httpx2.HTTPError as error:
            # Without its cause, which contains the URL with the app's secret.
            base = httpx2.URL(call.base) if call.base else self._http.base_url
            why = f"DingTalk at {base.scheme}://{base.host} does not answer to {path} ({type(error).__name__})"
            kind = Unsent if isinstance(error, UNSENT_ERRORS) else Unreachable
            raise kind(f"{why}; check the API's URL in the settings", retry_at_ms=now + _RETRY_MS) from None
        # A dedicated cluster has no such limit, and its gateway's pages are of other things.
        is_page, is_punishment = _is_page(response), _is_punishment(response)
        if not call.base and (is_punishment or (is_page and call.name not in _OF_FORMS)):
            self._pace.limit_address()
            raise AddressLimited("DingTalk rate-limits this address: too many calls", retry_at_ms=now + _PUNISHED_MS)
        if is_page and call.name in _OF_FORMS:
            raise Unexpected(f"{path}: {response.status_code}, a page in place of an answer")
        if not response.is_success:
            raise self._error_of(call, response)
        return self._answer_of(call, response, answer)

    def _answer_of(self, call: _Call, response: httpx2.Response, answer: type[T]) -> T:
        try:
            # A change is answered without a body.
            found = self._decoded(response.content or b"null", answer)
        except (*NOT_JSON, ArithmeticError) as error:
            raise Unexpected(f"{call.path}: the response is not a valid {answer.__name__}: {error}") from None
        if isinstance(found, wire.OldAnswer) and found.errcode != 0:
            raise self._old_error(call, found)
        if isinstance(found, wire.Outcome) and not found.success:
            raise self._error_of(call, response)
        return found

    def _decoded(self, content: bytes, answer: type[T]) -> T:
        decoder = msgspec.json.Decoder(answer, float_hook=self._float_hook)
        try:
            return decoder.decode(content)
        except NOT_JSON:
            # One text of a hundred rows must not hide the others.
            return decoder.decode(_HALF.sub(rb"\1\\ufffd", content.decode(errors="replace").encode()))

    def _old_error(self, call: _Call, found: wire.OldAnswer) -> Exception:
        message = _printable(masked(found.errmsg or "", call.secrets())[:_MESSAGE_CHARACTERS])
        reason = f"{message} ({found.errcode})"
        if found.errcode in wire.OLD_QPS:
            return TooFast(f"{call.path}: {reason}", retry_at_ms=self._clock.now_ms() + _RETRY_MS)
        if found.errcode in wire.OLD_TOKEN_REFUSED:
            return _TokenRefused(f"{call.path}: {reason}")
        return Refused(f"{call.path}: {reason}", reason)

    def _error_of(self, call: _Call, response: httpx2.Response) -> Exception:
        now, status = self._clock.now_ms(), response.status_code
        try:
            problem = msgspec.json.decode(response.content, type=wire.Problem)
        except NOT_JSON:
            problem = wire.Problem()
        code = str(problem.code or problem.error_code or "")
        message = masked(str(problem.message or problem.error_msg or ""), call.secrets())[:_MESSAGE_CHARACTERS]
        text = _printable(f"{call.path}: {status} {code} {message} {problem.requestid or ''}".strip())
        named = response.headers.get("retry-after", "")
        after_s = int(named) if named.isdecimal() and len(named) <= _AFTER_DIGITS else 0
        retry_at_ms = now + (after_s * 1000 or _RETRY_MS)
        if code == wire.CODE_MONTH:
            until = next_month_ms(now)
            self._pace.close(self.corp.corp_id, until_ms=until, reason=text)
            return Spent(text, retry_at_ms=until)
        if code in wire.CODE_QPS or status == _TOO_MANY:
            return TooFast(text, retry_at_ms=retry_at_ms, after_s=after_s)
        if code in wire.CODE_TOKEN or code in wire.CODE_ABSENT:
            return (_TokenRefused if code in wire.CODE_TOKEN else Absent)(text)
        if code == wire.CODE_NOT_OFFERED or (call.base and not code and status in _NO_SUCH_CALL):
            return NotOffered(f"{call.name}: this DingTalk does not offer the call ({status} {code})", code)
        if status >= _SERVER_ERROR:
            return Unreachable(text, retry_at_ms=retry_at_ms, after_s=after_s)
        kind = TooMuch if code in wire.CODE_TOO_MUCH else Refused
        return kind(text, _printable(f"{message} ({code})" if message and code else message or code))


class _TokenRefused(Exception):
    """DingTalk refuses the access token. Once, that is normal."""


def _paging(page: int | None) -> dict[str, Any]:
    return {} if page is None else {wire.PAGE_NUMBER: page, wire.PAGE_SIZE: wire.PAGE_ROWS}


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text)


def _is_page(response: httpx2.Response) -> bool:
    """The page of a gateway with a fault is none: the call may have been carried out."""
    is_page = "html" in response.headers.get("content-type", "") or response.content[:1] == b"<"
    return is_page and response.status_code < _SERVER_ERROR


def _is_punishment(response: httpx2.Response) -> bool:
    return b'"x5"' in response.content and _PUNISH.search(response.content) is not None
