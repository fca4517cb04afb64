"""Commands on pages can be run in a checkout, and lists of parts are complete."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted(each for each in (ROOT / "docs").rglob("*.md") if "adr" not in each.parts)]
SHELL = re.compile(r"^( *)```sh\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
NOT_INSTALLED = re.compile(r"^ *(?:\w+=\S* )*taskbridge .*", re.MULTILINE)
"""A checkout has the program by ``uv run`` only."""


def test_the_program_is_typed_as_a_checkout_has_it() -> None:
    found = [
        f"{page.relative_to(ROOT)}: {line}"
        for page in PAGES
        for _, block in SHELL.findall(page.read_text("utf-8"))
        for line in NOT_INSTALLED.findall(block)
    ]
    assert found == []


def test_every_part_that_can_be_installed_is_on_its_page() -> None:
    page = (ROOT / "docs" / "how-to" / "install-a-part.md").read_text("utf-8")
    workspace = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["uv"]["workspace"]
    names = [
        tomllib.loads((ROOT / each / "pyproject.toml").read_text("utf-8"))["project"]["name"]
        for each in workspace["members"]
    ]
    assert [name for name in names if f"| `{name}` |" not in page] == []
