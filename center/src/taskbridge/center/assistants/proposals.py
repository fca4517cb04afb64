"""Decisions that assistants prepare: for one person and one revision of the instance, until the person confirms.

Nothing is sent before. The confirmation records it, in one transaction, as a decision of the person.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Literal, NamedTuple

from sqlalchemy import insert, select, update

from taskbridge.center.access.audit import CONFIRMED, DISCARDED, PROPOSED, append_of
from taskbridge.center.access.refusals import TooManyQueries
from taskbridge.center.actions.store import REQUESTED, ActionRequest, Actions
from taskbridge.center.api.queries import find_state
from taskbridge.center.tables import Person, actions, lock_of, proposals, unchecked
from taskbridge.runtime.database import Database, clean
from taskbridge.runtime.refusals import BadQuery, Unknown

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

    from taskbridge.center.access.access import Caller
    from taskbridge.center.actions.systems import Systems
    from taskbridge.center.tables import Complete
    from taskbridge.schemas.events import TaskState

ProposedName = Literal["agree", "refuse", "return"]
ProposalStatus = Literal["OPEN", "EXPIRED", "DISCARDED", "CONFIRMED", "REFUSED"]
CONFIRM, DISCARD = "confirm", "discard"
PROPOSED_AN_HOUR = 10
"""By one client for one person."""
_HOUR_MS, _STORED_MS = 3_600_000, 86_400_000


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


class ShownProposal(NamedTuple):
    proposal: Proposal
    state: TaskState | None
    """None if it is deleted, or does not concern the person any more."""
    action_status: str | None
    """Of the decision, once it is confirmed; None once that is forgotten."""
    detail: str


class Proposals:
    """Every method blocks, and raises DatabaseUnavailable if the database does not answer."""

    def __init__(
        self, database: Database, store: Actions, systems: Systems, complete: Complete = unchecked, *, lasts_ms: int
    ) -> None:
        self._database, self._store, self._systems, self._complete = database, store, systems, complete
        self._lasts_ms = lasts_ms

    def propose(  # noqa: PLR0917 - of the tool
        self,
        caller: Caller,
        client: str,
        instance_id: str,
        task_id: str,
        action: ProposedName,
        remark: str,
        revision: int | None,
        *,
        address: str,
        now: int,
    ) -> Proposal:
        """Store a proposal with the audit trail; the same one that is open is returned as it is.

        Raises BadQuery if it would be refused now, Unknown, TooManyQueries.
        """
        person = _person_of(caller)
        with self._database.write(durable=True) as connection, self._complete(connection):
            state = find_state(connection, instance_id, caller)
            self._database.lock(connection, lock_of(person))
            made = Proposal(
                f"P-{secrets.token_urlsafe(16)}",
                *person,
                clean(client),
                clean(instance_id),
                clean(task_id),
                action,
                clean(remark),
                state.revision if revision is None else revision,
                now,
                now + self._lasts_ms,
            )
            its = _of(person), proposals.c.client == made.client, proposals.c.proposed_at > now - _HOUR_MS
            earlier = [Proposal(*row) for row in connection.execute(select(proposals).where(*its))]
            for each in earlier:
                if each[1:9] == made[1:9] and each.status(now) == "OPEN":
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
        self, caller: Caller, proposal_id: str, decision: str, *, seen_form: str = "", address: str, now: int
    ) -> ShownProposal:
        """Confirm or discard an open proposal of the caller's. What was decided or has expired stays as it is.

        ``seen_form``: as of an action.
        """
        person = _person_of(caller)
        with self._database.write(durable=True) as connection, self._complete(connection):
            self._database.lock(connection, lock_of(person))
            found = self._find(connection, person, proposal_id)
            if found.status(now) == "OPEN":
                action_id, detail = "", ""
                if decision == CONFIRM:
                    wanted = _request(found, seen_form)
                    [action] = self._store.record(connection, caller, [wanted], self._systems, address, now)
                    action_id, detail = action.action_id, action.detail
                    if action.action != found.action:  # another decision is under way
                        action_id, detail = "", "not-pending"
                values = {"decision": decision, "action_id": action_id, "detail": detail if not action_id else ""}
                its = proposals.c.proposal_id == found.proposal_id
                connection.execute(update(proposals).where(its).values(values))
                what = CONFIRMED if decision == CONFIRM else DISCARDED
                subject = f"{found.proposal_id} {found.client}"
                append_of(connection, self._database, caller, what, subject, address=address)
            return self._shown(connection, caller, proposal_id)

    def shown(self, caller: Caller, proposal_id: str) -> ShownProposal:
        """Raises Unknown if it is not the caller's."""
        with self._database.read() as connection, self._complete(connection):
            return self._shown(connection, caller, proposal_id)

    def purge(self, now: int) -> int:
        return self._database.purge(proposals, proposals.c.proposed_at < now - _STORED_MS)

    def _shown(self, connection: Connection, caller: Caller, proposal_id: str) -> ShownProposal:
        found = self._find(connection, _person_of(caller), proposal_id)
        try:
            state = find_state(connection, found.instance_id, caller)
        except Unknown:
            state = None
        query = select(actions.c.status, actions.c.detail).where(actions.c.action_id == found.action_id)
        action = connection.execute(query).first()
        status, detail = (None, found.detail) if action is None else (action.status, action.detail)
        return ShownProposal(found, state, status, detail)

    @staticmethod
    def _find(connection: Connection, person: Person, proposal_id: str) -> Proposal:
        its = proposals.c.proposal_id == clean(proposal_id), _of(person)
        row = connection.execute(select(proposals).where(*its)).first()
        if row is None:
            raise Unknown("no such proposal, or it is another person's")
        return Proposal(*row)


def _request(proposal: Proposal, seen_form: str = "") -> ActionRequest:
    at = proposal.instance_id, proposal.task_id, proposal.action
    return ActionRequest(proposal.user_id, *at, "", proposal.remark, proposal.revision, seen_form)


def _person_of(caller: Caller) -> Person:
    return clean(caller.corp_id or ""), clean(caller.user_id or "")


def _of(person: Person) -> ColumnElement[bool]:
    return (proposals.c.corp_id == person[0]) & (proposals.c.user_id == person[1])
