"""Benchmarks run from a checkout, and say in one line what they lack."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from taskbridge.cli import bench
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("command", [bench.edge, bench.streams, bench.query, bench.live, bench.sizing])
def test_an_installed_wheel_says_that_a_checkout_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[[], None]
) -> None:
    monkeypatch.setattr(bench, "_CHECKOUT", tmp_path)
    with pytest.raises(ConfigurationError, match="from a checkout"):
        command()


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        (("streams", "--rounds", "1", "--peers", "quix", "--only", "recovery", "--", "--help"), 0, "--one-core"),
        (("edge", "--help"), 0, "usage: taskbridge bench edge"),
        (("live", "--help"), 0, "--most-rounds"),
        (("live", "--streams", "9"), 2, "argument --streams: must be at least 10"),
        (("query", "--nonsense"), 2, "unrecognized arguments: --nonsense"),
    ],
)
def test_the_harness_gets_the_flags_wherever_the_command_is_run(
    tmp_path: Path, given: tuple[str, ...], status: int, said: str
) -> None:
    argv = [sys.executable, "-m", "taskbridge.cli", "bench", *given]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, said in done.stdout + done.stderr) == (status, True)
