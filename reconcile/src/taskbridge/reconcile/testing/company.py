"""What is true of a simulated company, for a DingTalk of the tests' own: made of what happened, one event at a time.

Callbacks that were dropped on their way have happened all the same: tell the company of them too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from taskbridge.reconcile.dingtalk import wire
from taskbridge.schemas.events import Action

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from taskbridge.schemas.events import Person, TaskEvent


@dataclass(frozen=True, slots=True)
class TrueTask:
    task_id: str
    assignee_ids: tuple[str, ...]
    created_ms: int
    decided_ms: int | None = None
    actor_id: str | None = None
    word: str | None = None
    """What the actor chose, in the API's words."""
    remark: str | None = None


@dataclass(frozen=True, slots=True)
class TrueInstance:
    """An instance as it was at some moment."""

    corp_id: str
    app_type: str
    instance_id: str
    created_ms: int
    modified_ms: int
    form_uuid: str | None = None
    process_code: str | None = None
    process_name: str | None = None
    title: str | None = None
    originator: Person | None = None
    status: str = wire.RUNNING
    result: str | None = None
    form_data: dict[str, str | None] = field(default_factory=dict[str, "str | None"])
    tasks: tuple[TrueTask, ...] = ()
    copied: tuple[tuple[str, int], ...] = ()
    """Who was copied in, and when."""
    is_deleted: bool = False

    @property
    def open_tasks(self) -> list[TrueTask]:
        return [each for each in self.tasks if each.decided_ms is None]


class Company:
    """Remembers what happened, and tells how things stood at any moment."""

    def __init__(self, events: Iterable[TaskEvent] = ()) -> None:
        self._happened: dict[str, list[TaskEvent]] = {}
        for event in events:
            self.happened(event)

    def happened(self, event: TaskEvent) -> None:
        """It happened at ``occurred_at``, whether a callback told so or not."""
        self._happened.setdefault(event.instance_id, []).append(event)

    def instance(self, instance_id: str, *, at_ms: int) -> TrueInstance | None:
        """How the instance stood then; None where it did not exist yet, or not any more."""
        events = [each for each in self._happened.get(instance_id, ()) if each.occurred_at <= at_ms]
        if not events:
            return None
        events.sort(key=lambda each: each.occurred_at)
        known = _begun(events[0])
        for event in events:
            known = _after(known, event)
        return None if known.is_deleted else known

    def instances(self, *, at_ms: int) -> Iterator[TrueInstance]:
        # Of those that there are by now: while DingTalk answers, more may happen in another thread.
        for instance_id in list(self._happened):
            known = self.instance(instance_id, at_ms=at_ms)
            if known is not None:
                yield known


def _begun(event: TaskEvent) -> TrueInstance:
    created = event.occurred_at if event.created_at is None else min(event.created_at, event.occurred_at)
    return TrueInstance(event.corp_id, event.app_type, event.instance_id, created, event.occurred_at)


def _after(known: TrueInstance, event: TaskEvent) -> TrueInstance:
    known = replace(known, modified_ms=max(known.modified_ms, event.occurred_at))
    if event.action is Action.DELETED:
        return replace(known, is_deleted=True)
    if event.action is Action.COPIED:
        return replace(known, copied=known.copied + tuple((each, event.occurred_at) for each in event.recipient_ids))
    if event.action is Action.CREATED:
        return _described(_assigned(known, event) if event.task_id is not None else known, event)
    return _decided(known, event)


def _described(known: TrueInstance, event: TaskEvent) -> TrueInstance:
    status = event.instance_status or known.status
    known = replace(
        known,
        form_uuid=event.form_uuid or known.form_uuid,
        process_code=event.process_code or known.process_code,
        process_name=event.process_name or known.process_name,
        title=event.title or known.title,
        originator=event.originator or known.originator,
        form_data={**known.form_data, **event.form_data},
        status=status,
        result=event.approved_result or known.result if status in wire.ENDED else None,
    )
    if known.result != wire.DISAGREE:
        return known
    # A complete does not say what was decided; that the instance ended so says it of the last one.
    last = max((each for each in known.tasks if each.decided_ms is not None), key=_decided_ms, default=None)
    tasks = (replace(each, word=wire.DISAGREE) if each is last else each for each in known.tasks)
    return replace(known, tasks=tuple(tasks))


def _assigned(known: TrueInstance, event: TaskEvent) -> TrueInstance:
    task_id = str(event.task_id)
    others = tuple(each for each in known.tasks if each.task_id != task_id)
    before = next((each for each in known.tasks if each.task_id == task_id), None)
    created = event.occurred_at if event.created_at is None else event.created_at
    task = before or TrueTask(task_id, (), created)
    ids = tuple(dict.fromkeys((*task.assignee_ids, *event.recipient_ids)))
    return replace(known, tasks=(*others, replace(task, assignee_ids=ids)))


def _decided(known: TrueInstance, event: TaskEvent) -> TrueInstance:
    word = event.outcome or (wire.AGREE if event.action is Action.COMPLETED else wire.REVOKED)
    task_id = str(event.task_id)
    before = next((each for each in known.tasks if each.task_id == task_id), TrueTask(task_id, (), event.occurred_at))
    decided = replace(
        before, decided_ms=event.occurred_at, actor_id=event.actor_id, word=word, remark=event.remark or before.remark
    )
    return replace(known, tasks=(*(each for each in known.tasks if each.task_id != task_id), decided))


def _decided_ms(task: TrueTask) -> int:
    return task.decided_ms or 0
