"""A pass: everything that was modified since the last one, of all apps, is looked at and mended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from taskbridge.reconcile.dingtalk.errors import Later, Refused, Unexpected, Unreachable
from taskbridge.reconcile.dingtalk.moments import DAY_MS
from taskbridge.reconcile.runs.deletions import look_for_deleted
from taskbridge.reconcile.runs.mending import RECONCILE, Mender, Tally
from taskbridge.reconcile.runs.windows import read_form

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from taskbridge.reconcile.clock import Clock
    from taskbridge.reconcile.dingtalk.api import YidaApi
    from taskbridge.reconcile.runs.mending import Kept, Outbox, Rules

_FIRST_MS = DAY_MS
"""So far back the first pass over a form looks: what was before is brought in by a backfill."""

_log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class PassReport:
    tally: Tally = field(default_factory=Tally)
    problems: dict[str, str] = field(default_factory=dict[str, str])
    """Why, by app, not all of it was looked at."""
    retry_at_ms: int | None = None
    """From when on it is of use to go on; None where that is as good as any time."""

    @property
    def is_whole(self) -> bool:
        return not self.problems


class Passes:
    def __init__(
        self,
        apis: Sequence[YidaApi],
        kept: Kept,
        outbox: Outbox,
        clock: Clock,
        rules: Rules,
        *,
        catch_up: Callable[[], Awaitable[None]],
    ) -> None:
        """``catch_up`` has the stored states be those of the topic, and ``current_ms`` the moment of the call."""
        self._apis, self._kept, self._outbox, self._clock, self._rules = apis, kept, outbox, clock, rules
        self._catch_up = catch_up

    async def run(self) -> PassReport:
        """Make one pass. What DingTalk refuses, or is not to be asked now, is in the report: the rest is done.

        Raises:
            StatesBehind: the workers are behind the events; DingTalk was not asked.
            OperatorError: Kafka does not give the states, or does not take an event.
        """
        await self._catch_up()
        report = PassReport()
        closed: dict[str, Later] = {}
        for api in self._apis:
            app = api.app
            try:
                if app.corp_id in closed:
                    raise closed[app.corp_id]
                await self._look_at(api, report)
            except Later as error:
                closed[app.corp_id] = error
                report.retry_at_ms = max(report.retry_at_ms or 0, error.retry_at_ms)
                report.problems[app.app_type] = str(error)
            except (Refused, Unexpected) as error:
                report.problems[app.app_type] = str(error)
                _log.error("app_not_read", app_type=app.app_type, problem=str(error))
        self._kept.questions.drop_old(now_ms=self._clock.now_ms())
        self._kept.found.pass_ended(now_ms=self._clock.now_ms(), is_whole=report.is_whole)
        return report

    async def _look_at(self, api: YidaApi, report: PassReport) -> None:
        self._kept.callbacks.listen(api.app.corp_id, api.app.app_type, now_ms=self._clock.now_ms())
        mender = Mender(api, self._kept, self._outbox, self._clock, self._rules, work=RECONCILE, tally=report.tally)
        incomplete: Unreachable | Unexpected | None = None
        for form in await api.forms():
            rows = report.tally.rows
            try:
                await read_form(mender, form, self._clock.now_ms() - _FIRST_MS)
            except (Unreachable, Unexpected) as error:
                if report.tally.rows == rows:
                    raise
                # Some of it came: so will the other forms.
                incomplete = error
        await look_for_deleted(mender)
        if incomplete is not None:
            raise incomplete
