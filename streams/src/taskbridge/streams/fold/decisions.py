"""Which of a task's decisions holds. Pure, and as the rest of the fold the same in any order of the events.

Each actor's completion is a register of its own, and so is the cancellation, whoever it was. A completion that was
recovered from the sender's API holds in its register before every callback: it has the outcome and the remark, and
whatever callback comes late changes nothing that anybody sees. Among those alike the latest holds. Of the registers the
latest holds, at equal times completed over cancelled, then the greater id of an event. A callback that says completed
and not by whom gives way to any completion that was recovered: it tells of the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from taskbridge.schemas.events import Action, Status
from taskbridge.streams.fold.instance import Decision

if TYPE_CHECKING:
    from taskbridge.schemas.events import TaskEntry, TaskEvent
    from taskbridge.streams.fold.instance import TaskMarks


def with_decision(entry: TaskEntry, marks: TaskMarks, event: TaskEvent) -> tuple[TaskEntry, TaskMarks]:
    """The task after one more decision, the one that holds in its entry; the same objects if that changes nothing."""
    stated = Decision(
        event.occurred_at,
        event.action is Action.COMPLETED,
        event.event_id,
        event.actor_id,
        event.recovered_by is not None,
        event.outcome,
        event.remark,
    )
    registers = {_register(each): each for each in (*marks.others, *_held(entry, marks))}
    known = registers.get(_register(stated))
    if known is not None and _weight(stated) <= _weight(known):
        return entry, marks
    registers[_register(stated)] = stated
    growing = sorted(registers.values(), key=_order)
    named = any(each.is_completed and each.is_recovered for each in growing)
    held = next(each for each in reversed(growing) if not (named and _names_nobody(each)))
    return (
        replace(
            entry,
            status=Status.COMPLETED if held.is_completed else Status.CANCELLED,
            actor_id=held.actor_id,
            decided_at=held.at,
            outcome=held.outcome,
            remark=held.remark,
        ),
        replace(
            marks,
            decided_by=held.event_id,
            is_recovered=held.is_recovered,
            others=tuple(each for each in growing if each is not held),
        ),
    )


def _held(entry: TaskEntry, marks: TaskMarks) -> tuple[Decision, ...]:
    if entry.decided_at is None:
        return ()
    is_completed = entry.status is Status.COMPLETED
    return (
        Decision(
            entry.decided_at,
            is_completed,
            marks.decided_by,
            entry.actor_id,
            marks.is_recovered,
            entry.outcome,
            entry.remark,
        ),
    )


def _register(decision: Decision) -> tuple[bool, str | None]:
    return decision.is_completed, decision.actor_id if decision.is_completed else None


def _weight(decision: Decision) -> tuple[bool, int, str]:
    """Of one register the greatest holds."""
    return decision.is_completed and decision.is_recovered, decision.at, decision.event_id or ""


def _order(decision: Decision) -> tuple[int, bool, str, bool, str]:
    """No two registers are equal in it."""
    actor_id = decision.actor_id
    return decision.at, decision.is_completed, decision.event_id or "", actor_id is not None, actor_id or ""


def _names_nobody(decision: Decision) -> bool:
    return decision.is_completed and decision.actor_id is None and not decision.is_recovered
