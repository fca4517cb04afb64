"""Queries for a person with very many entries, at a fixed rate; all contenders give the same answers."""

from __future__ import annotations

import multiprocessing
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from http.client import HTTPConnection
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlsplit

import httpx2
from tests.bench.center.company import BUSY, CORP
from tests.bench.command import NotCounted
from tests.bench.edge.loads import run_open_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping
    from pathlib import Path

    from tests.bench.rounds import Rounds
    from tests.bench.streams.setup import Setup

RATE = 200
_CONNECTIONS = 32
_BASE = f"/v1/corps/{CORP}/users/{BUSY}"
_PAGE, _COUNTS = "a page of 50", "counts"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of query; ``limit_ms`` is the target of its p99."""

    title: str
    path: str
    limit_ms: float | None = None
    rate: int = RATE
    crowded: bool = False
    """Whether two other callers search meanwhile."""


def _searched(title: str, text: str) -> Kind:
    return Kind(f"search, {title}: {text}", f"{_BASE}/tasks?view=handled&q={quote(text)}", 150)


_KINDS = (
    Kind(_COUNTS, f"{_BASE}/counts"),
    _searched("one hit", "采购申请 2024"),
    _searched("no hit", "差旅申请"),
    _searched("two characters, many hits", "报销"),
    _searched("four characters, many hits", "报销申请"),
    _searched("two characters, no hit", "差旅"),
)
_LIST = f"{_BASE}/tasks?view=handled"
KINDS = (
    Kind(_PAGE, _LIST, 20),
    Kind("a page of 50, 50 a second, while two callers search without a pause", _LIST, 30, 50, crowded=True),
    *_KINDS,
)
_SEARCHES = [each.path for each in _KINDS[1:]]
_SEARCHES_AT_ONCE = 4
_BEGUN_S = 2


@dataclass(frozen=True, slots=True)
class Latency:
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    """CPU time of the contender and its database server for each query."""


Latencies = dict[tuple[str, str], list[Latency]]
"""By contender and title of the query, one for each round."""


class Contender(NamedTuple):
    url: str
    cpu_s: Callable[[], float]


def prove_same_answers(contenders: Mapping[str, Contender], tasks: int) -> None:
    """Raises NotCounted where they differ, or are not what they must be."""
    with httpx2.Client(trust_env=False, timeout=30) as client:
        for kind in KINDS:
            found = {name: _content(client.get(f"{url}{kind.path}").json()) for name, (url, _) in contenders.items()}
            first = next(iter(found.values()))
            for name, each in found.items():
                if each != first:
                    raise NotCounted(f"{kind.title}: {name} gives another answer than {next(iter(found))}")
            if kind.title == _COUNTS and first != [tasks]:
                raise NotCounted(f"{BUSY} has {first} handled tasks, not {tasks}")
            if bool(first) is ("no hit" in kind.title):
                raise NotCounted(f"{kind.title}: {len(first)} found")


def _content(answer: dict[str, Any]) -> list[Any]:
    items: Iterable[dict[str, Any]] | None = answer.get("items")
    return [answer["handled"]] if items is None else [each["instance_id"] for each in items]


def measure_queries(
    setup: Setup, program: Path, contenders: Mapping[str, Contender], rounds: Rounds, *, seconds: int
) -> Latencies:
    """Each kind of each contender in turns, ``RATE`` a second; latency counts from when a request was due."""
    found: Latencies = {(name, kind.title): [] for kind in KINDS for name in contenders}
    paths = setup.folder / "paths"
    for number in rounds.numbers(dict):
        for kind in KINDS:
            for name, (url, cpu_s) in contenders.items():
                paths.write_text(f"{kind.path}\n")
                arguments = [f"-address={urlsplit(url).netloc}", f"-bodies={paths}", f"-connections={_CONNECTIONS}"]
                before = cpu_s()
                with _searching(url) if kind.crowded else nullcontext():
                    got = run_open_loop(
                        program, arguments, rate=kind.rate, seconds=seconds, who=f"{name}, {kind.title}"
                    )
                cpu_ms = (cpu_s() - before) / got["requests"] * 1000
                latency = Latency(got["p50_us"] / 1000, got["p99_us"] / 1000, cpu_ms)
                found[name, kind.title].append(latency)
                figures = f"p50 {latency.p50_ms:.1f} ms  p99 {latency.p99_ms:.1f} ms  CPU {cpu_ms:.2f} ms"
                setup.progress(f"round {number}  {kind.title:40}{name:12}  {figures}")
    return found


@contextmanager
def _searching(url: str) -> Generator[None]:
    """Two callers, which are told apart by their addresses, search as fast as they can."""
    spawn = multiprocessing.get_context("spawn")
    callers = [spawn.Process(target=_search, args=(url, f"127.0.0.{number}"), daemon=True) for number in (2, 3)]
    for each in callers:
        each.start()
    time.sleep(_BEGUN_S)
    try:
        yield
    finally:
        for each in callers:
            each.kill()
            each.join()


def _search(url: str, address: str) -> None:
    def go_on() -> None:
        client = HTTPConnection(urlsplit(url).netloc, source_address=(address, 0))
        while True:
            for path in _SEARCHES:
                client.request("GET", path)
                client.getresponse().read()

    threads = [Thread(target=go_on) for _ in range(_SEARCHES_AT_ONCE)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
