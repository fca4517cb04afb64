"""Rules for the pages' own files."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest

import taskbridge.center.web
import taskbridge.edge.errors
from taskbridge.center.web.routes import read_assets

FOLDER = Path(taskbridge.center.web.__file__).parent / "assets"
SCRIPTS = sorted(FOLDER.glob("*.js"))
MARKUP_SINKS = re.compile(
    r"\b(innerHTML|outerHTML|insertAdjacentHTML|setHTMLUnsafe|createContextualFragment|DOMParser|document\.write\w*"
    r"|eval|Function|importScripts)\s*[=(]|\bset(?:Timeout|Interval)\(\s*[\"'`]"
)


def _imports(script: Path) -> set[str]:
    return set(re.findall(r'^(?:import|export)\b[^;]*?from "\./([^"]+)"', script.read_text("utf-8"), re.MULTILINE))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_no_script_makes_markup_or_code_of_text(script: Path) -> None:
    assert MARKUP_SINKS.findall(script.read_text("utf-8")) == []


@pytest.mark.parametrize("page", sorted(FOLDER.glob("*.html")), ids=lambda path: path.name)
def test_no_page_has_anything_inline(page: Path) -> None:
    text = page.read_text("utf-8")
    assert re.findall(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text) == []


@pytest.mark.parametrize(
    ("page", "modules"), [("index.html", {"inbox.js", "words-zh.js"}), ("ops.html", {"plots.js", "words-zh.js"})]
)
def test_a_page_preloads_the_modules_that_its_script_needs(page: str, modules: set[str]) -> None:
    text = read_assets()[0][page].content.decode()
    preloaded = re.findall(r'modulepreload" href="/assets/[0-9a-f]+/([^"]+)"', text)
    assert modules <= set(preloaded)
    assert len(preloaded) == len(set(preloaded))
    assert set().union(*(_imports(FOLDER / name) for name in preloaded)) <= set(preloaded)
    assert text.count("{") == 0, "a gap of the frame is not filled in"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_module_imports_only_what_is_there(script: Path) -> None:
    for name in _imports(script):
        assert (FOLDER / name).is_file()


def test_nothing_is_loaded_from_elsewhere() -> None:
    for path in FOLDER.iterdir():
        if path.suffix == ".png":
            continue
        addresses = re.findall(r"https?://[^\s\"'`)]+", path.read_text("utf-8"))
        assert {address for address in addresses if not address.startswith("http://www.w3.org/")} == set(), path.name


def test_the_page_as_an_app_has_pictures_that_every_phone_knows() -> None:
    assets = read_assets()[0]
    icons = json.loads(assets["manifest.webmanifest"].content)["icons"]
    pictures = {each["src"]: each["sizes"] for each in icons if each["type"] == "image/png"}
    assert set(pictures.values()) == {"192x192", "512x512"}
    assert "maskable" in {each["purpose"] for each in icons}
    for name, size in pictures.items():
        picture = assets[name]
        assert (picture.media_type, picture.content[:4]) == ("image/png", b"\x89PNG")
        # Width and height are the first fields of its header.
        assert "x".join(str(each) for each in struct.unpack(">II", picture.content[16:24])) == size
        assert len(picture.content) < 10_000
    # iOS takes none of the manifest.
    assert re.search(rb'apple-touch-icon" href="/assets/[^"]*icon-192.png"', assets["index.html"].content)


def test_every_reason_of_the_edge_is_told_in_chinese() -> None:
    """By its code: who adds a reason adds its words, or operators read English in a Chinese page."""
    words = read_assets()[0]["words-zh.js"].content.decode()
    operators = words[words.index("  ops: {") :]
    chinese = operators[operators.index("reasons: {") : operators.index("histories:")]
    told = set(re.findall(r'\s"?([a-z][\w-]*)"?: "', chinese))
    code = re.compile(
        r'(?:Malformed|Unverified|TooSlow|TooLarge|UnsupportedType|Overloaded|_not_located|_unverified)\(\s*"([a-z0-9-]+)"'
    )
    folder = Path(taskbridge.edge.errors.__file__).parent
    found = {each for path in folder.rglob("*.py") for each in code.findall(path.read_text())}
    assert len(found) > 10
    assert sorted(found - told) == []
