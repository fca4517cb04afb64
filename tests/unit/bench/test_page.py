"""Pages of benchmarks keep what a person wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.machine import before
from tests.bench.page import NOTES, write_page

if TYPE_CHECKING:
    from pathlib import Path


def test_a_page_that_is_written_again_keeps_its_notes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"

    def write(figure: str) -> str:
        write_page(page, "A title", [figure, ""], command="a command", libraries=(), earlier=before())
        return page.read_text("utf-8")

    assert NOTES not in write("1 ms")
    notes = f"{NOTES}\n\nHalf is Kafka's.\n\n## Machine\n"
    page.write_text(page.read_text("utf-8").replace("## Machine\n", notes), "utf-8")
    first, second = write("2 ms"), write("3 ms")
    assert f"2 ms\n\n{notes}" in first
    assert second == first.replace("2 ms", "3 ms")
