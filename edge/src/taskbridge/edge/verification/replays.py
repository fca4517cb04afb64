"""Remembers which event each verified signature stood for, so that it cannot be made to stand for another one.

Yida signs values only. Whoever sees one callback can send its values and its ``sign`` again at another action, under
other names, or cut at other places: every such copy has the digest of the original. The first event that a digest
proves is the one it stands for; a repetition of that event passes, for it changes nothing.

Other systems sign a message's id, and not which action it is posted at: of their messages the id stands for the event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from taskbridge.edge.decided import Mark
from taskbridge.edge.errors import Unverified
from taskbridge.edge.verification import webhooks
from taskbridge.edge.verification.signature import SIGN
from taskbridge.schemas.events import SOURCE_YIDA

if TYPE_CHECKING:
    from taskbridge.edge.decided import Decided
    from taskbridge.schemas.events import TaskEvent

CROSS_ACTION = "cross-action-replay"
ALTERED = "altered-replay"
"""The same action, but other parameters: a value was cut elsewhere, or a key renamed or added."""


class Window(Protocol):
    def claim(self, mark: Mark) -> Mark | None:
        """Remember the mark where its digest is new, else return the mark that has the digest."""
        ...


def claim(decided: Decided, window: Window) -> None:
    """Spend the signature on the event that it proved: before that is durable, for of two only one may get through.

    Raises:
        Unverified: the signature stands for another event, by the ``reason`` at another action or in other words.
    """
    mark = decided.mark
    known = mark and window.claim(mark)
    if mark is not None and known is not None and known.event != mark.event:
        refusal = _refusal(mark, known, other_scheme=decided.other_scheme)
        refusal.app_type = decided.sender
        raise refusal


def refuse_replay(event: TaskEvent, window: Window) -> None:
    """Claim the event's signature for it, or the id of its message. What has neither is nobody's copy.

    Raises:
        Unverified: as ``claim``.
    """
    mark = mark_of(event)
    known = mark and window.claim(mark)
    if mark is not None and known is not None and known.event != mark.event:
        raise _refusal(mark, known)


def _refusal(mark: Mark, known: Mark, *, other_scheme: bool = False) -> Unverified:
    refusal = Unverified(CROSS_ACTION, other_scheme=other_scheme)
    refusal.reason = ALTERED if known.action is mark.action else CROSS_ACTION
    return refusal


def mark_of(event: TaskEvent) -> Mark | None:
    if event.source == SOURCE_YIDA:
        digest = bytes.fromhex(event.raw_parameters[SIGN].strip())
    elif webhooks.ID in event.raw_parameters:
        # A sender signs each further attempt again. The message's id stays the same.
        digest = event.raw_parameters[webhooks.ID].encode()
    else:
        return None
    return Mark.of(digest, event.event_id, event.action, event.source)
