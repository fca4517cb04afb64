"""The values of an instance as they are published: without the fields that are left out, and with hashes. Pure.

Where a rule might concern a value, and it is not known whether it does, the value is left out.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taskbridge.schemas.events import Form

_COMPANIONS = ("_id", "_value")
"""DingTalk returns the ids of people and options in fields of their own, which have no label."""
_TABLE, _TABLE_ID = "TableField", "tablefield"
"""The component of a sub-form, and the beginning of the ids that DingTalk gives to them, in lower case."""
_NOT_JSON = (msgspec.DecodeError, UnicodeError, RecursionError)
_LINES = msgspec.json.Decoder(list[dict[str, msgspec.Raw] | None])
_CHOICES = msgspec.json.Decoder(list[str | float | bool | None])


@dataclass(frozen=True, slots=True)
class Protection:
    """Shell patterns of field ids and labels. A sub-form's field is ``SUBFORM.FIELD``. The repr shows no key."""

    omit: tuple[str, ...] = ()
    hash: tuple[str, ...] = ()
    key: bytes = b""

    def __repr__(self) -> str:
        return f"Protection(omit={self.omit}, hash={self.hash})"

    @property
    def needs_labels(self) -> bool:
        return bool(self.omit or self.hash)


class Definition(msgspec.Struct, frozen=True):
    """What is known of a form's fields."""

    labels: dict[str, str] = {}
    """By field id. A field without a label has an empty one."""
    plain: frozenset[str] = frozenset()
    """The fields that are certainly no sub-form."""

    @classmethod
    def of(cls, form: Form) -> Definition:
        every = dict.fromkeys((each.field_id for each in form.fields), "")
        plain = frozenset(each.field_id for each in form.fields if each.component != _TABLE)
        return cls({**every, **form.labels}, plain)

    def knows(self, field_id: str) -> bool:
        return any(base in self.labels for base in _bases(field_id))

    def names(self, field_id: str) -> list[str]:
        """What a pattern may name: the field, the field that it accompanies, and the labels of both."""
        bases = _bases(field_id)
        return [*bases, *(label for each in bases if (label := self.labels.get(each)))]


class Protected(NamedTuple):
    data: dict[str, str | None]
    unknown: set[str]
    """The fields that the definition lacks: they are left out, because a pattern may name their labels."""
    unclear: int
    """The number of values that are left out because of their shape."""


def protected(data: Mapping[str, str | None], form: Definition, protection: Protection) -> Protected:
    """The values without omitted fields, and with the hashes of others. A field that is both is omitted."""
    if not protection.needs_labels:
        return Protected(dict(data), set(), 0)
    found, unknown, unclear = dict[str, str | None](), set[str](), 0
    for field_id, value in data.items():
        names = form.names(field_id)
        if _matches(names, protection.omit):
            continue
        if not form.knows(field_id):
            unknown.add(field_id)
        elif value is None:
            found[field_id] = None
        elif _matches(names, protection.hash):
            found[field_id] = _hash(value, protection)
        elif not form.plain.isdisjoint(_bases(field_id)) or not _concerns_lines(names, protection):
            found[field_id] = value
        elif (text := _lines(value, names, form, protection, unknown)) is not None:
            found[field_id] = text
        elif _is_no_table(value):
            found[field_id] = value
        else:
            unclear += 1
    return Protected(found, unknown, unclear)


def fields_of(data: Mapping[str, str | None]) -> set[str]:
    """The ids of all fields, those of sub-forms too, without the companions of others.

    A text that looks like lines has none: anybody may write one, and a form is read again for each new field.
    """
    tables = [value or "" for field_id, value in data.items() if field_id.lower().startswith(_TABLE_ID)]
    inner = {name for value in tables for line in _parsed(value) or () for name in line or ()}
    every = {*data, *inner}
    return {each for each in every if not any(base in every for base in _bases(each)[1:])}


def _lines(value: str, names: Sequence[str], form: Definition, protection: Protection, unknown: set[str]) -> str | None:
    """A sub-form's text, with each line's fields as protected as others; None if these are no lines.

    None too if a line has lines: a pattern may concern their fields.
    """
    lines = _parsed(value)
    if lines is None:
        return None
    changed = list[dict[str, str | msgspec.Raw] | None]()
    for line in lines:
        kept = dict[str, str | msgspec.Raw]()
        for field_id, raw in (line or {}).items():
            whole = [f"{outer}.{inner}" for outer in names for inner in form.names(field_id)]
            if _matches(whole, protection.omit):
                continue
            if not form.knows(field_id):
                unknown.add(field_id)
            elif _matches(whole, protection.hash) and (text := _text(raw)) is not None:
                kept[field_id] = _hash(text, protection)
            elif form.plain.isdisjoint(_bases(field_id)) and not _is_no_table(_text(raw) or ""):
                return None
            else:
                kept[field_id] = raw
        changed.append(None if line is None else kept)
    return value if changed == lines else msgspec.json.encode(changed).decode()


def _parsed(value: str) -> list[dict[str, msgspec.Raw] | None] | None:
    """The lines of a sub-form, of which some may be empty. Numbers stay as they are written."""
    if not value.lstrip().startswith("["):
        return None
    try:
        return _LINES.decode(value)
    except _NOT_JSON:
        return None


def _text(raw: msgspec.Raw) -> str | None:
    found = bytes(raw)
    return None if found == b"null" else msgspec.json.decode(found, type=str) if found[:1] == b'"' else found.decode()


def _is_no_table(value: str) -> bool:
    """Whether this is a text, a number or a list of choices: no JSON in which a line may be."""
    if not value.lstrip().startswith(("[", "{", '"')):
        return True
    try:
        choices = _CHOICES.decode(value)
    except _NOT_JSON:
        return False
    return all(_is_no_table(each) for each in choices if isinstance(each, str))


def _concerns_lines(names: Sequence[str], protection: Protection) -> bool:
    """Whether a pattern may match a field of this sub-form: its beginning matches the sub-form's name and the dot."""
    return any(
        pattern[:end] == f"{name}." or fnmatchcase(f"{name}.", pattern[:end])
        for name in names
        for pattern in (*protection.omit, *protection.hash)
        for end, last in enumerate(pattern, 1)
        if last in ".*?]"
    )


def _bases(field_id: str) -> list[str]:
    return [field_id, *(field_id.removesuffix(each) for each in _COMPANIONS if field_id.endswith(each))]


def _matches(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """A label with brackets, such as ``电话[内部]``, is a pattern that does not match itself."""
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns for name in names)


def _hash(value: str, protection: Protection) -> str:
    return hmac.new(protection.key, value.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
