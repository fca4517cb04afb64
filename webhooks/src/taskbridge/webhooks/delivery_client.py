"""One attempt: an HTTP request to an endpoint, within all limits, and what its answer means."""

from __future__ import annotations

import asyncio
import email.utils
import time
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import aiohttp

from taskbridge.runtime.database import now_ms
from taskbridge.runtime.settings import masked
from taskbridge.webhooks.connections import Connector
from taskbridge.webhooks.formats.base import Answer, Attempt, DeliveryProblem, Options, Tokens
from taskbridge.webhooks.schedule import delay_ms
from taskbridge.webhooks.store import Delivery, Result

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from taskbridge.runtime.guard import Guard
    from taskbridge.webhooks.endpoints import Endpoint

ATTEMPT_S, CONNECT_S = 20.0, 5.0
_GONE_MS = 24 * 3_600_000
MAX_ANSWER_BYTES = 64 << 10
_PROBLEM_CHARACTERS = 300
_TOKEN_IN_QUERY, _TOKEN_IN_PATH = 8, 16
"""Shorter parts of an address are no tokens, and would be words of other texts."""


class DeliveryClient:
    """The connections of one endpoint: no other endpoint waits for them. Made and closed within the event loop."""

    def __init__(
        self,
        endpoint: Endpoint,
        guard: Guard,
        other_id: Callable[[str, str, str], Awaitable[str | None]],
    ) -> None:
        self.endpoint = endpoint
        self._other_id = other_id
        options = endpoint.options
        self._secrets = _tokens_in(endpoint.entry.url)
        if isinstance(options, Options):
            self._secrets |= options.secrets
        self._tokens = Tokens()
        self._session = aiohttp.ClientSession(
            connector=Connector(guard, tls=endpoint.tls, most=endpoint.entry.in_flight),
            timeout=aiohttp.ClientTimeout(total=ATTEMPT_S, sock_connect=CONNECT_S),
            # What the receiver compresses is not unpacked: it could be much larger.
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"user-agent": "taskbridge-webhooks/1", "accept-encoding": "identity"},
            trust_env=False,
            raise_for_status=False,
        )

    async def close(self) -> None:
        await self._session.close()

    async def attempt(self, delivery: Delivery) -> Result:
        """Send it once. Never raises: what went wrong is in the result."""
        endpoint, at_s = self.endpoint, int(time.time())
        given = endpoint.entry.url, endpoint.keys, endpoint.options, delivery.webhook_id, delivery.data, at_s
        attempt = Attempt(*given, self._other_id, self._tokens)
        answer, problem = None, ""
        try:
            # The formats of vendors make several requests.
            async with asyncio.timeout(ATTEMPT_S):
                answer = await endpoint.format.send(attempt, self._call)
        except DeliveryProblem as error:
            problem = str(error)
        except TimeoutError:
            problem = f"no answer within {ATTEMPT_S:.0f} s"
        except Exception as error:  # noqa: BLE001 - a notification that a format cannot map must not stop the others
            problem = f"{type(error).__name__}: {error}"
        if answer is not None and answer.is_success:
            return Result(delivery, now_ms(), delivered=True, status=answer.status, problem="", retry_in_ms=None)
        retry_after_s = None
        if answer is not None:
            problem = f"{answer.status} {answer.body.decode('utf-8', 'replace')}".strip()
            retry_after_s = answer.retry_after_s
        is_gone = answer is not None and answer.status == HTTPStatus.GONE
        retry_in_ms = delay_ms(delivery.attempts + 1, retry_after_s)
        return Result(
            delivery,
            now_ms(),
            delivered=False,
            status=None if answer is None else answer.status,
            problem=self._without_tokens(problem),
            # What a disabled endpoint did not get waits until it is enabled, and is due then.
            retry_in_ms=_GONE_MS if is_gone else retry_in_ms,
            disable="it answered 410 Gone" if is_gone else None,
        )

    def _without_tokens(self, problem: str) -> str:
        """The beginning. Receivers repeat what they got, and so do errors: a robot's address has its token in it."""
        secrets = sorted({*self._secrets, *self._tokens.known} - {""}, key=len, reverse=True)
        return masked(problem, secrets)[:_PROBLEM_CHARACTERS]

    async def _call(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        try:
            async with self._session.request(
                method, url, headers=dict(headers), data=body or None, allow_redirects=False
            ) as response:
                beginning = await _beginning(response)
                return Answer(response.status, beginning, _retry_after_s(response))
        except aiohttp.ClientConnectorCertificateError as error:
            raise DeliveryProblem(
                f"its TLS certificate is not accepted, which ca_file can change: {error.certificate_error}"
            ) from error
        except aiohttp.ClientConnectorError as error:
            raise DeliveryProblem(f"cannot connect to {error.host}:{error.port}: {error.os_error}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error, TimeoutError):
                raise DeliveryProblem(f"no answer within {ATTEMPT_S:.0f} s") from error
            raise DeliveryProblem(self._without_tokens(f"{type(error).__name__}: {error}")) from error


def _tokens_in(url: str) -> set[str]:
    """What may be a token, as it is and decoded: values of the query, and long parts of the path."""
    parts = urlsplit(url)
    values = [each for pair in parts.query.split("&") if len(each := pair.rpartition("=")[2]) >= _TOKEN_IN_QUERY]
    values += [each for each in parts.path.split("/") if len(each) >= _TOKEN_IN_PATH]
    return {*values, *map(unquote, values)}


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """The first 64 KiB of the body. The connection of a longer one is closed."""
    found = bytearray()
    while len(found) < MAX_ANSWER_BYTES:
        part = await response.content.read(MAX_ANSWER_BYTES - len(found))
        if not part:
            return bytes(found)
        found += part
    response.close()
    return bytes(found)


def _retry_after_s(response: aiohttp.ClientResponse) -> float | None:
    """Seconds, or a date."""
    given = response.headers.get("retry-after", "")
    if given.isascii() and given.isdecimal():
        return float(given[:9])
    with suppress(ValueError, TypeError, OverflowError):
        return email.utils.parsedate_to_datetime(given).timestamp() - time.time()
    return None
