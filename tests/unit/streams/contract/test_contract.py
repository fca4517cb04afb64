"""Connecting to Kafka and the registry: what differs from the contract is said, and holds nothing up."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from taskbridge.streams.contract.contract import Prepared, until_connected
from taskbridge.streams.monitoring.health import Health


def test_topics_that_differ_from_the_contract_are_told_by_readiness_and_hold_nothing_up() -> None:
    said = ["taskbridge.task-states.v1: min.insync.replicas is 1, the contract says 2 with 3 replicas"]
    health = Health()
    contract: Any = SimpleNamespace(apply=lambda: Prepared(12, 1, {}, frozenset(), {}, said))
    prepared = asyncio.run(until_connected(contract, health, cast("Any", SimpleNamespace(is_set=lambda: False))))
    assert prepared is not None
    told = health.readiness()
    assert (told["kafka_and_registry"], told["problems"], told["topics"]) == ("connected", [], said)
