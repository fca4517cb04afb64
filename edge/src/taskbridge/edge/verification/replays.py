"""Remembers which event each verified signature stood for, so that it cannot be made to stand for another one.

Yida signs values only. Whoever sees one callback can send its values and its ``sign`` again at another action, under
other names, or cut at other places: every such copy has the digest of the original. The first event that a digest
proves is the one it stands for; a repetition of that event passes, for it changes nothing.

Other systems sign a message's id, and not which action it is posted at: of their messages the id stands for the event.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

from taskbridge.edge.decided import Mark
from taskbridge.edge.errors import Unverified
from taskbridge.edge.verification import webhooks
from taskbridge.edge.verification.signature import SIGN
from taskbridge.schemas.events import SOURCE_YIDA

if TYPE_CHECKING:
    from taskbridge.edge.decided import Decided
    from taskbridge.native._native import ReplayWindow
    from taskbridge.schemas.events import TaskEvent

CROSS_ACTION = "cross-action-replay"
ALTERED = "altered-replay"
"""The same action, but other parameters: a value was cut elsewhere, or a key renamed or added."""

_DIGEST_BYTES = 16


class Window(Protocol):
    @property
    def core(self) -> ReplayWindow | None:
        """Claims in the same window, where it can."""
        ...

    def claim(self, mark: Mark) -> Mark | None:
        """Remember the mark where its digest is new, else return what the digest stands for."""
        ...


def claim(decided: Decided, window: Window) -> None:
    """Spend the signature on the event that it proved: before that is durable, for of two only one may get through.

    Raises:
        Unverified: the signature stands for another event, by the ``reason`` at another action or in other words.
    """
    if decided.mark is not None:
        try:
            _claim(decided.mark, window, other_scheme=decided.other_scheme)
        except Unverified as refusal:
            refusal.app_type = decided.sender
            raise


def refuse_replay(event: TaskEvent, window: Window) -> None:
    """Claim the event's signature for it, or the id of its message. What has neither is nobody's copy.

    Raises:
        Unverified: as ``claim``.
    """
    mark = mark_of(event)
    if mark is not None:
        _claim(mark, window)


def _claim(mark: Mark, window: Window, *, other_scheme: bool = False) -> None:
    known = window.claim(mark)
    if known is not None and known.event != mark.event:
        refusal = Unverified(CROSS_ACTION, other_scheme=other_scheme)
        refusal.reason = ALTERED if known.action is mark.action else CROSS_ACTION
        raise refusal


def mark_of(event: TaskEvent) -> Mark | None:
    if event.source == SOURCE_YIDA:
        digest = bytes.fromhex(event.raw_parameters[SIGN].strip())
    elif webhooks.ID in event.raw_parameters:
        # Each new attempt of a sender is signed anew. What stays is the message's id.
        named = f"{event.source}\0{event.raw_parameters[webhooks.ID]}"
        digest = hashlib.sha256(named.encode()).digest()[:_DIGEST_BYTES]
    else:
        return None
    return Mark.of(digest, event.event_id, event.action)
