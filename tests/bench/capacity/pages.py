"""Open pages: event streams of people, and when each of their notifications came. A process of its own.

Run as ``python -m tests.bench.capacity.pages CENTER_URL CORP PERSON…``; it prints ``open`` when all streams are. At a
line on its standard input it prints what came since the last one: a JSON object of task ids and times.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.bench.command import NotCounted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import ExitStack


class Pages:
    """The process, as the harness sees it."""

    def __init__(self, stack: ExitStack, center_url: str, corp: str, people: Sequence[str]) -> None:
        self._process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", __name__, center_url, corp, *people],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(self._process.kill)
        if self._line() != "open\n":
            raise NotCounted(f"event streams of {center_url} are not opened")

    def take(self) -> Mapping[str, int]:
        """When the first notification of each task came since the last time, in ns of the clock of the day."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


async def _listen(url: str, corp: str, person: str, opened: asyncio.Event, came: dict[str, int]) -> None:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(f"GET /v1/corps/{corp}/users/{person}/events HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
    while line := await reader.readline():
        opened.set()
        if line.startswith(b"data: "):
            came.setdefault(json.loads(line.removeprefix(b"data: ")).get("task_id"), time.time_ns())


async def _serve(url: str, corp: str, people: Sequence[str]) -> None:
    came: dict[str, int] = {}
    opened = [asyncio.Event() for _ in people]
    async with asyncio.TaskGroup() as group:
        for person, each in zip(people, opened, strict=True):
            group.create_task(_listen(url, corp, person, each, came))
        await asyncio.gather(*(each.wait() for each in opened))
        _say("open")
        while await asyncio.to_thread(sys.stdin.readline):
            _say(json.dumps(came))
            came.clear()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2], sys.argv[3:]))
