"""Decisions that assistants prepare: for one person and one revision of the instance, until the person confirms.

Nothing is sent before. The confirmation, or a rule of the administrator, records it, in one transaction, as a decision
of the person.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Literal, NamedTuple

from sqlalchemy import insert, select, update

from taskbridge.center.access.audit import CONFIRMED, DECIDED, DISCARDED, PROPOSED, append_of
from taskbridge.center.access.refusals import TooManyQueries
from taskbridge.center.actions.store import REQUESTED, ActionRequest, Actions
from taskbridge.center.api import models
from taskbridge.center.api.queries import find_state
from taskbridge.center.tables import Person, actions, lock_of, of_person, proposals
from taskbridge.runtime.database import Database, clean
from taskbridge.runtime.refusals import BadQuery, Unknown
from taskbridge.schemas.cloudevents import iso

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from taskbridge.center.access.access import Caller
    from taskbridge.center.actions.systems import Systems
    from taskbridge.center.tables import Complete

ProposedName = Literal["agree", "refuse", "return"]
ProposalStatus = Literal["OPEN", "EXPIRED", "DISCARDED", "CONFIRMED", "REFUSED"]
CONFIRM, DISCARD = "confirm", "discard"
PROPOSED_AN_HOUR = 10
"""By one client for one person."""
_HOUR_MS, _STORED_MS = 3_600_000, 86_400_000
_DISCARDED_MS = 90 * _STORED_MS
"""How long a person who discarded one is asked about its task in spite of the rules."""


class Proposal(NamedTuple):
    """A row, in the order of the columns."""

    proposal_id: str
    corp_id: str
    user_id: str
    client: str
    instance_id: str
    task_id: str
    action: ProposedName
    remark: str
    revision: int
    proposed_at: int
    expires_at: int
    decision: str = ""
    action_id: str = ""
    detail: str = ""

    def status(self, now: int) -> ProposalStatus:
        if not self.decision:
            return "OPEN" if now < self.expires_at else "EXPIRED"
        return "DISCARDED" if self.decision == DISCARD else "CONFIRMED" if self.action_id else "REFUSED"


class Proposals:
    """Every method blocks, and raises DatabaseUnavailable if the database does not answer."""

    def __init__(
        self, database: Database, store: Actions, systems: Systems, complete: Complete, *, lasts_ms: int
    ) -> None:
        self._database, self._store, self._systems, self._complete = database, store, systems, complete
        self._lasts_ms = lasts_ms

    def propose(  # noqa: PLR0917 - of the tool
        self,
        caller: Caller,
        instance_id: str,
        task_id: str,
        action: ProposedName,
        remark: str,
        revision: int | None,
        *,
        address: str,
        now: int,
    ) -> Proposal:
        """Store a proposal with the audit trail; one that is open, or on its way to be sent, is returned as it is.

        The caller's name is the client.

        Raises BadQuery if it would be refused now, Unknown, TooManyQueries.
        """
        person = _person_of(caller)
        with self._database.write(durable=True) as connection, self._complete(connection):
            state = find_state(connection, instance_id, caller)
            self._database.lock(connection, lock_of(person))
            made = Proposal(
                f"P-{secrets.token_urlsafe(16)}",
                *person,
                clean(caller.name or ""),
                clean(instance_id),
                clean(task_id),
                action,
                clean(remark),
                state.revision if revision is None else revision,
                now,
                now + self._lasts_ms,
            )
            its = (
                of_person(proposals, person),
                proposals.c.client == made.client,
                proposals.c.proposed_at > now - _HOUR_MS,
            )
            earlier = [Proposal(*row) for row in connection.execute(select(proposals).where(*its))]
            is_theirs = actions.c.action_id.in_([each.action_id for each in earlier if each.action_id])
            query = select(actions.c.action_id).where(is_theirs, actions.c.due_at.is_not(None))
            under_way = set(connection.execute(query).scalars())
            for each in earlier:
                is_open = each[1:9] == made[1:9] and each.status(now) == "OPEN"
                if is_open or (each[1:7] == made[1:7] and each.action_id in under_way):
                    return each
            if len(earlier) >= PROPOSED_AN_HOUR:
                raise TooManyQueries(f"{PROPOSED_AN_HOUR} proposals in an hour are the most", retry_after_s=3600)
            checked = self._store.checked(connection, caller, _request(made), self._systems, now)
            if checked.status != REQUESTED:
                raise BadQuery(f"it would be refused: {checked.detail}")
            connection.execute(insert(proposals).values(made._asdict()))
            subject = f"{made.proposal_id} {made.client}"
            append_of(connection, self._database, caller, PROPOSED, subject, address=address)
            return made

    def decide(
        self,
        caller: Caller,
        proposal_id: str,
        decision: str,
        *,
        seen_form: str = "",
        rule: str = "",
        address: str,
        now: int,
    ) -> models.ProposalOut:
        """Confirm or discard an open proposal of the caller's. What was decided or has expired stays as it is.

        ``seen_form``: as of an action. ``rule``: by which it needs no confirmation of the person; it stays open if it
        cannot be recorded, or if the person discarded one for the same task.
        """
        person = _person_of(caller)
        with self._database.write(durable=True) as connection, self._complete(connection):
            self._database.lock(connection, lock_of(person))
            found = self._find(connection, person, proposal_id)
            if found.status(now) == "OPEN" and not (rule and _was_discarded(connection, found)):
                action_id, detail = "", ""
                if decision == CONFIRM:
                    wanted = _request(found, seen_form, rule)
                    [action] = self._store.record(connection, caller, [wanted], self._systems, address, now)
                    action_id, detail = action.action_id, action.detail
                    # Another decision is under way, perhaps of the person.
                    if action.action != found.action or (rule and action.remark != wanted.remark):
                        action_id, detail = "", "not-pending"
                if action_id or not rule:
                    values = {"decision": decision, "action_id": action_id, "detail": detail if not action_id else ""}
                    its = proposals.c.proposal_id == found.proposal_id
                    connection.execute(update(proposals).where(its).values(values))
                    what = DECIDED if rule else CONFIRMED if decision == CONFIRM else DISCARDED
                    subject = f"{found.proposal_id} {found.client} {rule}".rstrip()
                    append_of(connection, self._database, caller, what, subject, address=address)
            return self._shown(connection, caller, proposal_id, now)

    def shown(self, caller: Caller, proposal_id: str, now: int) -> models.ProposalOut:
        """Raises Unknown if it is not the caller's."""
        with self._database.read() as connection, self._complete(connection):
            return self._shown(connection, caller, proposal_id, now)

    def purge(self, now: int) -> int:
        at, is_kept = proposals.c.proposed_at, proposals.c.decision == DISCARD
        return self._database.purge(proposals, (at < now - _STORED_MS) & (~is_kept | (at < now - _DISCARDED_MS)))

    def _shown(self, connection: Connection, caller: Caller, proposal_id: str, now: int) -> models.ProposalOut:
        found = self._find(connection, _person_of(caller), proposal_id)
        try:
            state = find_state(connection, found.instance_id, caller)
        except Unknown:  # it is deleted, or does not concern the person any more
            state = None
        query = select(actions.c.status, actions.c.detail).where(actions.c.action_id == found.action_id)
        action = connection.execute(query).first()
        status, detail = (None, found.detail) if action is None else (action.status, action.detail)
        return {
            "proposal_id": found.proposal_id,
            "client": found.client,
            "instance_id": found.instance_id,
            "task_id": found.task_id,
            "title": None if state is None else state.title,
            "action": found.action,
            "remark": found.remark,
            "changed": state is None or state.revision != found.revision,
            "proposed_at": iso(found.proposed_at),
            "expires_at": iso(found.expires_at),
            "status": found.status(now),
            "action_status": status,
            "detail": detail or None,
        }

    @staticmethod
    def _find(connection: Connection, person: Person, proposal_id: str) -> Proposal:
        its = proposals.c.proposal_id == clean(proposal_id), of_person(proposals, person)
        row = connection.execute(select(proposals).where(*its)).first()
        if row is None:
            raise Unknown("no such proposal, or it is another person's")
        return Proposal(*row)


def _request(proposal: Proposal, seen_form: str = "", rule: str = "") -> ActionRequest:
    at, remark = (proposal.user_id, proposal.instance_id, proposal.task_id), proposal.remark
    if rule:
        client = proposal.client[:64]
        by = f"[{client} 按规则 {rule} 直接处理 / decided directly by the assistant {client} under the rule {rule}]"
        remark = f"{remark[: models.REMARK_MAX - len(by) - 1]} {by}".lstrip()
    return ActionRequest(*at, proposal.action, "", remark, proposal.revision, seen_form)


def _was_discarded(connection: Connection, proposal: Proposal) -> bool:
    """Whether the person discarded a proposal for the task: they are asked the next time as well."""
    same = (proposals.c[each] == getattr(proposal, each) for each in ("instance_id", "task_id"))
    its = of_person(proposals, (proposal.corp_id, proposal.user_id)), *same, proposals.c.decision == DISCARD
    return connection.execute(select(proposals.c.proposal_id).where(*its)).first() is not None


def _person_of(caller: Caller) -> Person:
    return clean(caller.corp_id or ""), clean(caller.user_id or "")
