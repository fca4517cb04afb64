"""Posts one callback as Yida would: parameters, the time, a signature, in one of the encodings."""

from __future__ import annotations

import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httpx2

from taskbridge.edge.sender import encode_callback, signed
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from taskbridge.edge.sender import Encoding

_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Answer:
    """What the edge answered."""

    status: int
    body: Any
    milliseconds: float

    @property
    def accepted(self) -> bool:
        return self.status == HTTPStatus.OK


class Sender:
    """Posts to one edge over one connection."""

    def __init__(self, url: str) -> None:
        self._url = url
        # Without the environment's proxies: the address given is the one that is meant.
        self._client = httpx2.Client(timeout=_TIMEOUT_S, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def post(self, action: str, parameters: Mapping[str, str], *, system_token: str, encoding: Encoding) -> Answer:
        """Sign and post. ``dateTime`` is now, in milliseconds, where it is not given.

        Raises:
            OperatorError: no HTTP answer at all.
        """
        stamped = {"dateTime": str(time.time_ns() // 1_000_000), **parameters}
        request = encode_callback(signed(stamped, system_token=system_token), encoding)
        target = f"{self._url.rstrip('/')}/yida/tasks/{action}" + (f"?{request.query}" if request.query else "")
        try:
            started = time.perf_counter()
            response = self._client.post(target, content=request.body, headers=dict(request.headers))
            milliseconds = (time.perf_counter() - started) * 1000
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise OperatorError(f"no answer from {self._url}: {error}") from error
        try:
            body = response.json()
        except ValueError:
            body = response.text
        return Answer(response.status_code, body, milliseconds)


def post_callback(
    url: str, action: str, parameters: Mapping[str, str], *, system_token: str, encoding: Encoding
) -> Answer:
    """Sign and post one callback to the edge at ``url``.

    Raises:
        OperatorError: no HTTP answer at all.
    """
    with Sender(url) as sender:
        return sender.post(action, parameters, system_token=system_token, encoding=encoding)
