"""Records what people say about an instance: comments, and urging those whom it waits for. Each is sent once.

They are rows of the table of decisions, which the same dispatcher sends. ``task_id`` is no task's: it begins with a
space, and says what may be under way once only. ``source`` begins with one too, because the release before would send
them as decisions: it finds no such system, and ends them as not sent.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from typing import TYPE_CHECKING

from sqlalchemy import select

from taskbridge.center.access.audit import append_of
from taskbridge.center.access.refusals import TooManyQueries
from taskbridge.center.actions.store import REQUESTED, Action, is_over
from taskbridge.center.actions.targets import COMMENT, URGE
from taskbridge.center.api.queries import find_state
from taskbridge.center.tables import actions, lock_of
from taskbridge.runtime.database import Database, clean
from taskbridge.runtime.refusals import BadQuery, Forbidden, NotNow, Unknown
from taskbridge.schemas.events import Status
from taskbridge.schemas.views import concerns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import ColumnElement, Connection

    from taskbridge.center.access.access import Caller
    from taskbridge.center.actions.systems import Systems
    from taskbridge.center.actions.targets import TalkName
    from taskbridge.center.tables import Complete
    from taskbridge.schemas.events import TaskState

COMMENTS_AN_HOUR = 20
"""Of a person."""
URGED_A_DAY = 10
"""People whom one instance urges: each is a message at DingTalk."""
URGED_AGAIN_MS = 4 * 3_600_000
"""Nobody is urged about an instance sooner than this after the last time."""
URGED_AT_ONCE = 5
URGED_BY_PERSON_A_DAY, URGED_BY_PERSON_ONE_A_DAY = 50, 20
"""By one person about all instances: people in all, and how often the same one."""
REPEATED_MS = 10 * 60_000
"""The same words of the same person within this time are the same comment."""
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
SHOWN_MS = DAY_MS
_SHOWN_MOST = 50
URGING = "请尽快处理。"
"""What an urged person reads if nothing else is said."""


class Talk:
    """Every method blocks, and raises DatabaseUnavailable if the database does not answer."""

    def __init__(self, database: Database, systems: Systems, complete: Complete) -> None:
        self._database, self._systems, self._complete = database, systems, complete

    def comment(self, caller: Caller, instance_id: str, text: str, *, address: str, now: int) -> Sequence[Action]:
        """Record a comment of a person who signed in and may see the instance; the same one again has no effect.

        Raises BadQuery, Forbidden, Unknown, TooManyQueries, NotNow.
        """
        with self._database.write(durable=True) as connection, self._complete(connection):
            state = self._state(connection, caller, instance_id)
            comment = self._requested(caller, state, COMMENT, text, now=now)
            self._database.lock(connection, lock_of((comment.corp_id, comment.actor_id)))
            written = _since(now - HOUR_MS, connection, COMMENT, *_by(caller))
            # With its writer: ``user_id`` may be the originator's, for any writer.
            digest = hashlib.sha256(f"{comment.actor_id}\n{comment.remark}".encode()).hexdigest()
            comment = comment._replace(task_id=f" comment {digest[:32]}")
            for each in written:
                is_same = (each.instance_id, each.task_id) == (comment.instance_id, comment.task_id)
                is_young = each.due_at is not None or each.requested_at > now - REPEATED_MS
                if is_same and is_young and not is_over(each):
                    return [each]
            if len(written) >= COMMENTS_AN_HOUR:
                raise TooManyQueries(f"{COMMENTS_AN_HOUR} comments in an hour are the most", retry_after_s=3600)
            return self._record(connection, caller, [comment], address)

    def urge(self, caller: Caller, instance_id: str, text: str, *, address: str, now: int) -> Sequence[Action]:
        """Record that the originator or an operator urges whom the instance waits for, and who was not urged lately.

        Raises as ``comment``, and Unknown if it waits for nobody else.
        """
        with self._database.write(durable=True) as connection, self._complete(connection):
            state = self._state(connection, caller, instance_id)
            urging = self._requested(caller, state, URGE, text or URGING, now=now)
            if not may_urge(caller, state):
                raise Forbidden("only its originator and operators may urge people about a request")
            if not (people := waited_for(state, caller)):
                raise Unknown("the request waits for nobody else")
            # First the person's, then the instance's: in this order only.
            self._database.lock(connection, lock_of((urging.corp_id, urging.actor_id)))
            self._database.lock(connection, lock_of((state.corp_id, f"urge {state.instance_id}")))
            own = _since(now - DAY_MS, connection, URGE, *_by(caller))
            often = Counter(each.recipient_id for each in own)
            # By the originator, whose actions have an index.
            of_instance = (actions.c[each] == getattr(urging, each) for each in ("corp_id", "user_id", "instance_id"))
            urged = _since(now - DAY_MS, connection, URGE, *of_instance)
            again = now - URGED_AGAIN_MS
            lately = {each.recipient_id for each in urged if each.requested_at > again and not is_over(each)}
            most = max(0, min(URGED_AT_ONCE, URGED_A_DAY - len(urged), URGED_BY_PERSON_A_DAY - len(own)))
            may = (each for each in people if each not in lately and often[each] < URGED_BY_PERSON_ONE_A_DAY)
            to = [*may][:most]
            if not to:
                raise TooManyQueries("they were urged already: try again later", retry_after_s=URGED_AGAIN_MS / 1000)
            rows = [
                urging._replace(action_id=uuid.uuid4().hex, task_id=f" urge {each}", recipient_id=each) for each in to
            ]
            return self._record(connection, caller, rows, address)

    def shown(self, caller: Caller, instance_id: str, *, now: int) -> Sequence[Action]:
        """What the caller said about an instance within a day, oldest first."""
        if caller.user_id is None:
            return []
        where = *_by(caller), actions.c.instance_id == clean(instance_id), actions.c.action.in_([COMMENT, URGE])
        query = select(actions).where(*where, actions.c.requested_at > now - SHOWN_MS)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(actions.c.requested_at.desc()).limit(_SHOWN_MOST)).all()
            return [Action(*row) for row in reversed(rows)]

    def _state(self, connection: Connection, caller: Caller, instance_id: str) -> TaskState:
        """The instance, if this person may see it and comments go somewhere."""
        state = find_state(connection, instance_id, caller)
        caller.check_in_person(state.corp_id, caller.user_id or "")
        if not self._systems.accepts_comments(state.corp_id, state.source, state.app_type):
            raise Forbidden("comments on requests of this app are written elsewhere only")
        return state

    def _requested(self, caller: Caller, state: TaskState, action: TalkName, text: str, *, now: int) -> Action:
        """``user_id`` is the originator; of a comment the person, if the instance concerns them.

        A vendor that checks this gets it in the name of who is both, and otherwise with their id in the text.
        """
        if not (said := clean(text).strip()):
            raise BadQuery("a comment must have words")
        user_id = caller.user_id or ""
        originator = "" if state.originator is None else state.originator.user_id
        of = user_id if action == COMMENT and concerns(state, user_id) else originator
        if of != user_id and self._systems.comments(state.corp_id, state.source, state.app_type) is not None:
            said += f" ({user_id})"
        app = f" {state.source}", state.app_type
        how = action, "", said, REQUESTED, "", 0, now, now
        return Action(uuid.uuid4().hex, state.corp_id, of, user_id, state.instance_id, "", *app, *how)

    def _record(self, connection: Connection, caller: Caller, rows: Sequence[Action], address: str) -> Sequence[Action]:
        put = self._database.insert(actions).on_conflict_do_nothing().returning(actions.c.action_id)
        # Without what is still under way after all this time.
        rows = [each for each in rows if connection.execute(put.values(each._asdict())).first() is not None]
        if not rows:
            raise NotNow("the same is still being sent: try again later", retry_after_s=REPEATED_MS / 1000)
        # Last: everybody who adds to the trail waits for its lock until this transaction ends.
        for each in rows:
            subject = f"{each.instance_id}  {each.action_id}"
            append_of(connection, self._database, caller, each.action, subject, address=address)
        return rows


def may_urge(caller: Caller, state: TaskState) -> bool:
    is_originator = state.originator is not None and state.originator.user_id == caller.user_id
    return caller.is_person(state.corp_id, caller.user_id or "") and (is_originator or caller.is_operator)


def waited_for(state: TaskState, caller: Caller) -> list[str]:
    """Other people with a pending task, each once; nobody if the instance has ended at its source."""

    def people() -> Iterator[str]:
        for task in state.tasks:
            if task.status is Status.PENDING:
                yield from task.assignee_ids

    others = (each for each in people() if each != caller.user_id)
    return [] if state.finished_at is not None else [*dict.fromkeys(others)]


def _by(caller: Caller) -> tuple[ColumnElement[bool], ...]:
    return actions.c.corp_id == (caller.corp_id or ""), actions.c.actor_id == caller.user_id


def _since(at: int, connection: Connection, action: TalkName, *where: ColumnElement[bool]) -> list[Action]:
    query = select(actions).where(*where, actions.c.action == action, actions.c.requested_at > at)
    return [Action(*row) for row in connection.execute(query)]
