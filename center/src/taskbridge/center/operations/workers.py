"""The streams workers and the partitions of the events topic, from the workers' own answers. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from taskbridge.schemas.cloudevents import iso

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from taskbridge.center.operations.services import Answers

_BY_PARTITION = {"taskbridge_streams_lag_records": "lag", "taskbridge_streams_lag_seconds": "lag_seconds"}
_STARTED = "process_start_time_seconds"
_PROBLEM_MAX = 300


def worker_of(answers: Answers) -> dict[str, Any]:
    """One worker; ``lag`` and ``lag_seconds`` are by partition."""
    shown: dict[str, Any] = {
        "url": answers.url,
        "reachable": answers.readiness is not None and answers.metrics is not None,
        "ready": False,
        "problem": answers.problem,
        "active": [],
        "standby": [],
        "since": None,
        "lag": {},
        "lag_seconds": {},
    }
    try:
        if answers.readiness is not None and answers.metrics is not None:
            shown |= _readiness(json.loads(answers.readiness)) | _measured(answers.metrics)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        shown |= {
            "reachable": False,
            "problem": f"the response is not that of a streams worker: {error}"[:_PROBLEM_MAX],
        }
    return shown


def shown_worker(worker: Mapping[str, Any]) -> dict[str, Any]:
    """As the overview shows it, with the lag of all its partitions."""
    shown = {name: value for name, value in worker.items() if name not in ("lag", "lag_seconds")}
    return shown | {"lag_records": sum(worker["lag"].values()) if worker["reachable"] else None}


def partitions_of(workers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each partition that a worker has. During a rebalance two may claim it: the later is shown, for a moment."""
    found: dict[int, dict[str, Any]] = {}
    for worker in workers:
        for partition in worker["active"]:
            found[partition] = {
                "partition": partition,
                "worker": worker["url"],
                "standbys": [],
                "lag_records": worker["lag"].get(partition, 0),
                "lag_seconds": round(worker["lag_seconds"].get(partition, 0.0), 1),
            }
    for worker in workers:
        for partition in worker["standby"]:
            if partition in found:
                found[partition]["standbys"].append(worker["url"])
    return [found[partition] for partition in sorted(found)]


def lag_of(workers: Iterable[Mapping[str, Any]]) -> int:
    return sum(sum(each["lag"].values()) for each in workers)


def _readiness(said: Any) -> dict[str, Any]:
    partitions: Mapping[str, list[int]] = said.get("partitions", {"active": [], "standby": []})
    problem = "; ".join(map(str, said.get("problems", ())))[:_PROBLEM_MAX]
    return {
        "ready": bool(said["ready"]),
        "problem": problem or None,
        "active": partitions["active"],
        "standby": partitions["standby"],
    }


def _measured(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {"lag": {}, "lag_seconds": {}}
    for family in text_string_to_metric_families(text):
        if (name := _BY_PARTITION.get(family.name)) is not None:
            values = {int(each.labels["partition"]): each.value for each in family.samples}
            found[name] = {each: int(value) for each, value in values.items()} if name == "lag" else values
        elif family.name == _STARTED:
            found["since"] = iso(round(family.samples[0].value * 1000))
    return found
