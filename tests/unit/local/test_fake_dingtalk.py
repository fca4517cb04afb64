"""The simulated company behind the fake DingTalk."""

from __future__ import annotations

from taskbridge.local.fake_dingtalk import Company
from taskbridge.schemas.events import SOURCE_YIDA, Action, TaskEvent


def filed(instance_id: str) -> TaskEvent:
    return TaskEvent(
        event_id=instance_id,
        source=SOURCE_YIDA,
        action=Action.CREATED,
        corp_id="ding1",
        app_type="APP_1",
        instance_id=instance_id,
        occurred_at=1,
        received_at=1,
    )


def test_events_may_be_added_while_instances_are_read() -> None:
    company = Company(map(filed, ("I-1", "I-2")))
    instances = company.instances(at_ms=1)
    first = next(instances)
    company.happened(filed("I-3"))
    assert [first.instance_id, *(each.instance_id for each in instances)] == ["I-1", "I-2"]
