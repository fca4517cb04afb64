"""The command ``taskbridge status``: the overview of the whole system, from any worker."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from taskbridge.cli.options import DataDir, Json, example
from taskbridge.cli.options import streams_url as url_of
from taskbridge.cli.terminal import json_line, say, stop_signal
from taskbridge.schemas.errors import OperatorError

# Commands import what they need when they run, as in program.py.

STATUS_EXAMPLES = example(
    "taskbridge status",
    "taskbridge status --streams-url http://127.0.0.1:8500 --once",
    "taskbridge status --json",
)

_REFRESH_S = 2.0
_TIMEOUT_S = 10
_DENIED = (401, 403)


def status(
    streams_url: Annotated[
        str | None, typer.Option(help="URL of any worker. Default: the bridge in --data-dir, else port 8500 here.")
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

    from taskbridge.cli.status_screen import problems_of, screen

    url = url_of(streams_url, data_dir)
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


def fetch_overview(streams_url: str, api_token: str | None) -> dict[str, Any]:
    """The response of ``/v1/ops/overview``.

    Raises:
        OperatorError: no worker answers, or it refuses this caller.
    """
    import httpx2

    address = f"{streams_url.rstrip('/')}/v1/ops/overview"
    headers = {"Authorization": f"Bearer {api_token}"} if api_token else {}
    try:
        answer = httpx2.get(address, headers=headers, timeout=_TIMEOUT_S, trust_env=False)
        found: dict[str, Any] = answer.json()
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise OperatorError(
            f"no worker answers at {streams_url} ({error}): set --streams-url, or run 'taskbridge doctor'"
        ) from error
    if not answer.is_success or "workers" not in found:
        do = (
            "set TASKBRIDGE_API_TOKEN to a token for all corps"
            if answer.status_code in _DENIED
            else "check that --streams-url is a worker"
        )
        raise OperatorError(f"{address} answered {answer.status_code}: {do}")
    return found
