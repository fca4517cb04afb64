"""Turns loosely typed values of a callback into fields of an event.

Values are texts, or the results of ``strict_json.parse``. A wrong id of an instance or task rejects the callback. A
field that only describes never does: it is used as far as it can be parsed. ``read_…`` functions get the value of a key
from ``get``, and call ``skipped`` with the key where it could not be parsed.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from taskbridge.edge.errors import Malformed
from taskbridge.edge.parsing import strict_json
from taskbridge.schemas.events import LAST_MS, MAX_ID_CHARACTERS, effective_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_NOT_IN_IDS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_NOT_IN_URLS = re.compile(r"[\x00-\x20\x7f-\x9f\ud800-\udfff]")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHANGHAI = timezone(timedelta(hours=8))
"""Fixed: China has had no summer time since 1991, and the time zone database may be missing."""
_MILLISECOND = timedelta(milliseconds=1)

_NUMBER = re.compile(r"\d{1,16}(?:\.\d{1,20})?(?:[eE]\+?\d{1,2})?", re.ASCII)
_MS_DIGITS = 13
_MS_FROM, _S_FROM = 10**12, 10**9
"""Thirteen digits before the point are ms, ten are s; other lengths are no time within the next 270 years."""
_DIGITS = re.compile(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)", re.ASCII)
_SLASHES = re.compile(r"(\d{4})/(\d{1,2})/(\d{1,2})(?: (\d{1,2}):(\d\d)(?::(\d\d))?)?", re.ASCII)
_JAVA = re.compile(r"[A-Z][a-z]{2} ([A-Z][a-z]{2}) (\d\d) (\d\d):(\d\d):(\d\d) (\S{1,9}) (\d{4})", re.ASCII)
"""The format of Java's ``Date.toString()`` in every locale."""
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ZONES = {"CST": _SHANGHAI, "HKT": _SHANGHAI, "SGT": _SHANGHAI, "UTC": UTC, "GMT": UTC}
"""CST is China's here, not Chicago's."""
_OFFSET = re.compile(r"GMT([+-])(\d\d):(\d\d)", re.ASCII)


def is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def first(source: Mapping[str, Any], keys: Iterable[str]) -> Any:
    for key in keys:
        value = source.get(key)
        if not is_blank(value):
            return value
    return None


def required_id(value: Any, name: str) -> str:
    """As ``optional_id``, but a blank one raises Malformed too."""
    found = optional_id(value, name)
    if found is None:
        raise Malformed(f"no-{name}", f"{name} is missing or empty.")
    return found


def optional_id(value: Any, name: str) -> str | None:
    """An id, or None where it is blank.

    Raises Malformed if it is too long, with control characters, or not a text or number.
    """
    if is_blank(value):
        return None
    if not is_id(value):
        detail = f"{name} must be a text of at most {MAX_ID_CHARACTERS} characters without control characters."
        raise Malformed(f"bad-{name}", detail)
    return str(value)


def is_id(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_ID_CHARACTERS and not _NOT_IN_IDS.search(value)


def text(value: Any) -> str | None:
    """A descriptive text, or None if it is blank; any other value becomes JSON text."""
    if value is None:
        return None
    if not isinstance(value, str):
        return _whole(strict_json.compact(value))
    return _whole(value) if value.strip() else None


def moment(value: Any) -> int | None:
    """Milliseconds since the epoch, or None if the value is no time after it.

    A number is ms or s by its size. Else ``yyyy-MM-dd HH:mm:ss``, also with slashes or digits only, ISO 8601, or the
    format of Java's ``Date.toString()``; in the time of Shanghai without a zone.
    """
    if not isinstance(value, str):
        return None
    written = value.strip()
    try:
        if len(written) == _MS_DIGITS and written.isascii() and written.isdigit():
            ms = int(written)
        elif _NUMBER.fullmatch(written) and not _DIGITS.fullmatch(written):
            ms = _ms_of_number(Decimal(written))
        else:
            ms = (_date_of(written) - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError):
        return None
    return ms if 0 < ms <= LAST_MS else None


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


def _ms_of_number(number: Decimal) -> int:
    if _S_FROM <= number < 10 * _S_FROM:
        return int(number * 1000)
    return int(number) if _MS_FROM <= number < 10 * _MS_FROM else 0


def _date_of(written: str) -> datetime:
    """Raises ValueError if it is none."""
    java = _JAVA.fullmatch(written)
    if java is not None:
        month, day, hour, minute, second, zone, year = java.groups()
        time = (int(day), int(hour), int(minute), int(second))
        return datetime(int(year), _MONTHS.index(month) + 1, *time, tzinfo=_zone_of(zone))
    plain = _DIGITS.fullmatch(written) or _SLASHES.fullmatch(written)
    if plain is not None:
        return datetime(*(int(each) for each in plain.groups("0")), tzinfo=_SHANGHAI)  # type: ignore[arg-type,misc]
    found = datetime.fromisoformat(written)
    return found if found.tzinfo else found.replace(tzinfo=_SHANGHAI)


def _zone_of(name: str) -> tzinfo:
    offset = _OFFSET.fullmatch(name)
    if offset is not None:
        sign, hours, minutes = offset.groups()
        ahead = timedelta(hours=int(hours), minutes=int(minutes))
        return timezone(-ahead if sign == "-" else ahead)
    if name not in _ZONES:
        raise ValueError("unknown time zone")
    return _ZONES[name]


def _listed(value: Any) -> Iterable[Any]:
    if isinstance(value, list):
        return cast("list[Any]", value)
    if not isinstance(value, str):
        return [value]
    if not value.lstrip().startswith(("[", "{")):
        return value.split(",")
    try:
        found = strict_json.parse(value)
    except ValueError:
        return [False]  # no id, so it counts as not parsed
    return cast("list[Any]", found) if isinstance(found, list) else [found]


def _whole(value: str) -> str:
    """The text with ``?`` for half a surrogate pair, as Java writes it: a title may be cut within an emoji."""
    return str(value) if value.isascii() else value.encode("utf-8", "replace").decode()


if TYPE_CHECKING:
    Get = Callable[[str], Any]
    Skipped = Callable[[str], None]


def merged(described: Mapping[str, Any], parameters: Mapping[str, str]) -> Mapping[str, Any]:
    """The members of ``task``, with those parameters whose member is blank."""
    return {**described, **{key: each for key, each in parameters.items() if is_blank(described.get(key))}}


def read_person(get: Get, key: str, id_keys: Sequence[str], skipped: Skipped) -> str | None:
    """One person's id; None if there are several. An object has the id under one of ``id_keys``."""
    found = read_people([get(key)], key, id_keys, skipped)
    if len(found) > 1:
        skipped(key)
    return found[0] if len(found) == 1 else None


def read_people(values: Iterable[Any], name: str, id_keys: Sequence[str], skipped: Skipped) -> tuple[str, ...]:
    """The ids of all people in the values, once each and in order; ``skipped`` gets ``name`` if one cannot be parsed.

    A value is an id, an object that has one under one of ``id_keys``, a list of these, a list as JSON text, or
    comma-separated ids.
    """
    found: dict[str, None] = {}
    whole = True
    for each in chain.from_iterable(map(_listed, values)):
        named = first(cast("dict[str, Any]", each), id_keys) if isinstance(each, dict) else each
        person_id = named.strip() if isinstance(named, str) else named
        if not is_blank(person_id) and is_id(person_id):
            found[str(person_id)] = None
        elif not is_blank(each):
            whole = False
    if not whole:
        skipped(name)
    return tuple(found)


def read_moment(get: Get, key: str, received_at: int | None, skipped: Skipped) -> int | None:
    """Milliseconds since the epoch; the time of receipt, if there is one here, for a time too far in the future."""
    value = get(key)
    if value is None:
        return None
    found = moment(value)
    if found is None:
        if not is_blank(value):
            skipped(key)
        return None
    effective = found if received_at is None else effective_time(found, received_at=received_at)
    if effective != found:
        skipped(key)
    return effective


def read_form(get: Get, key: str, skipped: Skipped) -> Mapping[str, str | None]:
    """A form's values by field id: texts and nulls as they are, anything else as JSON text. Empty if there is none."""
    value = get(key)
    if is_blank(value):
        return {}
    if isinstance(value, str):
        with suppress(ValueError):
            value = strict_json.parse(value)
    if not isinstance(value, dict):
        skipped(key)
        return {}
    return {
        _whole(name): None if each is None else _whole(each if isinstance(each, str) else strict_json.compact(each))
        for name, each in cast("dict[str, Any]", value).items()
    }
