"""HTTP clients whose calls end: each within a time, with an answer of bounded size.

The library's own timeouts are for single reads, and it decompresses an answer whole.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Self

import httpx2
import msgspec

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from taskbridge.runtime.guard import Guard

UNSENT_ERRORS = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
"""With which a request has not left."""
NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises for an answer that is not the expected JSON, or is nested too deeply."""

MAX_ANSWER_BYTES = 32 << 20
"""After decompression."""
_LOOKUPS = ThreadPoolExecutor(64, "lookup")
"""Of names. The thread of a lookup that is given up lasts until the resolver ends it: no event loop waits for it."""
_ENCODINGS = ("", "identity", "gzip")
_OF_TRANSFER = ("content-encoding", "content-length", "transfer-encoding")
_ACCEPTED = {"Accept-Encoding": "gzip"}


@cache
def certificates(*, trust_env: bool) -> ssl.SSLContext:
    """What servers' certificates are checked against, for all clients: to read it takes 60 ms of CPU time.

    With ``trust_env``, from where SSL_CERT_FILE or SSL_CERT_DIR says. A new authority counts after a restart.
    """
    return httpx2.create_ssl_context(trust_env=trust_env)


class AnswerTooLarge(httpx2.DecodingError):
    """The answer is larger than ``MAX_ANSWER_BYTES``. No more than that was decompressed."""


class BoundedAsyncClient(httpx2.AsyncClient):
    """Every answer is complete within the time, from the connection to the last byte.

    Raises:
        ReadTimeout: The call took longer. The server may have carried it out.
        ConnectTimeout, PoolTimeout: There was no connection. The server got nothing.
        AnswerTooLarge: As its docstring says.
    """

    def __init__(self, *, timeout_s: float, **options: Any) -> None:
        trusted: dict[str, Any] = {"verify": certificates(trust_env=options.get("trust_env", True))}
        super().__init__(timeout=_timeout(timeout_s), **(trusted | _with_encoding(options)))
        self._within_s = timeout_s

    async def send(self, request: httpx2.Request, *, stream: bool = True, **options: Any) -> httpx2.Response:
        del stream  # The parts are read here.
        try:
            async with asyncio.timeout(self._within_s):
                response = await super().send(request, stream=True, **options)
                content = _Content(response)
                try:
                    async for part in response.aiter_raw():
                        content.add(part)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise httpx2.ReadTimeout("the call took too long", request=request) from None
        return content.complete()


def open_http(url: str, *, timeout_s: float, reuse: bool = True) -> httpx2.AsyncClient:
    """A client for this URL, which the caller closes. A call takes ``timeout_s`` at most. No proxy is used.

    Without ``reuse``, each call has a connection of its own: one that the server closes in the same moment would leave
    it open whether the server received the call.
    """
    # The library's own log has each URL, whose query may contain a secret.
    logging.getLogger("httpx2").addFilter(_without_urls)
    limits = httpx2.Limits(max_connections=100, max_keepalive_connections=20 if reuse else 0)
    # Without it, some of DingTalk's answers are XML.
    headers = {"Accept": "application/json"}
    return BoundedAsyncClient(
        base_url=url, timeout_s=timeout_s, trust_env=False, follow_redirects=False, limits=limits, headers=headers
    )


def _without_urls(record: logging.LogRecord) -> bool:
    return "HTTP Request" not in str(record.msg)


class GuardedTransport(httpx2.AsyncHTTPTransport):
    """Connects to addresses that a guard allows: for URLs that somebody else chose. Without a proxy.

    Of a host with several addresses, the first and the last are tried: they are often of both families.

    Raises AddressRefused, which is an OSError, if a host has any address that is refused.
    """

    def __init__(self, guard: Guard) -> None:
        # Connections are found again by their address, which several hosts share.
        limits = httpx2.Limits(max_keepalive_connections=0)
        super().__init__(verify=certificates(trust_env=False), trust_env=False, limits=limits)
        self._guard = guard

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        loop, port = asyncio.get_running_loop(), url.port or (443 if url.scheme == "https" else 80)
        times = request.extensions["timeout"]
        look_up = partial(socket.getaddrinfo, url.host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        try:
            async with asyncio.timeout(times["connect"]):
                found = await loop.run_in_executor(_LOOKUPS, look_up)
        except TimeoutError:
            raise httpx2.ConnectTimeout("the name was not looked up in time", request=request) from None
        addresses = [str(each[4][0]) for each in found]
        for each in addresses:
            self._guard.check(each)
        *others, last = dict.fromkeys((addresses[0], addresses[-1]))
        connect_s = times["connect"] / (len(others) + 1)
        # The certificate is the host's, and so is the Host header, which the request has already.
        more = {"sni_hostname": url.host, "timeout": {**times, "connect": connect_s}}
        request.extensions = {**request.extensions, **more}
        for each in others:
            request.url = url.copy_with(host=each)
            with suppress(httpx2.ConnectError, httpx2.ConnectTimeout):
                return await super().handle_async_request(request)
        request.url = url.copy_with(host=last)
        return await super().handle_async_request(request)


class BoundedClient:
    def __init__(self, *, timeout_s: float, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = BoundedAsyncClient(timeout_s=timeout_s, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._runner:
            self._runner.run(self._client.aclose())

    def get(self, url: str, **options: Any) -> httpx2.Response:
        return self._runner.run(self._client.get(url, **options))

    def post(self, url: str, **options: Any) -> httpx2.Response:
        return self._runner.run(self._client.post(url, **options))

    def post_all(self, calls: Iterable[tuple[str, dict[str, Any]]]) -> list[httpx2.Response | BaseException]:
        """The answer to each of these, or what it raised: all at the same time."""

        async def post() -> list[httpx2.Response | BaseException]:
            sent = (self._client.post(url, **options) for url, options in calls)
            return await asyncio.gather(*sent, return_exceptions=True)

        return self._runner.run(post())


class _Content:
    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self._body = bytearray()
        encoding = response.headers.get("content-encoding", "").lower()
        if encoding not in _ENCODINGS:
            raise httpx2.DecodingError(f"unexpected content encoding {encoding}", request=response.request)
        self._unpacking = zlib.decompressobj(wbits=31) if encoding == "gzip" else None

    def add(self, part: bytes) -> None:
        left = MAX_ANSWER_BYTES - len(self._body)
        if self._unpacking is not None:
            try:
                part = self._unpacking.decompress(part, left + 1)
            except zlib.error as error:
                raise httpx2.DecodingError("not valid gzip", request=self._response.request) from error
            # It would be collected without a limit.
            if self._unpacking.unused_data:
                raise httpx2.DecodingError("more follows the gzip", request=self._response.request)
        if len(part) > left:
            raise AnswerTooLarge(f"the answer has more than {MAX_ANSWER_BYTES} bytes", request=self._response.request)
        self._body += part

    def complete(self) -> httpx2.Response:
        if self._body and self._unpacking is not None and not self._unpacking.eof:
            raise httpx2.DecodingError("the gzip ends too early", request=self._response.request)
        found = self._response
        headers = [(name, value) for name, value in found.headers.multi_items() if name not in _OF_TRANSFER]
        return httpx2.Response(found.status_code, headers=headers, content=bytes(self._body), request=found.request)


def _timeout(within_s: float) -> httpx2.Timeout:
    # A call that never had a connection must end as such before the whole time is over.
    return httpx2.Timeout(within_s, connect=within_s / 2, pool=within_s / 4)


def _with_encoding(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "headers": {**options.get("headers", {}), **_ACCEPTED}}
