"""Chunks folded by the native core, ``native``. What it cannot read by itself is read here, in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskbridge.schemas.cloudevents import CONTENT_TYPE, NOTIFICATION_TYPES, SPECVERSION, STATE_CHANGED, STATE_DELETED
from taskbridge.schemas.errors import RecordError
from taskbridge.schemas.events import AHEAD_MS, FIRST_MS, ID_NAMESPACE, LAST_MS, MAX_ID_CHARACTERS, Action, Change, View
from taskbridge.streams.fold.chunk import Rejected
from taskbridge.streams.fold.forms import EVERY_FIELD, FORM_BYTES
from taskbridge.streams.fold.rejections import Refusal
from taskbridge.streams.fold.remembered_offsets import MAX_OFFSETS
from taskbridge.streams.fold.stored_instance import age_of, event_offsets, pack, unpack
from taskbridge.streams.folding.folding import NONE, Folded, Folding
from taskbridge.streams.native_core import native

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from taskbridge.streams.folding.folding import Read
    from taskbridge.streams.records import Chunk

IS_BUILT = native is not None

RULES: dict[str, Any] = {
    "id_characters": MAX_ID_CHARACTERS,
    "moments": (FIRST_MS, LAST_MS),
    "ahead_ms": AHEAD_MS,
    "offsets": MAX_OFFSETS,
    "form_bytes": FORM_BYTES,
    "every_field": EVERY_FIELD,
    "id_namespace": ID_NAMESPACE,
}
"""The figures that every core is given which is to fold as Python does."""

HEADERS: dict[str, Any] = {
    "specversion": SPECVERSION,
    "content_type": CONTENT_TYPE,
    "notification_types": [*NOTIFICATION_TYPES.values()],
    "state_changed": STATE_CHANGED,
    "state_deleted": STATE_DELETED,
}
"""Those of its records that are always the same."""

CORE = native and native.Core(**RULES, **HEADERS)
_REFUSALS, _ACTIONS, _VIEWS, _CHANGES = tuple(Refusal), tuple(Action), tuple(View), tuple(Change)


class NativeFolding(Folding):
    """Its instances in memory are the bytes that the store holds: one buffer each."""

    core = "native"

    def fold(self, records: Chunk, read: Read, *, generation: int, too_large: AbstractSet[int] = NONE) -> Folded:
        assert CORE is not None, "only made where it is built"
        folded = CORE.fold(
            records,
            own_frames=self.events.own_frames(),
            translate=self._translate,
            load=lambda keys: self._cache.find(keys, read, generation=generation),
            renew=self._renew,
            state_frame=self.states.frame(),
            notification_frame=self.notifications.frame(),
            now_ms=self.now_ms(),
            too_large=too_large,
            told_bytes=self.most_told_bytes,
            form_fields=self.form_fields,
        )
        return Folded(
            stored=folded.stored,
            changelog=folded.changelog,
            states=folded.states,
            notifications=folded.notifications,
            causes=lambda: folded.causes,
            rejected=[
                Rejected(records[at], why if isinstance(why, RecordError) else _REFUSALS[why[0]].error(*why[1]))
                for at, why in folded.rejected
            ],
            actions={action: count for action, count in zip(_ACTIONS, folded.actions, strict=True) if count},
            changes={
                (view, change): count
                for view, counts in zip(_VIEWS, folded.changes, strict=False)
                for change, count in zip(_CHANGES, counts, strict=False)
                if count
            },
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
            return self.events.encode_body(self.events.decode(value))
        except RecordError as reason:
            return reason

    def _renew(self, stored: bytes) -> bytes:
        """An instance that another version's schema wrote, as ours writes it.

        Raises:
            StoreUnreadable: it is of another format, or damaged.
        """
        instance = unpack(stored, self.states)
        state = self.states.encode(instance.state)
        return pack(state, instance, event_offsets(stored), now_ms=age_of(stored).written_ms)
