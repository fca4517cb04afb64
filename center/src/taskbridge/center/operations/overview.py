"""Combines the shares of all workers into the overview. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskbridge.center.operations.flow import flow_of
from taskbridge.center.operations.history import history_of
from taskbridge.schemas.cloudevents import iso

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from taskbridge.center.operations.history import Sample

Share = dict[str, Any]
"""A worker's own data: see ``WorkerShare``."""

ERRORS = 50


def overview(
    shares: Mapping[str, Share | None],
    *,
    now_s: float,
    edges: Sequence[Mapping[str, Any]],
    samples: Iterable[Sample],
    quarantine: Mapping[str, Any],
    dead_letters: Mapping[str, Any],
    missed: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The whole. ``shares`` has every worker of the group by its URL, and None for one that did not answer.

    ``missed`` is None if reconcile was not queried.
    """
    known = {url: share for url, share in shares.items() if share is not None}
    return {
        "at": iso(round(now_s * 1000)),
        "flow": flow_of((share["flow"] for share in known.values()), now_s=now_s),
        "edges": list(edges),
        "quarantine": dict(quarantine),
        "dead_letters": dict(dead_letters),
        "missed": None if missed is None else dict(missed),
        "partitions": _partitions(known),
        "workers": [_worker(url, share) for url, share in sorted(shares.items())],
        "errors": _errors(known),
        "history": history_of(samples, (share["lag_samples"] for share in known.values())),
    }


def _worker(url: str, share: Share | None) -> dict[str, Any]:
    said: Share = {"ready": False, "active": [], "standby": []} if share is None else share
    return {
        "url": url,
        "reachable": share is not None,
        "ready": said["ready"],
        "problem": said.get("problem"),
        "active": said["active"],
        "standby": said["standby"],
        "lag_records": None if share is None else sum(share["lag"].values()),
        "inbox_lag_records": None if share is None else sum(share["inbox_lag"].values()),
        "sse_connections": said.get("sse_connections"),
        "since": said.get("since"),
    }


def _partitions(known: Mapping[str, Share]) -> list[dict[str, Any]]:
    """Each partition that somebody has. During a rebalance two may still say so: the later is shown, for a moment."""
    found: dict[int, dict[str, Any]] = {}
    for url, share in sorted(known.items()):
        for partition in share["active"]:
            name = str(partition)
            found[partition] = {
                "partition": partition,
                "worker": url,
                "standbys": [],
                "lag_records": share["lag"].get(name, 0),
                "lag_seconds": round(share["lag_seconds"].get(name, 0.0), 1),
                "inbox_lag_records": share["inbox_lag"].get(name, 0),
            }
    for url, share in sorted(known.items()):
        for partition in share["standby"]:
            if partition in found:
                found[partition]["standbys"].append(url)
    return [found[partition] for partition in sorted(found)]


def _errors(known: Mapping[str, Share]) -> list[dict[str, Any]]:
    errors = [{**each, "worker": url} for url, share in known.items() for each in share["errors"]]
    return sorted(errors, key=lambda each: each["at"], reverse=True)[:ERRORS]
