"""The state of the edges and of the streams workers, from their own answers. Pure."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from taskbridge.center.operations.history import EdgeTotals
from taskbridge.schemas.cloudevents import iso

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_CALLBACKS = "taskbridge_edge_callbacks"
_SPOOL = "taskbridge_edge_spool_"
_DURABLE = ("kafka", "spool")
_NO_PARTS = ("ready", "degraded", "core")
_BY_PARTITION = {"taskbridge_streams_lag_records": "lag", "taskbridge_streams_lag_seconds": "lag_seconds"}
_STARTED = "process_start_time_seconds"
_PROBLEM_MAX = 300

_EDGE: dict[str, Any] = {
    "degraded": False,
    "outcomes": {},
    "spool": {"records": 0, "bytes": 0, "oldest_age_s": 0.0},
}
_WORKER: dict[str, Any] = {"active": [], "standby": [], "since": None, "lag": {}, "lag_seconds": {}}


class Answers(NamedTuple):
    """What one process answered; None if it did not."""

    url: str
    readiness: str | None
    metrics: str | None
    problem: str | None = None


def edge_of(answers: Answers) -> dict[str, Any]:
    """One edge, with what it has counted since its processes started."""
    return _state_of(answers, "an edge", _EDGE, _edge_readiness, _counted)


def worker_of(answers: Answers) -> dict[str, Any]:
    """One worker; ``lag`` and ``lag_seconds`` are by partition."""
    return _state_of(answers, "a streams worker", _WORKER, _worker_readiness, _measured)


def _state_of(
    answers: Answers,
    what: str,
    unknown: Mapping[str, Any],
    readiness_of: Callable[[Any], dict[str, Any]],
    measured_of: Callable[[str], dict[str, Any]],
) -> dict[str, Any]:
    url, readiness, metrics, problem = answers
    shown = {"url": url, "reachable": False, "ready": False, "problem": problem, **unknown}
    if readiness is None or metrics is None:
        return shown
    try:
        return shown | {"reachable": True} | readiness_of(json.loads(readiness)) | measured_of(metrics)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return shown | {"problem": f"the response is not that of {what}: {error}"[:_PROBLEM_MAX]}


def totals_of(edges: Iterable[dict[str, Any]]) -> EdgeTotals | None:
    """Of all that can be reached; None where none can."""
    reached = [each for each in edges if each["reachable"]]
    if not reached:
        return None
    accepted = sum(each["outcomes"].get("accepted", 0) for each in reached)
    counted = sum(sum(each["outcomes"].values()) for each in reached)
    return EdgeTotals(accepted, counted - accepted, sum(each["spool"]["records"] for each in reached))


def shown_worker(worker: Mapping[str, Any]) -> dict[str, Any]:
    """As the overview shows it, with the lag of all its partitions."""
    shown = {name: value for name, value in worker.items() if name not in ("lag", "lag_seconds")}
    return shown | {"lag_records": lag_of([worker]) if worker["reachable"] else None}


def partitions_of(workers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each partition that a worker has. During a rebalance two may claim it: the later is shown, for a moment."""
    found: dict[int, dict[str, Any]] = {}
    for worker in workers:
        for partition in worker["active"]:
            found[partition] = {
                "partition": partition,
                "worker": worker["url"],
                "standbys": [each["url"] for each in workers if partition in each["standby"]],
                "lag_records": worker["lag"].get(partition, 0),
                "lag_seconds": round(worker["lag_seconds"].get(partition, 0.0), 1),
            }
    return [found[partition] for partition in sorted(found)]


def lag_of(workers: Iterable[Mapping[str, Any]]) -> int:
    return sum(sum(each["lag"].values()) for each in workers)


def _edge_readiness(said: Any) -> dict[str, Any]:
    ready, degraded = bool(said["ready"]), bool(said.get("degraded"))
    parts = {name: str(value) for name, value in said.items() if name not in _NO_PARTS and value != "ok"}
    problem = "; ".join(f"{name}: {value}" for name, value in parts.items())[:_PROBLEM_MAX]
    return {"ready": ready, "degraded": degraded, "problem": problem if problem and (degraded or not ready) else None}


def _worker_readiness(said: Any) -> dict[str, Any]:
    partitions = said.get("partitions", _WORKER)
    problem = "; ".join(map(str, said.get("problems", ())))[:_PROBLEM_MAX]
    roles = {role: list(partitions[role]) for role in ("active", "standby")}
    return {"ready": bool(said["ready"]), "problem": problem or None, **roles}


def _counted(text: str) -> dict[str, Any]:
    outcomes: Counter[str] = Counter()
    spool = {"depth": 0.0, "bytes": 0.0, "oldest_seconds": 0.0}
    for family in text_string_to_metric_families(text):
        if family.name == _CALLBACKS:
            for sample in family.samples:
                if sample.name == f"{_CALLBACKS}_total":
                    outcome = sample.labels["outcome"]
                    outcomes["accepted" if outcome in _DURABLE else outcome] += int(sample.value)
        elif (name := family.name.removeprefix(_SPOOL)) in spool:
            # Of several workers of an edge: they share one bound, and each has a spool of its own.
            values = [spool[name], *(sample.value for sample in family.samples)]
            spool[name] = max(values) if name == "oldest_seconds" else sum(values)
    return {
        "outcomes": dict(+outcomes),  # only those that occurred: an edge sends zeros for the others
        "spool": {
            "records": int(spool["depth"]),
            "bytes": int(spool["bytes"]),
            "oldest_age_s": round(spool["oldest_seconds"], 1),
        },
    }


def _measured(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {"lag": {}, "lag_seconds": {}}
    for family in text_string_to_metric_families(text):
        if (name := _BY_PARTITION.get(family.name)) is not None:
            number = int if name == "lag" else float
            found[name] = {int(each.labels["partition"]): number(each.value) for each in family.samples}
        elif family.name == _STARTED:
            found["since"] = iso(round(family.samples[0].value * 1000))
    return found
