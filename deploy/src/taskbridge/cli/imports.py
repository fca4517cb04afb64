"""The commands ``taskbridge people import|list`` and ``forms import``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer resolves the parameters' types
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskbridge.cli.csv_files import BadFile, Encoding, read_forms, read_people
from taskbridge.cli.options import BootstrapServers, DataDir, Json, RegistryUrl, example, operator_connection
from taskbridge.cli.terminal import json_line, printable, progress, say
from taskbridge.schemas.topics import PEOPLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskbridge.cli.connection import Connection

people_app = typer.Typer(help="Import, list and erase people, whose names are shown with tasks.", no_args_is_help=True)
forms_app = typer.Typer(help="Import the labels of form fields, shown with their values.", no_args_is_help=True)

_SHOWN_PROBLEMS = 20
_Delete = Annotated[bool, typer.Option("--delete", help="Delete the records in the file instead.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Report what would be written; write nothing.")]


@people_app.callback()
def people() -> None:
    """Import, list and erase people, whose names are shown with tasks."""


@forms_app.callback()
def forms() -> None:
    """Import the labels of form fields, shown with their values."""


def _add_import(app: typer.Typer, what: str, read: Callable[..., Mapping[bytes, Any]], columns: str, text: str) -> None:
    """Add the command ``import`` of people or of forms."""
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
        if as_json:
            say(json_line({**outcome, "dry_run": dry_run}))
        else:
            counts = ", ".join(f"{count} {name}" for name, count in outcome.items())
            say(counts + (" (nothing was written)" if dry_run else ""))


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


@people_app.command(
    "list", epilog=example("taskbridge people list", "taskbridge people list 王 --corp ding5d17e3add038d445 --json")
)
def list_people(
    text: Annotated[str | None, typer.Argument(help="Only people with this text in an id, name or department.")] = None,
    corp: Annotated[str | None, typer.Option(help="Only people of this corp.")] = None,
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """List the imported people, with the ids that the task center's page needs."""
    with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
        people = imported_people(connection)
    found = [each for each in people if matches(each, corp, text)]
    if not people:
        progress("no people imported yet: import a CSV file with 'taskbridge people import'")
    elif not found:
        of_corp = f" of {corp}" if corp else ""
        progress(f"none of the {len(people)} imported people{of_corp} matches '{text or ''}'")
    for each in found:
        names = ("corp_id", "user_id", "name", "department", "employee_number")
        cells = [*(each[name] or "-" for name in names), " ".join(_others(each)) or "-"]
        line = "  ".join(printable(cell).replace("\n", "\\n") for cell in cells)
        say(json_line(each) if as_json else line)


def imported_people(connection: Connection) -> list[dict[str, Any]]:
    """All people, sorted by corp and id. Undecodable records are reported and skipped.

    Raises:
        ConfigurationError: the topic does not exist.
        OperatorError: Kafka or the registry does not answer.
    """
    from msgspec.structs import asdict

    from taskbridge.schemas.cloudevents import text_of
    from taskbridge.schemas.codec import Undecodable, person_codec

    codec = person_codec(connection.registry)
    found: dict[str, dict[str, Any]] = {}
    for message in connection.read_to_end(PEOPLE.name, progress=progress):
        key = text_of(message.key()) or ""
        if message.value() is None:
            found.pop(key, None)
            continue
        try:
            person = codec.decode(message.value())
            found[key] = {"id": key, "corp_id": key.partition("/")[0], **asdict(person)}
        except Undecodable as error:
            progress(f"partition {message.partition()}, offset {message.offset()}: {error}")
    return sorted(found.values(), key=lambda each: (each["corp_id"], each["user_id"]))


def matches(person: Mapping[str, Any], corp_id: str | None, text: str | None) -> bool:
    """Whether the person is in this corp and has the text in an id, name or department, ignoring case."""
    texts = (*(person[name] for name in ("user_id", "name", "department", "employee_number")), *_others(person))
    return corp_id in (None, person["corp_id"]) and (
        text is None or any(text.casefold() in each.casefold() for each in texts if each)
    )


def _others(person: Mapping[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in person["other_ids"].items()]
