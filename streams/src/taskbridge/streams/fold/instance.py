"""What is known of one process instance: its published state, and what the fold must remember beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

if TYPE_CHECKING:
    from taskbridge.schemas.events import TaskState

FACTS = ("app_type", "title", "url", "originator", "process_code", "process_name")
DETAILS = ("form_uuid", "serial_no", "instance_status", "approved_result", "finished_at", "form_data")
"""Fields of ``TaskState`` that an event may state; the latest statement holds. DETAILS were added later."""

EARLIEST, LATEST = -(1 << 63), (1 << 63) - 1
"""Before and behind every moment."""


class Stamp(NamedTuple):
    """When a fact was stated, and by which event: the order in which the latest writer wins."""

    at: int
    event_id: str


class Decision(Struct, frozen=True, array_like=True, gc=False):
    """What one event says of who decided a task, and how."""

    at: int
    is_completed: bool
    """Else cancelled."""
    event_id: str | None
    """None: only the published state told of it."""
    actor_id: str | None
    is_recovered: bool
    """Its sender did not tell of it: ``TaskEvent.recovered_by``."""
    outcome: str | None
    remark: str | None


class TaskMarks(Struct, frozen=True, array_like=True, gc=False):
    """What the fold must remember of one task beside its published entry."""

    url: Stamp | None = None
    decided_by: str | None = None
    actor_ids: tuple[str, ...] = ()
    """Everyone who was ever said to have decided it; one of them holds."""
    is_recovered: bool = False
    """Whether the decision that holds was recovered."""
    others: tuple[Decision, ...] = ()
    """The decisions that do not hold, by others or of the other kind, in their order: see ``fold.decisions``."""


class Marks(Struct, frozen=True, array_like=True, gc=False):
    """What the fold must remember beside the published ``TaskState``, so that late events find their place."""

    facts: tuple[Stamp | None, ...] = (None,) * len(FACTS)
    """Who stated each of FACTS, in their order."""
    tasks: tuple[TaskMarks, ...] = ()
    """Of each of the state's tasks, in their order."""
    originator_ids: tuple[str, ...] = ()
    assignee_ids: tuple[str, ...] = ()
    """Assignees of creates that named no task: pending on the instance until a task names them."""
    deleted_at: int | None = None
    began_at: int = LATEST
    """The earliest moment that any event stated, of itself or of its instance's creation. LATEST: none yet."""
    first_received_at: int = EARLIEST
    """When the edge received the first of its events, which no sender can choose. EARLIEST: before that was kept."""
    details: tuple[Stamp | None, ...] = (None,) * len(DETAILS)
    """Who stated each of DETAILS, in their order."""


class Instance(Struct, frozen=True, gc=False):
    """A process instance: its published state, and the fold's marks."""

    state: TaskState
    marks: Marks


def earliest_known(state: TaskState) -> int:
    """When an instance began, as far as its published state tells: for one that does not remember it."""
    found = [state.updated_at, *(each.at for each in state.copied)]
    for task in state.tasks:
        found += [at for at in (task.created_at, task.decided_at) if at is not None]
    return min(found)
