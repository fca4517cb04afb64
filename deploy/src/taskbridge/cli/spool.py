"""The commands ``taskbridge spool status|set-aside|verify|replay``: options, help and output."""

from __future__ import annotations

import typer

from taskbridge.cli.options import BootstrapServers, DataDir, Json, RegistryUrl, example
from taskbridge.cli.terminal import json_line, progress, say, stop_signal

spool_app = typer.Typer(
    help="Inspect and deliver the spool: events on the edge's disk that Kafka does not have yet.", no_args_is_help=True
)

_NO_FILES = "there is no spool file, so no event is waiting"


@spool_app.command("status", epilog=example("taskbridge spool status --data-dir /var/lib/taskbridge"))
def spool_status(data_dir: DataDir = None, as_json: Json = False) -> None:  # noqa: FBT002
    """Print the contents of each spool file, and which were damaged; works while the edge runs."""
    from taskbridge.cli import spool_files

    found = spool_files.status(spool_files.spool_folder(data_dir))
    for each in found:
        say(json_line(each) if as_json else spool_files.as_line(each))
    if not found:
        progress(_NO_FILES)


@spool_app.command("set-aside", epilog=example("taskbridge spool set-aside --json"))
def spool_set_aside(data_dir: DataDir = None, as_json: Json = False) -> None:  # noqa: FBT002
    """List the records that Kafka refused permanently, or that are damaged: they are stored, and not delivered.

    'taskbridge spool replay' retries those that Kafka refused, also while the edge runs.
    """
    from taskbridge.cli import spool_files

    found = spool_files.set_aside(spool_files.spool_folder(data_dir))
    for each in found:
        line = f"{each['id']:12}  {each['created_at']}  {each['topic']}  {each['key']}  {each['bytes']} bytes"
        say(json_line(each) if as_json else f"{line}  {each['reason']}")
    if not found and not as_json:
        say("nothing is set aside")


@spool_app.command("verify", epilog=example("taskbridge spool verify --data-dir /var/lib/taskbridge"))
def spool_verify(data_dir: DataDir = None, as_json: Json = False) -> None:  # noqa: FBT002
    """Check every page and record of the spool files; exit code 1 if one is damaged. Changes nothing."""
    from taskbridge.cli import spool_files

    reports = spool_files.verify(spool_files.spool_folder(data_dir), progress)
    for report in reports:
        damaged = report["damaged_positions"]
        state = report["problem"] or (f"damaged records at {damaged}" if damaged else "ok")
        say(json_line(report) if as_json else f"{report['file']:12}  {report['records']} records  {state}")
    if not reports:
        progress(_NO_FILES)
    if any(report["problem"] or report["damaged_positions"] for report in reports):
        raise typer.Exit(1)


@spool_app.command("replay", epilog=example("taskbridge spool replay --data-dir /var/lib/taskbridge"))
def spool_replay(
    data_dir: DataDir = None,
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Deliver the spool to Kafka: by the edge if it runs, else from here. Exit code 1 if records are left."""
    from taskbridge.cli import spool_files

    folder = spool_files.spool_folder(data_dir)
    with stop_signal() as stop:
        from taskbridge.cli.connection import find_connection

        connection = find_connection(bootstrap_servers, registry_url, data_dir=data_dir)
        left = spool_files.replay(folder, connection, progress=progress, stopped=stop.is_set)
    say(json_line({"left": left}) if as_json else f"{left} records left" if left else "the spool is empty")
    if left:
        raise typer.Exit(1)
