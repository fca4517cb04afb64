"""Turns a request into the event that it proves: the one code for callbacks as they arrive and for the quarantine's.

No I/O. The native core decides nearly all callbacks; this is its specification, and has the last word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskbridge.edge.callbacks import ACTIONS, event_of, locate
from taskbridge.edge.decided import Decided
from taskbridge.edge.deciding.paths import source_of
from taskbridge.edge.errors import Malformed, Rejection, UnknownPath, UnsupportedType, Unverified
from taskbridge.edge.formats import source_events
from taskbridge.edge.parsing.bodies import unpacked
from taskbridge.edge.parsing.parameters import readings
from taskbridge.edge.verification.replays import mark_of
from taskbridge.edge.verification.verify import check_bearer, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from taskbridge.edge.callbacks import Callback
    from taskbridge.edge.received import Received
    from taskbridge.edge.verification.credentials import Credentials, Token
    from taskbridge.schemas.events import TaskEvent

_PACKED = ("br", "compress", "deflate", "zstd")


def _ignore(_: object) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What requests are judged by, beside the credentials in force."""

    max_body_bytes: int
    bearer_tokens: Sequence[str] = ()
    delete_extra_keys: Iterable[str] = ()
    used: Callable[[Token], None] = _ignore
    """Is told which token signed a request."""
    noted: Callable[[str], None] = _ignore
    """Is told each field that only describes and was not understood."""


def interpret(received: Received, credentials: Credentials, rules: Rules) -> Decided:
    """The event that the request reports. Whoever goes on with it spends its signature on it: ``replays.claim``.

    Raises:
        Rejection: as ``proven_event``.
    """
    event, other_scheme = proven_event(received, credentials, rules)
    return Decided.of(event, mark_of(event), other_scheme=other_scheme)


def proven_event(received: Received, credentials: Credentials, rules: Rules) -> tuple[TaskEvent, bool]:
    """The same, not encoded, and whether it carries the signature of another feature of Yida, too.

    Raises:
        Rejection: it cannot be understood, or not be proven. What is not understood at all wins over what is not
            proven, and that over what is proven but incomplete. Of several readings the first that names an app counts.
    """
    source = source_of(received.path)
    if source is not None:
        return _of_source(received, source, credentials, rules), False
    if received.wire_action not in ACTIONS:
        raise UnknownPath
    try:
        body = unpacked(received.body, max_bytes=rules.max_body_bytes)
        callback, signed = _proven(received, body, credentials, rules)
    except Malformed as malformed:
        if received.headers.get("content-encoding", "").strip().lower() in _PACKED:
            raise UnsupportedType(
                "content-encoding", "Unsupported Content-Encoding. Send the body uncompressed, or as gzip."
            ) from malformed
        raise
    try:
        event = event_of(callback, signed, received_at=received.received_at, noted=rules.noted)
    except Rejection as rejection:
        rejection.app_type, rejection.proven = callback.app_type, True
        raise
    return event, callback.other_scheme


def _of_source(received: Received, name: str, credentials: Credentials, rules: Rules) -> TaskEvent:
    """The event that another system reports. Nothing is parsed before it is proven, so what is not proven wins."""
    source = credentials.source(name)
    if source is None:
        raise Unverified("unknown-source")
    proven = False
    try:
        body = unpacked(received.body, max_bytes=rules.max_body_bytes)
        rules.used(source_events.verify(received, body, source))
        proven = True
        return source_events.event_of(received, body, source, noted=rules.noted)
    except Rejection as rejection:
        rejection.app_type, rejection.proven = name, proven and not isinstance(rejection, Unverified)
        raise


def _proven(
    received: Received, body: bytes, credentials: Credentials, rules: Rules
) -> tuple[Callback, Mapping[str, str]]:
    """The callback by the first reading of the request that its app signed, and the parameters as they are signed."""
    refused: Rejection | None = None
    callback: Callback | None = None
    for reading in readings(received.query, received.headers.get("content-type"), body):
        try:
            callback = locate(received.wire_action, reading.parameters, callback)
            try:
                if rules.bearer_tokens:
                    check_bearer(received.headers.get("authorization"), rules.bearer_tokens, callback)
                token = verify(
                    callback, reading.signed, credentials=credentials, delete_extra_keys=rules.delete_extra_keys
                )
            except Rejection as rejection:
                rejection.app_type = callback.app_type
                raise
        except Rejection as rejection:
            if refused is None or (refused.app_type is None and rejection.app_type is not None):
                refused = rejection
        else:
            rules.used(token)
            return callback, reading.signed
    assert refused is not None, "readings are given, or raise"
    raise refused
