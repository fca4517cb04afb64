"""What a rebuild decides about one instance: what it is built upon, and what people are told when it came out another.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from taskbridge.schemas.events import (
    SOURCE_TASKBRIDGE,
    Action,
    Change,
    Status,
    TaskEvent,
    TaskNotification,
    event_id_for,
    notification_id_for,
)
from taskbridge.streams.fold.instance import FACTS, Instance, Marks, TaskMarks, earliest_known
from taskbridge.streams.fold.remembered_offsets import MAX_OFFSETS
from taskbridge.streams.fold.views import Shown, difference

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from taskbridge.schemas.events import TaskState
    from taskbridge.schemas.inbox import Line

_Value = TypeVar("_Value")

GONE = (0, 0)
"""Offsets of an instance of whose events some are not on its partition; no two events stand at one offset.

Those that come later stand behind. So the next rebuild does not take these for all there were.
"""


def is_whole(offsets: Sequence[int], *, first_offset: int) -> bool:
    """Whether every event of an instance is still on its partition, which begins at ``first_offset``.

    ``offsets`` are those that the instance remembers. Where that is not certain, the answer is no.
    """
    return 0 < len(offsets) < MAX_OFFSETS and tuple(offsets[:2]) != GONE and offsets[0] >= first_offset


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


def told(before: Shown | None, after: Shown, *, version: int, certain: bool) -> list[TaskNotification]:
    """What brings everyone who followed the old version to what the new one shows.

    Where it is not ``certain`` what the old one had shown, everyone who ever had a line is told how it stands now.
    The cause is no callback but the rebuild, as an event with an id that is the same whenever it is tried again.
    """
    cause = _cause(after.instance.state, "rebuilt", version=version)
    found = difference(before, after, cause)
    if certain:
        return found
    again = difference(after, after, cause)
    known = {each.notification_id for each in again}
    gone = [each for each in found if each.change is Change.REMOVED and each.notification_id not in known]
    return gone + again


def told_again(shown: Shown, *, number: int) -> list[TaskNotification]:
    """How it stands now, to everyone who has or ever had a line of the instance; the cause is that retelling."""
    return difference(shown, shown, _cause(shown.instance.state, "retold", number=number))


def unfounded(line: Line, *, number: int) -> TaskNotification:
    """Takes a line away that no instance shows; of the instance nothing is known but its id."""
    named = {"instance_id": line.instance_id, "number": str(number)}
    event_id = event_id_for(SOURCE_TASKBRIDGE, "retold", named)
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


def _cause(state: TaskState, action: str, **numbers: int) -> TaskEvent:
    """No callback, but what an operator did; with an id that is the same whenever it is tried again."""
    named = {"instance_id": state.instance_id, **{name: str(number) for name, number in numbers.items()}}
    return TaskEvent(
        event_id=event_id_for(SOURCE_TASKBRIDGE, action, named),
        source=SOURCE_TASKBRIDGE,
        action=Action.UNKNOWN,
        corp_id=state.corp_id,
        app_type=state.app_type,
        instance_id=state.instance_id,
        # Not the time of the rebuild, or it would seem to people that all of this happened just now.
        occurred_at=state.updated_at,
        received_at=state.updated_at,
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
