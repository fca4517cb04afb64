"""A fake DingTalk with faults, and a clock of virtual time."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, get_args

from starlette.responses import Response

from taskbridge.dingtalk import wire
from taskbridge.dingtalk.organisation import CancelAgentTask, CreateAgentTask
from taskbridge.local.fake_answers import Given, Refused, by_minute
from taskbridge.local.fake_dingtalk import Change, FakeDingTalk, TrueInstance

if TYPE_CHECKING:
    import threading

    from starlette.types import Receive, Scope, Send

    from taskbridge.local.fake_dingtalk import Company
    from taskbridge.runtime.clock import Clock

_CHANGES = {each.path for each in (*get_args(Change), wire.SaveFormRemark, CreateAgentTask, CancelAgentTask)}
PUNISHMENT = '<html><body>{"status":1111,"wait":5,"source":"x5","punish":"deny","uuid":"f4ke"}</body></html>'


class FakeClock:
    """A clock whose time passes only by ``sleep`` and ``pass_s``."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = float(now_ms)
        self._set_ms = 0.0

    def now_ms(self) -> int:
        return int(self._now_ms + self._set_ms)

    def monotonic_s(self) -> float:
        return self._now_ms / 1000

    def set_by_s(self, seconds: float) -> None:
        """Somebody sets the wall clock forward, or back."""
        self._set_ms += seconds * 1000

    async def sleep(self, seconds: float) -> None:
        self.pass_s(seconds)
        await asyncio.sleep(0)

    def pass_s(self, seconds: float) -> None:
        self._now_ms += seconds * 1000


@dataclass
class Faults:
    """The faults of the fake. May be changed at any time."""

    calls_per_second: int = 20
    calls_per_month: int = 5000
    is_down: bool = False
    """Every request is answered 503."""
    punishes: bool = False
    """Requests are answered with the HTML page for an address with too many calls."""
    lag_ms: int = 0
    """Delay until a query by time shows an event; a request by id shows it at once."""
    repeats: bool = False
    """The last row of each page is also the first of the next."""
    short_pages: bool = False
    """Pages lack their last row, though it is counted."""
    short_lists: bool = False
    """The answer for several instances lacks every third task."""
    exact_times: bool = False
    """Times have milliseconds, unlike any published answer, so that tests can compare times exactly."""
    lost_answers: int = 0
    """How many of the next changes are carried out, and answered by a gateway's error."""
    denied: dict[str, str] = field(default_factory=dict[str, str])
    """Paths for which the application lacks a permission, and its name."""
    held: threading.Event | None = None
    """Changes are carried out and answered once this is set."""
    waiting: int = 0
    """How many changes wait for it."""
    absent: set[str] = field(default_factory=set[str])
    """Forms and instances that do not exist: a call that names one of them is refused."""
    broken: set[str] = field(default_factory=set[str])
    """Instances that cannot be read by their id: DingTalk has a fault."""
    garbled: set[str] = field(default_factory=set[str])
    """Instances whose values nobody understands: neither an answer for several that has one of them."""
    answers_next: deque[tuple[int, str]] = field(default_factory=deque[tuple[int, str]])
    """Status and code of the next calls, each used once."""


class FaultyDingTalk(FakeDingTalk):
    """The fake, with faults."""

    def __init__(self, company: Company, clock: Clock, **options: Any) -> None:
        super().__init__(company, clock, **options)
        self.faults = Faults()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application."""
        if self.faults.held is not None and scope["path"] in _CHANGES:
            self.faults.waiting += 1
            await asyncio.to_thread(self.faults.held.wait)
        if self.faults.punishes:
            await Response(PUNISHMENT, media_type="text/html")(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def revoke_tokens(self) -> None:
        """Invalidate all access tokens."""
        self._tokens.clear()

    def _check(self, name: str, token: str | None, *, is_counted: bool) -> None:
        if self.faults.is_down:
            raise Refused(503, "ServiceUnavailable", "down")
        if name in self.faults.denied:
            message = f"应用尚未开通所需的权限: [{self.faults.denied[name]}]"
            raise Refused(403, wire.CODE_PERMISSION, message)
        if self.faults.answers_next:
            raise Refused(*self.faults.answers_next.popleft(), f"as configured; the token was {token}")
        self.calls_per_second, self.calls_per_month = self.faults.calls_per_second, self.faults.calls_per_month
        super()._check(name, token, is_counted=is_counted)

    def _answer_change(self) -> None:
        if self.faults.lost_answers:
            self.faults.lost_answers -= 1
            raise Refused(504, "GatewayTimeout", "no answer in time")

    def _listed_tasks(self, given: Given) -> wire.ListedTasks:
        found = super()._listed_tasks(given).result
        return wire.ListedTasks([each for at, each in enumerate(found) if at % 3 or not self.faults.short_lists])

    def _instances(self, given: Given) -> wire.InstancePage:
        if given.fields["formUuid"] in self.faults.absent:
            raise Refused(400, "invalidState.form.pageInstanceNotFound", "页面不存在")
        return super()._instances(given)

    def _instance(self, given: Given) -> wire.Instance:
        if given.path_end in self.faults.broken:
            raise Refused(500, "InternalError", "system error")
        return super()._instance(given)

    def _instances_by_id(self, given: Given) -> wire.InstanceList:
        if self.faults.absent & {*given.fields["processInstanceIds"].split(",")}:
            raise Refused(400, "invalidState.form.dataDoesNotExistOrIsDeleted", "数据不存在或已删除")
        if self.faults.garbled & {*given.fields["processInstanceIds"].split(",")}:
            return wire.InstanceList([wire.Instance("?", data=5)])  # pyright: ignore[reportArgumentType]
        return super()._instances_by_id(given)

    def _listed(self, app_type: str) -> list[TrueInstance]:
        return self._known(app_type, late_ms=self.faults.lag_ms)

    def _cut(self, rows: list[Any], given: Given) -> list[Any]:
        if self.faults.repeats:
            step = int(given.fields.get(wire.PAGE_SIZE, 10)) - 1
            rows = [row for at in range(0, len(rows), step) for row in rows[max(0, at - 1) : at + step]]
        found = super()._cut(rows, given)
        return found[:-1] if self.faults.short_pages else found

    def _time(self, at_ms: int) -> str:
        if not self.faults.exact_times:
            return by_minute(at_ms)
        return f"{datetime.fromtimestamp(at_ms // 1000, timezone.utc):%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"  # noqa: UP017
