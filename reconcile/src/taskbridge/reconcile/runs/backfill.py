"""Brings an app's history in: whatever was modified since some moment, a slice of days after the other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from taskbridge.reconcile.dingtalk import wire
from taskbridge.reconcile.dingtalk.api import By, Days
from taskbridge.reconcile.dingtalk.moments import DAY_MS, day_of
from taskbridge.reconcile.kept.cursors import Place
from taskbridge.reconcile.runs.mending import BACKFILL, Mender, Tally
from taskbridge.reconcile.runs.windows import read_form

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.reconcile.clock import Clock
    from taskbridge.reconcile.dingtalk.api import YidaApi
    from taskbridge.reconcile.runs.mending import Kept, Outbox, Rules

_DETAIL_CALLS = 2


class Estimate(NamedTuple):
    """What a backfill takes, as DingTalk counts its instances now."""

    forms: int
    instances: int
    list_calls: int
    detail_calls: int
    """At most: of each instance, its open tasks and what was done. What is known already takes none."""


async def estimate(api: YidaApi, clock: Clock, *, since_ms: int) -> Estimate:
    """Ask for how many there are: a call for each form, beside that for the forms. Raises what calls may."""
    days = Days(day_of(since_ms - DAY_MS), day_of(clock.now_ms() + DAY_MS))
    counts = [await api.count(form.form_uuid, days, by=By.MODIFIED) for form in await api.forms()]
    pages = sum(max(1, math.ceil(each / wire.PAGE_ROWS)) for each in counts)
    return Estimate(len(counts), sum(counts), pages, _DETAIL_CALLS * sum(counts))


class Backfill:
    """Of one app. Started again, it goes on where it was given up; after its end, from the beginning."""

    def __init__(
        self, api: YidaApi, kept: Kept, outbox: Outbox, clock: Clock, rules: Rules, *, told: Callable[[Tally], None]
    ) -> None:
        """``told`` hears how far it is, for each page."""
        self.tally = Tally()
        self._mender = Mender(api, kept, outbox, clock, rules, work=BACKFILL, tally=self.tally, told=told)

    async def run(self, since_ms: int) -> None:
        """Bring all of it in.

        Raises:
            Later, Refused, Unexpected: calls do; what was brought in stands.
            OperatorError: Kafka does not take an event.
        """
        api, kept = self._mender.api, self._mender.kept
        forms = await api.forms()
        for form in forms:
            await read_form(self._mender, form, since_ms)
        for form in forms:
            kept.cursors.drop(Place(BACKFILL, api.app.corp_id, api.app.app_type, form.form_uuid))
