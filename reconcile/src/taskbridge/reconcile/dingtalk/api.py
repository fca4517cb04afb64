"""What is asked of one app: its forms, their instances by time, and what is to be done and was done in each."""

from __future__ import annotations

import math
from datetime import date, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn
from urllib.parse import quote

from taskbridge.reconcile.dingtalk import wire
from taskbridge.reconcile.dingtalk.errors import Unreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from taskbridge.reconcile.apps import App
    from taskbridge.reconcile.clock import Clock
    from taskbridge.reconcile.dingtalk.calls import Calls

IDS_A_CALL = 50
"""The documents give no bound; an address of so many ids is two kilobytes long."""
_INCOMPLETE_RETRY_MS = 60_000
_SHRINKS = 5
"""So often one query goes back to a page that was read; each time takes two calls more."""


class By(StrEnum):
    """Which of an instance's times a query goes by."""

    CREATED = "created"
    MODIFIED = "modified"


class Days(NamedTuple):
    """Whole days, `yyyy-MM-dd`, both included."""

    first: str
    last: str


class YidaApi:
    """One app's part of the open API. Every method may raise what ``Calls.get`` may."""

    def __init__(self, calls: Calls, app: App, clock: Clock) -> None:
        self.app = app
        self._calls = calls
        self._clock = clock

    async def forms(self) -> list[wire.Form]:
        """The forms that start a process: those that the administrator named, or all of the app."""
        if self.app.forms:
            return [wire.Form(form_uuid=each, form_type=wire.PROCESS) for each in self.app.forms]
        found: dict[str, wire.Form] = {}
        page = 0
        while True:
            page += 1
            request = wire.GetFormListInApp(**self._asks(), form_types=wire.PROCESS)
            answer = (await self._calls.get(request, wire.FormList, page=page)).result
            found |= {each.form_uuid: each for each in answer.data}
            if page * wire.PAGE_ROWS >= answer.total_count:
                self._check_complete(len(found), answer.total_count, "forms")
                return [*found.values()]

    async def instances(self, form_uuid: str, days: Days, *, by: By) -> AsyncIterator[list[wire.Instance]]:
        """The form's instances that were created or modified in these days, a page at a time.

        An instance may come twice. The time is DingTalk's, and whole days of its calendar: ask for a day more at both
        ends, and look at the times of what comes.

        Raises:
            Unreachable: fewer came than DingTalk counts, or rows went at page after page; those that came are right,
                but nothing is known of others.
        """
        request = self._query(form_uuid, days, by)
        first = await self._page(request, 1)
        if first.total_count <= wire.QUERY_ROWS:
            async for rows in self._pages(request, first):
                yield rows
        elif days.first < days.last:
            for half in _halves(days):
                async for rows in self.instances(form_uuid, half, by=by):
                    yield rows
        else:
            # More in one day than a query gives: in each state there may be fewer.
            for status in (wire.RUNNING, wire.COMPLETED, wire.TERMINATED, wire.ERROR):
                narrower = self._query(form_uuid, days, by, status)
                async for rows in self._pages(narrower, await self._page(narrower, 1)):
                    yield rows

    async def count(self, form_uuid: str, days: Days, *, by: By) -> int:
        """How many instances such a query gives, for one call."""
        return (await self._page(self._query(form_uuid, days, by), 1)).total_count

    async def instance(self, instance_id: str) -> wire.Instance:
        """One instance.

        Raises:
            Absent: there is none, as DingTalk says.
        """
        return await self._calls.get(
            wire.GetInstanceById(**self._asks()), wire.Instance, path_end=quote(instance_id, safe="")
        )

    async def instances_by_id(self, ids: Iterable[str]) -> dict[str, wire.Instance]:
        """Those of the instances that DingTalk shows, without their times. One that is missing may exist."""
        found: dict[str, wire.Instance] = {}
        for some in _batches([*dict.fromkeys(ids)]):
            request = wire.GetInstancesByIdList(**self._asks(), process_instance_ids=",".join(some))
            answer = await self._calls.get(request, wire.InstanceList)
            found |= {each.process_instance_id: each for each in answer.result}
        return found

    async def running_tasks(self, instance_id: str) -> list[wire.RunningTask]:
        """What is to be done in the instance now."""
        request = wire.GetRunningTasks(**self._asks(), process_instance_id=instance_id)
        return (await self._calls.get(request, wire.RunningTaskList)).result

    async def operation_records(self, instance_id: str) -> list[wire.OperationRecord]:
        """What was done in the instance, and what is to be done, in DingTalk's order."""
        request = wire.GetOperationRecords(**self._asks(), process_instance_id=instance_id)
        return (await self._calls.get(request, wire.OperationRecordList)).result

    async def _pages(self, request: wire.GetInstances, first: wire.InstancePage) -> AsyncIterator[list[wire.Instance]]:
        answer, page, shrunk = first, 1, 0
        came = set[str]()
        while True:
            came.update(each.process_instance_id for each in answer.data)
            yield answer.data
            # Rows that came twice push others behind the last page that DingTalk counts: that one must be short.
            is_last = page * wire.PAGE_ROWS >= min(answer.total_count, wire.QUERY_ROWS)
            if is_last and (len(answer.data) < wire.PAGE_ROWS or page * wire.PAGE_ROWS >= wire.QUERY_ROWS):
                break
            page, total = page + 1, answer.total_count
            while (answer := await self._page(request, page)).total_count < total:
                # Rows were deleted, or modified since: the rows behind them moved up, onto pages that were read.
                shrunk += 1
                if shrunk > _SHRINKS:
                    self._incomplete("rows disappeared while they were read")
                page = max(1, page - math.ceil((total - answer.total_count) / wire.PAGE_ROWS))
                total = answer.total_count
        self._check_complete(len(came), answer.total_count, "instances")

    async def _page(self, request: wire.GetInstances, page: int) -> wire.InstancePage:
        return await self._calls.post(request, wire.InstancePage, page=page)

    def _check_complete(self, came: int, total: int, what: str) -> None:
        if came < total:
            self._incomplete(f"DingTalk returned {came} of {total} {what}")

    def _incomplete(self, why: str) -> NoReturn:
        retry_at_ms = self._clock.now_ms() + _INCOMPLETE_RETRY_MS
        raise Unreachable(f"{self.app.app_type}: {why}", retry_at_ms=retry_at_ms)

    def _query(self, form_uuid: str, days: Days, by: By, status: str | None = None) -> wire.GetInstances:
        times = {
            f"{'create' if by is By.CREATED else 'modified'}_{end}_time": day
            for end, day in zip(("from", "to"), days, strict=True)
        }
        return wire.GetInstances(
            **self._asks(), **times, form_uuid=form_uuid, instance_status=status, order_config_json=wire.OLDEST_FIRST
        )

    def _asks(self) -> dict[str, Any]:
        return {
            "app_type": self.app.app_type,
            "system_token": self.app.system_token.get_secret_value(),
            "user_id": self.app.user_id,
        }


def _halves(days: Days) -> tuple[Days, Days]:
    first, last = date.fromisoformat(days.first), date.fromisoformat(days.last)
    middle = first + (last - first) // 2
    return Days(days.first, middle.isoformat()), Days((middle + timedelta(days=1)).isoformat(), days.last)


def _batches(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[at : at + IDS_A_CALL] for at in range(0, len(ids), IDS_A_CALL))
