"""List the imported people, from the end state of their topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

from taskbridge.cli.terminal import printable
from taskbridge.cli.topics.reading import read_to_end
from taskbridge.schemas.cloudevents import text_of
from taskbridge.schemas.codec import Undecodable, person_codec
from taskbridge.schemas.topics import PEOPLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from taskbridge.cli.connection import Connection
    from taskbridge.cli.terminal import Progress
    from taskbridge.schemas.events import PersonRecord

_HEADS = ("corp", "user", "name", "department", "employee number", "other ids")


def read_people(connection: Connection, progress: Progress) -> list[dict[str, Any]]:
    """All people, sorted by corp and id. Undecodable records are reported and skipped.

    Raises:
        ConfigurationError: the topic does not exist.
        OperatorError: Kafka or the registry does not answer.
    """
    codec = person_codec(connection.registry)
    found: dict[str, dict[str, Any]] = {}
    for message in read_to_end(connection, PEOPLE.name, progress=progress):
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
    names = ("corp_id", "user_id", "name", "department", "employee_number")
    rows = [_HEADS, *((*(each[name] or "-" for name in names), " ".join(_others(each)) or "-") for each in people)]
    texts = [[printable(cell).replace("\n", "\\n") for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        cells = [cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        yield "  ".join(cells).rstrip()


def _others(person: Mapping[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in person["other_ids"].items()]
