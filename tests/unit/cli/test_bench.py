"""Benchmarks run from a checkout, and say in one line what they lack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from taskbridge.cli import bench
from taskbridge.schemas.errors import ConfigurationError
from tests.bench.streams.contenders import PEERS
from tests.bench.streams.phases import PARTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("command", [bench.edge, bench.streams, bench.query])
def test_an_installed_wheel_says_that_a_checkout_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[[], None]
) -> None:
    monkeypatch.setattr(bench, "_CHECKOUT", tmp_path)
    with pytest.raises(ConfigurationError, match="from a checkout"):
        command()


def test_the_command_offers_what_the_harness_measures() -> None:
    assert [str(each) for each in bench.StreamsPeer] == list(PEERS)
    assert [str(each) for each in bench.Part] == list(PARTS)
