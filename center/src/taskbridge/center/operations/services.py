"""Requests health and metrics of other services in parallel, within a short time: one that hangs hides no other.

The one service that does something on request is webhooks.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from taskbridge.center.operations.answers import Answers
from taskbridge.runtime.bounded_http import UNSENT_ERRORS
from taskbridge.runtime.inside_http import NO_ANSWER, bearer, inside_async_client

if TYPE_CHECKING:
    from collections.abc import Iterable

_WITHIN_S, _ACTION_S = 2.0, 25.0
_DETAIL_MAX = 300
_OK = 200
_READY = (200, 503)

_FAILURES = (*NO_ANSWER, ValueError)


class Services:
    """One pool of connections."""

    def __init__(self) -> None:
        self._client = inside_async_client(timeout_s=_WITHIN_S)
        # An action may wait for a receiver.
        self._acting = inside_async_client(timeout_s=_ACTION_S)

    async def answers(self, urls: Iterable[str], details: str = "/metrics", *, token: str = "") -> list[Answers]:
        """Readiness and details of every process behind these URLs: a name may have several addresses."""
        found = await asyncio.gather(*(self._of_url(url, details, token) for url in urls))
        return [each for answers in found for each in answers]

    async def post(self, urls: Iterable[str], path: str, *, token: str) -> tuple[int, str]:
        """Status and body of the first process that can be connected to; no other gets the request.

        Raises ConnectionError if there is none, or it does not answer.
        """
        for url in urls:
            try:
                processes = await asyncio.wait_for(_processes(url), _WITHIN_S)
            except (OSError, ValueError):
                continue
            for process in processes:
                try:
                    return await self._get(process + path, named=url, token=token, method="POST")
                except UNSENT_ERRORS:
                    continue
                except _FAILURES as error:
                    raise ConnectionError(f"{process} does not answer: {type(error).__name__}") from error
        raise ConnectionError("it cannot be reached")

    async def json(self, url: str) -> Any:
        """The JSON at this URL; None where there is none in time."""
        try:
            status, body = await self._get(url, named=url)
            return json.loads(body) if status == _OK else None
        except _FAILURES:
            return None

    async def close(self) -> None:
        await self._client.aclose()
        await self._acting.aclose()

    async def _of_url(self, url: str, details: str, token: str) -> list[Answers]:
        try:
            processes = await asyncio.wait_for(_processes(url), _WITHIN_S)
        except (OSError, ValueError) as error:
            return [Answers(url, None, None, f"the name cannot be resolved: {error}")]
        return await asyncio.gather(*(self._of_process(each, url, details, token) for each in processes))

    async def _of_process(self, process: str, url: str, details: str, token: str) -> Answers:
        try:
            (ready, readiness), (status, found) = await asyncio.gather(
                self._get(f"{process}/readyz", named=url), self._get(process + details, named=url, token=token)
            )
        except _FAILURES as error:
            return Answers(process, None, None, f"no answer: {type(error).__name__}")
        if ready not in _READY or status != _OK:
            return Answers(process, None, None, f"it answers {ready} and {status}{detail_of(found)}")
        return Answers(process, readiness, found)

    async def _get(self, url: str, *, named: str, token: str = "", method: str = "GET") -> tuple[int, str]:
        """Certificate and virtual host are those of the configured name."""
        parts = urlsplit(named)
        client = self._client if method == "GET" else self._acting
        headers = {"Host": parts.netloc, **bearer(token)}
        answer = await client.request(method, url, headers=headers, extensions={"sni_hostname": parts.hostname})
        return answer.status_code, answer.text


def detail_of(body: str) -> str:
    """What a problem document says, after a colon; empty if the body is none."""
    try:
        return f": {json.loads(body)['detail']}"[:_DETAIL_MAX]
    except (ValueError, KeyError, TypeError):
        return ""


def urls_of(setting: str) -> list[str]:
    return [each.strip().rstrip("/") for each in setting.split(",") if each.strip()]


async def _processes(url: str) -> list[str]:
    """The URL with each address of its name; itself where there is one. ``localhost`` has two, and is one machine."""
    parts = urlsplit(url)
    if parts.hostname is None:
        raise ValueError("it is not a URL")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    addresses = sorted({str(each[4][0]) for each in found})
    if len(addresses) == 1 or parts.hostname == "localhost":
        return [url]
    return [f"{parts.scheme}://{f'[{each}]' if ':' in each else each}:{port}" for each in addresses]
