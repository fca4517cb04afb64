"""The name ``taskbridge`` alone is another project's on the public package index: ours begin with ``taskbridge-``."""

from __future__ import annotations

import re
import subprocess

import pytest

from support import needs
from support.wheels import ROOT

# A command that installs from an index, its flags, other packages; then the bare name.
INSTALLS = re.compile(
    r"""\b(?:(?:pip[x3]?|uv|poetry|pdm|conda|hatch|rye)\ (?:\w+\ )*(?:install|add|inject|download|require)
    |uvx|--with|--from|install)\ (?:[^\n;&|`]*[\ "'])?(?<!--from\ taskbridge-cli\ )taskbridge(?![\w-])(?!\.[a-z]|/)""",
    re.VERBOSE,
)


def test_no_text_installs_taskbridge() -> None:
    listed = subprocess.run(
        [needs.program("git"), "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    found: list[str] = []
    for name in listed.split("\0"):
        path = ROOT / name
        if not name or name.endswith("packaging/test_names.py") or not path.is_file():
            continue
        text = path.read_bytes().decode("utf-8", "replace")
        found += [f"{name}: {each[0]}" for each in INSTALLS.finditer(text)]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "pip install taskbridge",
        'python -m pip install --upgrade "taskbridge[local]"',
        "pip install faust taskbridge==0.1",
        "uv add taskbridge",
        "uv tool install taskbridge",
        "uvx taskbridge demo",
        "pipx install taskbridge",
        "install taskbridge again",
    ],
)
def test_such_a_text_is_found(text: str) -> None:
    assert INSTALLS.search(text)


@pytest.mark.parametrize(
    "text",
    [
        "pip install taskbridge-schemas",
        "uv run taskbridge demo",
        "uvx --from taskbridge-cli taskbridge demo",
        "pip install 'taskbridge-cli[otel]'",
        "taskbridge up",
    ],
)
def test_ours_may_be_installed(text: str) -> None:
    assert not INSTALLS.search(text)
