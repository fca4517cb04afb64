"""The commands ``taskbridge people import|list`` and ``forms import``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer resolves the parameters' types
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskbridge.cli.csv_files import BadFile, Encoding
from taskbridge.cli.options import BootstrapServers, DataDir, Json, RegistryUrl, example, operator_connection
from taskbridge.cli.terminal import json_line, printable, progress, say
from taskbridge.schemas.topics import PEOPLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from taskbridge.cli.connection import Connection
    from taskbridge.cli.topic_update import Target
    from taskbridge.schemas.events import PersonRecord

# Commands import what they need when they run, as in program.py.

people_app = typer.Typer(help="Import and list the names of people, shown with tasks.", no_args_is_help=True)
forms_app = typer.Typer(help="Import the labels of form fields, shown with their values.", no_args_is_help=True)

_SHOWN_PROBLEMS = 20
_HEADS = ("corp", "user", "name", "department", "employee number", "other ids")

_Corp = Annotated[str | None, typer.Option(help="Corp of lines without a corp_id.")]
_Encoding = Annotated[Encoding, typer.Option(help="Encoding of the file; gb18030 also reads GBK.")]
_Delete = Annotated[bool, typer.Option("--delete", help="Delete the records in the file instead.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Report what would be written; write nothing.")]


def _file(columns: str) -> Any:
    return typer.Argument(
        exists=True, dir_okay=False, readable=True, help=f"CSV file; its first line has the columns: {columns}"
    )


@people_app.callback()
def people() -> None:
    """Import and list the names of people, shown with tasks."""


@forms_app.callback()
def forms() -> None:
    """Import the labels of form fields, shown with their values."""


@people_app.command(
    "import",
    epilog=example(
        "taskbridge people import people.csv --dry-run",
        "taskbridge people import people.csv --corp ding5d17e3add038d445",
        "taskbridge people import left.csv --delete",
    ),
)
def import_people(
    file: Annotated[
        Path,
        _file("corp_id, user_id, name, department, employee_number; any other column is another id of the person."),
    ],
    corp: _Corp = None,
    encoding: _Encoding = "utf-8",
    delete: _Delete = False,  # noqa: FBT002
    dry_run: _DryRun = False,  # noqa: FBT002
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Import people from a CSV file: all lines, or none if one is invalid. Safe to repeat.

    People who are not in the file are unchanged.
    """
    from taskbridge.cli.csv_files import read_people
    from taskbridge.cli.topic_update import PEOPLE_TARGET

    def read() -> dict[bytes, Any]:
        return read_people(file.read_bytes(), corp_id=corp, encoding=encoding, named=not delete)

    where = bootstrap_servers, registry_url, data_dir
    _import(PEOPLE_TARGET, file, read, where, delete=delete, dry_run=dry_run, as_json=as_json)


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
    for line in map(json_line, found) if as_json else table(found) if found else ():
        say(line)


@forms_app.command(
    "import",
    epilog=example(
        "taskbridge forms import forms.csv --dry-run",
        "taskbridge forms import forms.csv --corp ding5d17e3add038d445",
        "taskbridge forms import gone.csv --delete",
    ),
)
def import_forms(
    file: Annotated[
        Path, _file("corp_id, form_uuid, form_title, field_id, label; others are ignored. One line per field.")
    ],
    corp: _Corp = None,
    encoding: _Encoding = "utf-8",
    delete: _Delete = False,  # noqa: FBT002
    dry_run: _DryRun = False,  # noqa: FBT002
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Import form labels from a CSV file: all lines, or none if one is invalid. Safe to repeat.

    Forms in the file are replaced completely; other forms are unchanged.
    """
    from taskbridge.cli.csv_files import read_forms
    from taskbridge.cli.topic_update import FORMS_TARGET

    def read() -> dict[bytes, Any]:
        return read_forms(file.read_bytes(), corp_id=corp, encoding=encoding, labelled=not delete)

    where = bootstrap_servers, registry_url, data_dir
    _import(FORMS_TARGET, file, read, where, delete=delete, dry_run=dry_run, as_json=as_json)


def _import(
    target: Target[Any],
    file: Path,
    read: Callable[[], Mapping[bytes, Any]],
    where: tuple[str | None, str | None, Path | None],
    *,
    delete: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    from taskbridge.cli.topic_update import carry_out, plan, prepare

    try:
        records = read()
    except BadFile as error:
        for problem in error.problems[:_SHOWN_PROBLEMS]:
            progress(problem)
        if len(error.problems) > _SHOWN_PROBLEMS:
            progress(f"… and {len(error.problems) - _SHOWN_PROBLEMS} more")
        raise BadFile(f"{file}: {error}; nothing was written") from error
    with operator_connection(*where) as connection:
        if not dry_run:
            prepare(connection, target.topic)
        found = plan(connection, target, records, progress, delete=delete)
        if not dry_run:
            carry_out(connection, target, found, progress)
    outcome = {"deleted": found.deleted} if delete else {"new": found.new, "changed": found.changed}
    outcome["unchanged"] = found.unchanged
    if as_json:
        say(json_line({**outcome, "dry_run": dry_run}))
    else:
        counts = ", ".join(f"{count} {name}" for name, count in outcome.items())
        say(counts + (" (nothing was written)" if dry_run else ""))


def imported_people(connection: Connection) -> list[dict[str, Any]]:
    """All people, sorted by corp and id. Undecodable records are reported and skipped.

    Raises:
        ConfigurationError: the topic does not exist.
        OperatorError: Kafka or the registry does not answer.
    """
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
            found[key] = _shown(key, codec.decode(message.value()))
        except Undecodable as error:
            progress(f"partition {message.partition()}, offset {message.offset()}: {error}")
    return sorted(found.values(), key=lambda each: (each["corp_id"], each["user_id"]))


def _shown(key: str, person: PersonRecord) -> dict[str, Any]:
    return {
        "id": key,
        "corp_id": key.partition("/")[0],
        "user_id": person.user_id,
        "name": person.name,
        "department": person.department,
        "employee_number": person.employee_number,
        "other_ids": dict(person.other_ids),
    }


def matches(person: Mapping[str, Any], corp_id: str | None, text: str | None) -> bool:
    """Whether the person is in this corp and has the text in an id, name or department, ignoring case."""
    texts = (*(person[name] for name in ("user_id", "name", "department", "employee_number")), *_others(person))
    return corp_id in (None, person["corp_id"]) and (
        text is None or any(text.casefold() in each.casefold() for each in texts if each)
    )


def table(people: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Lines with aligned columns: a Chinese character is two cells wide."""
    from rich.cells import cell_len

    names = ("corp_id", "user_id", "name", "department", "employee_number")
    rows = [_HEADS, *((*(each[name] or "-" for name in names), " ".join(_others(each)) or "-") for each in people)]
    texts = [[printable(cell).replace("\n", "\\n") for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        cells = [cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        yield "  ".join(cells).rstrip()


def _others(person: Mapping[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in person["other_ids"].items()]
