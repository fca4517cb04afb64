"""Benchmarks run from a checkout, and report what is missing in one line."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

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
