"""What is said of a request that proves no event: the refusal that fits it best, and the app that it is about."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from taskbridge.edge.deciding.interpret import Rules, interpret
from taskbridge.edge.errors import Unverified
from taskbridge.edge.received import Received
from taskbridge.edge.sender import signed
from taskbridge.edge.testing import APP_TYPE, SYSTEM_TOKEN, parameters_of, task_of
from taskbridge.edge.verification.credentials import parse_credentials
from taskbridge.edge.verification.replay_windows import MemoryWindow
from taskbridge.edge.verification.replays import claim

if TYPE_CHECKING:
    from taskbridge.edge.verification.replays import Window
    from taskbridge.schemas.events import TaskEvent

CREDENTIALS = parse_credentials(f'[[apps]]\napp_type = "{APP_TYPE}"\nsystem_tokens = ["{SYSTEM_TOKEN}"]')


def interpreted(wire_action: str, *, query: bytes = b"", body: bytes = b"", window: Window | None = None) -> TaskEvent:
    received = Received(
        wire_action=wire_action,
        received_at=1_700_000_000_000,
        remote_address="192.0.2.1",
        method="POST",
        path=f"/yida/tasks/{wire_action}",
        query=query,
        headers={},
        body=body,
    )
    decided = interpret(received, CREDENTIALS, Rules(max_body_bytes=1 << 20))
    claim(decided, window or MemoryWindow())
    return decided.event()


def test_of_several_readings_one_that_names_an_app_counts_more_than_one_that_names_none() -> None:
    """Beside the parameter that a gateway added, two places differ about the app; the body alone names one."""
    body = json.dumps({"task": json.dumps(task_of("inst-1")), "sign": "0" * 32}).encode()
    with pytest.raises(Unverified) as caught:
        interpreted("create", query=b"appType=APP_OTHER", body=body)
    assert (caught.value.reason, caught.value.app_type) == ("wrong-sign", APP_TYPE)


def test_of_several_readings_that_name_an_app_the_first_counts() -> None:
    with pytest.raises(Unverified) as caught:
        interpreted("complete", query=b"appType=A+B&corpId=c&sign=0")
    assert (caught.value.reason, caught.value.app_type) == ("unknown-app", "A B")


def test_a_replay_is_told_of_the_app_whose_signature_it_carries() -> None:
    window, spent = MemoryWindow(), signed(parameters_of("complete", instance_id="inst-1"), system_token=SYSTEM_TOKEN)
    body = json.dumps(spent).encode()
    interpreted("complete", body=body, window=window)
    with pytest.raises(Unverified) as caught:
        interpreted("cancel", body=body, window=window)
    assert (caught.value.reason, caught.value.app_type) == ("cross-action-replay", APP_TYPE)
