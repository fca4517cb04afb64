"""The command ``taskbridge status``: the overview of the whole system, from the task center."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskbridge.cli.options import DataDir, Json, example
from taskbridge.cli.options import center_url as url_of
from taskbridge.cli.terminal import json_line, printable, say, stop_signal
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

# Commands import what they need when they run, as in program.py.

STATUS_EXAMPLES = example(
    "taskbridge status",
    "taskbridge status --center-url http://127.0.0.1:8500 --once",
    "taskbridge status --json",
)

_REFRESH_S = 2.0
_TIMEOUT_S = 10
_DENIED = (401, 403)
_LINES = 5
"""Number of log lines shown."""
_RECENT_MINUTES = 5
_LAG_S = 60
_MIB = 1 << 20


def status(
    center_url: Annotated[
        str | None, typer.Option(help="URL of the task center. Default: that of --data-dir, else port 8500 here.")
    ] = None,
    data_dir: DataDir = None,
    api_token: Annotated[
        str | None,
        typer.Option(help="Token for all corps, if the API requires one.", envvar="TASKBRIDGE_API_TOKEN"),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print once and exit, as without a terminal.")] = False,  # noqa: FBT002
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Show the whole system on one screen, live until Ctrl-C: edges, workers, lag, dead letters, rejected callbacks.

    Prints once with --once or --json, or without a terminal; then exit code 1 means that something needs attention.
    """
    from rich.console import Console
    from rich.live import Live

    url = url_of(center_url, data_dir)
    if once or as_json or not sys.stdout.isatty():
        found = fetch_overview(url, api_token)
        if as_json:
            say(json_line(found))
        else:
            Console().print(screen(found))
        if problems_of(found):
            raise typer.Exit(1)
        return
    with stop_signal() as stop, stop.interrupting(), Live(screen=True, auto_refresh=False) as live:
        while True:
            live.update(screen(fetch_overview(url, api_token)), refresh=True)
            stop.wait(_REFRESH_S)


def fetch_overview(center_url: str, api_token: str | None) -> dict[str, Any]:
    """The response of ``/v1/ops/overview``.

    Raises:
        OperatorError: no task center answers, or it refuses this caller.
    """
    import httpx2

    address = f"{center_url.rstrip('/')}/v1/ops/overview"
    headers = {"Authorization": f"Bearer {api_token}"} if api_token else {}
    try:
        answer = httpx2.get(address, headers=headers, timeout=_TIMEOUT_S, trust_env=False)
        found: dict[str, Any] = answer.json()
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise OperatorError(
            f"no task center answers at {center_url} ({error}): set --center-url, or run 'taskbridge doctor'"
        ) from error
    if not answer.is_success or "workers" not in found:
        do = (
            "set TASKBRIDGE_API_TOKEN to a token for all corps"
            if answer.status_code in _DENIED
            else "check that --center-url is a task center"
        )
        raise OperatorError(f"{address} answered {answer.status_code}: {do}")
    return found


def problems_of(found: Mapping[str, Any]) -> list[str]:
    """One line per problem that needs attention; empty if there is none."""
    return list(_problems(found))


def screen(found: Mapping[str, Any]) -> Group:
    """The whole screen, problems first."""
    from rich.console import Group
    from rich.text import Text

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
        _replicas(found["center"]["replicas"]),
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
    yield from _center_problems(found["center"])
    late = [each for each in found["partitions"] if each["lag_seconds"] > _LAG_S]
    if late:
        yield f"{len(late)} partitions are behind, by up to {max(each['lag_seconds'] for each in late):.0f} s"


def _center_problems(center: Mapping[str, Any]) -> Iterator[str]:
    for replica in center["replicas"]:
        name, problem = replica["replica"], replica["problem"]
        if not replica["reachable"]:
            yield f"center {name} does not report"
        elif not replica["ready"]:
            yield f"center {name} is not ready: {problem or '?'}"
        elif problem:
            yield f"center {name}: {problem}"
    if center["filled"] < 1:
        yield f"the lists are being filled: {center['filled']:.0%}"


def _flow(actions: Mapping[str, list[int]]) -> str:
    counted = {action: sum(counts[-_RECENT_MINUTES:]) for action, counts in actions.items()}
    listed = ", ".join(f"{count} {action.lower()}" for action, count in counted.items() if count)
    return f"in {_RECENT_MINUTES} minutes: {listed or 'nothing'}"


def _edges(edges: list[dict[str, Any]]) -> Table:
    from rich.table import Table

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
        table.add_row("no edge is known: set CENTER_EDGE_URLS")
    return table


def _workers(workers: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table("worker", "state", "partitions", "standbys", "lag", box=None)
    for each in workers:
        lag = "?" if each["lag_records"] is None else str(each["lag_records"])
        table.add_row(each["url"], _state(each), str(len(each["active"])), str(len(each["standby"])), lag)
    if not workers:
        table.add_row("no worker is known: set CENTER_STREAMS_URLS")
    return table


def _replicas(replicas: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table("center", "state", "lag", "open live connections", box=None)
    for each in replicas:
        table.add_row(each["replica"], _state(each), str(each["lag_records"]), str(each["sse_connections"]))
    return table


def _state(each: Mapping[str, Any]) -> Text:
    from rich.text import Text

    if not each["reachable"]:
        return Text("unreachable", "red")
    if not each["ready"]:
        return Text("not ready", "red")
    return Text("degraded", "yellow") if each.get("degraded") else Text("ready", "green")


def _set_aside(what: str, found: Mapping[str, Any]) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in found.get("reasons", {}).items())
    return f"{found.get('total', '?')} {what}" + (f" ({reasons})" if reasons else "")
