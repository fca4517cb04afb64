"""What is true of a simulated company."""

from __future__ import annotations

from taskbridge.reconcile.testing.company import Company
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


def test_more_may_happen_while_it_is_asked_how_things_stand() -> None:
    company = Company(map(filed, ("I-1", "I-2")))
    told = company.instances(at_ms=1)
    first = next(told)
    company.happened(filed("I-3"))
    assert [first.instance_id, *(each.instance_id for each in told)] == ["I-1", "I-2"]
