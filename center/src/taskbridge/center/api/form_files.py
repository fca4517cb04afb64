"""The files that people attached to a form, as its values describe them. Pure.

The value of an attachment or image field is a list of records with the file's name, size and address at the vendor. A
sub-form is a list of lines with such fields. Anybody who fills in a form, or posts as a source, may write anything
there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard, cast

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FILES_MAX = 200
"""Files of one form that are shown."""
PLACE_MAX = 512
NAME_MAX, _ADDRESS_MAX = 255, 2_000
_DIRECTIONS = dict.fromkeys([0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])
"""Characters that turn the direction of text: a name would end in another way than it seems."""
_LARGEST = 1 << 50
_NOT_JSON = (msgspec.MsgspecError, UnicodeError, RecursionError)

Record = dict[str, Any]


class FormFile(NamedTuple):
    name: str
    size: int | None
    """In bytes."""
    address: str
    """At the vendor, whose API alone may get it: it proves nothing, and its writer chose it."""


def files_of(form: Mapping[str, str | None]) -> dict[str, list[FormFile]]:
    """The files by place: the field's id, or `SUBFORM/LINE/FIELD`, with lines from 0."""
    found: dict[str, list[FormFile]] = {}
    count = 0
    for field, text in form.items():
        for place, records in _lists(field, _read(text)):
            files = [file for record in records if (file := _file(record)) is not None]
            # The audit trail separates a place from what is before it by a space.
            if len(files) < len(records) or len(place) > PLACE_MAX or any(map(str.isspace, place)):
                continue
            if count + len(files) > FILES_MAX:
                continue
            count += len(files)
            found[place] = files
    return found


def _lists(field: str, value: object) -> Iterator[tuple[str, list[Record]]]:
    """The field's own list of records, and those of the lines of a sub-form."""
    if not _is_records(value):
        return
    yield field, value
    for line, record in enumerate(value):
        for name, inner in record.items():
            if _is_records(found := _read(inner)):
                yield f"{field}/{line}/{name}", found


def _is_records(value: object) -> TypeGuard[list[Record]]:
    records = cast("list[object]", value) if isinstance(value, list) else []
    return bool(records) and all(isinstance(each, dict) for each in records)


def _read(value: object) -> object:
    """JSON of a list is read; everything else is what it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        return msgspec.json.decode(value)
    except _NOT_JSON:
        return value


def _file(record: Record) -> FormFile | None:
    name, address = record.get("name"), record.get("downloadUrl") or record.get("url")
    if not isinstance(name, str) or not isinstance(address, str) or not 0 < len(address) <= _ADDRESS_MAX:
        return None
    return FormFile(
        name.translate(_DIRECTIONS).strip()[:NAME_MAX], _size(record.get("size", record.get("fileSize"))), address
    )


def _size(given: object) -> int | None:
    if isinstance(given, str) and given.isascii() and given.isdecimal() and len(given) <= len(str(_LARGEST)):
        given = int(given)
    return given if type(given) is int and 0 <= given <= _LARGEST else None
