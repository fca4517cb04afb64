"""The parts that all pages of results share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.bench.machine import machine_section

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tests.bench.machine import Before


NOTES = "## Where the time goes"
"""The one part that a person writes: why a goal is missed. A page that is measured again keeps it."""


def write_page(
    page: Path, title: str, lines: Iterable[str], *, command: str, libraries: Sequence[str], earlier: Before
) -> Path:
    """Write ``lines`` and the page's ``NOTES`` between the command and the machine; return the page's path."""
    head = [f"# {title}", "", f"Written by `{command}` on {datetime.now(UTC):%Y-%m-%d}.", ""]
    notes = _notes(page.read_text("utf-8")) if page.exists() else []
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join([*head, *lines, *notes, *machine_section(libraries, earlier), ""]), "utf-8")
    return page


def _notes(text: str) -> list[str]:
    _, title, rest = text.partition(f"\n{NOTES}\n")
    return [NOTES, *rest.partition("\n## ")[0].splitlines(), ""] if title else []


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table with a blank line after it."""
    return [*(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)), ""]


def listed(title: str, items: Iterable[str]) -> list[str]:
    """A section with a list; nothing where it is empty."""
    found = [f"- {each}" for each in items]
    return [f"## {title}", "", *found, ""] if found else []
