"""The bench's check of a contender's outputs passes what the project's own fold writes, and nothing less or more."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace
from tests.bench.command import NotCounted
from tests.bench.streams.checker import Decoder, Notified, Reference, check_notifications, check_states
from tests.bench.streams.workload import workload

from taskbridge.schemas.cloudevents import notification_headers
from taskbridge.schemas.codec import task_notification_codec, task_state_codec
from taskbridge.schemas.events import Change, Lifecycle, TaskNotification, notification_id_for, notification_key
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.schemas.topics import ALL, TASK_NOTIFICATIONS, TASK_STATES
from taskbridge.streams.fold.instance import fold
from taskbridge.streams.fold.views import notifications

_EVENTS = 2000
_REGISTRY = FakeRegistry()
_IDS = _REGISTRY.register(ALL)
_STATES, _NOTIFICATIONS = task_state_codec(_REGISTRY), task_notification_codec(_REGISTRY)
_READ_STATES = Decoder("TaskState", _IDS[TASK_STATES.subject])
_READ_NOTIFICATIONS = Decoder("TaskNotification", _IDS[TASK_NOTIFICATIONS.subject])


@dataclass
class Written:
    """What a contender that does everything right would have on its topics."""

    reference: Reference = field(default_factory=Reference)
    states: dict[bytes, bytes | None] = field(default_factory=dict[bytes, "bytes | None"])
    notified: list[Notified] = field(default_factory=list[Notified])

    def check(self) -> int:
        check_states(self.reference, self.states, _READ_STATES)
        return check_notifications(self.reference, self.notified, _READ_NOTIFICATIONS)


@pytest.fixture(scope="module")
def whole() -> Written:
    written = Written()
    for key, event in workload(_EVENTS):
        before = written.reference.instances.get(key)
        after = fold(before, event)
        deleted = after.state.lifecycle is Lifecycle.DELETED
        written.states[key] = None if deleted else _STATES.encode(replace(after.state, revision=77))
        for each in notifications(before, after, event):
            headers = dict(notification_headers(each))
            person = notification_key(each.corp_id, each.recipient_id)
            written.notified.append(Notified(person, _NOTIFICATIONS.encode(each), headers["ce_id"]))
        written.reference.apply(key, event)
    return written


@pytest.fixture
def written(whole: Written) -> Written:
    return Written(whole.reference, dict(whole.states), list(whole.notified))


def _living(written: Written) -> bytes:
    return next(key for key, value in written.states.items() if value is not None)


def _deleted(written: Written) -> bytes:
    return next(key for key, value in written.states.items() if value is None)


def test_right_outputs_pass_with_any_revision(written: Written) -> None:
    assert written.check() == len(written.notified) > _EVENTS


def test_repeated_notifications_pass(written: Written) -> None:
    written.notified += written.notified[-50:]
    written.check()


def test_a_missing_state_is_found(written: Written) -> None:
    del written.states[_living(written)]
    with pytest.raises(NotCounted, match="has no state"):
        written.check()


def test_a_missing_tombstone_is_found(written: Written) -> None:
    written.states[_deleted(written)] = written.states[_living(written)]
    with pytest.raises(NotCounted, match="and should be None"):
        written.check()


def test_a_changed_state_is_found(written: Written) -> None:
    key = _living(written)
    state = _STATES.decode(written.states[key])
    written.states[key] = _STATES.encode(replace(state, updated_at=state.updated_at + 1))
    with pytest.raises(NotCounted, match="and should be"):
        written.check()


def test_a_state_of_an_unknown_instance_is_found(written: Written) -> None:
    written.states[b"nobody"] = None
    with pytest.raises(NotCounted, match="no event names"):
        written.check()


@pytest.mark.parametrize("at", [0, 700, -1])
def test_a_missing_notification_is_found(written: Written, at: int) -> None:
    only = written.notified.pop(at)
    written.notified = [notified for notified in written.notified if notified.ce_id != only.ce_id]
    with pytest.raises(NotCounted, match="1 notifications are missing"):
        written.check()


def test_a_notification_that_no_event_makes_is_found(written: Written) -> None:
    found = _NOTIFICATIONS.decode(written.notified[0].value)
    written.notified.append(_with_its_own_id(replace(found, recipient_id="nobody")))
    with pytest.raises(NotCounted, match="that no event makes"):
        written.check()


def test_a_notification_with_other_content_is_found(written: Written) -> None:
    at = _last_shown(written)
    found = _NOTIFICATIONS.decode(written.notified[at].value)
    written.notified[at] = _with_its_own_id(replace(found, title="another title"))
    with pytest.raises(NotCounted, match="another title"):
        written.check()


def test_notifications_in_a_wrong_order_are_found(written: Written) -> None:
    written.notified.reverse()
    with pytest.raises(NotCounted, match="views"):
        written.check()


def test_a_notification_under_another_key_is_found(written: Written) -> None:
    written.notified[3] = written.notified[3]._replace(key=b"corp/another")
    with pytest.raises(NotCounted, match="has the key"):
        written.check()


def test_a_notification_without_its_header_is_found(written: Written) -> None:
    written.notified[3] = written.notified[3]._replace(ce_id=None)
    with pytest.raises(NotCounted, match="the header None"):
        written.check()


def test_an_id_that_does_not_follow_from_its_record_is_found(written: Written) -> None:
    one, other = written.notified[0], _NOTIFICATIONS.decode(written.notified[1].value)
    foreign = _NOTIFICATIONS.decode(one.value).notification_id
    written.notified[1] = Notified(
        written.notified[1].key, _NOTIFICATIONS.encode(replace(other, notification_id=foreign)), foreign.encode()
    )
    with pytest.raises(NotCounted, match="has the id"):
        written.check()


def test_bytes_behind_a_record_are_found(written: Written) -> None:
    written.notified[0] = written.notified[0]._replace(value=written.notified[0].value + b"\x00")
    with pytest.raises(NotCounted, match="bytes behind"):
        written.check()


def test_a_record_of_another_schema_is_found(written: Written) -> None:
    written.notified[0] = written.notified[0]._replace(value=b"\x00\x00\x00\x00\x63" + written.notified[0].value[5:])
    with pytest.raises(NotCounted, match="schema's id"):
        written.check()


def test_events_after_a_share_of_the_notifications_are_counted(whole: Written) -> None:
    reference = whole.reference
    assert reference.events == _EVENTS
    assert reference.events_behind(1.0) < 100
    assert reference.events_behind(0.5) < reference.events_behind(0.1) < _EVENTS


def _with_its_own_id(found: TaskNotification) -> Notified:
    new = replace(
        found,
        notification_id=notification_id_for(
            found.event_id, found.recipient_id, found.view, found.task_id, found.change
        ),
    )
    return Notified(
        notification_key(new.corp_id, new.recipient_id), _NOTIFICATIONS.encode(new), new.notification_id.encode()
    )


def _last_shown(written: Written) -> int:
    """The place of a notification whose line nothing touches afterwards."""
    seen: set[tuple[str, str, str, str | None]] = set()
    for at in reversed(range(len(written.notified))):
        found = _NOTIFICATIONS.decode(written.notified[at].value)
        line = (found.recipient_id, found.view, found.instance_id, found.task_id)
        if line not in seen and found.change is not Change.REMOVED:
            return at
        seen.add(line)
    raise AssertionError("everything was removed")
