"""``/v1/ops/corps/{corp_id}/users/{user_id}/hand-over``: an operator hands over all tasks of a person who leaves."""

# pyright: reportUnusedFunction=false

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from starlette.requests import Request  # noqa: TC002 - FastAPI resolves the handlers' annotations
from starlette.responses import Response  # noqa: TC002

from taskbridge.center.access.access import address_of
from taskbridge.center.api import models
from taskbridge.center.api.guard import CorpId, OperatorInPerson, UserId, guarded_router
from taskbridge.center.api.routes import JsonAnswer
from taskbridge.runtime.database import Threads, clean, now_ms

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import APIRouter

    from taskbridge.center.access.access import Access
    from taskbridge.center.actions.store import Actions, Leaving
    from taskbridge.center.actions.systems import Systems


_TOGETHER = 25
"""Tasks of one transaction: other writers wait for it, in SQLite all of them."""


def leavers_router(
    access: Access, store: Actions, threads: Threads, *, systems: Systems, wake: Callable[[], None]
) -> APIRouter:
    """``wake`` is called when something was requested."""
    router = guarded_router(access, "operations")
    path = "/ops/corps/{corp_id}/users/{user_id}/hand-over"

    def read(corp_id: str, user_id: str) -> Leaving:
        return store.leaving((corp_id, clean(user_id)), systems, now=now_ms())

    @router.get(path, summary="Preview and progress of a hand-over", response_model=models.LeavingOut)
    async def preview(request: Request, caller: OperatorInPerson, corp_id: CorpId, user_id: UserId) -> Response:
        """The person's pending tasks by process, and what became of those that were handed over within a day."""
        await access.record_read(request, caller, (corp_id, user_id))
        return _answer(await threads.run(read, corp_id, user_id))

    @router.post(path, summary="Hand over all pending tasks of a person", response_model=models.LeavingOut)
    async def hand_over(
        request: Request, caller: OperatorInPerson, corp_id: CorpId, user_id: UserId, body: models.ReassignIn
    ) -> Response:
        """Records the oldest 200 that are not under way, and sends each to its system once.

        Again: the next ones, and last those that failed. What is recorded goes on after a restart.
        """
        await access.record_read(request, caller, (corp_id, user_id))
        leaver, to, address = (corp_id, clean(user_id)), clean(body.recipient_id), address_of(request)
        wanted = await threads.run(lambda: store.to_reassign(caller, leaver, to, body.remark, systems, now=now_ms()))
        recorded = 0
        for at in range(0, len(wanted), _TOGETHER):
            some = wanted[at : at + _TOGETHER]
            record = partial(store.reassign, caller, some, systems, address=address, now=now_ms())
            recorded += len(await threads.write(record))
        wake()
        return _answer(await threads.run(read, corp_id, user_id), recorded)

    return router


def _answer(found: Leaving, recorded: int = 0) -> Response:
    processes: list[models.LeftProcessOut] = [
        {
            "app_type": each.app_type,
            "process_name": each.process_name,
            "source": each.source,
            "pending": each.pending,
            "is_possible": each.is_possible,
        }
        for each in found.processes
    ]
    answer: models.LeavingOut = {
        "processes": processes,
        "handed": found.handed,
        "staying": found.staying,
        "recorded": recorded,
    }
    return JsonAnswer(answer)
