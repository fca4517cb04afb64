"""Identifiers in the customer's database, from ids and labels that anybody may have chosen. Pure."""

from __future__ import annotations

import hashlib
import re
from itertools import count
from typing import TYPE_CHECKING

from taskbridge.landing.values import Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

MAX_BYTES = 60
"""PostgreSQL cuts at 63, and the name of a view has two more than that of its table."""
_FORM_CHARACTERS, _HASH = 24, 8
_ENDS = {Kind.DATE_RANGE: ("__from", "__to"), Kind.PERSON: ("", "__names"), Kind.DEPARTMENT: ("", "__names")}
"""The ends of the names of a kind's columns; others have one column."""
OURS = ("instance_id", "corp_id", "app_type", "line", "_modified_at", "_read_at", "_deleted", "_raw")
_POSTGRESQLS = ("ctid", "xmin", "xmax", "cmin", "cmax", "tableoid", "oid")
RESERVED = frozenset((*OURS, *_POSTGRESQLS))
"""No column of a field has such a name: it is ours, or one that every table of PostgreSQL has."""


def ends_of(kind: Kind) -> tuple[str, ...]:
    return _ENDS.get(kind, ("",))


def table_name(form_uuid: str, taken: Collection[str]) -> str:
    """``f_`` and the last 24 letters and digits of the form's id."""
    letters = re.sub("[^a-z0-9]", "", form_uuid.lower())[-_FORM_CHARACTERS:]
    return _free(f"f_{letters or _hash(form_uuid)}", taken)[0]


def line_table_name(table: str, field_id: str, taken: Collection[str]) -> str:
    return _free(f"{table}__{field_id.lower()}", taken)[0]


def column_names(field_id: str, kind: Kind, taken: Collection[str]) -> list[str]:
    """The names of a field's columns, all with the same number where others have them."""
    base = field_id.lower()
    base = base if base[:1].isalpha() else f"c_{base}"
    return _free(base, taken, ends_of(kind))


def view_names(labels: Iterable[tuple[str, str]]) -> list[str]:
    """The columns of a view: labels, each with an end of its own; equal ones are numbered."""
    taken = {each.casefold() for each in OURS}
    found: list[str] = []
    for label, end in labels:
        shown = f"{label.strip() or '-'}{end}"
        numbered = (cut(shown if number == 1 else f"{shown} ({number})") for number in count(1))
        name = next(each for each in numbered if each.casefold() not in taken)
        taken.add(name.casefold())
        found.append(name)
    return found


def cut(name: str) -> str:
    """At most 60 bytes; a longer name ends with eight digits of its hash."""
    if len(name.encode()) <= MAX_BYTES:
        return name
    return name.encode()[: MAX_BYTES - _HASH].decode(errors="ignore") + _hash(name)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH]


def _free(base: str, taken: Collection[str], ends: Iterable[str] = ("",)) -> list[str]:
    numbered = ([cut(f"{base}{'' if number == 1 else f'_{number}'}{end}") for end in ends] for number in count(1))
    return next(names for names in numbered if not any(each in taken or each in RESERVED for each in names))
