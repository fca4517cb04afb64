"""Connecting to Kafka and the registry: differences from the contract are reported, and block nothing."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from taskbridge.local.host import LOOPBACK, free_port
from taskbridge.runtime.kafka import admin_client
from taskbridge.schemas.errors import OperatorError
from taskbridge.streams.contract.start import Contract, Prepared, TopicsUnavailable, until_connected
from taskbridge.streams.monitoring.progress import Health


def test_readiness_reports_topics_that_differ_from_the_contract_and_the_start_goes_on() -> None:
    differences = ["taskbridge.task-states.v1: min.insync.replicas is 1, the contract says 2 with 3 replicas"]
    health = Health()
    contract: Any = SimpleNamespace(apply=lambda: Prepared(12, 1, cast("Any", None), drift=differences))
    prepared = asyncio.run(until_connected(contract, health, cast("Any", SimpleNamespace(is_set=lambda: False))))
    assert prepared is not None
    body = health.readiness()
    assert (body["kafka_and_registry"], body["problems"], body["topics"]) == ("connected", [], differences)


def test_without_kafka_one_request_is_made_and_its_error_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("taskbridge.streams.contract.start._REACHED_S", 0.5)
    nothing: Any = None
    contract = Contract(admin_client(f"{LOOPBACK}:{free_port()}"), nothing, 12, nothing, nothing)
    with pytest.raises(TopicsUnavailable, match=r"Kafka is still starting.* retrying: .*transport failure"):
        contract.apply()


def test_a_worker_waits_while_workers_with_inboxes_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """One assignment cannot cover both: those would lose the partitions of their inboxes."""

    class Old:
        def list_topics(self, *, timeout: float) -> None: ...

    def readers(_admin: object, group: str, topic: str) -> list[str]:
        return [f"a member of {group} that reads {topic}"]

    def allowed(_admin: object, _acls: object, *, topics: object) -> list[Any]:
        assert topics
        return []

    monkeypatch.setattr("taskbridge.streams.contract.start.missing_acls", allowed)
    monkeypatch.setattr("taskbridge.streams.contract.start.readers_of", readers)
    nothing: Any = None
    with pytest.raises(OperatorError, match=r"a member of taskbridge-streams that reads .*notifications.* Stop them"):
        Contract(cast("Any", Old()), nothing, 12, nothing, nothing).apply()
