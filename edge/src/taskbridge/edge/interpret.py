"""Turns a request into the event that it proves: the one code for callbacks as they arrive and for the quarantine's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.edge.callbacks import ACTIONS, event_of, locate
from taskbridge.edge.errors import Malformed, Rejection, UnknownPath, UnsupportedType, Unverified
from taskbridge.edge.formats import source_events
from taskbridge.edge.parsing.bodies import unpacked
from taskbridge.edge.parsing.parameters import readings
from taskbridge.edge.paths import source_of
from taskbridge.edge.verification.replays import refuse_replay
from taskbridge.edge.verification.verify import check_bearer, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from taskbridge.edge.callbacks import Callback
    from taskbridge.edge.received import Received
    from taskbridge.edge.verification.credentials import Credentials, Token
    from taskbridge.edge.verification.replays import Window
    from taskbridge.schemas.events import TaskEvent


_PACKED = ("br", "compress", "deflate", "zstd")


def interpret(
    received: Received,
    *,
    credentials: Credentials,
    bearer_tokens: Sequence[str],
    delete_extra_keys: Iterable[str],
    window: Window,
    max_body_bytes: int,
    used: Callable[[Token], None] | None = None,
    noted: Callable[[str], None] = lambda _: None,
) -> TaskEvent:
    """The event that the request reports; its signature is then spent on this event.

    ``used`` is told which token signed it, and ``noted`` each field that only describes and was not understood.

    Raises:
        Rejection: it cannot be understood, or not be proven. What is not understood at all wins over what is not
            proven, and that over what is proven but incomplete. Of several readings the first that names an app counts.
    """
    source = source_of(received.path)
    if source is not None:
        return _of_source(received, source, credentials, window, max_body_bytes, used, noted)
    if received.wire_action not in ACTIONS:
        raise UnknownPath
    try:
        body = unpacked(received.body, max_bytes=max_body_bytes)
        callback, signed = _proven(received, body, credentials, bearer_tokens, delete_extra_keys, used)
    except Malformed as malformed:
        if received.headers.get("content-encoding", "").strip().lower() in _PACKED:
            raise UnsupportedType("content-encoding", "Send the body as it is, or as gzip.") from malformed
        raise
    try:
        event = event_of(callback, signed, received_at=received.received_at, noted=noted)
    except Rejection as rejection:
        rejection.app_type, rejection.proven = callback.app_type, True
        raise
    try:
        # Before it is durable: two actions that arrive at the same moment must not both get through.
        refuse_replay(event, window, other_scheme=callback.other_scheme)
    except Rejection as rejection:
        rejection.app_type = callback.app_type
        raise
    return event


def _of_source(  # noqa: PLR0917 - as below
    received: Received,
    name: str,
    credentials: Credentials,
    window: Window,
    max_body_bytes: int,
    used: Callable[[Token], None] | None,
    noted: Callable[[str], None],
) -> TaskEvent:
    """The event that another system reports. Nothing is parsed before it is proven, so what is not proven wins."""
    source = credentials.source(name)
    if source is None:
        raise Unverified("unknown-source")
    proven = False
    try:
        body = unpacked(received.body, max_bytes=max_body_bytes)
        source_events.verify(received, body, source, used=used)
        proven = True
        event = source_events.event_of(received, body, source, noted=noted)
        refuse_replay(event, window)
    except Rejection as rejection:
        rejection.app_type, rejection.proven = name, proven and not isinstance(rejection, Unverified)
        raise
    return event


def _proven(  # noqa: PLR0917 - keywords take longer, for each request
    received: Received,
    body: bytes,
    credentials: Credentials,
    bearer_tokens: Sequence[str],
    delete_extra_keys: Iterable[str],
    used: Callable[[Token], None] | None,
) -> tuple[Callback, Mapping[str, str]]:
    """The callback by the first reading of the request that its app signed, and the parameters as they are signed."""
    refused: Rejection | None = None
    callback: Callback | None = None
    for reading in readings(received.query, received.headers.get("content-type"), body):
        try:
            callback = locate(received.wire_action, reading.parameters, callback)
            try:
                if bearer_tokens:
                    check_bearer(received.headers.get("authorization"), bearer_tokens, callback)
                verify(
                    callback, reading.signed, credentials=credentials, delete_extra_keys=delete_extra_keys, used=used
                )
            except Rejection as rejection:
                rejection.app_type = callback.app_type
                raise
        except Rejection as rejection:
            if refused is None or (refused.app_type is None and rejection.app_type is not None):
                refused = rejection
        else:
            return callback, reading.signed
    assert refused is not None, "readings are given, or raise"
    raise refused
