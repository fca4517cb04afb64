"""Without its native core, the edge gives the same results, and reports that the core is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.testclient import TestClient
from structlog.testing import capture_logs

from support.edge.callbacks import good, send
from taskbridge.edge.app import create_app
from taskbridge.edge.callbacks import ACTIONS
from taskbridge.edge.deciding import decision
from taskbridge.edge.testing import MemoryPublisher
from taskbridge.edge.verification.token_use import read_use

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from taskbridge.edge.settings import EdgeSettings


def test_answers_events_and_counts_are_the_same_without_the_core(
    settings: EdgeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []
    for core in ("built", "none"):
        if core == "none":
            monkeypatch.setattr(decision, "IS_BUILT", False)
        apart = settings.model_copy(update={"data_dir": tmp_path / core})
        publisher = MemoryPublisher()
        with capture_logs() as lines, TestClient(create_app(apart, publisher=publisher)) as client:
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
        assert core_in_use == ("native" if decision.IS_BUILT else "python")
        assert ("native_core_not_built" in [line["event"] for line in lines]) == (core_in_use == "python")
    assert found[0] == found[1]
    assert found[0][1] == [401, 401], "one is a copy at another action, and one is forged"
