"""The protocol's official conformance suite runs against the task center, with the suite's own tools added."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from support.conformance import NOT_AS_SERVED, conforming
from support.served_apps import serving

if TYPE_CHECKING:
    from pathlib import Path

    from taskbridge.runtime.database import Database

# It needs node 22, which comes from npm as well.
SUITE = "--package=node@22", "--package=@modelcontextprotocol/conformance@0.1.16"


@pytest.mark.nightly
@pytest.mark.parametrize(("sessions", "failing"), [(False, set(NOT_AS_SERVED)), (True, set[str]())])
def test_every_scenario_passes_except_those_of_what_the_server_does_not_offer(
    database: Database, tmp_path: Path, *, sessions: bool, failing: set[str]
) -> None:
    npx = shutil.which("npx") or pytest.skip("npx is missing")
    with serving(conforming(database, tmp_path, sessions=sessions)) as url:
        suite = [npx, "--yes", *SUITE, "conformance", "server", "--url", f"{url}/mcp", "--suite", "all"]
        run = subprocess.run(suite, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    results = re.findall(r"^(\S) ([a-z0-9-]+): (\d+) passed, (\d+) failed", run.stdout, re.MULTILINE)
    assert len(results) > 25, run.stdout + run.stderr
    failed = {name for _, name, _, number in results if number != "0"}
    assert failed == failing, run.stdout[-4_000:]
