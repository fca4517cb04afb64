"""What the job must come to, by the project's own fold: the measure of every contender's outputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from taskbridge.schemas.events import Lifecycle
from taskbridge.streams.fold.instance import fold
from taskbridge.streams.fold.views import notifications, views

if TYPE_CHECKING:
    from taskbridge.schemas.events import TaskEvent, TaskState, View
    from taskbridge.streams.fold.instance import Instance
    from taskbridge.streams.fold.views import Entry

LineTuple = tuple[str, str, "View", str, "str | None"]
"""Corp, person, view, instance, task: what identifies a line among all views."""

EntryTuple = tuple[Any, ...]
"""The fields of a line: title, url, app type, originator, actor, status, when it entered the view and last moved."""


@dataclass(slots=True)
class Reference:
    """Fed with the events in the order in which they are produced, which is each partition's order."""

    instances: dict[bytes, Instance] = field(default_factory=dict[bytes, "Instance"])
    ids: set[str] = field(default_factory=set[str])
    notified: list[int] = field(default_factory=lambda: [0])
    """Notifications after so many events."""
    _states: dict[bytes, dict[str, Any] | None] | None = None
    _lines: dict[LineTuple, EntryTuple] | None = None

    @property
    def events(self) -> int:
        return len(self.notified) - 1

    def apply(self, key: bytes, event: TaskEvent) -> None:
        self._states = self._lines = None
        before = self.instances.get(key)
        after = self.instances[key] = fold(before, event)
        found = notifications(before, after, event)
        self.ids.update(each.notification_id for each in found)
        self.notified.append(self.notified[-1] + len(found))

    def states(self) -> dict[bytes, dict[str, Any] | None]:
        """The last state of each instance, its revision aside; None where it is deleted."""
        if self._states is None:  # called in every round
            self._states = {key: _state(each.state) for key, each in self.instances.items()}
        return self._states

    def lines(self) -> dict[LineTuple, EntryTuple]:
        """Every line that a user sees in the end."""
        if self._lines is None:
            self._lines = {
                (each.state.corp_id, key.user_id, key.view, each.state.instance_id, key.task_id): _entry(entry)
                for each in self.instances.values()
                for key, entry in views(each).items()
            }
        return self._lines

    def events_behind(self, share: float) -> int:
        """How many events come after the one whose notifications complete this share of all."""
        enough = self.notified[-1] * share
        return self.events - next(count for count, notified in enumerate(self.notified) if notified >= enough)


def _state(state: TaskState) -> dict[str, Any] | None:
    if state.lifecycle is Lifecycle.DELETED:
        return None
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(state))  # plain lists, as Avro gives them back
    del found["revision"]
    return found


def _entry(entry: Entry) -> EntryTuple:
    person = None if entry.originator is None else (entry.originator.user_id, entry.originator.name)
    facts = (entry.title, entry.url, entry.app_type, person, entry.actor_id, entry.status)
    return (*facts, entry.entered_at, entry.updated_at)
