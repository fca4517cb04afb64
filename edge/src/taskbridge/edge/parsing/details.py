"""What a callback tells beside its ids: as much as is understood of it, and none of it refuses anything.

``told`` gives what stands under a key; ``noted`` is told the keys of what was not understood.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskbridge.edge.parsing import fields
from taskbridge.schemas.events import MAX_ID_CHARACTERS, effective_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Told = Callable[[str], Any]
    Noted = Callable[[str], None]


def together(described: Mapping[str, Any], beside: Mapping[str, str]) -> Mapping[str, Any]:
    """What is described, and what stands beside it where that says nothing."""
    return {**described, **{key: each for key, each in beside.items() if fields.is_blank(described.get(key))}}


def told_person(told: Told, key: str, id_keys: Sequence[str], noted: Noted) -> str | None:
    """The one that is meant; of several it is not known which. An object has its id under one of ``id_keys``."""
    value = told(key)
    if type(value) is str and value.isalnum() and len(value) <= MAX_ID_CHARACTERS:
        return value  # as nearly all are
    found = told_people([value], key, id_keys, noted)
    if len(found) > 1:
        noted(key)
    return found[0] if len(found) == 1 else None


def told_people(values: Iterable[Any], name: str, id_keys: Sequence[str], noted: Noted) -> tuple[str, ...]:
    """All that are meant; ``name`` is noted where one of them is not understood."""
    found, whole = fields.people(values, id_keys=id_keys)
    if not whole:
        noted(name)
    return found


def told_moment(told: Told, key: str, received_at: int, noted: Noted) -> int | None:
    """Milliseconds since the epoch; the time of receipt for a moment that is not believed."""
    value = told(key)
    if value is None:
        return None
    found = fields.moment(value)
    if found is None:
        if not fields.is_blank(value):
            noted(key)
        return None
    moment = effective_time(found, received_at=received_at)
    if moment != found:
        noted(key)
    return moment


def told_form(told: Told, key: str, noted: Noted) -> Mapping[str, str | None]:
    """A form's values by field id."""
    found = fields.form_values(told(key))
    if found is None:
        noted(key)
    return found or {}
