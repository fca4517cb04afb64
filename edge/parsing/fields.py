"""Turns one loosely typed value of a callback into what an event may hold.

Values are texts, or what ``strict_json.parse`` gives. An id decides whose task something is, so a wrong one is refused;
a text that only describes is taken as it comes.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from edge.errors import Malformed
from edge.parsing import strict_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_ID_CHARACTERS = 128

_NOT_IN_IDS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_NOT_IN_URLS = re.compile(r"[\x00-\x20\x7f-\x9f\ud800-\udfff]")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHANGHAI = timezone(timedelta(hours=8))
"""Fixed: China has had no summer time since 1991, and the zone database may be missing."""
_LAST_MS = 253_402_300_799_999
"""The end of the year 9999: what lies beyond cannot be read back by most Avro libraries."""
_MILLISECOND = timedelta(milliseconds=1)
_MS_DIGITS, _S_DIGITS = 13, 10


def is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def first(source: Mapping[str, Any], keys: Iterable[str]) -> Any:
    """The first of the keys' values that is not blank."""
    for key in keys:
        value = source.get(key)
        if not is_blank(value):
            return value
    return None


def required_id(value: Any, name: str) -> str:
    """An id that must be there.

    Raises:
        Malformed: missing, blank, too long, with control characters, or not a text or number.
    """
    found = optional_id(value, name)
    if found is None:
        raise Malformed(f"no-{name}", f"{name} is missing or blank.")
    return found


def optional_id(value: Any, name: str) -> str | None:
    """An id, or None where it is blank.

    Raises:
        Malformed: too long, with control characters, or not a text or number.
    """
    if type(value) is str and value.isprintable() and 0 < len(value) <= MAX_ID_CHARACTERS and not value.isspace():
        return value  # as nearly all are; what follows is for the others
    if is_blank(value):
        return None
    if not isinstance(value, str) or len(value) > MAX_ID_CHARACTERS or _NOT_IN_IDS.search(value):
        detail = f"{name} must be a text of at most {MAX_ID_CHARACTERS} characters without control characters."
        raise Malformed(f"bad-{name}", detail)
    return str(value)


def id_union(values: Iterable[Any]) -> tuple[str, ...]:
    """All ids in all values, once each, in their order: an id, a list, a list as JSON text, or comma-separated ids.

    Raises:
        Malformed: something among them is no id.
    """
    found: dict[str, None] = {}
    for value in values:
        for each in _listed(value):
            person_id = optional_id(each.strip() if isinstance(each, str) else each, "recipient")
            if person_id is not None:
                found[person_id] = None
    return tuple(found)


def text(value: Any) -> str | None:
    """A descriptive text, or None where it is blank; what is no text becomes JSON text."""
    if is_blank(value):
        return None
    return _whole(value if isinstance(value, str) else strict_json.compact(value))


def form_values(value: Any) -> dict[str, str | None]:
    """A form's values by field id: texts and nulls as they are, anything else as JSON text; no object, no values."""
    if isinstance(value, str):
        try:
            value = strict_json.parse(value)
        except ValueError:
            return {}
    if not isinstance(value, dict):
        return {}
    return {
        _whole(key): None if each is None else _whole(each if isinstance(each, str) else strict_json.compact(each))
        for key, each in cast("dict[str, Any]", value).items()
    }


def moment(value: Any) -> int | None:
    """Milliseconds since the epoch, or None where the value names no moment after it.

    13 digits are ms, 10 are s; else ``yyyy-MM-dd HH:mm:ss`` or ISO 8601, in Shanghai's time where no zone is given.
    """
    if not isinstance(value, str):
        return None
    written = value.strip()
    if written.isascii() and written.isdigit():
        digits = len(written)
        ms = int(written) if digits == _MS_DIGITS else int(written) * 1000 if digits == _S_DIGITS else 0
    else:
        try:
            found = datetime.fromisoformat(written)
            ms = ((found if found.tzinfo else found.replace(tzinfo=_SHANGHAI)) - _EPOCH) // _MILLISECOND
        except (ValueError, OverflowError):
            return None
    return ms if 0 < ms <= _LAST_MS else None


def web_address(candidates: Iterable[Any]) -> str | None:
    """The first candidate that a person can safely follow: http or https, with a host."""
    for each in candidates:
        if isinstance(each, str) and not _NOT_IN_URLS.search(each.strip()):
            try:
                parts = urlsplit(each.strip())
                if parts.scheme in ("http", "https") and parts.hostname:
                    return each.strip()
            except ValueError:
                continue
    return None


def _listed(value: Any) -> Iterable[Any]:
    if isinstance(value, list):
        return cast("list[Any]", value)
    if not isinstance(value, str):
        return [value]
    if not value.lstrip().startswith("["):
        return value.split(",")
    try:
        return cast("list[Any]", strict_json.parse(value))
    except ValueError as error:
        raise Malformed("bad-recipient", f"A list of recipients is not JSON that can be read: {error}.") from error


def _whole(value: str) -> str:
    """The text with ``?`` for half surrogate pairs, as Java writes them: a title may be cut within an emoji."""
    return str(value) if value.isascii() else value.encode("utf-8", "replace").decode()
