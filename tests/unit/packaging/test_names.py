"""The name ``taskbridge`` alone is another project's on the public package index: ours begin with ``taskbridge-``."""

from __future__ import annotations

import re
import subprocess

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
