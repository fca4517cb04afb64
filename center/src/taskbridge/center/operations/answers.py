"""The state of edges, streams workers, webhooks and reconcile, from their own answers. Pure."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from taskbridge.schemas.cloudevents import iso

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from prometheus_client.samples import Sample

    Samples = Mapping[str, Sequence[Sample]]

_DURABLE = ("kafka", "spool")
_NO_PARTS = ("ready", "degraded", "core")
_PROBLEM_MAX = 300
_MISSED_MAX = 200
_BACKFILL = "backfill"

_EDGE: dict[str, Any] = {"degraded": False, "outcomes": {}, "spool": {"records": 0, "bytes": 0, "oldest_age_s": 0.0}}
_WORKER: dict[str, Any] = {"active": [], "standby": [], "since": None, "lag": {}, "lag_seconds": {}}


class Answers(NamedTuple):
    """What one process answered; None if it did not."""

    url: str
    readiness: str | None
    details: str | None
    """Its metrics; of webhooks, the endpoints."""
    problem: str | None = None


class EdgeTotals(NamedTuple):
    """What the edges have counted since they started, all together, and what waits in their spools."""

    accepted: float
    rejected: float
    spool_records: float


def edge_of(answers: Answers) -> dict[str, Any]:
    """One edge, with what it has counted since its processes started."""
    return _state_of(answers, "an edge", _EDGE, _edge)


def worker_of(answers: Answers) -> dict[str, Any]:
    """One worker; ``lag`` and ``lag_seconds`` are by partition."""
    return _state_of(answers, "a streams worker", _WORKER, _worker)


def _state_of(
    answers: Answers, what: str, unknown: Mapping[str, Any], known: Callable[[Any, str], dict[str, Any]]
) -> dict[str, Any]:
    url, readiness, details, problem = answers
    shown = {"url": url, "reachable": False, "ready": False, "problem": problem, **unknown}
    if readiness is None or details is None:
        return shown
    try:
        return shown | {"reachable": True} | known(json.loads(readiness), details)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return shown | {"problem": f"the response is not that of {what}: {error}"[:_PROBLEM_MAX]}


def _samples(metrics: str) -> Samples:
    samples: defaultdict[str, list[Sample]] = defaultdict(list)
    for family in text_string_to_metric_families(metrics):
        for each in family.samples:
            samples[each.name].append(each)
    return samples


def _edge(said: Any, metrics: str) -> dict[str, Any]:
    samples = _samples(metrics)
    ready, degraded = bool(said["ready"]), bool(said.get("degraded"))
    parts = "; ".join(f"{name}: {value}" for name, value in said.items() if name not in _NO_PARTS and value != "ok")
    outcomes: Counter[str] = Counter()
    for each in samples["taskbridge_edge_callbacks_total"]:
        outcome = each.labels["outcome"]
        outcomes["accepted" if outcome in _DURABLE else outcome] += int(each.value)
    records, size, age_s = (
        next((each.value for each in samples[f"taskbridge_edge_spool_{name}"]), 0.0)
        for name in ("depth", "bytes", "oldest_seconds")
    )
    return {
        "ready": ready,
        "degraded": degraded,
        "problem": parts[:_PROBLEM_MAX] if parts and (degraded or not ready) else None,
        "outcomes": dict(+outcomes),  # only those that occurred: an edge sends zeros for the others
        "spool": {"records": int(records), "bytes": int(size), "oldest_age_s": round(age_s, 1)},
    }


def _worker(said: Any, metrics: str) -> dict[str, Any]:
    samples = _samples(metrics)
    partitions = said.get("partitions", _WORKER)
    lag, lag_seconds = (
        {int(each.labels["partition"]): each.value for each in samples[f"taskbridge_streams_{name}"]}
        for name in ("lag_records", "lag_seconds")
    )
    started = samples["process_start_time_seconds"]
    return {
        "ready": bool(said["ready"]),
        "problem": "; ".join(map(str, said.get("problems", ())))[:_PROBLEM_MAX] or None,
        "active": list(partitions["active"]),
        "standby": list(partitions["standby"]),
        "since": iso(round(started[0].value * 1000)) if started else None,
        "lag": {partition: int(records) for partition, records in lag.items()},
        "lag_seconds": lag_seconds,
    }


def webhooks_of(found: Iterable[Answers]) -> dict[str, Any]:
    """The services, and the endpoints as each of them knows them; the attempts are those of all services."""
    services = [_state_of(each, "webhooks", {"lag_records": None, "endpoints": []}, _webhooks) for each in found]
    endpoints: dict[str, dict[str, Any]] = {}
    for service in services:
        for each in service.pop("endpoints"):
            known = endpoints.setdefault(each["id"], {**each, "attempts": 0, "delivered": 0})
            known["attempts"] += each["attempts"]
            known["delivered"] += each["delivered"]
    return {"services": services, "endpoints": [endpoints[name] for name in sorted(endpoints)]}


def _webhooks(said: Any, endpoints: str) -> dict[str, Any]:
    counts = ("attempts", "delivered", "waiting", "given_up")
    return {
        "ready": bool(said["ready"]),
        "problem": "; ".join(map(str, said["problems"]))[:_PROBLEM_MAX] or None,
        "lag_records": int(said["lag"]),
        "endpoints": [
            {**each, "id": str(each["id"]), **{name: int(each[name]) for name in counts}}
            for each in json.loads(endpoints)["items"]
        ],
    }


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
    """Each partition that a worker has. During a rebalance two may report it: the later is shown, for a moment."""
    found = {
        partition: {
            "partition": partition,
            "worker": worker["url"],
            "lag_records": worker["lag"].get(partition, 0),
            "lag_seconds": round(worker["lag_seconds"].get(partition, 0.0), 1),
        }
        for worker in workers
        for partition in worker["active"]
    }
    return [found[partition] for partition in sorted(found)]


def lag_of(workers: Iterable[Mapping[str, Any]]) -> int:
    return sum(sum(each["lag"].values()) for each in workers)


def missed_of(url: str, status: Any) -> dict[str, Any]:
    """Events without callbacks, by app and day of China, the latest first; ``status`` is reconcile's, or None.

    History that a backfill brought in was not missed. ``added`` is what no callback contains: how something was decided
    or ended. ``silent``: since when none of an app's callbacks came, and what is missing since, where something is.
    """
    try:
        return {"url": url, "reachable": True, **_missed(status)}
    except (KeyError, TypeError, AttributeError):
        return {"url": url, "reachable": False, "silent": [], "days": []}


def _missed(status: Any) -> dict[str, Any]:
    counts: defaultdict[tuple[str, str, str], Counter[bool]] = defaultdict(Counter)
    for each in status["found"]:
        if each["found_by"] != _BACKFILL:
            key = str(each["day"]), str(each["corp_id"]), str(each["app_type"])
            counts[key][bool(each["missing"])] += int(each["events"])
    latest = sorted(counts.items(), key=lambda each: each[0][0], reverse=True)
    return {
        "silent": [
            {"corp_id": each["corp_id"], "app_type": each["app_type"], "since": each["last_at"], "missing": missing}
            for each in status["callbacks"]
            if (missing := int(each["missing_since"])) > 0
        ],
        "days": [
            {"day": day, "corp_id": corp_id, "app_type": app_type, "missing": found[True], "added": found[False]}
            for (day, corp_id, app_type), found in islice(latest, _MISSED_MAX)
        ],
    }
