"""Holds that no page of the built site loads anything from elsewhere, as ``make docs`` does with it."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

SITE = Path(__file__).parents[1] / "site"

_LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
_ELSEWHERE = re.compile(r"(?:https?:)?//")


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        address = given.get(_LOADED.get(tag, ""))
        # Not loaded, only named: where a page is canonical, or what comes next.
        if address and _ELSEWHERE.match(address) and given.get("rel") not in {"canonical", "prev", "next"}:
            self.found.append(address)


def loaded_from_elsewhere(path: Path) -> list[str]:
    text = path.read_text("utf-8")
    if path.suffix == ".css":
        return [each for each in re.findall(r"url\(['\"]?([^'\")]+)", text) if _ELSEWHERE.match(each)]
    page = _Page()
    page.feed(text)
    return page.found


def main() -> None:
    """Exit code 1 when a page or a style loads something from elsewhere, or when there is no page."""
    paths = [*SITE.rglob("*.html"), *SITE.rglob("*.css")]
    found = [f"{path.relative_to(SITE)}: {each}" for path in paths for each in loaded_from_elsewhere(path)]
    if found or not paths:
        sys.exit("\n".join(found) or f"{SITE} has no page")


if __name__ == "__main__":
    main()
