"""What a person and an operator do about assistants on the pages: proposals to confirm, and clients to refuse."""

# pyright: reportUnusedFunction=false

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import Path
from starlette.requests import Request  # noqa: TC002 - FastAPI resolves the handlers' annotations
from starlette.responses import Response  # noqa: TC002

from taskbridge.center.access.access import address_of
from taskbridge.center.api import models
from taskbridge.center.api.guard import CorpId, Known, OperatorInPerson, guarded_router
from taskbridge.center.api.routes import JsonAnswer
from taskbridge.runtime.database import Threads, now_ms

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import APIRouter

    from taskbridge.center.access.access import Access, Caller
    from taskbridge.center.assistants.clients import Clients
    from taskbridge.center.assistants.proposals import Proposals

_ProposalId = Annotated[str, Path(max_length=models.ID_MAX, examples=["P-4Jr0p3uJ2cWf6bVx1yZqTA"])]


def assistants_router(
    access: Access, clients: Clients, proposals: Proposals, threads: Threads, *, wake: Callable[[], None]
) -> APIRouter:
    """``wake`` is called when a proposal was confirmed."""
    router = guarded_router(access, "assistants")
    proposal, of_corp = "/me/proposals/{proposal_id}", "/ops/corps/{corp_id}/assistants"

    @router.get(
        proposal, summary="A proposed decision", response_model=models.ProposalOut, responses=models.problems(404)
    )
    async def shown(caller: Known, proposal_id: _ProposalId) -> Response:
        """What an assistant proposes to the person who signed in."""
        _check_person(caller)
        return JsonAnswer(await threads.run(proposals.shown, caller, proposal_id, now_ms()))

    @router.post(
        proposal, summary="Confirm or discard it", response_model=models.ProposalOut, responses=models.problems(404)
    )
    async def decide(request: Request, caller: Known, proposal_id: _ProposalId, body: models.ProposalIn) -> Response:
        """Confirms an open proposal, which is then recorded and sent as a decision of the person, or discards it.

        Again, it has no further effect. If the request has changed since the proposal, the proposal is REFUSED.
        """
        _check_person(caller)
        decision, form, address, now = body.decision, body.seen_form, address_of(request), now_ms()
        found = await threads.write(
            lambda: proposals.decide(caller, proposal_id, decision, seen_form=form, address=address, now=now)
        )
        wake()
        return JsonAnswer(found)

    @router.get(of_corp, summary="Clients of assistants", response_model=models.AssistantsOut)
    async def listed(_: OperatorInPerson, corp_id: CorpId) -> Response:
        """The clients that people of the corp used within 90 days, and those that are refused."""
        return await _clients_of(corp_id)

    @router.put(of_corp, summary="Refuse or allow a client", response_model=models.AssistantsOut)
    async def refuse(request: Request, caller: OperatorInPerson, corp_id: CorpId, body: models.AssistantIn) -> Response:
        """Refuses the access tokens of a client for all people of the corp from the next request on, or allows them."""
        address = address_of(request)
        await threads.write(lambda: clients.refuse(caller, body.client, refused=body.refused, address=address))
        return await _clients_of(corp_id)

    async def _clients_of(corp_id: str) -> Response:
        return JsonAnswer({"items": await threads.run(clients.shown, corp_id)})

    return router


def _check_person(caller: Caller) -> None:
    caller.check_in_person(caller.corp_id or "", caller.user_id or "")
