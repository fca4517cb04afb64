"""The little Markdown that the pages of the reference are made of."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Row = tuple[str, ...]

NOTICE = "<!-- Written by tools/reference.py: change what it is written from. -->"


UNTYPED = "A field without a type is a string."


def page(title: str, introduction: str, *parts: str) -> str:
    """A whole page, with a note of its source."""
    return "\n\n".join([f"# {title}", NOTICE, introduction, *parts]).rstrip() + "\n"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell(each) for each in line) + " |" for line in lines)


def listed(rows: Iterable[Sequence[str]]) -> str:
    """A line for each row: what it is about, then its meaning."""
    return "\n".join(f"- {name}: {' '.join(meaning.split())}" if meaning else f"- {name}" for name, meaning in rows)


def cell(text: str) -> str:
    """One line; a bar in it is no border, in code neither."""
    return " ".join(text.split()).replace("|", r"\|")


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def typed(field: str, kind: str) -> str:
    """A field with its type in brackets; most are strings, which is not said."""
    kind = kind.removeprefix("string").strip()
    return f"{field} ({kind})" if kind else field


def fenced(text: str, language: str = "") -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def prose(text: str) -> str:
    """A docstring as Markdown: one paragraph, names of code in single ticks, nothing read as HTML."""
    return " ".join(text.split()).replace("``", "`").replace("<", "&lt;")


def repeated(tables: Iterable[Iterable[Row]], *, at_least: int) -> list[Row]:
    """The rows that so many tables have, to be shown once for all of them; in order of appearance."""
    counts = Counter(row for rows in tables for row in rows)
    return [row for row, count in counts.items() if count >= at_least]


def also(rows: Iterable[Row], shared: Sequence[Row]) -> str:
    """One line in place of the rows that are shown once for all; empty where there are none."""
    names = [row[0].partition(" (")[0] for row in rows if row in shared]
    return f"Also {', '.join(names)}." if names else ""
