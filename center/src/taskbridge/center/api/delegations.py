"""Delegations of the signed-in person, and the tasks that others delegated to them."""

# pyright: reportUnusedFunction=false

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import structlog
from fastapi import Path
from starlette.requests import Request  # noqa: TC002 - FastAPI resolves the handlers' annotations
from starlette.responses import Response  # noqa: TC002

from taskbridge.center.access.access import address_of
from taskbridge.center.access.delegations import Delegation, Delegations
from taskbridge.center.access.refusals import TooManyQueries
from taskbridge.center.actions.systems import Agent
from taskbridge.center.actions.targets import AGENT, AGENT_END
from taskbridge.center.api import models
from taskbridge.center.api.guard import CorpId, InPerson, UserId, guarded_router
from taskbridge.center.api.models import ID_MAX
from taskbridge.center.api.routes import JsonAnswer
from taskbridge.runtime.database import Threads, now_ms
from taskbridge.runtime.rates import Rate
from taskbridge.runtime.refusals import NotNow
from taskbridge.runtime.remembered import Remembered
from taskbridge.schemas.cloudevents import iso, optional_iso
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fastapi import APIRouter
    from sqlalchemy import Connection

    from taskbridge.center.access.access import Access
    from taskbridge.center.actions.agents import Agents
    from taskbridge.center.actions.store import Action
    from taskbridge.center.api.queries import Queries
    from taskbridge.center.tables import Person

    _ReadAgents = Callable[[Person], Coroutine[Any, Any, Sequence[Agent]]]

log = structlog.get_logger(__name__)

_CHANGES, _HOUR_S = 60, 3600.0
"""Delegations that a person may give and end in an hour: each is an entry of the audit trail for years."""
_AGENTS_S = 300.0
"""How long the answer of DingTalk is shown again."""
_CALLS, _CALLS_OF_CORP = 12, 120
"""In an hour, of a person and of a corp: the corp's calls are counted, and decisions need them."""
_WRITTEN_OF_CORP, _DAY_S = 100, 86_400.0
"""Delegations of a corp that are written to Yida in a day, by this process."""
_TOO_MANY = partial(TooManyQueries, "too many of these in an hour: try again later", retry_after_s=60)

DelegationId = Annotated[str, Path(max_length=ID_MAX, examples=["5c1f0e8ab2d94f6e8d7c3b2a1f0e9d8c"])]


def delegations_router(
    access: Access,
    store: Delegations,
    queries: Queries,
    threads: Threads,
    *,
    agents: _ReadAgents,
    at_yida: Agents,
    wake: Callable[[], None],
) -> APIRouter:
    """``…/users/{user_id}/delegations``, ``…/delegated-tasks`` and ``…/yida-agents``, for the person themself.

    ``agents`` finds those at Yida, and may raise OperatorError. ``wake`` is called when something is to be sent there.
    """
    router = guarded_router(access, "delegations")
    user = "/corps/{corp_id}/users/{user_id}"
    changes, read_agents = Rate(_CHANGES, per_s=_HOUR_S), limited(agents)
    written = Rate(_WRITTEN_OF_CORP, per_s=_DAY_S)

    async def answer(person: Person) -> Response:
        now = now_ms()
        found = await threads.run(lambda: store.given(person, now=now))
        there = await threads.run(lambda: at_yida.shown(person, now=now))
        ids = [each.delegate_id for each in found] + [each.recipient_id for each in there]
        names = await threads.run(queries.names, person[0], ids)
        written = {each.instance_id: each for each in there if each.action == AGENT}
        answer: models.DelegationsOut = {
            "items": [_shown(each, names, written.get(each.delegation_id)) for each in found],
            "may_be_at_yida": at_yida.writes(person[0]),
            "ended_at_yida": [
                {"delegate": _person(each.recipient_id, names), **_state(each)}
                for each in there
                if each.action == AGENT_END
            ],
        }
        return JsonAnswer(answer)

    @router.get(f"{user}/delegations", summary="Delegations that have not ended", response_model=models.DelegationsOut)
    async def given(_: InPerson, corp_id: CorpId, user_id: UserId) -> Response:
        return await answer((corp_id, user_id))

    @router.post(f"{user}/delegations", summary="Delegate pending tasks", response_model=models.DelegationsOut)
    async def add(
        request: Request, caller: InPerson, corp_id: CorpId, user_id: UserId, body: models.DelegationIn
    ) -> Response:
        """From `starts_at` to `ends_at`, the delegate sees these tasks, and may decide them on the person's behalf.

        With `at_yida`, which `may_be_at_yida` allows, the delegation of all tasks is an agent at Yida too.
        """
        changes.check((corp_id, user_id), _TOO_MANY)
        starts, ends = (int(each.timestamp() * 1000) for each in (body.starts_at, body.ends_at))
        scope = body.app_type or "", body.process_name or ""
        wanted = Delegation("", corp_id, user_id, body.delegate_id, *scope, starts, ends)
        address, now = address_of(request), now_ms()

        def write(connection: Connection, given: Delegation) -> None:
            at_yida.write(connection, given, caller=caller, address=address, now=now)
            written.check(corp_id, _TOO_MANY)  # last: what is refused is not counted

        also = write if body.at_yida else None
        await threads.write(lambda: store.add(caller, wanted, address=address, now=now, also=also))
        wake()
        return await answer((corp_id, user_id))

    @router.delete(
        f"{user}/delegations/{{delegation_id}}",
        summary="End a delegation",
        response_model=models.DelegationsOut,
        responses=models.problems(404),
    )
    async def end(
        request: Request, caller: InPerson, corp_id: CorpId, user_id: UserId, delegation_id: DelegationId
    ) -> Response:
        """An agent at Yida that the delegation made is removed there too."""
        person, address = (corp_id, user_id), address_of(request)
        changes.check(person, _TOO_MANY)
        also = partial(at_yida.take_back, caller=caller, address=address, now=now_ms())
        await threads.write(lambda: store.end(caller, person, delegation_id, address=address, also=also))
        wake()
        return await answer(person)

    @router.get(
        f"{user}/delegated-tasks",
        summary="Pending tasks of others, which they delegated to this person",
        response_model=models.DelegatedOut,
    )
    async def delegated(_: InPerson, corp_id: CorpId, user_id: UserId) -> Response:
        """Returns the newest 500 of all delegations that are under way."""
        return JsonAnswer(await threads.run(queries.delegated, (corp_id, user_id)))

    @router.get(
        f"{user}/yida-agents",
        summary="Who acts for this person at Yida, and for whom this person does",
        response_model=models.YidaAgentsOut,
    )
    async def yida_agents(_: InPerson, corp_id: CorpId, user_id: UserId) -> Response:
        """Queries DingTalk, where the apps file has a corp token; without one, there are none.

        The answer is stored for five minutes. 503 while DingTalk does not answer, 429 after too many queries.
        """
        try:
            found = await read_agents((corp_id, user_id))
        except OperatorError as error:
            log.warning("yida_agents_not_read", problem=str(error))
            raise NotNow("DingTalk does not say who acts for whom: see the log", retry_after_s=60) from None
        answer: models.YidaAgentsOut = {"items": [_agent(each) for each in found]}
        return JsonAnswer(answer)

    return router


def limited(agents: _ReadAgents) -> _ReadAgents:
    """As ``agents``, within limits, and with the answers that are stored."""
    calls, calls_of_corp = Rate(_CALLS, per_s=_HOUR_S), Rate(_CALLS_OF_CORP, per_s=_HOUR_S)
    remembered = Remembered[Sequence[Agent]](_AGENTS_S)

    async def call(person: Person) -> Sequence[Agent]:
        calls.check(person, _TOO_MANY)
        calls_of_corp.check(person[0], _TOO_MANY)
        return await agents(person)

    return lambda person: remembered.of(person, lambda: call(person))


def _agent(agent: Agent) -> models.YidaAgentOut:
    (user_id, name), (principal_id, principal_name) = agent.agent, agent.principal
    return {
        "agent": {"user_id": user_id, "name": name},
        "principal": {"user_id": principal_id, "name": principal_name},
        "is_for_all": agent.is_for_all,
        "starts_at": optional_iso(agent.starts_at),
        "ends_at": optional_iso(agent.ends_at),
    }


def _person(user_id: str, names: dict[str, str]) -> models.PersonOut:
    return {"user_id": user_id, "name": names.get(user_id)}


def _state(action: Action) -> models.AtYidaOut:
    return {"status": action.status, "detail": action.detail or None}


def _shown(delegation: Delegation, names: dict[str, str], written: Action | None) -> models.DelegationOut:
    return {
        "delegation_id": delegation.delegation_id,
        "delegate": _person(delegation.delegate_id, names),
        "at_yida": None if written is None else _state(written),
        "app_type": delegation.app_type or None,
        "process_name": delegation.process_name or None,
        "starts_at": iso(delegation.starts_at),
        "ends_at": iso(delegation.ends_at),
    }
