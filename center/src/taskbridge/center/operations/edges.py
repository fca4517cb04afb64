"""The state of the edges from their own answers, for the overview. Pure."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

from prometheus_client.parser import text_string_to_metric_families

from taskbridge.center.operations.history import EdgeTotals

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskbridge.center.operations.services import Answers

_CALLBACKS = "taskbridge_edge_callbacks"
_SPOOL = "taskbridge_edge_spool_"
_DURABLE = ("kafka", "spool")
_NO_PARTS = ("ready", "degraded", "core")
_PROBLEM_MAX = 300


def edge_of(answers: Answers) -> dict[str, Any]:
    """One edge, with what it has counted since its processes started."""
    shown: dict[str, Any] = {
        "url": answers.url,
        "reachable": answers.readiness is not None and answers.metrics is not None,
        "ready": False,
        "degraded": False,
        "outcomes": {},
        "spool": {"records": 0, "bytes": 0, "oldest_age_s": 0.0},
        "problem": answers.problem,
    }
    try:
        if answers.readiness is not None:
            shown |= _readiness(answers.readiness)
        if answers.metrics is not None:
            shown |= _counted(answers.metrics)
    except (ValueError, KeyError, TypeError) as error:
        shown |= {"reachable": False, "problem": f"the response is not that of an edge: {error}"[:_PROBLEM_MAX]}
    return shown


def totals_of(edges: Iterable[dict[str, Any]]) -> EdgeTotals | None:
    """Of all that can be reached; None where none can."""
    reached = [each for each in edges if each["reachable"]]
    if not reached:
        return None
    accepted = sum(each["outcomes"].get("accepted", 0) for each in reached)
    counted = sum(sum(each["outcomes"].values()) for each in reached)
    return EdgeTotals(accepted, counted - accepted, sum(each["spool"]["records"] for each in reached))


def _readiness(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise TypeError("/readyz is no JSON object")
    said = cast("dict[str, Any]", found)
    ready, degraded = bool(said["ready"]), bool(said.get("degraded"))
    parts = {name: str(value) for name, value in said.items() if name not in _NO_PARTS and value != "ok"}
    problem = "; ".join(f"{name}: {value}" for name, value in parts.items())[:_PROBLEM_MAX]
    return {"ready": ready, "degraded": degraded, "problem": problem if problem and (degraded or not ready) else None}


def _counted(text: str) -> dict[str, Any]:
    outcomes: Counter[str] = Counter()
    spool = {"depth": 0.0, "bytes": 0.0, "oldest_seconds": 0.0}
    for family in text_string_to_metric_families(text):
        if family.name == _CALLBACKS:
            for sample in family.samples:
                if sample.name == f"{_CALLBACKS}_total":
                    outcome = sample.labels["outcome"]
                    outcomes["accepted" if outcome in _DURABLE else outcome] += int(sample.value)
        elif family.name.removeprefix(_SPOOL) in spool:
            # Of several workers of an edge: they share one bound, and each has a spool of its own.
            values = [spool[name := family.name.removeprefix(_SPOOL)], *(sample.value for sample in family.samples)]
            spool[name] = max(values) if name == "oldest_seconds" else sum(values)
    return {
        "outcomes": dict(+outcomes),  # only those that occurred: an edge sends zeros for the others
        "spool": {
            "records": int(spool["depth"]),
            "bytes": int(spool["bytes"]),
            "oldest_age_s": round(spool["oldest_seconds"], 1),
        },
    }
