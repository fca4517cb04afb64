"""Decides callbacks, from a request to the verified event, without I/O: by the native core, ``native/src/edge``.

Whatever the core does not take, refusals of every kind among it, ``interpret`` decides from the start: it is the core's
specification, and has the last word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.edge.callbacks import ACTIONS
from taskbridge.edge.decided import Decided, Mark
from taskbridge.edge.deciding.interpret import Rules, interpret
from taskbridge.edge.deciding.paths import YIDA_PATHS
from taskbridge.schemas.cloudevents import CONTENT_TYPE, EVENT_TYPES, SPECVERSION
from taskbridge.schemas.events import AHEAD_MS, ID_NAMESPACE, MAX_ID_CHARACTERS

try:
    from taskbridge.native._native import Edge as _Edge
except ImportError:  # installed without the extra `native`
    _Edge = None

if TYPE_CHECKING:
    from taskbridge.edge.received import Received
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
