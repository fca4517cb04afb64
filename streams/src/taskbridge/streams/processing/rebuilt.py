"""What people are told of an instance that a rebuild made another; and the cause of what no callback caused. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.schemas.events import SOURCE_TASKBRIDGE, Action, Change, TaskEvent, event_id_for
from taskbridge.streams.fold.views import difference

if TYPE_CHECKING:
    from taskbridge.schemas.events import TaskNotification, TaskState
    from taskbridge.streams.fold.views import Shown


def told(before: Shown | None, after: Shown, *, version: int, certain: bool) -> list[TaskNotification]:
    """What brings everyone who followed the old version to what the new one shows.

    Where it is not ``certain`` what the old one had shown, everyone who ever had a line is told how it stands now.
    The cause is no callback but the rebuild, as an event with an id that is the same whenever it is tried again.
    """
    because = cause(after.instance.state, "rebuilt", version=version)
    found = difference(before, after, because)
    if certain:
        return found
    again = difference(after, after, because)
    known = {each.notification_id for each in again}
    gone = [each for each in found if each.change is Change.REMOVED and each.notification_id not in known]
    return gone + again


def cause(state: TaskState, action: str, **numbers: int) -> TaskEvent:
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
