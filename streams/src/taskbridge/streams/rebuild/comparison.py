"""Decide what a rebuild starts an instance from, and which notifications a republication has. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from taskbridge.schemas.events import (
    SOURCE_TASKBRIDGE,
    Change,
    Status,
    TaskNotification,
    event_id_for,
    notification_id_for,
)
from taskbridge.streams.fold.chunk import MAX_OFFSETS
from taskbridge.streams.fold.instance import FACTS, Instance, Marks, TaskMarks, earliest_known
from taskbridge.streams.fold.views import difference
from taskbridge.streams.processing.rebuilt import cause

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from taskbridge.schemas.events import TaskState
    from taskbridge.schemas.inbox import Line
    from taskbridge.streams.fold.views import Shown

_ACTION = "retold"  # spellchecker:disable-line - part of the ids of events
_Value = TypeVar("_Value")

EVENTS_LOST = (0, 0)
"""Offsets of an instance of whose events some are not on its partition; no two events stand at one offset.

Those that come later stand behind. So the next rebuild does not take these for all there were.
"""


def is_whole(offsets: Sequence[int], *, first_offset: int) -> bool:
    """Whether every event of an instance is still on its partition, which begins at ``first_offset``.

    ``offsets`` are those that the instance remembers. Where that is not certain, the answer is no.
    """
    return 0 < len(offsets) < MAX_OFFSETS and tuple(offsets[:2]) != EVENTS_LOST and offsets[0] >= first_offset


def from_published(state: TaskState) -> Instance:
    """An instance of which only the published state is left; every fact gives way to any event that states it.

    What nothing was published of is lost: assignees of the instance itself, whom no task has named.
    """
    tasks = [
        TaskMarks(actor_ids=() if task.status is Status.PENDING or task.actor_id is None else (task.actor_id,))
        for task in state.tasks
    ]
    originators = () if state.originator is None else (state.originator.user_id,)
    return Instance(state, Marks((None,) * len(FACTS), tuple(tasks), originators, began_at=earliest_known(state)))


def republished(shown: Shown, *, number: int) -> list[TaskNotification]:
    """The present state, for everyone who has or ever had a line of the instance; the cause is that republication."""
    return difference(shown, shown, cause(shown.instance.state, _ACTION, number=number))


def unfounded(line: Line, *, number: int) -> TaskNotification:
    """The removal of a line that no instance shows; of the instance only the id is known."""
    named = {"instance_id": line.instance_id, "number": str(number)}
    event_id = event_id_for(SOURCE_TASKBRIDGE, _ACTION, named)
    return TaskNotification(
        notification_id=notification_id_for(event_id, line.user_id, line.view, line.task_id, Change.REMOVED),
        corp_id=line.corp_id,
        recipient_id=line.user_id,
        view=line.view,
        change=Change.REMOVED,
        instance_id=line.instance_id,
        task_id=line.task_id,
        title=None,
        url=None,
        app_type="",
        originator=None,
        actor_id=None,
        status=Status.ACTIVE,
        occurred_at=0,
        event_id=event_id,
    )


def side_by_side(*sources: Iterable[tuple[bytes, _Value]]) -> Iterator[tuple[bytes, list[_Value | None]]]:
    """Every key that any of these has, with what each of them has for it. All are in the order of their keys."""
    iterators = [iter(each) for each in sources]
    heads = [next(each, None) for each in iterators]
    while found := [head[0] for head in heads if head is not None]:
        key = min(found)
        values: list[_Value | None] = []
        for at, head in enumerate(heads):
            if head is not None and head[0] == key:
                values.append(head[1])
                heads[at] = next(iterators[at], None)
            else:
                values.append(None)
        yield key, values
