"""Decides what a request proves: from its path and parameters to the verified event, without I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskbridge.edge.decision import source_events
from taskbridge.edge.decision.callbacks import ACTIONS, PUSH, UNKNOWN, event_of, locate
from taskbridge.edge.errors import Malformed, Rejection, UnknownPath, UnsupportedType, Unverified
from taskbridge.edge.events import Decided, Mark
from taskbridge.edge.parsing.parameters import ReadingKind, readings, unpacked
from taskbridge.edge.verification.replays import mark_of
from taskbridge.edge.verification.signature import bearer_fault, check_bearer, verify
from taskbridge.schemas.cloudevents import CONTENT_TYPE, EVENT_TYPES, SPECVERSION
from taskbridge.schemas.events import AHEAD_MS, ID_NAMESPACE, MAX_ID_CHARACTERS

try:
    from taskbridge.native._native import Edge as _Edge
except ImportError:  # installed without the extra `native`
    _Edge = None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from taskbridge.edge.decision.callbacks import Callback
    from taskbridge.edge.request import Received
    from taskbridge.edge.verification.credentials import Credentials, CredentialsFile, Token
    from taskbridge.native._native import Edge
    from taskbridge.schemas.events import TaskEvent

YIDA_PATHS = {f"/yida/tasks/{action}": action for action in ACTIONS}
_BELOW = "/sources/{source}/tasks"
SOURCE_PATHS = {_BELOW: PUSH} | {f"{_BELOW}/{action}": action for action in ACTIONS}

_SLASHES = re.compile("//+")
_CALLBACK_PATHS = re.compile(r"/(?:yida|sources)(?:/.*)?", re.DOTALL)
_OF_SOURCE = re.compile(rf"/sources/([^/]+)/tasks(?:/({'|'.join(ACTIONS)}))?")


def action_of(path: str) -> str | None:
    """The action of the path; ``UNKNOWN`` if it may have been meant as a callback's, None if not."""
    action = YIDA_PATHS.get(path)
    if action is not None:
        return action
    plain = _plain(path)
    found = _OF_SOURCE.fullmatch(plain)
    if found is not None:
        return found[2] or PUSH
    return YIDA_PATHS.get(plain, UNKNOWN) if _CALLBACK_PATHS.fullmatch(plain) else None


def source_of(path: str) -> str | None:
    """The other system that the path names, None for Yida. It is not verified."""
    if path in YIDA_PATHS:
        return None
    found = _OF_SOURCE.fullmatch(_plain(path))
    return None if found is None else found[1]


def _plain(path: str) -> str:
    """The path without what people mistype: upper case, doubled and trailing slashes."""
    return _SLASHES.sub("/", path.lower()).rstrip("/")


_PACKED = ("br", "compress", "deflate", "zstd")


def _ignore(_: object) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The settings for decisions, in addition to the credentials."""

    max_body_bytes: int
    bearer_tokens: Sequence[str] = ()
    delete_extra_keys: Iterable[str] = ()
    token_used: Callable[[Token], None] = _ignore
    """Called with the token that signed a request."""
    reading_used: Callable[[ReadingKind], None] = _ignore
    """Called with the reading that an app signed."""
    skipped: Callable[[str], None] = _ignore
    """Called with each optional field that could not be parsed."""


def interpret(received: Received, credentials: Credentials, rules: Rules) -> Decided:
    """The event of the request. Claim its signature before it is published: ``replays.claim``.

    Raises Rejection as ``proven_event``.
    """
    event, other_scheme = proven_event(received, credentials, rules)
    return Decided.of(event, mark_of(event), other_scheme=other_scheme)


def proven_event(received: Received, credentials: Credentials, rules: Rules) -> tuple[TaskEvent, bool]:
    """The event, not encoded, and whether the request also has the signature of another feature of Yida.

    Raises:
        Rejection: It cannot be parsed, or not verified. Malformed comes before unverified, and that before a verified
            but incomplete callback. Of several readings, the first that names an app counts.
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
        event = event_of(callback, signed, received_at=received.received_at, skipped=rules.skipped)
    except Rejection as rejection:
        rejection.app_type, rejection.proven = callback.app_type, True
        raise
    return event, callback.other_scheme


def _of_source(received: Received, name: str, credentials: Credentials, rules: Rules) -> TaskEvent:
    """The event of another system. Nothing is parsed before it is verified, so unverified comes before malformed."""
    source = credentials.source(name)
    if source is None:
        raise Unverified("unknown-source")
    proven = False
    try:
        body = unpacked(received.body, max_bytes=rules.max_body_bytes)
        rules.token_used(source_events.verify(received, body, source))
        proven = True
        return source_events.event_of(received, body, source, skipped=rules.skipped)
    except Rejection as rejection:
        rejection.app_type, rejection.proven = name, proven and not isinstance(rejection, Unverified)
        raise


def _proven(
    received: Received, body: bytes, credentials: Credentials, rules: Rules
) -> tuple[Callback, Mapping[str, str]]:
    """The callback in the first reading that its app signed, and the signed parameters."""
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
            rules.token_used(token)
            rules.reading_used(reading.kind)
            return callback, reading.signed
    assert refused is not None, "there is at least one reading, or an error"
    raise refused


IS_BUILT = _Edge is not None
_PLAIN = ReadingKind.PLAIN  # an enumeration's lookup calls Python


class Decision:
    """Decides by the current credentials and the rules, in the native core where possible.

    The core (``native/src/edge``) leaves every unusual request to ``interpret``, which is its specification and has the
    last word. An event counts once its signature is claimed.
    """

    def __init__(self, *, credentials: CredentialsFile, rules: Rules) -> None:
        self.rules = rules
        self.core = "native" if IS_BUILT else "python"
        self._file = credentials
        self._known: Credentials | None = None
        self._core: Edge | None = None

    def decide(self, received: Received) -> Decided:
        """The event of the request. Raises Rejection as ``interpret``."""
        return self.decide_natively(received) or interpret(received, self._file.current, self.rules)

    def decide_natively(self, received: Received) -> Decided | None:
        """The event of a callback of Yida; None where the core leaves the decision to ``interpret``."""
        core, headers, bearers = self._in_force(), received.headers, self.rules.bearer_tokens
        # The core does not check bearer tokens.
        if (
            core is None
            or received.path not in YIDA_PATHS
            or (bearers and bearer_fault(headers.get("authorization"), bearers))
        ):
            return None
        content_type = headers.get("content-type")
        found = core.decide(received.wire_action, received.query, content_type, received.body, received.received_at)
        if found is None:
            return None
        event_id, app_type, key, record_headers, avro, digest, signer = found
        assert self._known is not None, "the core was built from them"
        self.rules.token_used(self._known.signers(app_type)[signer][1])
        self.rules.reading_used(_PLAIN)  # the core leaves all others to Python
        return Decided(
            event_id=event_id,
            app_type=app_type,
            sender=app_type,
            key=key,
            headers=record_headers,
            body=avro,
            mark=Mark.of(digest, event_id, ACTIONS[received.wire_action]),
        )

    def _in_force(self) -> Edge | None:
        credentials = self._file.current
        if credentials is not self._known:
            self._known, self._core = credentials, core_of(credentials)
        return self._core


def core_of(credentials: Credentials) -> Edge | None:
    """The core for these credentials; None if it is not installed."""
    return _Edge and _Edge(
        {
            app_type: [(app.corp_id, token.secret.get_secret_value()) for app, token in credentials.signers(app_type)]
            for app_type in credentials.app_types
        },
        id_characters=MAX_ID_CHARACTERS,
        ahead_ms=AHEAD_MS,
        id_namespace=ID_NAMESPACE,
        specversion=SPECVERSION,
        content_type=CONTENT_TYPE,
        event_types=[EVENT_TYPES[action] for action in ACTIONS.values()],
    )
