"""The notes of a release: the newest section of the change log."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from release.source import say

if TYPE_CHECKING:
    from pathlib import Path

    from release.source import Source


def newest(changelog: str) -> tuple[str, str]:
    """The title of the newest section, and its text."""
    found = re.search(r"(?ms)^## (?P<title>[^\n]+)\n+(?P<text>.*?)\s*(?=^## |\Z)", changelog)
    assert found, "CHANGELOG.md has no section"
    return found["title"], found["text"]


def write_notes(source: Source, out: Path) -> None:
    title, text = newest((source.tree / "CHANGELOG.md").read_text("utf-8"))
    if title != source.version:
        say(f"the newest section of CHANGELOG.md is {title!r}, not {source.version}")
    (out / f"{source.name}-notes.md").write_text(f"# taskbridge {source.version}\n\n{text}\n", "utf-8")
