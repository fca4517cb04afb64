"""What a rebuild decides about one instance: what it is built upon, and what people are told when it came out another.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.events import SOURCE_TASKBRIDGE, Action, Change, Status, TaskEvent, event_id_for
from streams.fold.lifecycle import FACTS, Instance, Marks, TaskMarks
from streams.fold.remembered_offsets import MAX_OFFSETS
from streams.fold.views import Shown, difference

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from schemas.events import TaskNotification, TaskState

GONE = (0,)
"""Offsets of an instance of whose events some are no longer on the topic: the first that there ever was is not, either.

So the next rebuild does not take the events that came since for all there were.
"""


def is_whole(offsets: Sequence[int], *, first_offset: int) -> bool:
    """Whether every event of an instance is still on its partition, which begins at ``first_offset``.

    ``offsets`` are those that the instance remembers. Where that is not certain, the answer is no.
    """
    return first_offset == 0 or (0 < len(offsets) < MAX_OFFSETS and offsets[0] >= first_offset)


def from_published(state: TaskState) -> Instance:
    """An instance of which only the published state is left; every fact gives way to any event that states it.

    What nothing was published of is lost: assignees of the instance itself, whom no task has named.
    """
    tasks = [
        TaskMarks(actor_ids=() if task.status is Status.PENDING or task.actor_id is None else (task.actor_id,))
        for task in state.tasks
    ]
    originators = () if state.originator is None else (state.originator.user_id,)
    return Instance(state, Marks((None,) * len(FACTS), tuple(tasks), originators))


def told(before: Shown | None, after: Shown, *, version: int, certain: bool) -> list[TaskNotification]:
    """What brings everyone who followed the old version to what the new one shows.

    Where it is not ``certain`` what the old one had shown, everyone who ever had a line is told how it stands now.
    The cause is no callback but the rebuild, as an event with an id that is the same whenever it is tried again.
    """
    state = after.instance.state
    named = {"instance_id": state.instance_id, "version": str(version)}
    cause = TaskEvent(
        event_id=event_id_for(SOURCE_TASKBRIDGE, "rebuilt", named),
        source=SOURCE_TASKBRIDGE,
        action=Action.UNKNOWN,
        corp_id=state.corp_id,
        app_type=state.app_type,
        instance_id=state.instance_id,
        # Not the time of the rebuild, or it would seem to people that all of this happened just now.
        occurred_at=state.updated_at,
        received_at=state.updated_at,
    )
    found = difference(before, after, cause)
    if certain:
        return found
    again = difference(after, after, cause)
    known = {each.notification_id for each in again}
    gone = [each for each in found if each.change is Change.REMOVED and each.notification_id not in known]
    return gone + again


def side_by_side(
    *sources: Iterable[tuple[bytes, bytes]],
) -> Iterator[tuple[bytes, list[bytes | None]]]:
    """Every key that any of these has, with what each of them has for it. All are in the order of their keys."""
    iterators = [iter(each) for each in sources]
    heads = [next(each, None) for each in iterators]
    while found := [head[0] for head in heads if head is not None]:
        key = min(found)
        values: list[bytes | None] = []
        for at, head in enumerate(heads):
            if head is not None and head[0] == key:
                values.append(head[1])
                heads[at] = next(iterators[at], None)
            else:
                values.append(None)
        yield key, values
