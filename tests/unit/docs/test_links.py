"""No document leads to a page, a part of a page, a command or a setting that is not there.

What a page in Chinese shares with its English twin is the same in both.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from reference_pages.commands import commands
from reference_pages.settings import INTERNAL, SHARED
from support import needs
from taskbridge.center.settings import settings_class
from taskbridge.dingtalk.approvals.settings import ApprovalsSettings
from taskbridge.edge.settings import EdgeSettings
from taskbridge.reconcile.settings import ReconcileSettings
from taskbridge.streams.settings import StreamsSettings

ROOT = Path(__file__).parents[3]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "README.zh.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted(ROOT.glob("*/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
GUIDES = [path for path in DOCUMENTS if path.name != "CHANGELOG.md" and "adr" not in path.parts]
"""What tells how it is now; the others tell how it came about."""
COMMANDS: dict[str, Any] = dict(commands())
ZH = ROOT / "docs" / "zh"
TWINS = {ROOT / "README.zh.md": ROOT / "README.md"} | {
    path: ROOT / "docs" / path.relative_to(ZH) for path in sorted(ZH.rglob("*.md"))
}
"""Of each page in Chinese, the page in English."""

FENCED = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINE = re.compile(r"^ *(#{1,6} |[|]|[-*] |\d+\. )(.*)", re.MULTILINE)
"""A heading, a row of a table, or an item of a list."""
NAME = re.compile(r"(?:[A-Z][a-z]+){2,}")
"""A heading that is no sentence but a name, such as an alert's."""
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)\s]+)\)")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose_of(path: Path) -> str:
    """A document without its code."""
    return INLINE.sub("", FENCED.sub("", path.read_text("utf-8")))


@cache
def anchors(path: Path) -> tuple[str, ...]:
    """As zensical and GitHub make them of a page's headings."""
    text = FENCED.sub("", path.read_text("utf-8"))
    heads = re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE)
    return tuple(re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", head.lower()).strip()) for head in heads)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in LINK.findall(prose_of(document)):
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{name_of(document)}: {link}"
        assert target.is_relative_to(ROOT)
        if anchor:
            assert anchor in anchors(target), f"{name_of(document)}: {link}"


def test_a_page_of_the_site_leads_to_pages_of_the_site() -> None:
    docs = ROOT / "docs"
    for document in sorted(docs.rglob("*.md")):
        for link in LINK.findall(prose_of(document)):
            assert (document.parent / link).resolve().is_relative_to(docs), f"{name_of(document)}: {link}"


def test_every_document_that_a_file_names_is_there() -> None:
    listed = subprocess.run(
        [needs.program("git"), "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        is_bytes = path.suffix in {".png", ".svg", ".avro", ".sha256", ".checkpoint"} or "corpus" in path.parts
        if not path.is_file() or is_bytes or path == Path(__file__):
            continue
        for found in re.findall(r"\bdocs/[\w/.-]+\.md", path.read_text("utf-8")):
            assert (ROOT / found).exists(), f"{name}: {found}"


def told(document: Path) -> list[str]:
    """Every command line of ours in a document, in blocks and within sentences."""
    text = document.read_text("utf-8")
    blocks = "\n".join(body for _, _, body in FENCED.findall(text)).replace("\\\n", " ")
    found = [*blocks.splitlines(), *INLINE.findall(FENCED.sub("", text))]
    words = r"(?:^|\s)(?:uv run )?taskbridge (?=[a-z])"
    return [
        re.split(words, each, maxsplit=1)[1] for each in found if re.match(rf"[A-Z_\s]*(?:=\S+\s+)?.*?{words}", each)
    ]


@cache
def flags_of_bench(part: str) -> set[str]:
    """Those that the command hands on to its harness."""
    argv = [sys.executable, "-m", f"tests.bench.{part}", "--help"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(argv, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    return set(re.findall(r"--[a-z-]+", done.stdout))


@pytest.mark.parametrize("document", GUIDES, ids=name_of)
def test_every_command_in_documents_exists_with_its_options(document: Path) -> None:
    for line in told(document):
        words = re.split(r"[\s'\"|]+", line.strip())
        name = next(
            (f"taskbridge {' '.join(words[:n])}" for n in (2, 1) if f"taskbridge {' '.join(words[:n])}" in COMMANDS), ""
        )
        group = any(each.startswith(f"taskbridge {words[0]} ") for each in COMMANDS)
        assert name or group, f"{name_of(document)}: taskbridge {line}"
        if name:
            known = {option for each in COMMANDS[name].params for option in each.opts} | {"--help", "-h"}
            known |= flags_of_bench(words[1]) if words[0] == "bench" and len(words) > 1 else set()
            options = {word.split("=")[0] for word in words if re.fullmatch(r"--[a-z-]+(=.*)?", word)}
            assert options <= known, f"{name_of(document)}: taskbridge {line}"


def shared(document: Path) -> dict[str, Any]:
    """What a page in Chinese and its twin have in common: all but the words, and comments in code."""
    text = document.read_text("utf-8")
    prose = FENCED.sub("", text)
    return {
        "headings, rows and items": [
            mark if mark[0] in "|-*" else (mark, NAME.fullmatch(rest) and rest) for mark, rest in LINE.findall(prose)
        ],
        "code blocks": [
            (language, [re.sub(r"(^|\s+)# .*", "", line) for line in textwrap.dedent(body).splitlines()])
            for _, language, body in FENCED.findall(text)
        ],
        "code and numbers of each paragraph": [
            code_and_numbers(each) for each in re.split(r"\n\s*\n", prose) if each.strip()
        ],
        "places elsewhere": sorted(set(re.findall(r"\]\((https?://[^)\s]+)\)", prose))),
        "settings": sorted(set(re.findall(r"(?<!\w)[A-Z]+(?:_[A-Z]+)+(?!\w)", text, re.ASCII))),
        "links": sorted({place for each in LINK.findall(prose) if (place := place_of(document, each))}),
    }


def code_and_numbers(block: str) -> tuple[list[str], list[str]]:
    """In the order of neither language."""
    said = re.sub(r"\]\([^)]*\)", "]", block)
    code = re.compile(r"`([^`]+)`")
    numbers = re.findall(r"\d[\d.,]*\d|\d", code.sub("", said))
    return sorted(" ".join(each.split()) for each in code.findall(said)), sorted(numbers)


def place_of(document: Path, link: str) -> tuple[str, int] | None:
    """The English page that a link leads to, itself or by its twin, and the number of the heading there.

    None where the link leads to the same page in the other language.
    """
    name, _, anchor = link.partition("#")
    target = (document.parent / name).resolve() if name else document
    if name and TWINS.get(target, target) == TWINS.get(document, document):
        return None
    assert document not in TWINS or target not in TWINS.values(), f"{name_of(document)}: {link} has a page in Chinese"
    return name_of(TWINS.get(target, target)), anchors(target).index(anchor) if anchor else 0


@pytest.mark.parametrize("chinese", TWINS, ids=name_of)
def test_a_page_in_chinese_has_the_commands_settings_headings_and_links_of_its_twin(chinese: Path) -> None:
    english = TWINS[chinese]
    for page, other in ((chinese, english), (english, chinese)):
        links = [(page.parent / each).resolve() for each in LINK.findall(prose_of(page))]
        assert links[0] == other, f"{name_of(page)} begins with a link to {name_of(other)}"
    for part, expected in shared(english).items():
        assert shared(chinese)[part] == expected, f"{part} of {name_of(chinese)}"


@pytest.mark.parametrize("document", GUIDES, ids=name_of)
def test_every_setting_in_documents_exists(document: Path) -> None:
    known = {
        f"{model.model_config.get('env_prefix', '')}{field.upper()}"
        for model in (EdgeSettings, StreamsSettings, settings_class(), ReconcileSettings, ApprovalsSettings)
        for field in model.model_fields
    }
    known |= {*SHARED, *INTERNAL}
    text = document.read_text("utf-8")
    found = set(re.findall(r"\b(?:EDGE|STREAMS|CENTER|RECONCILE|APPROVALS)_[A-Z_]+[A-Z]\b", text))
    assert found - known == set()


@pytest.mark.parametrize("document", [each for each in DOCUMENTS if each.name != "CHANGELOG.md"], ids=name_of)
def test_every_file_in_documents_exists(document: Path) -> None:
    """From the top of the checkout, or as a part of ``taskbridge``, wherever that part has its sources."""
    made_here = (ROOT / ".gitignore").read_text("utf-8").split()
    folders = [each for each in [*ROOT.iterdir(), *ROOT.glob("*/src/taskbridge/*")] if each.is_dir()]
    tops = "|".join(sorted({each.name for each in folders if f"{each.name}/" not in made_here}))
    text = re.sub(r"https?://\S+", "", document.read_text("utf-8"))
    named = re.findall(rf"(?<![\w/.~:-])((?:{tops})/[\w./-]*\w)", text)
    assert [each for each in named if not is_there(each)] == []


def is_there(named: str) -> bool:
    """A decision may be named by its number alone."""
    below = f"{named}-*" if re.fullmatch(r"docs/adr/\d{4}", named) else named
    return any(next(ROOT.glob(each), None) for each in (below, f"*/src/taskbridge/{named}"))
