"""Resources that a page loads from other hosts are found; links to other hosts do not count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from site_loads import loaded_from_elsewhere

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", '<link rel="stylesheet" href="https://fonts.example/css">'),
        ("a.html", '<script src="//cdn.example/a.js"></script>'),
        ("a.html", '<img alt="" src="http://pictures.example/a.png">'),
        ("a.css", "@font-face { src: url('https://fonts.example/a.woff2') }"),
    ],
)
def test_external_resources_are_found(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, "utf-8")
    assert len(loaded_from_elsewhere(path)) == 1


def test_links_and_own_parts_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_text(
        '<a href="https://kafka.apache.org">Kafka</a><script src="assets/a.js"></script><img src="b.png">', "utf-8"
    )
    assert loaded_from_elsewhere(path) == []
