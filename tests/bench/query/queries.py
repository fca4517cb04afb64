"""The queries, the rate of their answers, and the check that every answer is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx2
from tests.bench.command import NotCounted
from tests.bench.machine import cpu_seconds
from tests.bench.query.company import BUSY, CORP, user
from tests.bench.wrk import wrk

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_PEOPLE = 2_000
_PAGE = 200

CONSTANT = "constant"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of query."""

    name: str
    title: str
    paths: Sequence[str]


@dataclass(frozen=True, slots=True)
class Window:
    """A closed loop over some seconds."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """Of the server's process, for each query; under events, theirs is in it."""


def kinds(url: str, *, users: int, busy_tasks: int) -> list[Kind]:
    """The queries to a worker at this address. Walks to the last page of the person with very many tasks, and counts.

    Raises:
        NotCounted: they have not what they should have.
    """
    people = [f"/v1/corps/{CORP}/users/{user(number % users)}" for number in range(_PEOPLE)]
    busy = f"/v1/corps/{CORP}/users/{BUSY}"
    return [
        Kind("counts", "counts", [f"{each}/counts" for each in people]),
        Kind("page", "a page of 50", [f"{each}/tasks?view=handled" for each in people]),
        Kind(
            "search",
            "a search through a person's 100 handled tasks",
            [f"{each}/tasks?view=handled&q=%E6%8A%A5%E9%94%80" for each in people],
        ),
        Kind("busy-counts", f"counts of a person with {busy_tasks:,} handled tasks", [f"{busy}/counts"]),
        Kind("busy-first", "their first page of 50", [f"{busy}/tasks?view=handled"]),
        Kind("busy-last", "their last page of 50", [_last_page(url, busy, busy_tasks)]),
    ]


def _last_page(url: str, busy: str, busy_tasks: int) -> str:
    path, seen, last = f"{busy}/tasks?view=handled", 0, ""
    with httpx2.Client(base_url=url, trust_env=False, timeout=10) as client:
        if client.get(f"{busy}/counts").json()["handled"] != busy_tasks:
            raise NotCounted(f"{BUSY} has not {busy_tasks} handled tasks")
        cursor = ""
        while True:
            limit = _PAGE if busy_tasks - seen > _PAGE + 50 else 50
            last = f"{path}&limit={limit}{cursor}"
            found = client.get(last).json()
            seen += len(found["items"])
            if found["next_cursor"] is None:
                break
            cursor = f"&cursor={found['next_cursor']}"
    if seen != busy_tasks:
        raise NotCounted(f"a walk over all pages of {BUSY} gave {seen} lines of {busy_tasks}")
    return last


def load(url: str, kind: Kind, pid: int, folder: Path, *, connections: int, seconds: int) -> Window:
    """Send queries as fast as answers come.

    Raises:
        NotCounted: an answer other than 200.
    """
    path = folder / f"{kind.name}.paths"
    path.write_text("\n".join(kind.paths) + "\n")
    _wrk(url, path, connections=connections, seconds=1)  # caches, connections
    before = cpu_seconds(pid)
    found = _wrk(url, path, connections=connections, seconds=seconds)
    cpu = cpu_seconds(pid) - before
    return Window(
        per_second=found["requests"] / (found["microseconds"] / 1e6),
        p50_ms=found["p50_us"] / 1000,
        p99_ms=found["p99_us"] / 1000,
        cpu_us=cpu / found["requests"] * 1e6,
    )


def _wrk(url: str, paths: Path, *, connections: int, seconds: int) -> dict[str, int]:
    return wrk(url, [str(paths)], who=paths.stem, connections=connections, seconds=seconds)
