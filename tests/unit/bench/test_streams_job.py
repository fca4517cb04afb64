"""The Python peers' job gives the results of the project's own codec and fold for every event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace
from tests.bench.streams.peers.job import Job
from tests.bench.streams.workload import workload

from taskbridge.schemas.codec import task_event_codec, task_notification_codec, task_state_codec
from taskbridge.schemas.events import Lifecycle
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.schemas.topics import ALL, TASK_NOTIFICATIONS, TASK_STATES
from taskbridge.streams.fold.instance import fold
from taskbridge.streams.fold.views import notifications

if TYPE_CHECKING:
    from taskbridge.streams.fold.instance import Instance

_REGISTRY = FakeRegistry()
_IDS = _REGISTRY.register(ALL)


def test_step_by_step_it_comes_to_the_same_bytes() -> None:
    job = Job(state_schema_id=_IDS[TASK_STATES.subject], notification_schema_id=_IDS[TASK_NOTIFICATIONS.subject])
    events, states, codec = (
        task_event_codec(_REGISTRY),
        task_state_codec(_REGISTRY),
        task_notification_codec(_REGISTRY),
    )
    stored: dict[bytes, bytes] = {}
    instances: dict[bytes, Instance] = {}
    for key, event in workload(1000):
        value = events.encode(event)
        assert job.event(value) == replace(event, form_data={}, raw_parameters={})
        before = instances.get(key)
        after = instances[key] = fold(before, event)
        stored[key], published, found = job.step(stored.get(key), value)
        assert published == (None if after.state.lifecycle is Lifecycle.DELETED else states.encode(after.state))
        assert [each.value for each in found] == [codec.encode(each) for each in notifications(before, after, event)]
        assert job.unpack(stored[key]) == after
