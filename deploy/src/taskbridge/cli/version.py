"""Which taskbridge this is: its version, the commit that it was built from, and whether the native core is there."""

from __future__ import annotations

from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec

COMMIT = files("taskbridge.cli") / "commit.txt"
"""``git archive`` writes the commit into it (.gitattributes). In a checkout it has the place-holder."""


def version_lines() -> list[str]:
    commit = COMMIT.read_text("utf-8").strip()
    return [
        f"taskbridge {version('taskbridge-cli')}",
        f"commit {'unknown: built from a checkout' if '$' in commit else commit}",
        f"native core {_core()}",
    ]


def _core() -> str:
    if find_spec("taskbridge.native") is None or find_spec("taskbridge.native._native") is None:
        return "not installed: callbacks and events are processed in Python, more slowly"
    return version("taskbridge-native")
