"""What a rebuild left to be told comes once, before anything else of its instance, and leaves everyone right."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any, cast

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from taskbridge.schemas.codec import task_notification_codec, task_state_codec
from taskbridge.schemas.events import Action, TaskNotification
from taskbridge.schemas.inbox import inbox_of
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.streams.fold.instance import fold
from taskbridge.streams.fold.stored_instance import pack, state_value, unpack
from taskbridge.streams.fold.views import EntryKey, notifications, views
from taskbridge.streams.processing.telling import UntoldInstances
from taskbridge.streams.processing.untold import Untold, read_untold, untold_key, write_untold

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import DataObject, SearchStrategy

    from taskbridge.schemas.events import TaskEvent

KEY = b"I-1"
STATES = task_state_codec(cast("Any", FakeRegistry()))
NOTIFICATIONS = task_notification_codec(cast("Any", FakeRegistry()))


class Partition:
    """A store as it is on Kafka too, what consumers were told, and a worker that may be killed before it commits."""

    def __init__(self) -> None:
        self.store: dict[bytes, bytes] = {}
        self.told: list[TaskNotification] = []
        self.states: list[bytes | None] = []
        self.version = 1

    def fold(self, event: TaskEvent) -> None:
        """As a worker does: what is untold of the instance goes first."""
        self.tell()
        stored = self.store.get(KEY)
        before = None if stored is None else unpack(stored, STATES)
        after = fold(before, event)
        self._keep(after)
        self.told += notifications(before, after, event)
        self.states.append(None if not views(after) else state_value(self.store[KEY]))

    def rebuild(self, events: list[TaskEvent]) -> None:
        """Another version, of these events; what was not told of the last one is not told of this one either."""
        earlier, old = self.store.get(untold_key(KEY)), self.store.get(KEY)
        before = old if earlier is None else read_untold(earlier).before
        self._keep(reduce(fold, events[1:], fold(None, events[0])))
        untold = Untold(is_published=False, is_certain=True, notifications=0, before=before)
        self.store[untold_key(KEY)] = write_untold(untold)
        self.version += 1

    def tell(self, *, is_killed: bool = False) -> None:
        untold = UntoldInstances(STATES, NOTIFICATIONS, self.version)
        beside = untold.of(0, [KEY, KEY, b"unknown"], lambda keys: [self.store.get(key) for key in keys])
        if is_killed:
            return
        for name in beside.gone:
            del self.store[name]
        self.told += [NOTIFICATIONS.decode(value or b"") for _, value, _ in beside.notifications]
        self.states += [value for _, value, _ in beside.states]

    def _keep(self, instance: Any) -> None:
        self.store[KEY] = pack(STATES.encode(instance.state), instance, (7,), now_ms=1)


@given(data=st.data())
def test_everyone_ends_up_with_what_is_shown_whatever_comes_before_all_is_told(
    histories: SearchStrategy[list[TaskEvent]], data: DataObject
) -> None:
    partition = Partition()
    for event in data.draw(histories):
        partition.fold(event)
    steps = data.draw(st.lists(st.sampled_from(("rebuild", "event", "tell", "killed")), max_size=6))
    for step in ["rebuild", *steps]:
        if step == "rebuild":
            partition.rebuild(data.draw(histories))
        elif step == "event":
            partition.fold(data.draw(histories)[0])
        else:
            partition.tell(is_killed=step == "killed")
    partition.tell()
    assert set(partition.store) == {KEY}
    shown = views(unpack(partition.store[KEY], STATES))
    inbox = inbox_of(partition.told)
    assert {EntryKey(line.user_id, line.view, line.task_id): told.status for line, told in inbox.items()} == {
        key: entry.status for key, entry in shown.items()
    }

    before = len(partition.told), len(partition.states)
    partition.tell()
    assert (len(partition.told), len(partition.states)) == before, "nothing is told twice"


def test_a_state_that_is_published_already_is_not_published_again(make_event: Callable[..., TaskEvent]) -> None:
    partition = Partition()
    created = make_event(Action.CREATED, task_id="T-1", recipient_ids=("ann",), title="wrong")
    partition.fold(created)
    partition.rebuild([replace(created, title="right")])
    published = len(partition.states)
    untold = read_untold(partition.store[untold_key(KEY)])
    partition.store[untold_key(KEY)] = write_untold(
        Untold(is_published=True, is_certain=True, notifications=1, before=untold.before)
    )
    partition.tell()
    assert len(partition.states) == published
    assert [each.title for each in partition.told] == ["wrong", "right"]


def test_of_an_instance_that_is_gone_nothing_is_told() -> None:
    store = {untold_key(KEY): write_untold(Untold(is_published=False, is_certain=True, notifications=1, before=None))}
    beside = UntoldInstances(STATES, NOTIFICATIONS, 2).of(0, [KEY], lambda keys: [store.get(key) for key in keys])
    assert (list(beside.gone), beside.states, beside.notifications) == ([untold_key(KEY)], [], [])
