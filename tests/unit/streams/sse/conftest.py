from __future__ import annotations

import pytest

from taskbridge.schemas.events import Change, Person, Status, TaskNotification, View


@pytest.fixture
def notification() -> TaskNotification:
    return TaskNotification(
        notification_id="n-1",
        corp_id="corp",
        recipient_id="ann",
        view=View.PENDING,
        change=Change.ADDED,
        instance_id="I-1",
        task_id="T-1",
        title="请假",
        url=None,
        app_type="APP",
        originator=Person("ann", "安"),
        actor_id=None,
        status=Status.PENDING,
        occurred_at=1_769_846_400_000,
        event_id="e-1",
    )
