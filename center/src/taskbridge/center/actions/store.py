"""What people decided: recorded before it is sent, and until the other system has confirmed it or said no.

An action begins REQUESTED. Before each attempt it becomes SENDING, so that a crash in between shows. Then:

REQUESTED   not sent: the other system could not be reached, or was too busy; tried again
ACCEPTED    the other system said yes; its callback has not come yet
UNCLEAR     nobody knows whether it was received
DONE        the system says that what the action does has been done
OVERTAKEN   the task was decided, or the request ended, in another manner meanwhile
REFUSED     the other system said no
FAILED      it was not carried out, and is not tried again

The last four are ends.
"""

from __future__ import annotations

import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    case,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.sql import not_

from taskbridge.center.access.audit import append, append_of
from taskbridge.center.access.delegations import ACTED_FOR, active, is_known
from taskbridge.center.actions.conclusions import is_carried_out
from taskbridge.center.actions.targets import (
    ACTIONS,
    AGENTS,
    HAND_OVER,
    OF_NO_TASK,
    REASSIGN,
    RETURN,
    WITHDRAW,
    AgentName,
    RecordedName,
    TalkName,
)
from taskbridge.center.tables import (
    NEVER_DUE,
    VIEW_CODES,
    WHOLE_INSTANCE,
    actions,
    among_its_entries,
    delegations,
    entries,
    instances,
    of_instance,
    of_person,
    read_entry,
    read_state,
)
from taskbridge.runtime.database import Database, clean, now_ms
from taskbridge.runtime.follow.positions import progress
from taskbridge.runtime.refusals import BadQuery
from taskbridge.schemas.events import SOURCE_YIDA, Status, View
from taskbridge.schemas.topics import TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from taskbridge.center.access.access import Caller
    from taskbridge.center.actions.systems import Systems
    from taskbridge.center.tables import Complete, Person
    from taskbridge.schemas.events import TaskState

ActionStatus = Literal["REQUESTED", "SENDING", "ACCEPTED", "UNCLEAR", "DONE", "OVERTAKEN", "REFUSED", "FAILED"]
_STATUSES: tuple[ActionStatus, ...] = get_args(ActionStatus)
REQUESTED, SENDING, ACCEPTED, UNCLEAR, *ENDS = _STATUSES
DONE, OVERTAKEN, REFUSED, FAILED = ENDS
NOT_PENDING, NOT_DELEGATED, NOT_POSSIBLE = "not-pending", "not-delegated", "not-possible"
NOT_NUMERIC, ENDED_THERE, CHANGED, NO_RECIPIENT = "not-numeric", "ended", "changed", "no-recipient"
TOO_OFTEN = "too-often"
UNDER_WAY, HANDED_OVER = "under-way", "handed-over"
"""Why an action is refused here, as ``detail`` of one that was not recorded."""
UNSENT, UNCONFIRMED = "unsent", "unconfirmed"
"""Why an action FAILED: it could not be sent, or it is not known to have been carried out."""
SENT, ENDED = "action_sent", "action_ended"
"""In the audit trail, after the action itself."""
SHOWN_MS = 24 * 3600 * 1000
_STORED_MS = 30 * SHOWN_MS
_SHOWN_MOST = 200
_DUE_MOST = 100
HANDED_TO = "handed_to"
"""In the audit trail, after those tasks that one transaction handed over: who gets them."""
REASSIGNED_MOST = 200
"""Of one request."""
_REFUSED_MOST, _CHANGED_MOST, _HOUR_MS = 5, 20, 3600 * 1000
"""How often the other system may refuse actions on a person's task within an hour: each costs calls of the corp.

And how often because the form had changed.
"""


class Action(NamedTuple):
    """A row, in the order of the columns."""

    action_id: str
    corp_id: str
    user_id: str
    actor_id: str
    instance_id: str
    task_id: str
    source: str
    app_type: str
    action: RecordedName | TalkName | AgentName
    recipient_id: str
    remark: str
    status: ActionStatus
    detail: str
    attempts: int
    requested_at: int
    due_at: int | None
    seen_form: str = ""
    """The digest of the values that the person saw; empty if that is not known."""

    @property
    def system(self) -> str:
        """The source, without the space before that of an action that the release before would not know."""
        return self.source.strip()


def ends_at(action: Action) -> int:
    """When the agent of an action of AGENTS ends by itself."""
    return int(action.remark.partition(" ")[2])


class LeftProcess(NamedTuple):
    """Pending tasks of one process of a person."""

    app_type: str
    process_name: str | None
    source: str
    pending: int
    is_possible: bool
    """Whether they can be handed over here."""


class Leaving(NamedTuple):
    processes: list[LeftProcess]
    handed: dict[str, int]
    """By the status of the latest action on each task."""
    staying: dict[str, int]
    """Pending tasks that cannot be handed over now, by the reason."""


class Share(NamedTuple):
    """All actions for one system of a corp, or by one person: ``kind`` is a column, ``source`` or ``actor_id``."""

    kind: str
    corp_id: str
    value: str


class ActionRequest(NamedTuple):
    """What is to be done with a task of a person, or with an instance: ``task_id`` is empty.

    ``recipient_id``: who gets a task that is handed over, or the step to which a request is returned; empty is its
    originator.
    """

    user_id: str
    instance_id: str
    task_id: str
    action: RecordedName
    recipient_id: str
    remark: str
    seen_revision: int | None = None
    """Of the instance, as the person saw it."""
    seen_form: str = ""
    """As of ``Action``."""


_OF_TASK = among_its_entries(
    corp_id=actions.c.corp_id, user_id=actions.c.user_id, view=VIEW_CODES[View.PENDING], task_id=actions.c.task_id
)
_TASK = "corp_id", "user_id", "instance_id", "task_id"
_other = actions.alias()
_REPEATED = delete(actions).where(
    actions.c.due_at.is_(None),
    ~exists().where(_other.c.due_at.is_not(None), *(_other.c[each] == actions.c[each] for each in _TASK)),
)
"""Deletes an action that is requested again, and so inserted again, unless another on its task is under way."""
_OLDEST = entries.c.entered_at, entries.c.instance_id, entries.c.task_id
_IS_PENDING = exists().where(of_instance(actions.c.instance_id), _OF_TASK)


def _pending_with(person: Person) -> ColumnElement[bool]:
    return and_(of_person(entries, person), entries.c.view == VIEW_CODES[View.PENDING])


_NUMERIC_MISSING = or_(entries.c.task_id == WHOLE_INSTANCE, entries.c.task_id.regexp_match("[^0-9]"))


def _since(person: Person, at: int) -> ColumnElement[bool]:
    return and_(of_person(actions, person), actions.c.requested_at > at)


def _is_of(tasks: Select[str, str]) -> ColumnElement[bool]:
    """Whether an entry is about one of these, by instance and task."""
    return tuple_(entries.c.instance_id, entries.c.task_id).in_(tasks)


def _stays(person: Person, now: int) -> ColumnElement[str]:
    """Why a pending task cannot be handed over although its app can, or empty; as ``_objection`` and ``_requested``."""
    changed = func.sum(case((actions.c.detail == CHANGED, 1), else_=0))
    of_task = actions.c.instance_id, actions.c.task_id
    refused = select(*of_task).where(_since(person, now - _HOUR_MS), actions.c.status == REFUSED).group_by(*of_task)
    often = refused.having(or_(func.count() - changed >= _REFUSED_MOST, changed >= _CHANGED_MOST))
    under_way = exists().where(actions.c.due_at.is_not(None), *(actions.c[each] == entries.c[each] for each in _TASK))
    is_done = actions.c.action == REASSIGN, actions.c.status == DONE
    return case(
        (under_way, UNDER_WAY),
        # Its callback has not come.
        (_is_of(select(*of_task).where(_since(person, now - SHOWN_MS), *is_done)), HANDED_OVER),
        (entries.c.due_at == NEVER_DUE, ENDED_THERE),
        (and_(entries.c.source == SOURCE_YIDA, _NUMERIC_MISSING), NOT_NUMERIC),
        (_is_of(often), TOO_OFTEN),
        else_="",
    )


def _possible(connection: Connection, person: Person, systems: Systems) -> set[tuple[str, str]]:
    """Source and app type of those pending tasks of a person that can be decided here."""
    query = select(entries.c.source, entries.c.app_type).where(_pending_with(person)).distinct()
    found = ((row[0], row[1]) for row in connection.execute(query))
    return {each for each in found if systems.of(person[0], *each) is not None}


def _to_reassign(connection: Connection, leaver: Person, systems: Systems, now: int) -> Select[str, str]:
    """Instance and task of the pending tasks that may be handed over, in the order in which they are."""
    possible = sorted(_possible(connection, leaver, systems))
    tasks = select(actions.c.instance_id, actions.c.task_id).where(_since(leaver, now - SHOWN_MS))
    again = case((_is_of(tasks.where(actions.c.status.in_([REFUSED, FAILED]))), 1), else_=0)
    where = tuple_(entries.c.source, entries.c.app_type).in_(possible), _stays(leaver, now) == literal("")
    columns = select(entries.c.instance_id, entries.c.task_id)
    return columns.where(_pending_with(leaver), *where).order_by(again, *_OLDEST).limit(REASSIGNED_MOST)


class Actions:
    """Every method blocks, and raises DatabaseUnavailable if the database does not answer."""

    def __init__(self, database: Database, complete: Complete) -> None:
        self._database, self._complete = database, complete

    def request(
        self, caller: Caller, wanted: Sequence[ActionRequest], systems: Systems, *, address: str, now: int
    ) -> list[Action]:
        """Record what a signed-in person wants, in one transaction with the audit trail.

        At this moment, each task must be pending with its person, who is the caller or has delegated it to them; a
        request that is withdrawn must be the caller's and open. What must not be done is returned as REFUSED, with the
        reason as ``detail`` and no id. An action on the same task that is under way is returned as it is.
        """
        with self._database.write(durable=True) as connection, self._complete(connection):
            return self.record(connection, caller, wanted, systems, address, now)

    def to_reassign(
        self, caller: Caller, leaver: Person, to: str, remark: str, systems: Systems, *, now: int
    ) -> list[ActionRequest]:
        """The pending tasks of a person that an operator can hand over: at most REASSIGNED_MOST, the oldest first.

        Those that were refused or failed within a day come last. Raises BadQuery if they cannot go to ``to``.
        """
        corp_id, user_id = leaver
        if to in (user_id, caller.user_id):
            raise BadQuery("the recipient must be another person than who leaves and who hands over")
        with self._database.read() as connection, self._complete(connection):
            if not is_known(connection, (corp_id, to)):
                raise BadQuery("the recipient must be a person who was imported")
            tasks = connection.execute(_to_reassign(connection, leaver, systems, now))
            return [ActionRequest(user_id, row[0], row[1], REASSIGN, to, remark) for row in tasks]

    def reassign(
        self, caller: Caller, wanted: Sequence[ActionRequest], systems: Systems, *, address: str, now: int
    ) -> list[Action]:
        """Record that an operator hands over these tasks to one person, as ``request``; returns what was recorded."""
        with self._database.write(durable=True) as connection, self._complete(connection):
            found = self.record(connection, caller, wanted, systems, address, now)
            # Without those that somebody else began meanwhile.
            its = caller.user_id, REQUESTED, now
            mine = [each for each in found if (each.actor_id, each.status, each.requested_at) == its]
            if mine:
                to = caller.corp_id or "", wanted[0].recipient_id
                append_of(connection, self._database, caller, HANDED_TO, to, address=address)
            return mine

    def leaving(self, leaver: Person, systems: Systems, *, now: int) -> Leaving:
        """The pending tasks of a person by process, and what became of those that were handed over within a day."""
        by = entries.c.app_type, entries.c.process_name, entries.c.source
        stays_here = _stays(leaver, now).label("stays")
        counts = select(*by, stays_here, func.count()).where(_pending_with(leaver)).group_by(*by, "stays")
        newest_first = actions.c.requested_at.desc(), actions.c.action_id
        place = func.row_number().over(partition_by=[actions.c.instance_id, actions.c.task_id], order_by=newest_first)
        latest = (
            select(actions.c.status, place.label("place"))
            .where(_since(leaver, now - SHOWN_MS), actions.c.action == REASSIGN)
            .subquery()
        )
        handed = select(latest.c.status, func.count()).where(latest.c.place == 1).group_by(latest.c.status)
        with self._database.read() as connection, self._complete(connection):
            pending, staying = Counter[tuple[str, str | None, str]](), Counter[str]()
            possible = _possible(connection, leaver, systems)
            for app_type, process_name, source, stays, count in connection.execute(counts):
                pending[app_type, process_name, source] += count
                staying[stays if (source, app_type) in possible else NOT_POSSIBLE] += count
            processes = [
                LeftProcess(*each, count, is_possible=(each[2], each[0]) in possible)
                for each, count in sorted(pending.items(), key=lambda item: (-item[1], item[0][0], item[0][1] or ""))
            ]
            del staying[""]
            return Leaving(processes, {row[0]: row[1] for row in connection.execute(handed)}, dict(staying))

    def record(  # noqa: PLR0917 - of its callers
        self,
        connection: Connection,
        caller: Caller,
        wanted: Sequence[ActionRequest],
        systems: Systems,
        address: str,
        now: int,
    ) -> list[Action]:
        """As ``request``, in this transaction."""
        found: dict[ActionRequest, Action] = {}
        recorded: list[tuple[str, Person | str]] = []
        # In one order, so that two tabs wait for each other in one direction only.
        for each in sorted(dict.fromkeys(wanted), key=lambda each: (each.user_id, each.instance_id, each.task_id)):
            action, is_new = self._recorded(connection, caller, each, systems, now)
            found[each] = action
            if is_new:
                if action.user_id != action.actor_id:
                    recorded.append((ACTED_FOR, (action.corp_id, action.user_id)))
                recorded.append((action.action, f"{action.instance_id} {action.task_id} {action.action_id}"))
        # Last: everybody who adds to the trail waits for its lock until this transaction ends.
        for what, subject in recorded:
            append_of(connection, self._database, caller, what, subject, address=address)
        return [found[each] for each in wanted]

    def shown(self, person: Person, *, now: int) -> list[Action]:
        """Decisions by or for a person that are under way or ended within a day, the latest first."""
        corp_id, user_id = person
        # What operators hand over is on a page of its own.
        acted = and_(actions.c.actor_id == user_id, actions.c.action != REASSIGN)
        mine = actions.c.corp_id == corp_id, or_(actions.c.user_id == user_id, acted)
        decided = actions.c.action.not_in(OF_NO_TASK), actions.c.requested_at > now - SHOWN_MS
        query = select(actions).where(*mine, *decided)
        with self._database.read() as connection:
            found = connection.execute(query.order_by(actions.c.requested_at.desc()).limit(_SHOWN_MOST))
            return [Action(*row) for row in found]

    def due(self, *, now: int, without: Collection[Share] = ()) -> list[Action]:
        """Those to be looked at: their time has come, or their task is not pending any more."""
        # Of some no task is pending: what is unclear of them waits for its time.
        concerns_task = or_(actions.c.action.not_in(OF_NO_TASK), actions.c.status == ACCEPTED)
        over = actions.c.status.in_([ACCEPTED, UNCLEAR]) & concerns_task & not_(_IS_PENDING)
        query = select(actions).where(actions.c.due_at.is_not(None), or_(actions.c.due_at <= now, over))
        for kind in {each.kind for each in without}:
            excluded = [(each.corp_id, each.value) for each in without if each.kind == kind]
            query = query.where(tuple_(actions.c.corp_id, actions.c[kind]).not_in(excluded))
        with self._database.read() as connection:
            return [Action(*row) for row in connection.execute(query.order_by(actions.c.due_at).limit(_DUE_MOST))]

    def advance(self, action: Action, **changes: Any) -> Action | None:
        """Store changes of an action, with the audit trail; None if another replica has advanced it meanwhile."""
        with self._database.write(durable=True) as connection:
            same = actions.c.action_id == action.action_id, actions.c.due_at == action.due_at
            if connection.execute(update(actions).where(*same).values(changes)).rowcount == 0:
                return None
            after = action._replace(**changes)
            if after.status == SENDING or after.status in ENDS:
                what = SENT if after.status == SENDING else ENDED
                who = action.corp_id, action.actor_id
                append(connection, self._database, who, what, f"{action.action_id} {after.status}")
            return after

    def is_claimed(self, action: Action) -> bool:
        """Whether no other replica has advanced the action since it became this."""
        same = actions.c.action_id == action.action_id, actions.c.due_at == action.due_at
        with self._database.read() as connection:
            return connection.execute(select(actions.c.action_id).where(*same)).first() is not None

    def found_out(self, action: Action) -> str | None:
        """DONE or OVERTAKEN by what the topics say; None while they say that it is still to be done."""
        if action.action in OF_NO_TASK:
            # The topics say nothing of it.
            return DONE if action.status == ACCEPTED else None
        withdraws = action.action == WITHDRAW
        with self._database.read() as connection:
            same = actions.c.action_id == action.action_id
            if not withdraws and connection.execute(select(actions.c.action_id).where(same, _IS_PENDING)).first():
                return None
            query = select(instances.c.state).where(instances.c.instance_id == action.instance_id)
            data = connection.execute(query).scalar()
            # Afterwards: rows that were missing because they are read again must not count.
            if not progress(connection, TASK_STATES.name).complete:
                return None
        if data is None:
            return OVERTAKEN
        found = is_carried_out(action, read_state(data))
        if action.status == REQUESTED and action.detail in ("", UNSENT):
            # It was not sent, so others did what was done. A request that is between two steps can be withdrawn.
            return None if withdraws and found is None else OVERTAKEN
        return None if found is None else DONE if found else OVERTAKEN

    def purge(self, *, now: int | None = None) -> int:
        """Delete those that ended long ago."""
        now = now or now_ms()
        is_old = actions.c.due_at.is_(None) & (actions.c.requested_at < now - _STORED_MS)
        # An agent is taken back when its delegation ends, which may be a year later.
        given = delegations.c.delegation_id == actions.c.instance_id, delegations.c.ends_at > now
        return self._database.purge(actions, is_old & ~(actions.c.action.in_(AGENTS) & exists().where(*given)))

    def _recorded(
        self, connection: Connection, caller: Caller, wanted: ActionRequest, systems: Systems, now: int
    ) -> tuple[Action, bool]:
        """The action as it is then, and whether it is new."""
        while True:
            action = self.checked(connection, caller, wanted, systems, now)
            if action.status != REQUESTED:
                return action, False
            if action.detail == UNCONFIRMED:
                connection.execute(_REPEATED.where(actions.c.action_id == action.action_id))
            put = self._database.insert(actions).values(action._asdict()).on_conflict_do_nothing()
            if connection.execute(put.returning(actions.c.action_id)).first() is not None:
                return action, True
            under_way = connection.execute(select(actions).where(_same(action))).first()
            if under_way is not None:
                return Action(*under_way), False
            # It has ended in between, and so may the task have.

    def checked(
        self, connection: Connection, caller: Caller, wanted: ActionRequest, systems: Systems, now: int
    ) -> Action:
        """The action that would be recorded: REQUESTED, or REFUSED with the reason."""
        corp_id, actor_id, user_id = caller.corp_id or "", caller.user_id or "", clean(wanted.user_id)
        withdraws = wanted.action == WITHDRAW
        view, task_id = (View.CREATED, WHOLE_INSTANCE) if withdraws else (View.PENDING, clean(wanted.task_id))
        columns = [entries.c[each] for each in ("source", "app_type", "process_name", "item")]
        query = select(*columns, instances.c.state).where(
            of_instance(clean(wanted.instance_id)),
            among_its_entries(corp_id=corp_id, user_id=user_id, view=VIEW_CODES[view], task_id=task_id),
        )
        row = connection.execute(query).first()
        refused = Action(
            "",
            corp_id,
            user_id,
            actor_id,
            clean(wanted.instance_id),
            task_id,
            "" if row is None else row.source,
            "" if row is None else row.app_type,
            wanted.action,
            clean(wanted.recipient_id) if wanted.action in (HAND_OVER, RETURN, REASSIGN) else "",
            clean(wanted.remark),
            REFUSED,
            NOT_PENDING,
            0,
            now,
            None,
            wanted.seen_form,
        )
        if user_id != actor_id and wanted.action != REASSIGN:
            received = active(connection, (corp_id, actor_id), now=now)
            covers = row is not None and any(
                each.user_id == user_id and each.covers(row.app_type, row.process_name) for each in received
            )
            # The same answer for what is not there: nobody finds out what is.
            if withdraws or not covers:
                return refused._replace(detail=NOT_DELEGATED, source="", app_type="")
        if row is None or (withdraws and read_entry(row.item).status is not Status.PENDING):
            return refused
        if systems.of(corp_id, row.source, row.app_type) is None or wanted.action not in (*ACTIONS, REASSIGN):
            return refused._replace(detail=NOT_POSSIBLE)
        if reason := _objection(connection, refused, read_state(row.state), wanted.seen_revision):
            return refused._replace(detail=reason)
        if wanted.action == REASSIGN:
            # The release before would take it for a refusal: it finds no system with a space before its name.
            refused = refused._replace(source=f" {row.source}")
        return _requested(connection, refused, now)


def _objection(connection: Connection, action: Action, state: TaskState, seen_revision: int | None) -> str:
    """Why an action that the systems carry out is refused here; empty if it is not."""
    # DingTalk's API knows tasks by numbers.
    is_numeric = action.task_id.isascii() and action.task_id.isdecimal()
    if action.source == SOURCE_YIDA and action.action != WITHDRAW and not is_numeric:
        return NOT_NUMERIC
    if state.finished_at is not None:
        return ENDED_THERE
    if seen_revision not in (None, state.revision):
        return CHANGED
    to = action.recipient_id
    if action.action == HAND_OVER and (to == action.user_id or not is_known(connection, (action.corp_id, to))):
        return NO_RECIPIENT
    return ""


def _requested(connection: Connection, refused: Action, now: int) -> Action:
    """The action as requested, after those of a day on the same task; as refused, if these were too many."""
    where = actions.c.due_at.is_(None), actions.c.requested_at > now - SHOWN_MS, *_of_its_task(refused)
    rows = connection.execute(select(actions).where(*where).order_by(actions.c.requested_at.desc()))
    earlier = [Action(*row) for row in rows]
    refusals = [each for each in earlier if each.status == REFUSED and each.requested_at > now - _HOUR_MS]
    # A form that changed is nobody's fault, but each comparison is a call too.
    changed = sum(each.detail == CHANGED for each in refusals)
    if len(refusals) - changed >= _REFUSED_MOST or changed >= _CHANGED_MOST:
        return refused._replace(detail=TOO_OFTEN)
    requested = refused._replace(action_id=uuid.uuid4().hex, status=REQUESTED, detail="", due_at=now)
    for each in earlier:
        same = each.action == requested.action and each.recipient_id == requested.recipient_id
        if same and each.detail == UNCONFIRMED:
            # The other system may have carried it out, and knows it by this id.
            return requested._replace(action_id=each.action_id, detail=UNCONFIRMED)
    return requested


def is_over(action: Action) -> bool:
    """Whether an action of no task has ended, and surely nobody got it."""
    return action.status == REFUSED or (action.status == FAILED and action.detail == UNSENT)


def _same(action: Action) -> ColumnElement[bool]:
    """The one that is under way for the same task of the same person."""
    return and_(actions.c.due_at.is_not(None), *_of_its_task(action))


def _of_its_task(action: Action) -> list[ColumnElement[bool]]:
    return [actions.c[each] == getattr(action, each) for each in _TASK]
