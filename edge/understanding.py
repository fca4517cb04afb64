"""Turns a request into the event that it proves: the one code for a live callback and for one out of the quarantine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.callbacks import event_of, locate
from edge.errors import Rejection, UnsupportedType
from edge.parsing.parameters import read_parameters
from edge.proof.replays import refuse_replay
from edge.proof.verification import check_bearer, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from edge.proof.credentials import Credentials, Token
    from edge.proof.replays import Window
    from edge.server.requests import Received
    from schemas.events import TaskEvent


def understand(
    received: Received,
    *,
    credentials: Credentials,
    bearer_tokens: Sequence[str],
    delete_extra_keys: Iterable[str],
    window: Window,
    used: Callable[[Token], None] | None = None,
) -> TaskEvent:
    """The event that the request reports; its signature is then spent on this event. ``used`` is told whose it is.

    Raises:
        Rejection: it cannot be understood, or not be proven. What is not understood at all wins over what is not
            proven, and that over what is proven but incomplete.
    """
    # Never unpacked: a kilobyte of gzip can be a gigabyte.
    if received.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise UnsupportedType("content-encoding", "Send the body as it is, not compressed.")
    readings = read_parameters(received.query, received.headers.get("content-type"), received.body)
    callback = locate(received.wire_action, readings[0])
    try:
        check_bearer(received.headers.get("authorization"), bearer_tokens, callback)
        verified = verify(callback, readings, credentials=credentials, delete_extra_keys=delete_extra_keys, used=used)
        event = event_of(callback, verified, received_at=received.received_at)
        # Before it is durable: two actions that arrive at the same moment must not both get through.
        refuse_replay(event, window, other_scheme=callback.other_scheme)
    except Rejection as rejection:
        rejection.app_type = callback.app_type
        raise
    return event
