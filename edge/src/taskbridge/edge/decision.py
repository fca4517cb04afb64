"""Decides what a request proves: from its path and parameters to the verified event, without I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskbridge.edge import source_events
from taskbridge.edge.callbacks import ACTIONS, PUSH, UNKNOWN, event_of, locate
from taskbridge.edge.errors import Malformed, Rejection, UnknownPath, UnsupportedType, Unverified
from taskbridge.edge.events import Decided, Mark
from taskbridge.edge.parsing.parameters import readings, unpacked
from taskbridge.edge.verification.replays import mark_of
from taskbridge.edge.verification.signature import check_bearer, verify
from taskbridge.schemas.cloudevents import CONTENT_TYPE, EVENT_TYPES, SPECVERSION
from taskbridge.schemas.events import AHEAD_MS, ID_NAMESPACE, MAX_ID_CHARACTERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from taskbridge.edge.callbacks import Callback
    from taskbridge.edge.request import Received
    from taskbridge.edge.verification.credentials import Credentials, Token
    from taskbridge.schemas.events import TaskEvent

YIDA_PATHS = {f"/yida/tasks/{action}": action for action in ACTIONS}
_BELOW = "/sources/{source}/tasks"
SOURCE_PATHS = {_BELOW: PUSH} | {f"{_BELOW}/{action}": action for action in ACTIONS}

_SLASHES = re.compile("//+")
_DOORS = re.compile(r"/(?:yida|sources)(?:/.*)?", re.DOTALL)
_OF_SOURCE = re.compile(rf"/sources/([^/]+)/tasks(?:/({'|'.join(ACTIONS)}))?")


def action_of(path: str) -> str | None:
    """The action that is posted there, ``UNKNOWN`` where it may have been meant as one, None where nothing was."""
    action = YIDA_PATHS.get(path)
    if action is not None:
        return action
    plain = _plain(path)
    found = _OF_SOURCE.fullmatch(plain)
    if found is not None:
        return found[2] or PUSH
    return YIDA_PATHS.get(plain, UNKNOWN) if _DOORS.fullmatch(plain) else None


def source_of(path: str) -> str | None:
    """The other system that is said to post there, None for Yida. Nothing of it is verified."""
    if path in YIDA_PATHS:
        return None
    found = _OF_SOURCE.fullmatch(_plain(path))
    return None if found is None else found[1]


def _plain(path: str) -> str:
    """Upper case, doubled and trailing slashes come of typing an address: what is meant is plain."""
    return _SLASHES.sub("/", path.lower()).rstrip("/")


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


try:
    from taskbridge.native._native import Edge as _Edge
except ImportError:  # installed without the extra `native`
    _Edge = None

if TYPE_CHECKING:
    from taskbridge.edge.request import Received
    from taskbridge.edge.verification.credentials import Credentials, CredentialsFile
    from taskbridge.native._native import Edge, Found

IS_BUILT = _Edge is not None


class Decision:
    """By the credentials in force and the rules. What is decided counts once its mark is claimed."""

    def __init__(self, *, credentials: CredentialsFile, rules: Rules) -> None:
        self.rules = rules
        self.core = "native" if IS_BUILT else "python"
        # Bearer tokens are asked of every callback, and the core knows nothing of them.
        self._is_native = IS_BUILT and not rules.bearer_tokens
        self._file = credentials
        self._known: Credentials | None = None
        self._core: Edge | None = None

    def of(self, received: Received) -> Decided:
        """What the request proves.

        Raises:
            Rejection: it proves nothing, see ``interpret``.
        """
        decided = None
        if received.path in YIDA_PATHS:
            decided = self.at_once(
                received.wire_action,
                query=received.query,
                content_type=received.headers.get("content-type"),
                body=received.body,
                received_at=received.received_at,
            )
        return decided or interpret(received, self._file.current, self.rules)

    def at_once(
        self, wire_action: str, *, query: bytes, content_type: str | None, body: bytes, received_at: int
    ) -> Decided | None:
        """What a callback at one of ``YIDA_PATHS`` proves; None where ``of`` has to decide, which may say the same."""
        core = self._in_force()
        found = core and core.decide(wire_action, query, content_type, body, received_at)
        return found and self.taken(wire_action, found)

    def of_whole(self, request: bytes, received_at: int) -> tuple[str, str | None, str | None, Found] | None:
        """What a request proves that is plain from its first byte on, as ``server.heads`` has it.

        Its action, the headers X-Forwarded-For and traceparent, and what is for ``taken``. None where its parts have to
        be looked at, which may say the same.
        """
        core = self._in_force()
        return core and core.decide_request(request, received_at)

    def taken(self, wire_action: str, found: Found) -> Decided:
        """What the core found just now; from here on the token that signed it counts as used."""
        event_id, app_type, key, headers, avro, digest, signer = found
        # By the credentials that the core was built from: the file may have been reloaded in between.
        assert self._known is not None, "the core was built from them"
        self.rules.used(self._known.signers(app_type)[signer][1])
        return Decided(
            event_id=event_id,
            app_type=app_type,
            sender=app_type,
            key=key,
            headers=headers,
            body=avro,
            mark=Mark.of(digest, event_id, ACTIONS[wire_action]),
        )

    def _in_force(self) -> Edge | None:
        credentials = self._file.current
        if credentials is not self._known:
            self._known, self._core = credentials, core_of(credentials) if self._is_native else None
        return self._core


def core_of(credentials: Credentials) -> Edge | None:
    """The core for these credentials, where it is built."""
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
