"""Remembers which event each verified signature stood for, so that it cannot be made to stand for another one.

Yida signs values only. Whoever sees one callback can send its values and its ``sign`` again at another action, under
other names, or cut at other places: every such copy has the digest of the original. The first event that a digest
proves is the one it stands for; a repetition of that event passes, for it changes nothing.

Other systems sign a message's id, and not which action it is posted at: of their messages the id stands for the event.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple, Protocol

from taskbridge.edge.errors import Unverified
from taskbridge.edge.verification import webhooks
from taskbridge.edge.verification.signature import SIGN
from taskbridge.schemas.events import SOURCE_YIDA

if TYPE_CHECKING:
    from taskbridge.schemas.events import Action, TaskEvent

CROSS_ACTION = "cross-action-replay"
ALTERED = "altered-replay"
"""The same action, but other parameters: a value was cut elsewhere, or a key renamed or added."""

_EVENT_DIGITS = len("01234567-89ab-cdef")
_DIGEST_BYTES = 16


class Mark(NamedTuple):
    """One verified digest, and the event that it proved."""

    digest: bytes
    event: bytes
    """The first eight bytes of its id, which covers the action and every parameter."""
    action: Action


class Window(Protocol):
    def claim(self, mark: Mark) -> Mark | None:
        """Remember the mark where its digest is new, else return what the digest stands for."""
        ...


def refuse_replay(event: TaskEvent, window: Window, *, other_scheme: bool = False) -> None:
    """Claim the event's signature for it, or the id of its message. What has neither is nobody's copy.

    Raises:
        Unverified: the signature stands for another event, by the ``reason`` at another action or in other words.
    """
    if event.source != SOURCE_YIDA and webhooks.ID not in event.raw_parameters:
        return
    mark = mark_of(event)
    known = window.claim(mark)
    if known is not None and known.event != mark.event:
        refusal = Unverified(CROSS_ACTION, other_scheme=other_scheme)
        refusal.reason = ALTERED if known.action is mark.action else CROSS_ACTION
        raise refusal


def mark_of(event: TaskEvent) -> Mark:
    if event.source == SOURCE_YIDA:
        digest = bytes.fromhex(event.raw_parameters[SIGN].strip())
    else:
        # Each new attempt of a sender is signed anew. What stays is the message's id.
        named = f"{event.source}\0{event.raw_parameters[webhooks.ID]}"
        digest = hashlib.sha256(named.encode()).digest()[:_DIGEST_BYTES]
    return Mark(digest, bytes.fromhex(event.event_id[:_EVENT_DIGITS].replace("-", "")), event.action)
