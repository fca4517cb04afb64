"""What is asked, how fast it is answered, and that every answer is a right one."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2

from tests.bench.cpu import cpu_seconds
from tests.bench.query.company import BUSY, CORP, user
from tests.bench.streams.errors import NotCounted

if TYPE_CHECKING:
    from collections.abc import Sequence

_LUA = Path(__file__).with_name("paths.lua")
_ASKED = 2_000
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
    """What a worker at this address is asked. Walks to the last page of the one with very many, and counts on the way.

    Raises:
        NotCounted: they have not what they should have.
    """
    people = [f"/v1/corps/{CORP}/users/{user(number % users)}" for number in range(_ASKED)]
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
    path, seen, wanted = f"{busy}/tasks?view=handled", 0, ""
    with httpx2.Client(base_url=url, trust_env=False, timeout=10) as client:
        if client.get(f"{busy}/counts").json()["handled"] != busy_tasks:
            raise NotCounted(f"{BUSY} has not {busy_tasks} handled tasks")
        cursor = ""
        while True:
            limit = _PAGE if busy_tasks - seen > _PAGE + 50 else 50
            wanted = f"{path}&limit={limit}{cursor}"
            found = client.get(wanted).json()
            seen += len(found["items"])
            if found["next_cursor"] is None:
                break
            cursor = f"&cursor={found['next_cursor']}"
    if seen != busy_tasks:
        raise NotCounted(f"a walk over all pages of {BUSY} gave {seen} lines of {busy_tasks}")
    return wanted


def ask(url: str, kind: Kind, pid: int, folder: Path, *, connections: int, seconds: int) -> Window:
    """Ask as fast as the answers come.

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


def _wrk(url: str, paths: Path, *, connections: int, seconds: int) -> dict[str, Any]:
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(_LUA), url, "--", str(paths)]
    outcome = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=seconds + 30)
    line = next((each for each in outcome.stdout.splitlines() if each.startswith("RESULT ")), None)
    if outcome.returncode != 0 or line is None:
        raise NotCounted(f"wrk failed: {(outcome.stderr or outcome.stdout).strip()[-300:]}")
    found: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    if found["refused"] or found["broken"] or not found["requests"]:
        raise NotCounted(f"{paths.stem}: {found['refused']} refused, {found['broken']} broken")
    return found
