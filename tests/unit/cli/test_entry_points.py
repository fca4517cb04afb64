"""Every installed program has help, and rejects unknown options before it reads anything."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
_ENTRY = "import sys; sys.argv[0] = {name!r}; from {module} import {function} as entry; entry()"


def scripts() -> dict[str, list[str]]:
    """The command line of each program of each distribution, and of the module that is run as a service."""
    found = {"reconcile": ["-m", "taskbridge.reconcile.app"]}
    for path in sorted(ROOT.glob("*/pyproject.toml")):
        for name, entry in tomllib.loads(path.read_text("utf-8")).get("project", {}).get("scripts", {}).items():
            module, _, function = entry.partition(":")
            found[name] = ["-c", _ENTRY.format(name=name, module=module, function=function)]
    return found


def run(name: str, argument: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *scripts()[name], argument]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env={})


def test_all_programs_are_checked() -> None:
    services = {f"taskbridge-{each}" for each in ("edge", "streams", "center", "webhooks")}
    assert set(scripts()) == {"taskbridge", "reconcile"} | services


@pytest.mark.parametrize("name", scripts())
def test_it_has_help_with_an_example_and_usage_errors_are_exit_code_2(name: str) -> None:
    asked = run(name, "--help")
    assert (asked.returncode, asked.stderr) == (0, "")
    assert name in asked.stdout
    assert "xample" in asked.stdout or name == "taskbridge"
    assert run(name, "--nonsense").returncode == 2
