"""The command ``taskbridge people import``: flags, help and what is printed."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer resolves the parameters' types
from typing import Annotated

import typer

from taskbridge.cli.options import BootstrapServers, DataDir, Json, RegistryUrl, example, operator_connection
from taskbridge.cli.people.people_file import BadPeopleFile, Encoding, read_people
from taskbridge.cli.terminal import json_line, progress, say

# Commands import what they need when they run, as in program.py.

people_app = typer.Typer(help="Names of people, for whoever shows tasks.", no_args_is_help=True)

_SHOWN_PROBLEMS = 20


@people_app.callback()
def people() -> None:
    """Names of people, for whoever shows tasks."""


@people_app.command(
    "import",
    epilog=example(
        "taskbridge people import people.csv --dry-run",
        "taskbridge people import people.csv --corp ding5d17e3add038d445",
        "taskbridge people import left.csv --delete",
    ),
)
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            readable=True,
            help="Its first line names the columns: corp_id, user_id, name, department, employee_number; "
            "any other is another id of the person.",
        ),
    ],
    corp: Annotated[str | None, typer.Option(help="The corp of those lines that name none.")] = None,
    encoding: Annotated[Encoding, typer.Option(help="Of the file; gb18030 for what is saved as GBK.")] = "utf-8",
    delete: Annotated[bool, typer.Option("--delete", help="Have the file's people forgotten instead.")] = False,  # noqa: FBT002
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be written.")] = False,  # noqa: FBT002
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Fill the people's topic from a CSV file: all of it, or nothing where a line is not right. Safe to repeat.

    Who is not in the file stays as they are.
    """
    from taskbridge.cli.people.importing import carry_out, plan, prepare

    try:
        rows = read_people(file.read_bytes(), corp_id=corp, encoding=encoding, named=not delete)
    except BadPeopleFile as error:
        for problem in error.problems[:_SHOWN_PROBLEMS]:
            progress(problem)
        if len(error.problems) > _SHOWN_PROBLEMS:
            progress(f"… and {len(error.problems) - _SHOWN_PROBLEMS} more")
        raise BadPeopleFile(f"{file}: {error}; nothing was written") from error
    with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
        if not dry_run:
            prepare(connection)
        found = plan(connection, rows, progress, delete=delete)
        if not dry_run:
            carry_out(connection, found, progress)
    outcome = {"deleted": found.deleted} if delete else {"new": found.new, "changed": found.changed}
    outcome["unchanged"] = found.unchanged
    said = ", ".join(f"{count} {name}" for name, count in outcome.items())
    say(json_line({**outcome, "dry_run": dry_run}) if as_json else said + (" (nothing was written)" if dry_run else ""))
