"""What people decide in the task center: requests to agree, refuse, hand over and withdraw, and what became of them."""

# pyright: reportUnusedFunction=false

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from starlette.requests import Request  # noqa: TC002 - FastAPI resolves the handlers' annotations
from starlette.responses import Response  # noqa: TC002

from taskbridge.center.access.access import address_of
from taskbridge.center.actions.store import Action, ActionRequest, Actions
from taskbridge.center.api import models
from taskbridge.center.api.guard import CorpId, InPerson, Reader, UserId, guarded_router
from taskbridge.center.api.routes import JsonAnswer, Limit, Q
from taskbridge.runtime.database import Threads, now_ms
from taskbridge.runtime.refusals import Forbidden
from taskbridge.schemas.cloudevents import iso

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from fastapi import APIRouter

    from taskbridge.center.access.access import Access
    from taskbridge.center.actions.systems import Systems
    from taskbridge.center.actions.targets import ActionName, Possible


def actions_router(
    access: Access,
    store: Actions,
    people: Callable[[str, Collection[str], int], models.PeopleOut],
    threads: Threads,
    *,
    systems: Systems,
    wake: Callable[[], None],
) -> APIRouter:
    """``…/users/{user_id}/actions``.

    ``people`` finds people by a text; ``wake`` is called when something was requested.
    """
    router = guarded_router(access, "actions")
    user = "/corps/{corp_id}/users/{user_id}"

    @router.get(
        f"{user}/actions", summary="Possible actions, and those of the last day", response_model=models.ActionsOut
    )
    async def shown(caller: Reader, corp_id: CorpId, user_id: UserId) -> Response:
        person = corp_id, user_id
        found = await threads.run(lambda: store.shown(person, now=now_ms()))
        if not caller.is_person(*person):
            return _answer(found, [], "not-yours" if caller.mode == "sso" else "not-signed-in")
        return _answer(found, systems.possible(corp_id))

    @router.post(f"{user}/actions", summary="Decide tasks, or withdraw requests", response_model=models.ActionsOut)
    async def act(
        request: Request, caller: InPerson, corp_id: CorpId, user_id: UserId, body: models.ActionIn
    ) -> Response:
        """Records what the person wants, and sends it to the systems that the tasks are of.

        Only a person who signed in may do so, for tasks that are pending with them or delegated to them, or requests
        of their own. `items` has each of them: REQUESTED, or REFUSED with the reason. The same request again has no
        further effect while the first one is under way.
        """
        to, remark = body.recipient_id or "", body.remark
        wanted = [
            ActionRequest(
                each.user_id or user_id,
                each.instance_id,
                each.task_id or "",
                body.action,
                to,
                remark,
                each.seen_revision,
                each.seen_form,
            )
            for each in body.items
        ]
        address, now = address_of(request), now_ms()
        found = await threads.write(lambda: store.request(caller, wanted, systems, address=address, now=now))
        wake()
        return _answer(found, systems.possible(corp_id))

    @router.get(
        f"{user}/colleagues",
        summary="People to whom tasks may be handed over or delegated",
        response_model=models.PeopleOut,
    )
    async def colleagues(_: InPerson, corp_id: CorpId, q: Q = "", limit: Limit = 20) -> Response:
        """Returns imported people of the corp with `q` in name, department or user id, for a person who may act."""
        if not systems.possible(corp_id):
            raise Forbidden("nothing can be decided here")
        return JsonAnswer(await threads.run(people, q, (corp_id,), limit))

    return router


def _answer(
    found: Sequence[Action], possible: Sequence[Possible], reason: models.WhyNothing = "not-possible"
) -> Response:
    """``reason``: why nothing is possible, if so."""
    answer: models.ActionsOut = {
        "possible": [_possible(each) for each in possible],
        "reason": None if possible else reason,
        "items": [_shown(each) for each in found],
    }
    return JsonAnswer(answer)


def _possible(possible: Possible) -> models.PossibleOut:
    return {
        "source": possible.source,
        "app_type": possible.app_type,
        "numeric_task_ids": possible.numeric_task_ids,
        "actions": possible.actions,
    }


def _shown(action: Action) -> models.ActionOut:
    return {
        "action_id": action.action_id or None,
        "instance_id": action.instance_id,
        "task_id": action.task_id or None,
        "action": cast("ActionName", action.action),  # those of TALK are not shown here
        "user_id": action.user_id,
        "actor_id": action.actor_id,
        "recipient_id": action.recipient_id or None,
        "remark": action.remark,
        "status": action.status,
        "detail": action.detail or None,
        "requested_at": iso(action.requested_at),
    }
