"""The command ``taskbridge land``: form data and tasks as tables in the customer's database, and as files."""

from __future__ import annotations

import os
from pathlib import Path  # noqa: TC003 - typer resolves the parameters' types
from typing import Annotated

import typer

from taskbridge.cli.options import BootstrapServers, DataDir, Json, RegistryUrl, example
from taskbridge.cli.terminal import call_with_heartbeat, counted, json_line, progress, say

To = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="postgresql://user:password@host/database, sqlite:///FILE, or parquet:FOLDER (--once). Default: LAND_TO.",
    ),
]
Once = Annotated[bool, typer.Option("--once", help="End when the records that the topics have now have landed.")]


land_app = typer.Typer(
    invoke_without_command=True,
    epilog=example(
        "taskbridge land --to sqlite:///forms.db --once",
        "LAND_TO=postgresql://land:secret@db/warehouse taskbridge land",
    ),
)


@land_app.callback()
def land(
    context: typer.Context,
    to: To = None,
    once: Once = False,  # noqa: FBT002
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Follow form data and tasks into tables of your own database, each record exactly once.

    Creates a table for each form and each of its sub-forms, views with labels as names, and the tables instances,
    tasks, decisions and people: in the schema taskbridge of PostgreSQL. Put a password into LAND_TO, not into --to,
    which other users of the machine can read. Each target needs a process of its own; several may share one target.

    With parquet:FOLDER, each run adds a folder with a Parquet file of each table, reading on where the last one ended.
    """
    if context.invoked_subcommand is not None:
        return
    from taskbridge.cli.connection import service_environment
    from taskbridge.landing import app

    environment = service_environment("LAND", bootstrap_servers, registry_url, data_dir)
    app.run(environment if to is None else {**environment, "LAND_TO": to}, once=once)


@land_app.command("export", epilog=example("taskbridge land export --ocel month.json --from sqlite:///forms.db"))
def export(
    source: Annotated[
        str | None, typer.Option("--from", metavar="URL", help="Database with landed tables. Default: LAND_TO.")
    ] = None,
    ocel: Annotated[Path | None, typer.Option(help="New file for events and objects, OCEL 2.0 in JSON.")] = None,
    xes: Annotated[Path | None, typer.Option(help="New file for events as traces, XES.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="New folder for a Parquet file of each table.")] = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Write what has landed into files: OCEL and XES for process mining, Parquet for analysis.

    No file is replaced, and none is there before it is complete.
    """
    from taskbridge.landing import export as exporting

    url = source or os.environ.get("LAND_TO")
    files = {name: path for name, path in (("ocel", ocel), ("xes", xes), ("parquet", parquet)) if path is not None}
    if url is None or not files:
        raise typer.BadParameter("give a database (--from), and at least one of --ocel, --xes and --parquet")
    found = call_with_heartbeat(lambda: exporting.export(url, files), progress, "writing")
    for name, count in found.items():
        said = {"file": str(files[name]), "rows" if name == "parquet" else "events": count}
        what = counted(count, "row" if name == "parquet" else "event")
        say(json_line(said) if as_json else f"{files[name]} has {what}.")
