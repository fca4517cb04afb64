"""Every installed program has help, and rejects unknown options before it reads anything."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.forked import run_forked

if TYPE_CHECKING:
    import subprocess

ROOT = Path(__file__).parents[3]


def scripts() -> dict[str, str]:
    """What each program of each distribution runs, and the module that is run as a service."""
    found = {"reconcile": "import runpy; runpy.run_module('taskbridge.reconcile.app', run_name='__main__')"}
    for path in sorted(ROOT.glob("*/pyproject.toml")):
        for name, entry in tomllib.loads(path.read_text("utf-8")).get("project", {}).get("scripts", {}).items():
            module, _, function = entry.partition(":")
            found[name] = f"from {module} import {function} as entry; entry()"
    return found


def run(name: str, argument: str) -> subprocess.CompletedProcess[str]:
    return run_forked(scripts()[name], environment={}, arguments=[name, argument], timeout=120)


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
