"""Render the overview on one screen, and find what needs attention. Does no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from taskbridge.cli.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LINES = 5
"""Number of log lines shown."""
_RECENT_MINUTES = 5
_LAG_S = 60
_MIB = 1 << 20


def problems_of(found: Mapping[str, Any]) -> list[str]:
    """One line per problem that needs attention; empty if there is none."""
    return list(_problems(found))


def screen(found: Mapping[str, Any]) -> Group:
    """The whole screen, problems first."""
    problems = problems_of(found)
    well = "nothing needs attention" if found["errors"] else "all is well"
    verdict = Text("\n".join(problems), "bold red") if problems else Text(well, "bold green")
    errors = ["last errors:"] if found["errors"] else []
    errors += [
        f"{each['at']}  {each['level']:8} {printable(str(each['message']))}" for each in found["errors"][:_LINES]
    ]
    aside = [
        _set_aside("rejected callbacks", found["quarantine"]),
        _set_aside("dead letters", found["dead_letters"]),
    ]
    return Group(
        verdict,
        Text(f"{found['at']}  {_flow(found['flow']['actions'])}", "dim"),
        _edges(found["edges"]),
        _workers(found["workers"]),
        Text(f"set aside: {'; '.join(aside)}"),
        Text("\n".join(errors), "dim"),
    )


def _problems(found: Mapping[str, Any]) -> Iterator[str]:
    for edge in found["edges"]:
        if not edge["reachable"] or not edge["ready"]:
            how = "not ready" if edge["reachable"] else "unreachable"
            yield f"edge {edge['url']} is {how}: {edge['problem'] or '?'}"
        elif edge["degraded"]:
            yield f"edge {edge['url']} is degraded: {edge['problem'] or '?'}"
    for worker in found["workers"]:
        if not worker["ready"]:
            yield f"worker {worker['url']} is {'not ready' if worker['reachable'] else 'unreachable'}"
        elif worker.get("problem"):
            yield f"worker {worker['url']}: {worker['problem']}"
    late = [each for each in found["partitions"] if each["lag_seconds"] > _LAG_S]
    if late:
        yield f"{len(late)} partitions are behind, by up to {max(each['lag_seconds'] for each in late):.0f} s"


def _flow(actions: Mapping[str, list[int]]) -> str:
    counted = {action: sum(counts[-_RECENT_MINUTES:]) for action, counts in actions.items()}
    listed = ", ".join(f"{count} {action.lower()}" for action, count in counted.items() if count)
    return f"in {_RECENT_MINUTES} minutes: {listed or 'nothing'}"


def _edges(edges: list[dict[str, Any]]) -> Table:
    table = Table("edge", "state", "accepted", "rejected", "in the spool", "MiB", "oldest", box=None)
    for each in edges:
        outcomes: Mapping[str, int] = each["outcomes"]
        spool = each["spool"]
        accepted = outcomes.get("accepted", 0)
        table.add_row(
            each["url"],
            _state(each),
            str(accepted),
            str(sum(outcomes.values()) - accepted),
            str(spool["records"]),
            f"{spool['bytes'] / _MIB:.1f}",
            f"{spool['oldest_age_s'] or 0:.0f} s",
        )
    if not edges:
        table.add_row("no edge is known: set STREAMS_EDGE_URLS")
    return table


def _workers(workers: list[dict[str, Any]]) -> Table:
    table = Table(
        "worker", "state", "partitions", "standbys", "event lag", "inbox lag", "open live connections", box=None
    )
    for each in workers:
        counts = [each[name] for name in ("lag_records", "inbox_lag_records", "sse_connections")]
        table.add_row(
            each["url"],
            _state(each),
            str(len(each["active"])),
            str(len(each["standby"])),
            *("?" if count is None else str(count) for count in counts),
        )
    return table


def _state(each: Mapping[str, Any]) -> Text:
    if not each["reachable"]:
        return Text("unreachable", "red")
    if not each["ready"]:
        return Text("not ready", "red")
    return Text("degraded", "yellow") if each.get("degraded") else Text("ready", "green")


def _set_aside(what: str, found: Mapping[str, Any]) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in found.get("reasons", {}).items())
    return f"{found.get('total', '?')} {what}" + (f" ({reasons})" if reasons else "")
