"""What a person finds with a few letters: compared without case, and as people see the characters. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING
from unicodedata import normalize

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.streams.inbox.layout import Item


def folded(text: str) -> str:
    """Equal for texts that look alike: full-width and half-width, composed and decomposed, upper and lower case."""
    if text.isascii():
        return text.lower()
    return normalize("NFKC", normalize("NFKC", text).casefold())


def text_matcher(q: str) -> Callable[[str], bool]:
    """Whether ``q`` is found anywhere in a text; spaces around it do not count."""
    wanted = folded(q.strip())
    return lambda text: wanted in folded(text)


def matcher(
    q: str,
    app_type: str | None = None,
    source: str | None = None,
    *,
    name_of: Callable[[str], str | None] = lambda _: None,
) -> Callable[[Item], bool] | None:
    """Whether an item matches the query; None if all do.

    ``q`` is found anywhere in the title, the process' name or the originator's name; spaces around it do not count.
    ``name_of`` says how a user is called whom the sender named by an id only.
    """
    wanted = folded(q.strip())
    if not wanted and app_type is None and source is None:
        return None

    # Processes and people are few, and stand in many lines.
    @lru_cache(maxsize=64)
    def is_in(name: str) -> bool:
        return wanted in folded(name)

    def matches(item: Item) -> bool:
        if (app_type is not None and item.app_type != app_type) or (source is not None and item.source != source):
            return False
        if not wanted:
            return True
        if item.title is not None and wanted in folded(item.title):
            return True
        if item.process_name is not None and is_in(item.process_name):
            return True
        name = item.originator_name
        if name is None and item.originator_id is not None:
            name = name_of(item.originator_id)
        return name is not None and is_in(name)

    return matches
