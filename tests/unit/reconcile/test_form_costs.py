"""What the values of forms cost in calls of DingTalk's API, besides the lists, which a pass reads anyway.

docs/how-to/find-what-was-missed.md quotes the figures of five days: ``TASKBRIDGE_DAYS=5 pytest -s``.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from support.form_topics import forms, truth, values
from support.reconcile import APP_TYPE, company_life
from taskbridge.dingtalk import wire
from taskbridge.dingtalk.times import DAY_MS
from taskbridge.reconcile.budget import Allowance

if TYPE_CHECKING:
    from pathlib import Path

DAYS = int(os.environ.get("TASKBRIDGE_DAYS", "1"))
MINUTE_S = 60


@pytest.mark.parametrize(
    ("callbacks_per_day", "calls_per_day", "most"), [(240, 250, 3000), (240, 10_000, 7500), (2400, 250, 600)]
)
async def test_a_thousand_changed_instances_cost_few_calls(
    tmp_path: Path, callbacks_per_day: int, calls_per_day: int, most: int
) -> None:
    # Two apps; one of them is followed.
    step_ms = DAY_MS // callbacks_per_day // 2
    life = company_life(9, 2 * callbacks_per_day * DAYS, step_ms=step_ms)
    events = [each for each in life if each.app_type == APP_TYPE]
    allowance = Allowance(per_second=10, per_day=calls_per_day, per_month=10 * calls_per_day)
    async with forms(tmp_path, *events, allowance=allowance, scanned=()) as found:
        left = list(events)
        for _ in range((DAYS + 1) * 24 * 60):
            found.api.clock.pass_s(MINUTE_S)
            while left and left[0].occurred_at <= found.api.clock.now_ms():
                found.topics.arrive(left.pop(0))
            await found.run()
        assert values(found) == truth(found)
        changed = len({each.instance_id for each in events})
        made = found.api.dingtalk.calls[wire.GetInstancesByIdList.path]
        figure = f"{made * 1000 // changed} calls for a thousand instances"
        sys.stdout.write(f"{callbacks_per_day} callbacks, {calls_per_day} calls a day: {figure}\n")
        assert made * 1000 <= most * changed
