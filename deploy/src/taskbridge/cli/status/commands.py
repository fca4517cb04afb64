"""The command ``taskbridge status``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from taskbridge.cli.options import DataDir, Json, example
from taskbridge.cli.options import streams_url as url_of
from taskbridge.cli.terminal import json_line, say, stop_signal

# Commands import what they need when they run, as in program.py.

STATUS_EXAMPLES = example(
    "taskbridge status",
    "taskbridge status --streams-url http://127.0.0.1:8500 --once",
    "taskbridge status --json",
)

_REFRESH_S = 2.0


def status(
    streams_url: Annotated[
        str | None, typer.Option(help="Any worker. Default: that of what runs in --data-dir, else port 8500 here.")
    ] = None,
    data_dir: DataDir = None,
    api_token: Annotated[
        str | None,
        typer.Option(help="For all corps, where the API asks for one.", envvar="TASKBRIDGE_API_TOKEN"),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print it once, as where no terminal is.")] = False,  # noqa: FBT002
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Show the whole system on one screen, live until Ctrl-C: edges, workers, what waits, what was set aside.

    Once with --once or --json, and where the output is no terminal; exit code 1 then if something needs a person.
    """
    from rich.console import Console
    from rich.live import Live

    from taskbridge.cli.status.overview import ask
    from taskbridge.cli.status.screen import problems_of, screen

    url = url_of(streams_url, data_dir)
    if once or as_json or not sys.stdout.isatty():
        found = ask(url, api_token)
        if as_json:
            say(json_line(found))
        else:
            Console().print(screen(found))
        if problems_of(found):
            raise typer.Exit(1)
        return
    with stop_signal() as stop, stop.interrupting(), Live(screen=True, auto_refresh=False) as live:
        while True:
            live.update(screen(ask(url, api_token)), refresh=True)
            stop.wait(_REFRESH_S)
