"""The commands ``taskbridge spool status|verify``: options, help and output."""

from __future__ import annotations

import typer

from taskbridge.cli.options import DataDir, Json, example
from taskbridge.cli.terminal import json_line, progress, say

spool_app = typer.Typer(
    help="Inspect the spool: events on the edge's disk that Kafka does not have yet.", no_args_is_help=True
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
