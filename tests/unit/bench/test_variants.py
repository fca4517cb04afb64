"""A variant is best only where the noise cannot say otherwise; it has the peer's settings but for its own."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from tests.bench.edge import servers
from tests.bench.edge.loads import Schedule
from tests.bench.edge.scaling import WORKERS, Scaling
from tests.bench.edge.servers import GO, SPRING
from tests.bench.edge.variants import VARIANTS_OF
from tests.bench.edge.variants import prepare as prepare_server
from tests.bench.streams.contenders import KAFKA_STREAMS_EXACTLY_ONCE, LINGER_MS, LOW_LINGER_MS, VARIED, prepare
from tests.bench.streams.variants import VARIANTS
from tests.bench.variants import Column, named, peer_of, table, watched

if TYPE_CHECKING:
    from pathlib import Path

CPU = Column(
    title="CPU µs",
    values={"go": [40, 50, 44], "go+a": [36, 45, 40], "go+b": [30, 60, 40], "go+c": [38, 47, 41]},
    digits=1,
)


def test_best_is_who_is_ahead_by_the_whole_interval() -> None:
    assert CPU.best("go") == "go+a"
    assert Column(title="1/s", values=CPU.values, most_is_best=True).best("go") == "go"
    faster = {"go": [40, 50, 44], "go+a": [44, 55, 48], "go+b": [30, 70, 44], "go+c": [80, 101, 89]}
    assert Column(title="1/s", values=faster, most_is_best=True).best("go") == "go+c"


def test_the_table_has_the_peer_its_variants_and_which_is_best() -> None:
    assert table([CPU], "go") == [
        "|  | CPU µs |",
        "| --- | --- |",
        "| go | 44.0 (40.0-50.0) |",
        "| +a | 0.90 (0.89-0.92) |",
        "| +b | ≈ 0.94 (0.52-1.68) |",
        "| +c | 0.94 (0.92-0.96) |",
        "| best | a |",
    ]
    assert list(watched([CPU], "go")) == ["CPU µs of go+a", "CPU µs of go+b", "CPU µs of go+c"]


@pytest.mark.parametrize("name", [each for peer in VARIANTS_OF for each in named(peer, VARIANTS_OF[peer])[1:]])
def test_a_server_has_the_peers_settings_and_behind_them_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    built: list[object] = []

    def build(_progress: object, how: object) -> Path:
        built.append(how)
        return tmp_path

    monkeypatch.setattr(servers, "build_go", build)
    monkeypatch.setattr(servers, "build_spring", build)
    endpoints = SimpleNamespace(bootstrap_servers="127.0.0.1:1")
    setup: Any = SimpleNamespace(progress=print, endpoints=endpoints, schema_id=1, folder=tmp_path)
    peer, varied = prepare_server(peer_of(name), setup).spec, prepare_server(name, setup)
    variant = VARIANTS_OF[peer_of(name)][name.partition("+")[2]]
    assert varied.name == varied.spec.name == name
    assert built == [(), variant.build]
    ports = {key: "" for key in peer.env if key == "PEER_PORT"}
    assert {**varied.spec.env, **ports} == {**peer.env, **variant.env, **ports}
    flags = [each for each in varied.spec.argv if each not in peer.argv]
    assert flags == [*variant.flags]
    assert variant.flags or variant.build or varied.spec.env != peer.env


def test_each_server_has_variants() -> None:
    assert servers.VARIED.keys() == VARIANTS_OF.keys() == {GO, SPRING}


@pytest.mark.parametrize("peer", VARIED)
def test_kafka_streams_applies_a_variants_settings_last(setup: Any, tmp_path: Path, peer: str) -> None:
    for name in named(peer, VARIANTS)[1:]:
        contender = prepare(name, setup)
        channels = contender.channels("rate-1", "events")
        for linger_ms in (LINGER_MS, LOW_LINGER_MS):
            program = contender.program(channels, tmp_path / name, linger_ms)
            variant = VARIANTS[name.partition("+")[2]]
            assert program.env.items() >= variant.env.items()
            assert set(variant.flags) <= set(program.argv)
        for topic in (channels.states, channels.notifications, channels.changelog):
            assert re.fullmatch(r"[A-Za-z0-9._-]+", topic), "a valid Kafka name"
    contender = prepare(f"{peer}+commit-10", setup)
    exactly_once = contender.program(contender.channels("rate-1", "events"), tmp_path / "last", LINGER_MS).env
    assert exactly_once["PEER_SETTINGS"] == "commit.interval.ms=10"
    assert (exactly_once["PEER_GUARANTEE"] == "exactly_once_v2") is (peer == KAFKA_STREAMS_EXACTLY_ONCE)


def test_workers_are_compared_at_the_same_rate_for_each() -> None:
    scaling = Scaling()
    for cpu in (40.0, 42.0):
        for workers in WORKERS:
            scaling.keep(workers, 1000, Schedule(workers * 1000, 1.0, 2.0, 3.0, 4.0, cpu * (1 + workers / 10)))
    assert scaling.ratio(2, 1000).ratio_text() == "1.09 (1.09-1.09)"
    assert len(scaling.watched()) == len(WORKERS) - 1
