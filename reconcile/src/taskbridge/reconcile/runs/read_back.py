"""Between passes: instances whose callbacks left something open are asked for, once nothing was told for a while."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from taskbridge.reconcile.dingtalk.errors import Absent, Later, Refused, Unexpected
from taskbridge.reconcile.kept.states import StatesBehind
from taskbridge.reconcile.runs.mending import READ_BACK, Mender, Tally

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from taskbridge.reconcile.clock import Clock
    from taskbridge.reconcile.dingtalk.api import YidaApi
    from taskbridge.reconcile.kept.budget import Budget
    from taskbridge.reconcile.runs.mending import Kept, Outbox, Rules

_LOOK_S = 60.0

_log = structlog.stdlib.get_logger(__name__)


class ReadBack:
    """However many callbacks of an instance came, it is asked for once after the last. Off where no time is set."""

    def __init__(
        self,
        apis: Sequence[YidaApi],
        kept: Kept,
        outbox: Outbox,
        clock: Clock,
        rules: Rules,
        *,
        budget: Budget,
        catch_up: Callable[[], Awaitable[None]],
    ) -> None:
        self._apis, self._kept, self._outbox, self._clock, self._budget = apis, kept, outbox, clock, budget
        # Nothing is asked of DingTalk before its callbacks had the time to come.
        self._quiet_ms = max(rules.read_back_ms, rules.settle_ms) if rules.read_back_ms else 0
        self._rules = replace(rules, outcomes=True)
        self._catch_up = catch_up

    async def work_for(self, seconds: float) -> None:
        """Return after so long; look every minute of it for what has become quiet. Raises as ``run``."""
        until_ms = self._clock.now_ms() + seconds * 1000
        while (left_s := (until_ms - self._clock.now_ms()) / 1000) > 0:
            await self._clock.sleep(min(left_s, _LOOK_S) if self._quiet_ms else left_s)
            if self._quiet_ms and self._clock.now_ms() < until_ms:
                await self.run()

    async def run(self) -> Tally:
        """Ask for all that is quiet by now, as long as more than half of a day's calls are left: passes come first.

        Raises:
            OperatorError: Kafka does not give the states, or does not take an event.
        """
        tally, closed = Tally(), set[str]()
        try:
            await self._catch_up()
        except StatesBehind as error:
            _log.info("read_back_postponed", problem=str(error))
            return tally
        known_ms = self._kept.states.current_ms
        for api in self._apis:
            mender = Mender(api, self._kept, self._outbox, self._clock, self._rules, work=READ_BACK, tally=tally)
            for instance_id in self._kept.questions.due(
                api.app.corp_id, api.app.app_type, now_ms=known_ms, quiet_ms=self._quiet_ms
            ):
                if api.app.corp_id in closed or not self._may_ask(api.app.corp_id):
                    break
                try:
                    await self._ask(mender, instance_id)
                except Later as error:
                    closed.add(api.app.corp_id)
                    _log.warning("read_back_stopped", corp_id=api.app.corp_id, problem=str(error))
        if tally.rows:
            _log.info("read_back", asked=tally.rows, repairs=tally.repairs.total())
        return tally

    def _may_ask(self, corp_id: str) -> bool:
        return 2 * self._budget.left(corp_id) > self._budget.allowance.per_day

    async def _ask(self, mender: Mender, instance_id: str) -> None:
        try:
            settled = await mender.ask_again(instance_id)
        except Absent:
            settled = True
        except (Refused, Unexpected) as error:
            # No answer to wait for: a pass looks at it in its turn.
            _log.error("instance_not_read", app_type=mender.api.app.app_type, problem=str(error))
            settled = True
        if settled:
            self._kept.questions.close(instance_id)
        else:
            self._kept.questions.wait(instance_id, now_ms=self._clock.now_ms())
