"""Delegations that are agents at Yida too: written there, and taken back, once each.

They are rows of the table of decisions, which the same dispatcher sends, as comments are: see ``api.talk``.
``instance_id`` is the delegation's id, ``recipient_id`` the agent, and ``remark`` from when until when, in ms.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from sqlalchemy import func, insert, or_, select, update

from taskbridge.center.access.audit import append_of
from taskbridge.center.access.delegations import ALL
from taskbridge.center.access.refusals import TooManyQueries
from taskbridge.center.actions.store import (
    ACCEPTED,
    DONE,
    ENDED,
    OVERTAKEN,
    REQUESTED,
    SENDING,
    SHOWN_MS,
    UNCLEAR,
    Action,
    is_over,
)
from taskbridge.center.actions.targets import AGENT, AGENT_END, AGENTS, AgentName
from taskbridge.center.tables import actions, delegations, of_person
from taskbridge.runtime.refusals import BadQuery
from taskbridge.schemas.events import SOURCE_YIDA

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

    from taskbridge.center.access.access import Caller
    from taskbridge.center.access.delegations import Delegation
    from taskbridge.center.actions.systems import Systems
    from taskbridge.center.tables import Person
    from taskbridge.runtime.database import Database

NEAR_MS = 120_000
"""Yida's list has minutes: agents of the same people whose times differ by less cannot be told apart there."""
MOST_A_DAY = 10
"""Agents that a person writes: each costs calls of the corp."""


class Agents:
    """Both changes are part of the transaction that gives or ends the delegation."""

    def __init__(self, database: Database, systems: Systems) -> None:
        self._database, self._systems = database, systems

    def writes(self, corp_id: str) -> bool:
        return self._systems.writes_agents(corp_id)

    def write(self, connection: Connection, given: Delegation, *, caller: Caller, address: str, now: int) -> None:
        """Record that a delegation is to be an agent. Raises BadQuery, TooManyQueries."""
        if not self.writes(given.corp_id):
            raise BadQuery("delegations of this organisation cannot be written to Yida")
        if (given.app_type, given.process_name) != (ALL, ALL):
            raise BadQuery("only a delegation of all tasks can be written to Yida")
        own = of_person(actions, (given.corp_id, given.user_id))
        day = own, actions.c.action == AGENT, actions.c.requested_at > now - SHOWN_MS
        if connection.execute(select(func.count()).select_from(actions).where(*day)).scalar_one() >= MOST_A_DAY:
            raise TooManyQueries(f"{MOST_A_DAY} delegations a day can be written to Yida", retry_after_s=3600)
        if any(_is_alike(each, given) for each in self._there(connection, given)):
            raise BadQuery("this delegation is at Yida already, or being removed there: choose other days, or end it")
        self._record(connection, caller, given, AGENT, address, now, now)

    def take_back(self, connection: Connection, ended: Delegation, *, caller: Caller, address: str, now: int) -> None:
        """Record that the agent is to be removed, if Yida may have it. One whose time is over has ended there."""
        own = of_person(actions, (ended.corp_id, ended.user_id))
        its = own, actions.c.instance_id == ended.delegation_id, actions.c.action == AGENT
        row = connection.execute(select(actions).where(*its).with_for_update()).first()
        if row is None:
            return
        action = Action(*row)
        if action.due_at is not None:
            over = DONE if action.status == ACCEPTED else OVERTAKEN
            same = actions.c.action_id == action.action_id
            connection.execute(update(actions).where(same).values(status=over, due_at=None))
            append_of(connection, self._database, caller, ENDED, f"{action.action_id} {over}", address=address)
        if action.status != REQUESTED and not is_over(action) and ended.ends_at > now:
            # Not before a call that may be under way has ended.
            until = action.due_at if action.status in (SENDING, UNCLEAR) else None
            self._record(connection, caller, ended, AGENT_END, address, now, max(now, (until or 0) + 1))

    def shown(self, person: Person, *, now: int) -> list[Action]:
        """Those of delegations that have not ended, under way, and of the last day: the latest first."""
        own = of_person(actions, person), actions.c.action.in_(AGENTS)
        young = or_(actions.c.requested_at > now - SHOWN_MS, _may_be_there(person))
        with self._database.read() as connection:
            query = select(actions).where(*own, young).order_by(actions.c.requested_at.desc())
            return [Action(*row) for row in connection.execute(query)]

    def _there(self, connection: Connection, given: Delegation) -> list[Action]:
        """Those from this person to this delegate that Yida may have."""
        person = given.corp_id, given.user_id
        its = of_person(actions, person), actions.c.recipient_id == given.delegate_id, actions.c.action.in_(AGENTS)
        found = (Action(*row) for row in connection.execute(select(actions).where(*its, _may_be_there(person))))
        return [each for each in found if not is_over(each)]

    def _record(  # noqa: PLR0917 - of both
        self, connection: Connection, caller: Caller, of: Delegation, name: AgentName, address: str, now: int, due: int
    ) -> None:
        its = uuid.uuid4().hex, of.corp_id, of.user_id, of.user_id, of.delegation_id, f" {name}", f" {SOURCE_YIDA}"
        what = "", name, of.delegate_id, f"{of.starts_at} {of.ends_at}", REQUESTED, "", 0, now, due
        action = Action(*its, *what)
        connection.execute(insert(actions).values(action._asdict()))
        append_of(connection, self._database, caller, name, action.action_id, address=address)


def _may_be_there(person: Person) -> ColumnElement[bool]:
    """Whether an action is under way, or of a delegation by this person that lasts."""
    lasting = select(delegations.c.delegation_id).where(of_person(delegations, person))
    return or_(actions.c.due_at.is_not(None), actions.c.instance_id.in_(lasting))


def _is_alike(action: Action, given: Delegation) -> bool:
    starts, _, ends = action.remark.partition(" ")
    return abs(int(starts) - given.starts_at) < NEAR_MS and abs(int(ends) - given.ends_at) < NEAR_MS
