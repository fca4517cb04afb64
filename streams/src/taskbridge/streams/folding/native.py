"""Chunks folded by the native core, ``streams/native``. What it cannot read by itself is read here, in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.schemas.errors import RecordError
from taskbridge.schemas.events import Action, Change, View
from taskbridge.streams.fold.chunk import Rejected
from taskbridge.streams.fold.rejections import (
    AnotherApp,
    AnotherCorp,
    MisplacedKey,
    OutsideContract,
    TooLarge,
    UnknownAction,
)
from taskbridge.streams.fold.stored_instance import age_of, event_offsets, pack, unpack
from taskbridge.streams.folding.folding import NONE, Folded, Folding

try:
    from taskbridge.native import _native
except ImportError:  # installed without the extra `native`
    _native = None

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from taskbridge.streams.folding.folding import Read
    from taskbridge.streams.records import Chunk

IS_BUILT = _native is not None

_REFUSALS: dict[str, type[RecordError]] = {
    error.__name__: error for error in (OutsideContract, MisplacedKey, UnknownAction, AnotherCorp, AnotherApp, TooLarge)
}


class NativeFolding(Folding):
    """Its instances in memory are the bytes that the store holds: one buffer each."""

    core = "native"

    def fold(self, records: Chunk, read: Read, *, generation: int, too_large: AbstractSet[int] = NONE) -> Folded:
        assert _native is not None, "only made where it is built"
        folded = _native.fold_chunk(
            records,
            own_frames=self._events.own_frames(),
            translate=self._translate,
            load=lambda keys: self._cache.find(keys, read, generation=generation),
            renew=self._renew,
            state_frame=self._states.frame(),
            notification_frame=self._notifications.frame(),
            now_ms=self._now_ms(),
            too_large=too_large,
            most_told_bytes=self._most_told_bytes,
        )
        return Folded(
            stored=folded.stored,
            changelog=folded.changelog,
            states=folded.states,
            notifications=folded.notifications,
            rejected=[
                Rejected(records[at], why if isinstance(why, RecordError) else _REFUSALS[why[0]](why[1]))
                for at, why in folded.rejected
            ],
            actions={Action(action): count for action, count in folded.actions.items()},
            changes={(View(view), Change(change)): count for (view, change), count in folded.changes.items()},
            instances=folded.stored,
            largest=folded.largest,
            untold=frozenset(folded.untold),
        )

    def _translate(self, value: bytes | None) -> bytes | RecordError:
        """An event that another version's schema wrote, as ours writes it; or what is wrong with it.

        Raises:
            RegistryUnavailable: its schema was never seen before, and the registry does not answer.
        """
        try:
            return self._events.encode_body(self._events.decode(value))
        except RecordError as reason:
            return reason

    def _renew(self, stored: bytes) -> bytes:
        """An instance that another version's schema wrote, as ours writes it.

        Raises:
            StoreUnreadable: it is of another format, or damaged.
        """
        instance = unpack(stored, self._states)
        state = self._states.encode(instance.state)
        return pack(state, instance, event_offsets(stored), now_ms=age_of(stored).written_ms)
