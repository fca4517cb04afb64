"""Decides callbacks: in one call from a request to the verified event, without I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskbridge.edge.interpret import Rules, interpret

if TYPE_CHECKING:
    from taskbridge.edge.decided import Decided
    from taskbridge.edge.received import Received
    from taskbridge.edge.verification.credentials import CredentialsFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """By the credentials in force and the rules. What is decided counts once its mark is claimed."""

    credentials: CredentialsFile
    rules: Rules

    def of(self, received: Received) -> Decided:
        """What the request proves.

        Raises:
            Rejection: it proves nothing, see ``interpret``.
        """
        return self.at_once(
            received.wire_action,
            query=received.query,
            content_type=received.headers.get("content-type"),
            body=received.body,
            received_at=received.received_at,
        ) or interpret(received, self.credentials.current, self.rules)

    def at_once(
        self,
        wire_action: str,  # noqa: ARG002 - as all of these, for the core to come
        *,
        query: bytes,  # noqa: ARG002
        content_type: str | None,  # noqa: ARG002
        body: bytes,  # noqa: ARG002
        received_at: int,  # noqa: ARG002
    ) -> Decided | None:
        """What Yida's callback proves, without a look at anything else; None where ``of`` has to decide."""
        return None
