"""Runs what blocks, such as queries of the database, in a few threads."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from taskbridge.runtime.database import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_ANSWER_S = 10.0
"""A database that is frozen must not hold every client: a proxy in front would give up later without a reason."""


class Threads:
    """More threads than can be busy at once would only wait for the interpreter's lock and the database."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, "query")

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """What the function returns or raises.

        Raises:
            DatabaseUnavailable: it has not returned in time.
        """
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)
        except TimeoutError as error:
            raise DatabaseUnavailable(f"the database gave no answer within {_ANSWER_S:g} s") from error

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
