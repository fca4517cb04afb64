"""Comments on an instance, read for a person who opens it, and written; and urging whom it waits for.

Lists read none. What was read is shown to all who may see the instance, for a minute.
"""

# pyright: reportUnusedFunction=false

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import structlog
from starlette.requests import Request  # noqa: TC002 - FastAPI resolves the handlers' annotations
from starlette.responses import Response  # noqa: TC002

from taskbridge.center.access.access import address_of
from taskbridge.center.actions.conclusions import is_said
from taskbridge.center.actions.store import DONE
from taskbridge.center.actions.systems import Away, Busy, answered
from taskbridge.center.actions.targets import COMMENT, URGE
from taskbridge.center.api import models
from taskbridge.center.api.guard import InstanceId, InstanceReader, guarded_router
from taskbridge.center.api.json_forms import people_json
from taskbridge.center.api.routes import JsonAnswer
from taskbridge.center.api.talk import REPEATED_MS, may_urge, waited_for
from taskbridge.runtime.database import Threads, now_ms
from taskbridge.runtime.rates import Rate
from taskbridge.runtime.remembered import Remembered
from taskbridge.schemas.cloudevents import iso
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from fastapi import APIRouter

    from taskbridge.center.access.access import Access, Caller
    from taskbridge.center.actions.store import Action
    from taskbridge.center.actions.systems import Comment, ReadComments, Systems
    from taskbridge.center.api.queries import Queries
    from taskbridge.center.api.talk import Talk
    from taskbridge.schemas.events import TaskState

OFFERED, NOT_OFFERED, NOT_NOW, LIMITED = "read", "not_offered", "failed", "limited"
"""Results of reading, for the metric."""
_HOUR_S = 3600.0
_OF_CALLER = 120
"""Instances of which a caller may have comments read in an hour."""
_SHOWN_S, _REMEMBERED = 60.0, 256
_SHOWN_MOST, _TEXT_MOST = 100, 2_000
_SKEW_MS = 60_000

log = structlog.get_logger(__name__)


class _Found(NamedTuple):
    """``reason``: why none could be read."""

    items: Sequence[Comment] = ()
    reason: Literal["not-offered", "not-now"] | None = None


def comments_router(
    access: Access,
    queries: Queries,
    talk: Talk,
    threads: Threads,
    *,
    systems: Systems,
    wake: Callable[[], None],
    reading: CommentReader,
) -> APIRouter:
    """``/instances/{instance_id}/comments``.

    ``wake`` is called when something was recorded.
    """
    router = guarded_router(access, "comments")
    of_instance = "/instances/{instance_id:path}"
    not_found = models.problems(404)

    async def shown(caller: Caller, instance_id: str) -> Response:
        state = await threads.run(queries.state, instance_id, caller)
        its = state.corp_id, state.source, state.app_type
        accepts = systems.accepts_comments(*its)
        found = await reading.of(caller, state, systems.comments(*its))
        # Where the system lacks the call, the whole feature is off.
        is_off = found.reason == "not-offered" and systems.comments(*its) is not None
        now = now_ms()
        said = await threads.run(lambda: talk.shown(caller, state.instance_id, now=now))
        left = [each for each in said if not _is_among(each, found.items)]
        if not found.reason and any(each.status == DONE and each.requested_at > now - REPEATED_MS for each in left):
            # What the system has accepted since: the next reader sees it.
            reading.forget(state)
        is_person = accepts and not is_off and caller.is_person(state.corp_id, caller.user_id or "")
        to = waited_for(state, caller) if is_person and may_urge(caller, state) else []
        listed = found.items
        people = [*to, *(each.user_id for each in listed), *(each.notified_id or "" for each in listed)]
        names = await threads.run(queries.names, state.corp_id, dict.fromkeys(people))
        answer: models.CommentsOut = {
            "items": [comment_json(each) for each in listed],
            "reason": found.reason,
            "said": [_said(each) for each in left],
            "may_comment": is_person,
            "may_urge": to,
            "people": people_json(people, names),
        }
        return JsonAnswer(answer)

    @router.get(
        f"{of_instance}/comments",
        summary="Comments on an instance",
        response_model=models.CommentsOut,
        responses=not_found,
    )
    async def comments(caller: InstanceReader, instance_id: InstanceId) -> Response:
        """Reads them at the system that the instance is of, one call for all that are opened at the same time.

        They are shown again for a minute. 120 instances in an hour for a caller, and for an organisation so many in a
        day as its calls allow.
        """
        return await shown(caller, instance_id)

    @router.post(
        f"{of_instance}/comments",
        summary="Write a comment, or urge those whom an instance waits for",
        response_model=models.CommentsOut,
        responses=not_found,
    )
    async def say(
        request: Request, caller: InstanceReader, instance_id: InstanceId, body: models.CommentIn
    ) -> Response:
        """Records it, and sends it once. Only a person who signed in may do so: in an hour 20 comments.

        The same text of the same person within ten minutes is the same comment. Only the originator and operators may
        urge: at most five people at once, ten in a day for an instance, and nobody again within four hours; one person
        urges fifty in a day, and the same one twenty times.
        """
        record = talk.urge if body.action == URGE else talk.comment
        at = {"address": address_of(request)}
        await threads.write(lambda: record(caller, instance_id, body.text, **at, now=now_ms()))
        wake()
        return await shown(caller, instance_id)

    return router


class CommentReader:
    """Reads comments within limits, and remembers them for a moment, in this process."""

    def __init__(self, counted: Callable[[str], None]) -> None:
        """``counted`` is called with the result of each reading."""
        self._counted = counted
        self._of_caller = Rate(_OF_CALLER, per_s=_HOUR_S)
        self._known = Remembered[_Found](_SHOWN_S, keys=_REMEMBERED)

    def forget(self, state: TaskState) -> None:
        self._known.forget((state.corp_id, state.instance_id))

    async def of(self, caller: Caller, state: TaskState, read: ReadComments | None) -> _Found:
        form_uuid = state.form_uuid
        if read is None or form_uuid is None:
            return _Found((), "not-offered")

        async def find() -> _Found:
            if not self._of_caller.allows(caller.rate_key):
                raise Busy
            found, result = await self._read(read(form_uuid, state.instance_id))
            self._counted(result)
            return found

        try:
            return await self._known.of((state.corp_id, state.instance_id), find)
        except Busy:
            self._counted(LIMITED)
            return _Found((), "not-now")

    @staticmethod
    async def _read(comments: Awaitable[Sequence[Comment] | None]) -> tuple[_Found, str]:
        try:
            found = await answered(comments)
        except Busy:
            raise
        except Away as error:
            log.warning("comments_not_read", problem=str(error))
            return _Found((), "not-now"), NOT_NOW
        except OperatorError as error:
            # It does not pass by itself: usually a permission is missing.
            log.warning("comments_not_read", problem=str(error))
            return _Found((), "not-offered"), NOT_NOW
        if found is None:
            return _Found((), "not-offered"), NOT_OFFERED
        return _Found([each._replace(text=each.text[:_TEXT_MOST]) for each in found[-_SHOWN_MOST:]]), OFFERED


def comment_json(comment: Comment) -> models.CommentOut:
    return {
        "comment_id": comment.comment_id,
        "user_id": comment.user_id,
        "text": comment.text,
        "at": iso(comment.written_at) if comment.written_at else None,
        "notified_id": comment.notified_id,
    }


def _said(action: Action) -> models.SaidOut:
    return {
        "action_id": action.action_id,
        "action": URGE if action.action == URGE else COMMENT,
        "text": action.remark,
        "recipient_id": action.recipient_id or None,
        "status": action.status,
        "detail": action.detail or None,
        "at": iso(action.requested_at),
    }


def _is_among(action: Action, comments: Iterable[Comment]) -> bool:
    """Whether the system shows it among its comments already."""
    # Of a delegate or operator, the vendor names the app's user.
    writers = {action.actor_id, ""} if action.actor_id == action.user_id else None
    return action.status == DONE and any(
        is_said(action.remark, each.text)
        and (each.notified_id or action.recipient_id) == action.recipient_id
        and (writers is None or each.user_id in writers)
        and each.written_at > action.requested_at - _SKEW_MS
        for each in comments
    )
