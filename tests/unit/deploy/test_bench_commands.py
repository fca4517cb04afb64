"""Benchmarks run from a checkout, and say in one line what they lack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from deploy import bench_commands
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def test_an_installed_wheel_says_that_a_checkout_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_commands, "_CHECKOUT", tmp_path)
    with pytest.raises(ConfigurationError, match="from a checkout"):
        bench_commands.edge()
