"""The overview: all workers side by side, and those that did not answer said to be so."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from prometheus_client import generate_latest

from taskbridge.edge.monitoring import Metrics
from taskbridge.edge.spool.metrics import SpoolMetrics
from taskbridge.streams.operations.edges import Answers, edge_of, totals_of
from taskbridge.streams.operations.last_errors import KEPT, LastErrors
from taskbridge.streams.operations.overview import overview

NOTHING: dict[str, Any] = {"total": 0, "reasons": {}, "latest": []}


def share(**more: Any) -> dict[str, Any]:
    return {
        "ready": True,
        "active": [],
        "standby": [],
        "lag": {},
        "lag_seconds": {},
        "inbox_lag": {},
        "sse_connections": 0,
        "since": "2026-01-31T08:00:00.000Z",
        "flow": {},
        "errors": [],
        "lag_samples": {},
        **more,
    }


def shown(shares: dict[str, Any]) -> dict[str, Any]:
    return overview(shares, now_s=0, edges=[], samples=[], quarantine=NOTHING, dead_letters=NOTHING)


def test_partitions_name_their_worker_their_standbys_and_how_far_they_are() -> None:
    found = shown(
        {
            "http://b": share(active=[1], standby=[0]),
            "http://a": share(active=[0], standby=[1], lag={"0": 7}, lag_seconds={"0": 1.25}, inbox_lag={"0": 2}),
        }
    )
    assert found["partitions"] == [
        {
            "partition": 0,
            "worker": "http://a",
            "standbys": ["http://b"],
            "lag_records": 7,
            "lag_seconds": 1.2,
            "inbox_lag_records": 2,
        },
        {
            "partition": 1,
            "worker": "http://b",
            "standbys": ["http://a"],
            "lag_records": 0,
            "lag_seconds": 0.0,
            "inbox_lag_records": 0,
        },
    ]
    assert [(each["url"], each["lag_records"]) for each in found["workers"]] == [("http://a", 7), ("http://b", 0)]


def test_a_worker_that_does_not_answer_is_shown_as_such() -> None:
    found = shown({"http://a": share(active=[0]), "http://gone": None})
    assert [(each["url"], each["reachable"]) for each in found["workers"]] == [
        ("http://a", True),
        ("http://gone", False),
    ]
    assert json.dumps(found)


def test_the_last_errors_of_all_are_in_one_list_the_latest_first() -> None:
    errors = {
        url: share(errors=[{"at": f"2026-01-31T08:00:0{at}.000Z", "level": "ERROR", "message": url}])
        for at, url in enumerate(("http://a", "http://b"))
    }
    assert [each["worker"] for each in shown(errors)["errors"]] == ["http://b", "http://a"]


def edge_metrics(*workers: str) -> str:
    metrics = Metrics()
    SpoolMetrics(metrics.registry)
    for outcome in ("kafka", "kafka", "spool", "wrong-sign"):
        metrics.count("create", outcome, 0.001)
    metrics.count("complete", "kafka", 0.001)
    text = generate_latest(metrics.registry).decode()
    return text + "".join(
        f'taskbridge_edge_spool_depth{{worker="{each}"}} 3\n'
        f'taskbridge_edge_spool_oldest_seconds{{worker="{each}"}} {9 + number}\n'
        for number, each in enumerate(workers)
    )


READY = json.dumps({"ready": True, "degraded": False, "kafka": "ok", "spool": "ok", "credentials": "ok"})


def test_an_edge_shows_what_it_has_counted() -> None:
    edge = edge_of(Answers("http://edge", READY, edge_metrics("1", "2")))
    assert (edge["reachable"], edge["ready"], edge["problem"]) == (True, True, None)
    assert edge["outcomes"] == {"accepted": 4, "wrong-sign": 1}
    assert edge["spool"] == {"records": 6, "bytes": 0, "oldest_age_s": 10.0}
    totals = totals_of([edge, edge_of(Answers("http://gone", None, None, "no answer"))])
    assert totals is not None
    assert (totals.accepted, totals.rejected, totals.spool_records) == (4, 1, 6)


def test_a_degraded_edge_says_why() -> None:
    said = json.dumps({"ready": True, "degraded": True, "kafka": "does not answer", "spool": "ok", "core": "native"})
    edge = edge_of(Answers("http://edge", said, ""))
    assert (edge["degraded"], edge["problem"]) == (True, "kafka: does not answer")


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


def test_only_warnings_are_kept_repeats_are_counted_and_the_ring_is_bounded() -> None:
    errors = LastErrors()
    logger = log_of(errors)
    logger.info("nobody needs this")
    for _ in range(3):
        logger.warning("away")
    assert [(each["level"], each["message"], each["times"]) for each in errors.share()] == [("WARNING", "away", 3)]
    for number in range(KEPT + 5):
        logger.error("number %s", number)
    assert len(errors.share()) == KEPT


def test_values_that_may_name_people_or_hold_secrets_are_left_out() -> None:
    errors = LastErrors()
    said = {"event": "it fails", "problem": "no answer", "partition": 3, "token": "SECRET", "form": "salary 100"}
    log_of(errors).warning(said)
    assert errors.share()[0]["message"] == "it fails: problem no answer, partition 3"
