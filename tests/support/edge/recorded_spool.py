"""A process that runs the real spool through histories, under strace, which records all calls to the disk.

Marks, written to nowhere, add to the trace which records were put, acknowledged, delivered and removed when.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from support.edge.spool import number_of, open_spool, record
from taskbridge.edge.spool import store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskbridge.edge.spool.writer import Spool


_NOWHERE = os.open(os.devnull, os.O_WRONLY)


def mark(kind: str, *numbers: int) -> None:
    os.write(_NOWHERE, json.dumps([kind, *numbers]).encode())


async def put(spool: Spool, number: int, size: int) -> None:
    mark("put", number)
    await spool.put(record(number, size=size))
    mark("acknowledged", number)


async def deliver(spool: Spool, count: int) -> None:
    found = await spool.read(-1, count=count, max_bytes=1 << 30)
    numbers = [number_of(each) for each in found]
    mark("delivered", *numbers)
    await spool.remove(found)
    mark("removed", *numbers)


async def live(folder: Path, steps: Sequence[tuple[str, list[int]]], first: int) -> None:
    """Steps: ``put`` with the sizes of records that come at once, ``deliver`` with their number, ``restart``."""
    number, left = first, list(steps)
    while left:
        async with open_spool(folder) as spool:
            while left:
                step, values = left.pop(0)
                if step == "restart":
                    break
                if step == "deliver":
                    await deliver(spool, values[0])
                else:
                    await asyncio.gather(*(put(spool, number + at, size) for at, size in enumerate(values)))
                    number += len(values)
            if not left:
                # The end of the history is the end of the trace: closing would be one more step of it.
                await spool.remove(())
                mark("end")


def main() -> None:
    for line in sys.stdin:
        history = json.loads(line)
        store._CHECKPOINT_BYTES = history["checkpoint_bytes"]  # pyright: ignore[reportPrivateUsage]
        mark("begin")
        asyncio.run(live(Path(history["folder"]), history["steps"], history["first"]))
        sys.stdout.write("done\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
