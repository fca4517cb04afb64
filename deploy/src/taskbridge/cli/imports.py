"""The commands ``taskbridge people import`` and ``forms import``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer resolves the parameters' types
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskbridge.cli.csv_files import BadFile, Encoding, read_forms, read_people
from taskbridge.cli.options import BootstrapServers, DataDir, Json, RegistryUrl, example, operator_connection
from taskbridge.cli.terminal import json_line, progress, say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

people_app = typer.Typer(help="Import and erase people, whose names are shown with tasks.", no_args_is_help=True)
forms_app = typer.Typer(
    help="Import the labels of form fields, shown with their values.",
    no_args_is_help=True,
    callback=lambda: None,  # a group, though it has one command
)

_SHOWN_PROBLEMS = 20
_Delete = Annotated[bool, typer.Option("--delete", help="Delete the records in the file instead.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Report what would be written; write nothing.")]


def _add_import(app: typer.Typer, what: str, read: Callable[..., Mapping[bytes, Any]], columns: str, text: str) -> None:
    command = f"taskbridge {what} import"
    of_columns = f"CSV file; its first line has the columns: {columns}"
    file = typer.Argument(exists=True, dir_okay=False, readable=True, help=of_columns)

    @app.command(
        "import",
        help=text,
        epilog=example(
            f"{command} {what}.csv --dry-run",
            f"{command} {what}.csv --corp ding5d17e3add038d445",
            f"{command} gone.csv --delete",
        ),
    )
    def import_(  # pyright: ignore[reportUnusedFunction]
        file: Path = file,
        corp: Annotated[str | None, typer.Option(help="Corp of lines without a corp_id.")] = None,
        encoding: Annotated[Encoding, typer.Option(help="Encoding of the file; gb18030 also reads GBK.")] = "utf-8",
        delete: _Delete = False,  # noqa: FBT002
        dry_run: _DryRun = False,  # noqa: FBT002
        bootstrap_servers: BootstrapServers = None,
        registry_url: RegistryUrl = None,
        data_dir: DataDir = None,
        as_json: Json = False,  # noqa: FBT002
    ) -> None:
        from taskbridge.cli.topic_update import TARGETS, carry_out, plan, prepare

        try:
            records = read(file.read_bytes(), corp_id=corp, encoding=encoding, complete=not delete)
        except BadFile as error:
            for problem in error.problems[:_SHOWN_PROBLEMS]:
                progress(problem)
            if len(error.problems) > _SHOWN_PROBLEMS:
                progress(f"… and {len(error.problems) - _SHOWN_PROBLEMS} more")
            raise BadFile(f"{file}: {error}; nothing was written") from error
        target = TARGETS[what]
        with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
            if not dry_run:
                prepare(connection, target.topic)
            found = plan(connection, target, records, progress, delete=delete)
            if not dry_run:
                carry_out(connection, target, found, progress)
        names = ("deleted", "unchanged") if delete else ("new", "changed", "unchanged")
        outcome = {name: found.counts[name] for name in names}
        counts = ", ".join(f"{count} {name}" for name, count in outcome.items())
        text = counts + (" (nothing was written)" if dry_run else "")
        say(json_line({**outcome, "dry_run": dry_run}) if as_json else text)


_add_import(
    people_app,
    "people",
    read_people,
    "corp_id, user_id, name, department, employee_number; any other column is another id of the person.",
    "Import people from a CSV file: all lines, or none if one is invalid. Safe to repeat.\n\n"
    "People who are not in the file are unchanged.",
)
_add_import(
    forms_app,
    "forms",
    read_forms,
    "corp_id, form_uuid, form_title, field_id, label; others are ignored. One line per field.",
    "Import form labels from a CSV file: all lines, or none if one is invalid. Safe to repeat.\n\n"
    "Forms in the file are replaced completely; other forms are unchanged.",
)
