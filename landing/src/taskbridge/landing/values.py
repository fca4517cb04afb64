"""From a form's raw values to typed ones: what each kind of field may have, and what is kept raw. Pure.

A value has the shape that the sender gave it, and anybody who fills in a form may write anything. What does not fit
the kind of its field is kept as it came, and loses nothing else.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import parse_qs, urlsplit

from taskbridge.schemas.events import FIRST_MS, LAST_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from taskbridge.schemas.events import Form

LINES_MAX = 5_000
"""Lines of one sub-form. A longer one is kept raw."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CHINA = timezone(timedelta(hours=8))
"""The sender's clock."""
_NUMBER = re.compile(r"[+-]?[0-9]{1,300}(\.[0-9]{1,300})?([eE][+-]?[0-9]{1,2})?", re.ASCII)
_MS, _SECONDS = re.compile(r"-?[0-9]{11,15}"), re.compile(r"[0-9]{9,10}")
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")
_IDS, _VALUE = "_id", "_value"
"""The ends of the fields with the ids, and with the plain value, of what the field before them shows."""
_FILE_IDS = ("fileId", "fileUuid", "id", "uuid")

Values = tuple[Any, ...]
"""One for each column of a kind."""


class Kind(StrEnum):
    """What a field has; ``SUBFORM``: lines of fields of their own."""

    TEXT = "text"
    NUMBER = "number"
    DATE = "date"
    DATETIME = "datetime"
    DATE_RANGE = "date_range"
    PERSON = "person"
    DEPARTMENT = "department"
    CHOICE = "choice"
    CHOICES = "choices"
    ADDRESS = "address"
    FILES = "files"
    SUBFORM = "subform"


_KINDS = {
    "number": Kind.NUMBER,
    "rate": Kind.NUMBER,
    "date": Kind.DATE,
    "datetime": Kind.DATETIME,
    "cascadedate": Kind.DATE_RANGE,
    "employee": Kind.PERSON,
    "departmentselect": Kind.DEPARTMENT,
    "radio": Kind.CHOICE,
    "select": Kind.CHOICE,
    "checkbox": Kind.CHOICES,
    "multiselect": Kind.CHOICES,
    "cascadeselect": Kind.CHOICES,
    "address": Kind.ADDRESS,
    "attachment": Kind.FILES,
    "image": Kind.FILES,
    "digitalsignature": Kind.FILES,
    "table": Kind.SUBFORM,
}
_TEXTS = frozenset(("text", "textarea", "serialnumber", "editor", "associationform", "countryselect", "location"))
_ID = re.compile(r"([a-z]+)field_.", re.IGNORECASE)


Place = tuple[str | None, str]
"""Where a field is, which is its identity: the sub-form, if it is in one, and its id."""


class Field(NamedTuple):
    field_id: str
    kind: Kind
    parent: str | None = None
    """The sub-form that it is in."""

    @property
    def place(self) -> Place:
        return (self.parent, self.field_id)


class Typed(NamedTuple):
    """The values of one instance, or of one line of a sub-form."""

    values: dict[str, Values]
    """By field. A field that has no value, or one that does not fit, is missing."""
    raw: dict[str, str]
    """What does not fit, and the values of unknown fields."""
    lines: dict[str, list[Typed]]
    """Of sub-forms."""


class _Unfit(Exception):
    """The value does not fit the kind of its field."""


def field_of(field_id: str, component: str, parent: str | None) -> Field:
    """A field by its component's name at the sender, such as ``NumberField``. Sub-forms in sub-forms are texts."""
    kind = _KINDS.get(component.lower().removesuffix("field"), Kind.TEXT)
    kind = Kind.TEXT if kind is Kind.SUBFORM and parent is not None else kind
    return Field(plain(field_id), kind, None if parent is None else plain(parent))


def fields_of(form: Form) -> dict[Place, Field]:
    """The fields of a definition, in its order."""
    found = (field_of(each.field_id, each.component, each.parent_field_id) for each in form.fields)
    return {each.place: each for each in found}


def guessed(field_id: str, parent: str | None = None) -> Field | None:
    """The field that an id of the sender's own names: ``numberField_…`` is a number. Of other ids nothing is known."""
    found = _ID.match(field_id)
    name = "" if found is None else found[1].lower()
    return field_of(field_id, name, parent) if name in _KINDS or name in _TEXTS else None


def typed(data: Mapping[str, str | None], known: Mapping[Place, Field], *, parent: str | None = None) -> Typed:
    """The values of known fields; those of others are raw."""
    found = Typed({}, {}, {})
    for given, text in data.items():
        if text is None or not text.strip():
            continue
        name = plain(given)
        if (field := known.get((parent, name))) is None:
            # The ids of the people that another field names, or the value of its option, are in the columns of that.
            if (about := _about(given)) not in data or not (
                (parent, plain(about)) in known or (guessed(about) is not None and not (data[about] or "").strip())
            ):
                found.raw[name] = _raw(text)
            continue
        try:
            if field.kind is Kind.SUBFORM:
                found.lines[name] = [typed(_texts(each), known, parent=name) for each in _lines(text)]
            elif (values := _READ[field.kind](text, data.get(given + _IDS))) is not None:
                found.values[name] = values
        except (_Unfit, ValueError, OverflowError, RecursionError):
            found.raw[name] = _raw(text, field.kind)
    return found


def guesses(found: Typed, parent: str | None = None) -> Iterator[Field]:
    """The fields of raw values, where ids tell their kinds."""
    for name in found.raw:
        if _about(name) not in found.raw and (its := guessed(name, parent)) is not None:
            yield its
    for name, lines in found.lines.items():
        for line in lines:
            yield from guesses(line, name)


def _about(name: str) -> str:
    """The field whose ids, or plain value, a field of this name may have, if any."""
    return next((name.removesuffix(end) for end in (_IDS, _VALUE) if name.endswith(end)), "")


def plain(text: str) -> str:
    """As databases take it: without U+0000 and half surrogates."""
    return _NOT_TEXT.sub("\ufffd", text)


def to_json(value: object) -> str:
    return plain(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _texts(line: Mapping[str, object]) -> dict[str, str | None]:
    return {
        name: value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in line.items()
    }


def _lines(text: str) -> list[dict[str, object]]:
    """A line may stand alone, or be null; it, and all of them, may be a text of JSON."""
    found = _unpacked(_parsed(text))
    lines: Any = [found] if isinstance(found, dict) else found or []
    if not isinstance(lines, list) or len(cast("list[object]", lines)) > LINES_MAX:
        raise _Unfit
    lines = [{} if each is None else _unpacked(each) for each in cast("list[object]", lines)]
    if not all(isinstance(each, dict) for each in lines):
        raise _Unfit
    return cast("list[dict[str, object]]", lines)


def _unpacked(value: Any) -> Any:
    return _parsed(value) if isinstance(value, str) else value


def _text(text: str, _ids: str | None) -> Values:
    return (plain(text),)


def _number(text: str, _ids: str | None) -> Values | None:
    number = text.strip().strip('"')
    if not number:
        return None
    if not _NUMBER.fullmatch(number):
        raise _Unfit
    return (number,)


def _at(text: str) -> int:
    """In ms since the epoch."""
    text = text.strip()
    if _MS.fullmatch(text):
        at = int(text)
    elif _SECONDS.fullmatch(text):
        at = int(text) * 1000
    else:
        given = datetime.fromisoformat(text.replace("/", "-"))
        given = given.replace(tzinfo=_CHINA) if given.tzinfo is None else given
        at = (given - _EPOCH) // timedelta(milliseconds=1)
    if not FIRST_MS <= at <= LAST_MS:
        raise _Unfit
    return at


def _date(text: str, _ids: str | None) -> Values:
    return (_at(text.strip('"')),)


def _date_range(text: str, _ids: str | None) -> Values | None:
    found = _parsed(text)
    if not isinstance(found, list) or len(cast("list[object]", found)) != 2:  # noqa: PLR2004 - its two ends
        raise _Unfit
    first, last = (None if each in (None, "") else _at(_scalar(each)) for each in cast("list[object]", found))
    return None if first is None and last is None else (first, last)


def _named(text: str, ids: str | None) -> Values | None:
    """Ids, and names where both are given."""
    shown = _list(text)
    known = [] if ids is None or not ids.strip() else _list(ids)
    if not shown and not known:
        return None
    return (to_json(known), to_json(shown)) if known else (to_json(shown), None)


def _choice(text: str, _ids: str | None) -> Values | None:
    if not text.lstrip().startswith("["):
        return (plain(text),)
    found = _list(text)
    if len(found) > 1:
        raise _Unfit
    return (found[0],) if found else None


def _choices(text: str, _ids: str | None) -> Values | None:
    found = _list(text)
    return (to_json(found),) if found else None


def _address(text: str, _ids: str | None) -> Values:
    """Region and address in one text."""
    if not text.lstrip().startswith("{"):
        return (plain(text),)
    found = _parsed(text)
    regions: object = found.get("regionText") or []
    if not isinstance(regions, list):
        raise _Unfit
    parts = [_in_one_language(each) for each in cast("list[object]", regions)]
    address = found.get("address")
    if not parts and not isinstance(address, str):
        raise _Unfit
    return (plain(" ".join(each for each in (*parts, address) if isinstance(each, str) and each)),)


def _in_one_language(given: object) -> object:
    texts = cast("dict[str, object]", given) if isinstance(given, dict) else {"": given}
    return next((text for text in (texts.get("zh_CN"), *texts.values()) if isinstance(text, str)), None)


def _files(text: str, _ids: str | None) -> Values | None:
    """Name, size and the sender's id of each file, and no address: that is a key, for as long as it is valid."""
    found = _parsed(text)
    if not isinstance(found, list):
        raise _Unfit
    files = [_file(each) for each in cast("list[object]", found)]
    return (to_json(files),) if files else None


def _file(given: object) -> dict[str, object]:
    record = cast("dict[str, object]", given) if isinstance(given, dict) else {}
    name, size = record.get("name"), record.get("size", record.get("fileSize"))
    if not isinstance(name, str):
        raise _Unfit
    its_id = next((record[each] for each in _FILE_IDS if isinstance(record.get(each), str)), None)
    if its_id is None and isinstance(address := record.get("downloadUrl"), str):
        its_id = next(iter(parse_qs(urlsplit(address).query).get("fileName", [])), None)
    is_size = isinstance(size, int) or (isinstance(size, str) and size.isascii() and size.isdigit())
    its_id = None if its_id is None else plain(cast("str", its_id))
    return {"name": plain(name), "size": int(cast("int", size)) if is_size else None, "id": its_id}


def _raw(text: str, kind: Kind | None = None) -> str:
    """The value as it came, without the addresses of files: nothing of files that cannot be read."""
    if kind is Kind.FILES:
        return ""
    try:
        found = _parsed(text) if text.lstrip()[:1] in ("[", "{") else None
        if found is None or found == (bare := _without_addresses(found)):
            return plain(text)
        return to_json(bare)
    except (ValueError, RecursionError):
        return plain(text)


def _without_addresses(value: object) -> object:
    if isinstance(value, list):
        return [_without_addresses(each) for each in cast("list[object]", value)]
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value).items()
        return {plain(name): _without_addresses(each) for name, each in fields if not name.lower().endswith("url")}
    return _raw(value) if isinstance(value, str) else value


def _list(text: str) -> list[str]:
    """The texts of a list; a text that is no list is one."""
    if not text.lstrip().startswith("["):
        return [plain(text.strip())]
    found = _parsed(text)
    return [_scalar(each) for each in cast("list[object]", found) if each not in (None, "")]


def _scalar(given: object) -> str:
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise _Unfit
    return plain(str(given))


def _parsed(text: str) -> Any:
    """JSON, with numbers that are not whole as their texts."""
    return json.loads(text, parse_float=str, parse_constant=_refuse)


def _refuse(constant: str) -> Iterable[object]:
    raise ValueError(constant)


_READ: dict[Kind, Callable[[str, str | None], Values | None]] = {
    Kind.TEXT: _text,
    Kind.NUMBER: _number,
    Kind.DATE: _date,
    Kind.DATETIME: _date,
    Kind.DATE_RANGE: _date_range,
    Kind.PERSON: _named,
    Kind.DEPARTMENT: _named,
    Kind.CHOICE: _choice,
    Kind.CHOICES: _choices,
    Kind.ADDRESS: _address,
    Kind.FILES: _files,
}
