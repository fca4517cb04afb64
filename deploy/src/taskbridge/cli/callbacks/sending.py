"""Post one callback as Yida does, or one event as another system does."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httpx2

from taskbridge.edge.sender import encode_callback, signed, signed_message
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from taskbridge.edge.sender import EncodedCallback, Encoding

_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Answer:
    """The response of the edge."""

    status: int
    body: Any
    milliseconds: float

    @property
    def accepted(self) -> bool:
        return self.status == HTTPStatus.OK


class Sender:
    """A client of one edge, with one connection."""

    def __init__(self, url: str) -> None:
        self._url = url
        # No proxies of the environment: post to exactly the given address.
        self._client = httpx2.Client(timeout=_TIMEOUT_S, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def post(self, action: str, parameters: Mapping[str, str], *, system_token: str, encoding: Encoding) -> Answer:
        """Sign and post. ``dateTime`` defaults to now, in milliseconds.

        Raises:
            OperatorError: the edge did not answer.
        """
        stamped = {"dateTime": str(time.time_ns() // 1_000_000), **parameters}
        request = encode_callback(signed(stamped, system_token=system_token), encoding)
        return self._post(f"/yida/tasks/{action}" + (f"?{request.query}" if request.query else ""), request)

    def post_message(self, action: str, data: Mapping[str, Any], *, source: str, secret: str) -> Answer:
        """Sign and post a CloudEvent with the present time and a new id.

        Raises:
            OperatorError: the edge did not answer.
        """
        request = signed_message(
            data,
            source=source,
            action=action,
            secret=secret,
            message_id=f"msg_{uuid.uuid4().hex}",
            at_ms=time.time_ns() // 1_000_000,
        )
        return self._post(f"/sources/{source}/tasks/{action}", request)

    def _post(self, target: str, request: EncodedCallback) -> Answer:
        try:
            started = time.perf_counter()
            address = self._url.rstrip("/") + target
            response = self._client.post(address, content=request.body, headers=dict(request.headers))
            milliseconds = (time.perf_counter() - started) * 1000
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise OperatorError(
                f"the edge at {self._url} does not answer: {error}. Start it, or check --url"
            ) from error
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
        OperatorError: the edge did not answer.
    """
    with Sender(url) as sender:
        return sender.post(action, parameters, system_token=system_token, encoding=encoding)
