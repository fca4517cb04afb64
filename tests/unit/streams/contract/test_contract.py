"""Connecting to Kafka and the registry: what differs from the contract is said, and holds nothing up."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from taskbridge.local.host import LOOPBACK, free_port
from taskbridge.runtime.kafka import admin_client
from taskbridge.streams.contract.start import Contract, Prepared, TopicsUnavailable, until_connected
from taskbridge.streams.monitoring.progress import Health


def test_topics_that_differ_from_the_contract_are_told_by_readiness_and_hold_nothing_up() -> None:
    said = ["taskbridge.task-states.v1: min.insync.replicas is 1, the contract says 2 with 3 replicas"]
    health = Health()
    contract: Any = SimpleNamespace(apply=lambda: Prepared(12, 1, {}, frozenset(), {}, said))
    prepared = asyncio.run(until_connected(contract, health, cast("Any", SimpleNamespace(is_set=lambda: False))))
    assert prepared is not None
    told = health.readiness()
    assert (told["kafka_and_registry"], told["problems"], told["topics"]) == ("connected", [], said)


def test_without_kafka_one_question_is_asked_and_why_there_is_no_answer_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("taskbridge.streams.contract.start._REACHED_S", 0.5)
    nothing: Any = None
    contract = Contract(admin_client(f"{LOOPBACK}:{free_port()}"), nothing, 12, nothing, nothing, task_center=True)
    with pytest.raises(TopicsUnavailable, match=r"Kafka is still starting.* retrying: .*transport failure"):
        contract.apply()
