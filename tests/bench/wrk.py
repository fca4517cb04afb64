"""Closed loops by wrk: as many requests as its connections get answered."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.command import NotCounted

if TYPE_CHECKING:
    from collections.abc import Sequence

_SCRIPT = Path(__file__).with_suffix(".lua")
_WRONG = ("refused", "unconnected", "broken", "late")


def wrk(url: str, arguments: Sequence[str], *, who: str, connections: int, seconds: int) -> dict[str, int]:
    """What wrk counts on one thread, which is enough for every server here; ``arguments`` are those of ``wrk.lua``.

    Raises:
        NotCounted: wrk failed, an answer was not 200, or a connection was not made or broke; ``who`` is in the message.
    """
    # By default an answer that took more than 2 s counts as an error. A cold JVM on a busy machine is only slow,
    # and the figures say so.
    at_most_s = seconds + 30
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={at_most_s}s", "-s", str(_SCRIPT), url, "--"]
    outcome = subprocess.run([*argv, *arguments], capture_output=True, text=True, check=False, timeout=at_most_s)
    line = next((each for each in outcome.stdout.splitlines() if each.startswith("RESULT ")), None)
    if outcome.returncode != 0 or line is None:
        raise NotCounted(f"wrk failed: {(outcome.stderr or outcome.stdout).strip()[-300:]}")
    found: dict[str, int] = json.loads(line.removeprefix("RESULT "))
    wrong = "".join(f", {found[name]} {name}" for name in _WRONG if found[name])
    if wrong or not found["requests"]:
        raise NotCounted(f"{who}: {found['requests']} answers{wrong}")
    return found
