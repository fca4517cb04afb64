"""Benchmarks run from a checkout, and say in one line what they lack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, get_args

import pytest
from typer.testing import CliRunner

from taskbridge.cli import bench
from taskbridge.cli.program import app
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


def test_the_harness_gets_the_flags_of_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[list[str]] = []

    class Harness:
        returncode = 0

        def __init__(self, argv: list[str], **_: object) -> None:
            started.append(argv[2:])

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(bench.subprocess, "Popen", Harness)
    monkeypatch.setattr(bench.signal, "signal", lambda *_: None)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    given = ["--peers", "quix", "--only", "recovery", "--one-core", "--instances", "5", "--out", str(tmp_path)]
    assert CliRunner().invoke(app, ["bench", "streams", "--rounds", "1", *given]).exit_code == 0
    assert started == [
        ["tests.bench.streams", "--rounds=1", "--events=200000", "--states=1000000", "--seconds=15", "--partitions=8",
         "--peers", "quix", "--only=recovery", "--instances", "5", "--one-core", f"--out={tmp_path}"]
    ]  # fmt: skip


def test_the_command_offers_what_the_harness_measures() -> None:
    assert [str(each) for each in bench.StreamsPeer] == list(PEERS)
    assert get_args(bench.Part) == tuple(PARTS)
