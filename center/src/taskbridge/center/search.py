"""What a person finds with a few letters: compared without case, and as people see the characters. Pure.

Folded in Python when rows are written and when they are searched, so that both databases find the same.
"""

from __future__ import annotations

from functools import lru_cache
from unicodedata import normalize

from taskbridge.runtime.database import clean


def folded(text: str) -> str:
    """Equal for texts that look alike: full-width and half-width, composed and decomposed, upper and lower case."""
    if text.isascii():
        return text.lower()
    return normalize("NFKC", normalize("NFKC", text).casefold())


def search_text(title: str | None, process_name: str | None, name: str | None, serial_no: str | None) -> str:
    """``entries.search``: where an entry's text is found. ``name`` is the originator's, if the state has it."""
    return _lines(title, process_name, name, serial_no)


def person_text(name: str | None, user_id: str, department: str | None) -> str:
    """``people.search``. The name is its first line: an entry is found by that of its originator."""
    return _lines(name, user_id, department)


def text_of_query(q: str) -> str:
    """The text to look for in either of them; empty for all. Spaces around it do not count."""
    return _line(q.strip())


def _lines(*texts: str | None) -> str:
    return "\n".join(_line(text or "") for text in texts)


@lru_cache(1 << 13)
def _line(text: str) -> str:
    # Most are of few processes and people. PostgreSQL stores no U+0000.
    return clean(folded(text).replace("\n", " "))
