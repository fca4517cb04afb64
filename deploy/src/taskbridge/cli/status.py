"""The command ``taskbridge status``: the overview of the whole system, from the task center."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskbridge.cli.options import DataDir, Json, example, service_url
from taskbridge.cli.terminal import counted, json_line, printable, say, stop_signal
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Group

commands = typer.Typer()

_REFRESH_S = 2.0
_TIMEOUT_S = 10
_DENIED = (401, 403)
_LINES = 5
"""Number of log lines shown."""
_RECENT_MINUTES = 5
_LAG_S = 60
_MIB = 1 << 20
_COLORS = {"ready": "green", "degraded": "yellow"}


@commands.command(
    epilog=example(
        "taskbridge status", "taskbridge status --center-url http://127.0.0.1:8500 --once", "taskbridge status --json"
    )
)
def status(
    center_url: Annotated[
        str | None, typer.Option(help="URL of the task center. Default: that of --data-dir, else port 8500 here.")
    ] = None,
    data_dir: DataDir = None,
    api_token: Annotated[
        str | None, typer.Option(help="Token for all corps, if the API requires one.", envvar="TASKBRIDGE_API_TOKEN")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print once and exit, as without a terminal.")] = False,  # noqa: FBT002
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Show the whole system on one screen, live until Ctrl-C: edges, workers, lag, dead letters, rejected callbacks.

    Prints once with --once or --json, or without a terminal; then exit code 1 means that something needs attention.
    """
    from rich.console import Console
    from rich.live import Live

    url = service_url("center", center_url, data_dir)
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
    """The response of ``/v1/ops/overview``. OperatorError if none answers, or it refuses this caller."""
    from taskbridge.runtime.inside_http import NO_ANSWER, bearer, inside_client

    address = f"{center_url.rstrip('/')}/v1/ops/overview"
    try:
        with inside_client(timeout_s=_TIMEOUT_S, headers=bearer(api_token)) as client:
            answer = client.get(address)
        found: dict[str, Any] = answer.json()
    except (*NO_ANSWER, ValueError) as error:
        raise OperatorError(
            f"no task center answers at {center_url} ({error}): set --center-url, or run 'taskbridge doctor'"
        ) from error
    if not answer.is_success or "workers" not in found:
        do = (
            "set TASKBRIDGE_API_TOKEN to a token for all corps; where it has none yet, 'taskbridge token new status"
            ' --corps "*"\' creates one for the file of CENTER_API_TOKENS_FILE'
            if answer.status_code in _DENIED
            else "check that --center-url is a task center"
        )
        raise OperatorError(f"{address} answered {answer.status_code}: {do}")
    return found


def screen(found: Mapping[str, Any]) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    problems = problems_of(found)
    well = "nothing needs attention" if found["errors"] else "all is well"
    verdict = Text("\n".join(problems), "bold red") if problems else Text(well, "bold green")
    parts = Table(box=None, show_header=False)
    for what, name, rows, described, unknown in (
        ("edge", "url", found["edges"], _edge, "none is known: set CENTER_EDGE_URLS"),
        ("worker", "url", found["workers"], _worker, "none is known: set CENTER_STREAMS_URLS"),
        ("center", "replica", found["center"]["replicas"], _replica, "none is known"),
    ):
        for each in rows:
            state = _state(each)
            parts.add_row(what, each[name], Text(state, _COLORS.get(state, "red")), described(each))
        if not rows:
            parts.add_row(what, unknown)
    aside = [_set_aside("rejected callbacks", found["quarantine"]), _set_aside("dead letters", found["dead_letters"])]
    errors = [f"{each['at']}  {each['level']:8} {printable(str(each['message']))}" for each in found["errors"][:_LINES]]
    return Group(
        verdict,
        Text(f"{found['at']}  {_flow(found['flow']['actions'])}", "dim"),
        parts,
        Text(f"set aside: {'; '.join(aside)}"),
        Text("\n".join(["last errors:", *errors] if errors else []), "dim"),
    )


def problems_of(found: Mapping[str, Any]) -> list[str]:
    """One line per problem that needs attention; empty if there is none."""
    center = found["center"]
    problems = [_problem(f"edge {each['url']}", each) for each in found["edges"]]
    problems += [_problem(f"worker {each['url']}", each) for each in found["workers"]]
    problems += [_problem(f"center {each['replica']}", each) for each in center["replicas"]]
    webhooks: Mapping[str, Any] = found.get("webhooks") or {"services": [], "endpoints": []}
    problems += [_problem(f"webhooks {each['url']}", each) for each in webhooks["services"]]
    problems += [
        f"webhook endpoint {each['id']} is {each['state']}: {each['disabled'] or 'since ' + each['failing_since']}"
        for each in webhooks["endpoints"]
        if each["state"] in ("disabled", "failing")
    ]
    if center["filled"] < 1:
        problems.append(f"the lists are being filled: {center['filled']:.0%}")
    late = [each["lag_seconds"] for each in found["partitions"] if each["lag_seconds"] > _LAG_S]
    if late:
        problems.append(f"{counted(len(late), 'partition is', 'partitions are')} behind, by up to {max(late):.0f} s")
    return [each for each in problems if each]


def _problem(name: str, each: Mapping[str, Any]) -> str:
    state, problem = _state(each), each.get("problem")
    if state == "ready":
        return f"{name}: {problem}" if problem else ""
    return f"{name} is {state}" + (f": {problem}" if problem else "")


def _state(each: Mapping[str, Any]) -> str:
    if not each["reachable"]:
        return "unreachable"
    if not each["ready"]:
        return "not ready"
    return "degraded" if each.get("degraded") else "ready"


def _flow(actions: Mapping[str, list[int]]) -> str:
    counted = {action: sum(counts[-_RECENT_MINUTES:]) for action, counts in actions.items()}
    listed = ", ".join(f"{count} {action.lower()}" for action, count in counted.items() if count)
    return f"in {_RECENT_MINUTES} minutes: {listed or 'nothing'}"


def _edge(each: Mapping[str, Any]) -> str:
    outcomes, spool = each["outcomes"], each["spool"]
    accepted = outcomes.get("accepted", 0)
    spooled = (
        f"{spool['records']} in the spool ({spool['bytes'] / _MIB:.1f} MiB, oldest {spool['oldest_age_s'] or 0:.0f} s)"
    )
    return f"{accepted} accepted, {sum(outcomes.values()) - accepted} rejected, {spooled}"


def _worker(each: Mapping[str, Any]) -> str:
    lag = "?" if each["lag_records"] is None else each["lag_records"]
    return f"{counted(len(each['active']), 'partition')}, {counted(len(each['standby']), 'standby')}, lag {lag}"


def _replica(each: Mapping[str, Any]) -> str:
    return f"lag {each['lag_records']}, {each['sse_connections']} open live connections"


def _set_aside(what: str, found: Mapping[str, Any]) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in found.get("reasons", {}).items())
    return f"{found.get('total', '?')} {what}" + (f" ({reasons})" if reasons else "")
