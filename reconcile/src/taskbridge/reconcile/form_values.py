"""The values of an instance as they are published: without the fields that are left out, and with hashes. Pure."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, cast

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_COMPANIONS = ("_id", "_value")
"""DingTalk returns the ids of people and options in fields of their own, which have no label."""


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


def protected(
    data: Mapping[str, str | None], labels: Mapping[str, str], protection: Protection
) -> dict[str, str | None]:
    """The values without omitted fields, and with the hashes of others. A field that is both is omitted."""
    if not protection.needs_labels:
        return dict(data)
    found = dict[str, str | None]()
    for field_id, value in data.items():
        names = _names(field_id, labels)
        if _matches(names, protection.omit):
            continue
        if value is not None and _matches(names, protection.hash):
            found[field_id] = _hash(value, protection)
        else:
            found[field_id] = None if value is None else _lines(value, names, labels, protection)
    return found


def fields_of(data: Mapping[str, str | None]) -> set[str]:
    """The ids of all fields, those of sub-forms too, without the companions of others."""
    inner = {name for value in data.values() for line in _parsed_lines(value or "") or () for name in line}
    every = {*data, *inner}
    return {each for each in every if not any(base in every for base in _bases(each)[1:])}


def unlabelled(data: Mapping[str, str | None], labels: Mapping[str, str]) -> set[str]:
    """The fields without a label: the form may have changed since its definition was read."""
    return {each for each in fields_of(data) if not any(base in labels for base in _bases(each))}


def _lines(value: str, names: Sequence[str], labels: Mapping[str, str], protection: Protection) -> str | None:
    """A sub-form's text, with each line's fields as protected as others; any other text as it is."""
    lines = _parsed_lines(value)
    if lines is None:
        # What looks like lines and cannot be read may have a field that is to be left out.
        return None if value.lstrip().startswith("[{") else value
    changed = [dict(_line(line, names, labels, protection)) for line in lines]
    return value if changed == lines else _json(changed)


def _line(
    line: Mapping[str, Any], names: Sequence[str], labels: Mapping[str, str], protection: Protection
) -> Iterator[tuple[str, Any]]:
    for field_id, value in line.items():
        whole = [f"{outer}.{inner}" for outer in names for inner in _names(field_id, labels)]
        if _matches(whole, protection.omit):
            continue
        is_hashed = value is not None and _matches(whole, protection.hash)
        yield field_id, _hash(value if isinstance(value, str) else _json(value), protection) if is_hashed else value


def _parsed_lines(value: str) -> list[dict[str, Any]] | None:
    """The lines of a sub-form: a list of objects."""
    if not value.lstrip().startswith("["):
        return None
    try:
        found = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    lines = cast("list[Any]", found)
    return cast("list[dict[str, Any]]", lines) if lines and all(isinstance(each, dict) for each in lines) else None


def _names(field_id: str, labels: Mapping[str, str]) -> list[str]:
    """What a pattern may name: the field, the field that it accompanies, and the labels of both."""
    bases = _bases(field_id)
    return [*bases, *(labels[each] for each in bases if each in labels)]


def _bases(field_id: str) -> list[str]:
    return [field_id, *(field_id.removesuffix(each) for each in _COMPANIONS if field_id.endswith(each))]


def _matches(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)


def _hash(value: str, protection: Protection) -> str:
    return hmac.new(protection.key, value.encode(), hashlib.sha256).hexdigest()


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
