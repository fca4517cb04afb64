"""Edges and workers as their own answers say, and those that did not answer shown as such."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from prometheus_client import generate_latest

from taskbridge.center.operations.answers import (
    Answers,
    edge_of,
    lag_of,
    partitions_of,
    shown_worker,
    totals_of,
    worker_of,
)
from taskbridge.center.operations.reporting import STORED, LastErrors
from taskbridge.edge.monitoring import Metrics
from taskbridge.edge.spool.metrics import SpoolMetrics
from taskbridge.streams.monitoring.metrics import Metrics as StreamsMetrics
from taskbridge.streams.monitoring.progress import Snapshot


def worker(url: str, now: Snapshot, **said: Any) -> dict[str, Any]:
    """As a worker with this progress answers."""
    metrics = StreamsMetrics()
    metrics.progress(now, rebalances=0)
    partitions = {"active": now.active, "standby": now.standby}
    readiness = json.dumps({"ready": True, "problems": [], "partitions": partitions, **said})
    return worker_of(Answers(url, readiness, generate_latest(metrics.registry).decode()))


def test_partitions_name_their_worker_and_how_far_they_are() -> None:
    found = [
        worker("http://a", Snapshot([0], [1], {0: 7}, {0: 1.25})),
        worker("http://b", Snapshot([1], [0])),
    ]
    assert partitions_of(found) == [
        {"partition": 0, "worker": "http://a", "lag_records": 7, "lag_seconds": 1.2},
        {"partition": 1, "worker": "http://b", "lag_records": 0, "lag_seconds": 0.0},
    ]
    assert lag_of(found) == 7
    shown = [shown_worker(each) for each in found]
    assert [(each["url"], each["ready"], each["lag_records"]) for each in shown] == [
        ("http://a", True, 7),
        ("http://b", True, 0),
    ]
    assert all(each["since"].endswith("Z") for each in shown)


def test_a_worker_that_does_not_answer_is_shown_as_such() -> None:
    found = [worker("http://a", Snapshot([0])), worker_of(Answers("http://gone", None, None, "no answer"))]
    shown = [shown_worker(each) for each in found]
    assert [(each["url"], each["reachable"], each["problem"]) for each in shown] == [
        ("http://a", True, None),
        ("http://gone", False, "no answer"),
    ]
    assert shown[1]["lag_records"] is None
    assert [each["worker"] for each in partitions_of(found)] == ["http://a"]


def edge_metrics() -> str:
    metrics = Metrics()
    SpoolMetrics(metrics.registry)
    for outcome in ("kafka", "kafka", "spool", "wrong-sign"):
        metrics.count("create", outcome, 0.001)
    metrics.count("complete", "kafka", 0.001)
    text = generate_latest(metrics.registry).decode()
    return text + "taskbridge_edge_spool_depth 6\ntaskbridge_edge_spool_oldest_seconds 10\n"


READY = json.dumps({"ready": True, "degraded": False, "kafka": "ok", "spool": "ok", "credentials": "ok"})


def test_an_edge_shows_what_it_has_counted() -> None:
    edge = edge_of(Answers("http://edge", READY, edge_metrics()))
    assert (edge["reachable"], edge["ready"], edge["problem"]) == (True, True, None)
    assert edge["outcomes"] == {"accepted": 4, "wrong-sign": 1}
    assert edge["spool"] == {"records": 6, "bytes": 0, "oldest_age_s": 10.0}
    totals = totals_of([edge, edge_of(Answers("http://gone", None, None, "no answer"))])
    assert totals is not None
    assert (totals.accepted, totals.rejected, totals.spool_records) == (4, 1, 6)


@pytest.mark.parametrize("readiness", ["", "[]", "{}", "<html>"])
def test_what_is_no_edge_hides_nothing_else(readiness: str) -> None:
    edge = edge_of(Answers("http://other", readiness, "nonsense {"))
    assert edge["reachable"] is False
    assert edge["problem"]
    assert totals_of([edge]) is None


def log_of(errors: LastErrors) -> logging.Logger:
    logger = logging.getLogger("tests.last_errors")
    # A level of its own: what other tests set for the root logger does not reach it.
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.handlers[:] = [errors]
    return logger


def test_only_warnings_are_stored_repeats_are_counted_and_the_ring_is_bounded() -> None:
    errors = LastErrors()
    logger = log_of(errors)
    logger.info("nobody needs this")
    for _ in range(3):
        logger.warning("away")
    assert [(each["level"], each["message"], each["times"]) for each in errors.share()] == [("WARNING", "away", 3)]
    for number in range(STORED + 5):
        logger.error("number %s", number)
    assert len(errors.share()) == STORED


def test_values_that_may_name_people_or_hold_secrets_are_left_out() -> None:
    errors = LastErrors()
    said = {"event": "it fails", "problem": "no answer", "partition": 3, "token": "SECRET", "form": "salary 100"}
    log_of(errors).warning(said)
    assert errors.share()[0]["message"] == "it fails: problem no answer, partition 3"
