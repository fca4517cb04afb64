"""A peer that cannot take part, or whose work does not count, is left out by name; our own fault ends the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from tests.bench.command import NotCounted
from tests.bench.rounds import Rounds
from tests.bench.streams import phases
from tests.bench.streams.contenders import KAFKA_STREAMS, KAFKA_STREAMS_EXACTLY_ONCE, QUIX, TASKBRIDGE, Contender
from tests.bench.streams.latency import Latency
from tests.bench.toolchains import ToolMissing

if TYPE_CHECKING:
    from tests.bench.streams.setup import Setup


class _Setup:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def progress(self, line: str) -> None:
        self.lines.append(line)


def _prepare(name: str, _setup: Any) -> Contender:
    if name == QUIX:
        raise ToolMissing("uv is not installed")
    nothing = cast("Any", None)
    return Contender(name=name, description=name, channels=nothing, program=nothing)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> phases.Run:
    monkeypatch.setattr(phases, "prepare", _prepare)
    return phases.Run(cast("Setup", _Setup()), [KAFKA_STREAMS, KAFKA_STREAMS_EXACTLY_ONCE, QUIX])


def _measured(wrong: str, at: str) -> Any:
    def measure(contender: Contender, _setup: Any, *, seconds: int, label: str) -> Latency:
        if contender.name == wrong and label == at:
            raise NotCounted("a state differs")
        return Latency(seconds, 2, 3)

    return measure


def test_a_peer_without_its_tool_is_left_out(run: phases.Run) -> None:
    assert [each.name for each in run.contenders] == [TASKBRIDGE, KAFKA_STREAMS, KAFKA_STREAMS_EXACTLY_ONCE]
    assert run.left_out == {QUIX: "uv is not installed"}


def test_a_peer_that_fails_once_loses_its_other_rounds(run: phases.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phases, "measure_latency", _measured(KAFKA_STREAMS, "latency-2"))
    run.latency(Rounds(3, 3, 0, 1), seconds=1)
    assert {name: len(found) for name, found in run.results.latencies.items()} == {
        TASKBRIDGE: 3,
        KAFKA_STREAMS_EXACTLY_ONCE: 3,
    }
    assert run.left_out[KAFKA_STREAMS] == "latency: a state differs"


def test_the_service_that_fails_ends_the_run(run: phases.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phases, "measure_latency", _measured(TASKBRIDGE, "latency-1"))
    with pytest.raises(NotCounted):
        run.latency(Rounds(3, 3, 0, 1), seconds=1)
