"""A request that proves no event gets the refusal that fits it best; without the native core the edge does the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from support.edge.callbacks import good, send
from support.edge.client import EdgeClient
from support.edge.fakes import APP_TYPE, SYSTEM_TOKEN, MemoryPublisher, event_in, parameters_of, task_of
from taskbridge.edge.app import create_app
from taskbridge.edge.decision import decide
from taskbridge.edge.decision.callbacks import ACTIONS
from taskbridge.edge.decision.decide import Rules, interpret
from taskbridge.edge.errors import Unverified
from taskbridge.edge.request import Received
from taskbridge.edge.sender import signed
from taskbridge.edge.verification.credentials import parse_credentials, read_use
from taskbridge.edge.verification.replays import MemoryWindow, claim

if TYPE_CHECKING:
    from pathlib import Path

    from taskbridge.edge.settings import EdgeSettings
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
    claim(decided.mark, window or MemoryWindow(), sender=decided.sender)
    return event_in(decided)


def test_of_several_readings_one_that_names_an_app_counts_more_than_one_that_names_none() -> None:
    """With a parameter that a gateway added, two places differ about the app; the body alone names one."""
    body = json.dumps({"task": json.dumps(task_of("inst-1")), "sign": "0" * 32}).encode()
    with pytest.raises(Unverified) as caught:
        interpreted("create", query=b"appType=APP_OTHER", body=body)
    assert (caught.value.reason, caught.value.app_type) == ("wrong-sign", APP_TYPE)


def test_of_several_readings_that_name_an_app_the_first_counts() -> None:
    with pytest.raises(Unverified) as caught:
        interpreted("complete", query=b"appType=A+B&corpId=c&sign=0")
    assert (caught.value.reason, caught.value.app_type) == ("unknown-app", "A B")


def test_a_replay_is_reported_for_the_app_whose_signature_it_carries() -> None:
    window, spent = MemoryWindow(), signed(parameters_of("complete", instance_id="inst-1"), system_token=SYSTEM_TOKEN)
    body = json.dumps(spent).encode()
    interpreted("complete", body=body, window=window)
    with pytest.raises(Unverified) as caught:
        interpreted("cancel", body=body, window=window)
    assert (caught.value.reason, caught.value.app_type) == ("cross-action-replay", APP_TYPE)


def test_answers_events_and_counts_are_the_same_without_the_core(
    settings: EdgeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []
    for core in ("built", "none"):
        if core == "none":
            monkeypatch.setattr(decide, "IS_BUILT", False)
        apart = settings.model_copy(update={"data_dir": tmp_path / core})
        publisher = MemoryPublisher()
        with capture_logs() as lines, EdgeClient(create_app(apart, publisher=publisher)) as client:
            answers = [send(client, action, good(action)).json() for action in ACTIONS]
            refusals = [
                send(client, "cancel", good()).status_code,
                send(client, "complete", good(token="x")).status_code,
            ]
            metrics = client.get("/metrics").text
            core_in_use = client.get("/readyz").json()["core"]
        counted = [
            line for line in metrics.splitlines() if "_edge_callbacks_total" in line and not line.endswith(" 0.0")
        ]
        events = [(event.event_id, event.action, event.raw_parameters) for event in publisher.published]
        found.append((answers, refusals, counted, events, [*read_use(apart.data_dir).last]))
        assert core_in_use == ("native" if decide.IS_BUILT else "python")
        assert ("native_core_not_built" in [line["event"] for line in lines]) == (core_in_use == "python")
    assert found[0] == found[1]
    assert found[0][1] == [401, 401], "one is a copy at another action, and one is forged"
