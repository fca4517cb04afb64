"""A DingTalk of the tests' own: the open API's shapes, pages, limits and errors, and a company behind them. ASGI.

Nothing of it was seen at DingTalk: it does what the vendor's documents, its SDK and answers that people published say,
and where these leave something open, what is worst for who asks.
"""

from __future__ import annotations

import secrets
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from taskbridge.reconcile.clock import day_of, month_of
from taskbridge.reconcile.dingtalk import wire
from taskbridge.reconcile.testing import answers
from taskbridge.reconcile.testing.weather import Weather

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from taskbridge.reconcile.clock import Clock
    from taskbridge.reconcile.testing.company import Company, TrueInstance

R = TypeVar("R", bound=wire.Request)
T = TypeVar("T")
_TOKEN_S = 7200
_PUNISHED_MS = 5 * 60 * 1000
_ADDRESS_CALLS, _ADDRESS_MS = 10_000, 20_000
PUNISHMENT = '<html><body>{"status":1111,"wait":5,"source":"x5","punish":"deny","uuid":"f4ke"}</body></html>'


class FakeDingTalk:
    """Serves one organisation. ``app`` is the ASGI application; ``calls`` counts, by path, what was asked."""

    def __init__(
        self,
        company: Company,
        clock: Clock,
        *,
        system_tokens: dict[str, str],
        app_key: str = "dingfakekey",
        app_secret: str = "fake-app-secret",  # noqa: S107 - of this fake alone
        user_id: str = "manager",
    ) -> None:
        """``system_tokens``: the secret of each app that it has."""
        self.company, self.weather = company, Weather()
        self.system_tokens, self.user_id = system_tokens, user_id
        self.app_key, self.app_secret = app_key, app_secret
        self.calls: Counter[str] = Counter()
        self._clock = clock
        self._tokens: dict[str, int] = {}
        self._months: Counter[str] = Counter()
        self._seconds: Counter[tuple[str, str, int]] = Counter()
        self._recent: deque[int] = deque()
        self._punished_until_ms = 0
        self.app = Starlette(
            routes=[
                self._route(wire.GetAccessToken.path, self._access_token, "POST", is_counted=False),
                self._route(wire.GetInstances.path, self._instances, "POST"),
                self._route(f"{wire.GetInstanceById.path}{{id:path}}", self._instance, "GET"),
                self._route(wire.GetInstancesByIdList.path, self._instances_by_id, "GET"),
                self._route(wire.GetFormListInApp.path, self._forms, "GET"),
                self._route(wire.GetRunningTasks.path, self._running_tasks, "GET"),
                self._route(wire.GetOperationRecords.path, self._operation_records, "GET"),
            ]
        )

    def revoke_tokens(self) -> None:
        """No access token that was given out is valid any more."""
        self._tokens.clear()

    def _route(self, path: str, answer: Callable[[Any], Any], method: str, *, is_counted: bool = True) -> Route:
        name = path.removesuffix("{id:path}")

        async def respond(request: Request) -> Response:
            self.calls[name] += 1
            body = await request.body()
            if self._is_punished():
                return Response(PUNISHMENT, media_type="text/html")
            try:
                self._check(name, request.headers.get(wire.TOKEN_HEADER), is_counted=is_counted)
                told = msgspec.json.decode(body, type=dict[str, Any]) if body else dict[str, Any]()
                given = _Given({**request.query_params, **told}, request.path_params.get("id", ""))
                return _json(200, answer(given))
            except _Refused as refused:
                problem = {"code": refused.code, "message": refused.message, "requestid": secrets.token_hex(8)}
                return _json(refused.status, problem)

        return Route(path, respond, methods=[method])

    def _is_punished(self) -> bool:
        now = self._clock.now_ms()
        self._recent.append(now)
        while self._recent[0] <= now - _ADDRESS_MS:
            self._recent.popleft()
        if len(self._recent) > _ADDRESS_CALLS:
            self._punished_until_ms = now + _PUNISHED_MS
        return self.weather.punishes or now < self._punished_until_ms

    def _check(self, name: str, token: str | None, *, is_counted: bool) -> None:
        now, weather = self._clock.now_ms(), self.weather
        if weather.is_down:
            raise _Refused(503, "ServiceUnavailable", "down")
        if weather.answers_next:
            raise _Refused(*weather.answers_next.popleft(), f"as told; the token was {token}")
        if not is_counted:
            return
        if self._tokens.get(token or "", 0) <= now:
            raise _Refused(400, "InvalidAuthentication", f"不合法的access_token {token}")
        self._seconds[self.app_key, name, now // 1000] += 1
        if self._seconds[self.app_key, name, now // 1000] > weather.calls_per_second:
            raise _Refused(403, "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi", "qps")
        if self._months[month_of(now)] >= weather.calls_per_month:
            raise _Refused(403, wire.CODE_MONTH, "quota")
        self._months[month_of(now)] += 1

    def _access_token(self, given: _Given) -> wire.AccessToken:
        asked = given.read(wire.GetAccessToken)
        if (asked.app_key, asked.app_secret) != (self.app_key, self.app_secret):
            raise _Refused(400, "invalidClientIdOrSecret", f"无效的clientId或者clientSecret {asked.app_secret}")
        token = secrets.token_hex(16)
        self._tokens[token] = self._clock.now_ms() + _TOKEN_S * 1000
        return wire.AccessToken(token, _TOKEN_S)

    def _forms(self, given: _Given) -> wire.FormList:
        asked = self._asked(given, wire.GetFormListInApp)
        names = {each.form_uuid: each.process_name for each in self._known(asked.app_type) if each.form_uuid}
        rows = [wire.Form(each, wire.PROCESS, wire.FormTitle(name)) for each, name in sorted(names.items())]
        page, found = self._cut(rows, given)
        return wire.FormList(wire.FormPage(found, len(rows), page))

    def _instances(self, given: _Given) -> wire.InstancePage:
        asked = self._asked(given, wire.GetInstances)
        known = sorted(
            self._known(asked.app_type, late_ms=self.weather.lag_ms),
            key=lambda each: (each.created_ms, each.instance_id),
        )
        rows = [answers.instance(each, self._told) for each in known if self._is_asked_for(each, asked)]
        page, found = self._cut(rows, given)
        return wire.InstancePage(found, len(rows), page)

    def _is_asked_for(self, known: TrueInstance, asked: wire.GetInstances) -> bool:
        created, modified = (day_of(each + self.weather.skew_ms) for each in (known.created_ms, known.modified_ms))
        return (
            known.form_uuid == asked.form_uuid
            and asked.instance_status in (None, known.status)
            and asked.approved_result in (None, known.result)
            and (asked.create_from_time or created) <= created <= (asked.create_to_time or created)
            and (asked.modified_from_time or modified) <= modified <= (asked.modified_to_time or modified)
        )

    def _instance(self, given: _Given) -> wire.Instance:
        asked = self._asked(given, wire.GetInstanceById)
        return answers.instance(self._one(asked.app_type, given.path_end), self._told)

    def _instances_by_id(self, given: _Given) -> wire.InstanceList:
        asked = self._asked(given, wire.GetInstancesByIdList)
        wanted = asked.process_instance_ids.split(",")
        known = {each.instance_id: each for each in self._known(asked.app_type)}
        found = [answers.instance(known[each], self._told) for each in wanted if each in known]
        return wire.InstanceList([answers.without_times(each) for each in found])

    def _running_tasks(self, given: _Given) -> wire.RunningTaskList:
        asked = self._asked(given, wire.GetRunningTasks)
        known = self._one(asked.app_type, asked.process_instance_id)
        return wire.RunningTaskList(answers.running_tasks(known, self._told))

    def _operation_records(self, given: _Given) -> wire.OperationRecordList:
        asked = self._asked(given, wire.GetOperationRecords)
        known = self._one(asked.app_type, asked.process_instance_id)
        return wire.OperationRecordList(answers.operation_records(known, self._told))

    def _asked(self, given: _Given, request: type[R]) -> R:
        asked = given.read(request)
        if self.system_tokens.get(asked.app_type) != asked.system_token:
            raise _Refused(400, "invalidParameter.parameter.accessKeyNotMatch", f"接入密钥不匹配:{asked.system_token}")
        if asked.user_id != self.user_id:
            raise _Refused(400, "failure.user.userNotExist", "用户不存在")
        return asked

    def _known(self, app_type: str, *, late_ms: int = 0) -> list[TrueInstance]:
        found = self.company.instances(at_ms=self._clock.now_ms() - late_ms)
        return [each for each in found if each.app_type == app_type]

    def _one(self, app_type: str, instance_id: str) -> TrueInstance:
        known = self.company.instance(instance_id, at_ms=self._clock.now_ms())
        if known is None or known.app_type != app_type:
            raise _Refused(400, "invalidState.form.dataDoesNotExistOrIsDeleted", "数据不存在或已删除")
        return known

    def _cut(self, rows: list[Any], given: _Given) -> tuple[int, list[Any]]:
        """The page that is asked for, and its rows."""
        page, size = int(given.fields.get(wire.PAGE_NUMBER, 1)), int(given.fields.get(wire.PAGE_SIZE, 10))
        if not 0 < size <= wire.PAGE_ROWS or page < 1 or page * size > wire.QUERY_ROWS + size:
            raise _Refused(400, "failure.operation.numberOfQueryDataExceed", "单次查询超过条数限制")
        if self.weather.repeats:
            step = size - 1
            rows = [row for at in range(0, len(rows), step) for row in rows[max(0, at - 1) : at + step]]
        found = rows[(page - 1) * size : page * size]
        return page, found[:-1] if self.weather.short_pages else found

    def _told(self, at_ms: int) -> str:
        return (answers.exactly if self.weather.exact_times else answers.by_minute)(at_ms + self.weather.skew_ms)


@dataclass(frozen=True)
class _Given:
    fields: dict[str, Any]
    path_end: str

    def read(self, request: type[T]) -> T:
        try:
            return msgspec.convert(self.fields, type=request)
        except msgspec.ValidationError as error:
            raise _Refused(400, "MissingParameter", str(error)) from None


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(code)
        self.status, self.code, self.message = status, code, message


def _json(status: int, answer: Any) -> Response:
    return Response(msgspec.json.encode(answer), status, media_type="application/json")
