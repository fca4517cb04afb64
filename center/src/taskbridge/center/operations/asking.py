"""Asks other workers and the edges side by side, each within a short time: one that hangs must not hide the others."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp

from taskbridge.center.operations.edges import Answers
from taskbridge.streams.api.forwarding import FORWARDED_HEADER

if TYPE_CHECKING:
    from collections.abc import Mapping

_WORKER_S = 2.0
_EDGE_S = 2.0
_BYTES_MAX = 8 << 20
_OK = 200
_READY = (200, 503)

FAILURES = (aiohttp.ClientError, TimeoutError, ValueError)


class Asking:
    """One pool of connections."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def worker(self, url: str, path: str, authorization: str | None, *, within_s: float = _WORKER_S) -> Any:
        """What another worker answers to an operator's question; None where it does not in time."""
        headers = {FORWARDED_HEADER: "1"} | ({} if authorization is None else {"Authorization": authorization})
        try:
            status, body = await self._get(f"{url}{path}", headers, within_s)
            return json.loads(body) if status == _OK else None
        except FAILURES:
            return None

    async def edge(self, url: str) -> Answers:
        """An edge's readiness and metrics."""
        try:
            (ready, readiness), (status, metrics) = await asyncio.gather(
                self._get(f"{url}/readyz", {}, _EDGE_S), self._get(f"{url}/metrics", {}, _EDGE_S)
            )
        except FAILURES as error:
            return Answers(url, None, None, f"no answer: {type(error).__name__}")
        if ready not in _READY or status != _OK:
            return Answers(url, None, None, f"it answers {ready} and {status}")
        return Answers(url, readiness, metrics)

    async def _get(self, url: str, headers: Mapping[str, str], within_s: float) -> tuple[int, str]:
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        timeout = aiohttp.ClientTimeout(total=within_s)
        async with self._session.get(url, headers=headers, timeout=timeout, allow_redirects=False) as answer:
            body = bytearray()
            async for part in answer.content.iter_any():
                body += part
                if len(body) > _BYTES_MAX:
                    raise ValueError("the answer is larger than any of ours")
            return answer.status, body.decode("utf-8", "replace")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
