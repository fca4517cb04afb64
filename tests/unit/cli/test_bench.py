"""Benchmarks run from a checkout, and report what is missing in one line."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support.edge.process import wait_until
from taskbridge.cli import bench
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def test_an_installed_wheel_says_that_a_checkout_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_CHECKOUT", tmp_path)
    with pytest.raises(ConfigurationError, match="from a checkout"):
        bench.bench("edge")


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        (
            ("streams", "--peers", "kafka-streams", "--only", "recovery", "--", "--help"),
            0,
            "--instances",
        ),
        (("center", "--streams", "9"), 2, "argument --streams: must be at least 10"),
        (("edges",), 2, "'edge', 'streams', 'center', 'webhooks'"),
    ],
)
def test_the_harness_gets_the_options_from_any_working_directory(
    tmp_path: Path, given: tuple[str, ...], status: int, said: str
) -> None:
    argv = [sys.executable, "-m", "taskbridge.cli", "bench", *given]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, said in done.stdout + done.stderr) == (status, True)


def test_a_benchmark_ends_when_its_command_is_killed(tmp_path: Path) -> None:
    harness = tmp_path / "tests" / "bench" / "edge" / "__main__.py"
    harness.parent.mkdir(parents=True)
    # As the harnesses do: on Ctrl-C they stop what they started.
    harness.write_text(
        """
import os, pathlib, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    pathlib.Path("began").write_text(str(os.getpid()))
    signal.pause()
except KeyboardInterrupt:
    pathlib.Path("ended").touch()
"""
    )
    program = "import pathlib; from taskbridge.cli import bench as b; b._CHECKOUT = pathlib.Path.cwd(); b.bench('edge')"
    command = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path)
    try:
        wait_until(lambda: (tmp_path / "began").exists() and (tmp_path / "began").read_text())
        command.kill()
        command.wait()
        wait_until((tmp_path / "ended").exists)
    finally:
        command.kill()
