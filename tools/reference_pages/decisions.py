"""The list of all decisions, from their first lines."""

from __future__ import annotations

from pathlib import Path

from reference_pages.markdown import page

FOLDER = Path(__file__).parents[2] / "docs" / "adr"

_INTRODUCTION = """\
One page each for what a newcomer would ask about: what was the case, what was decided, what follows, what else was
considered, and which test holds it. Numbers that are missing were never used."""


def decisions_page() -> str:
    return page("Decisions", _INTRODUCTION, "\n".join(map(_line, sorted(FOLDER.glob("0*.md")))))


def _line(path: Path) -> str:
    number, title = path.read_text("utf-8").splitlines()[0].removeprefix("# ").split(". ", 1)
    return f"- [{number}. {title}]({path.name})"
