"""The list of all decisions, from their first lines."""

from __future__ import annotations

from pathlib import Path

from reference_pages.markdown import page

FOLDER = Path(__file__).parents[2] / "docs" / "adr"

_INTRODUCTION = """\
One page for each decision that a newcomer would ask about: context, decision, consequences, alternatives, and the test
that holds it. Missing numbers are not used again."""


def decisions_page() -> str:
    return page("Decisions", _INTRODUCTION, "\n".join(map(_line, sorted(FOLDER.glob("0*.md")))))


def _line(path: Path) -> str:
    number, title = path.read_text("utf-8").splitlines()[0].removeprefix("# ").split(". ", 1)
    return f"- [{number}. {title}]({path.name})"
