"""Writes ``docs/reference``, the list of decisions and the settings of the chart: ``make docs``, or this file alone.

They are made from the code and committed, so that a change of the contract shows in its review and the reference can be
read without a build. ``--check`` writes nothing; exit code 1 when a page differs from the code. ``--released`` writes
only what SemVer covers of this release, with which the next one is compared: RELEASING.md; with ``--check``, exit code
1 when that is not as today.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from reference_pages.acls import acls_page
from reference_pages.apis import center_page, center_text, edge_page, edge_text
from reference_pages.asyncapi import asyncapi_text
from reference_pages.chart_values import chart_schema_text
from reference_pages.commands import commands_page
from reference_pages.decisions import decisions_page
from reference_pages.metrics import metrics_page
from reference_pages.prerequisites import prerequisites_page
from reference_pages.problems import problems_page
from reference_pages.settings import settings_page
from reference_pages.surface import compare_released, write_released
from reference_pages.topics import topics_page

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DOCS = Path(__file__).parents[1] / "docs"

PAGES: Mapping[str, Callable[[], str]] = {
    "reference/settings.md": settings_page,
    "reference/commands.md": commands_page,
    "reference/edge-api.md": edge_page,
    "reference/edge-openapi.json": edge_text,
    "reference/task-center-api.md": center_page,
    "reference/task-center-openapi.json": center_text,
    "reference/topics.md": topics_page,
    "reference/asyncapi.json": asyncapi_text,
    "reference/acls.md": acls_page,
    "reference/prerequisites.md": prerequisites_page,
    "reference/problems.md": problems_page,
    "reference/metrics.md": metrics_page,
    "adr/index.md": decisions_page,
    "../deploy/chart/values.schema.json": chart_schema_text,
}


def main(arguments: list[str]) -> None:
    if arguments == ["--check"]:
        found = stale()
        sys.exit(f"docs: {', '.join(found)} differ from the code; run: make docs" if found else 0)
    if arguments == ["--released"]:
        write_released(version("taskbridge-cli"))
        return
    if arguments == ["--released", "--check"]:
        compare_released(version("taskbridge-cli"))
        return
    for name in stale():
        DOCS.joinpath(name).write_text(PAGES[name](), "utf-8")


def stale() -> list[str]:
    """The pages that are not as the code would have them."""
    return [name for name, text in PAGES.items() if _written(name) != text()]


def _written(name: str) -> str | None:
    path = DOCS / name
    return path.read_text("utf-8") if path.exists() else None


if __name__ == "__main__":
    main(sys.argv[1:])
