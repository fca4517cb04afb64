"""The native core in Rust, and the choice of a core. What the native core cannot decode is decoded here, in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from taskbridge.schemas.cloudevents import CONTENT_TYPE, NOTIFICATION_TYPES, SPECVERSION, STATE_CHANGED, STATE_DELETED
from taskbridge.schemas.codec import task_event_head_codec, task_notification_codec, task_state_codec
from taskbridge.schemas.errors import RecordError
from taskbridge.schemas.events import AHEAD_MS, FIRST_MS, ID_NAMESPACE, LAST_MS, MAX_ID_CHARACTERS, Action, Change, View
from taskbridge.streams.fold.core import NONE, Core, Folded, Read
from taskbridge.streams.fold.instance import EVERY_FIELD, FORM_BYTES
from taskbridge.streams.fold.python import PythonCore
from taskbridge.streams.fold.rejections import Refusal, Rejected
from taskbridge.streams.fold.stored_instance import age_of, are_events_lost, pack, unpack
from taskbridge.streams.records import Chunk, native

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from taskbridge.schemas.registry import Registry

log = structlog.get_logger(__name__)

IS_BUILT = native is not None

RULES: dict[str, Any] = {
    "id_characters": MAX_ID_CHARACTERS,
    "moments": (FIRST_MS, LAST_MS),
    "ahead_ms": AHEAD_MS,
    "form_bytes": FORM_BYTES,
    "every_field": EVERY_FIELD,
    "id_namespace": ID_NAMESPACE,
}

HEADERS: dict[str, Any] = {
    "specversion": SPECVERSION,
    "content_type": CONTENT_TYPE,
    "notification_types": [*NOTIFICATION_TYPES.values()],
    "state_changed": STATE_CHANGED,
    "state_deleted": STATE_DELETED,
}

CORE = native and native.Core(**RULES, **HEADERS)
_REFUSALS, _ACTIONS, _VIEWS, _CHANGES = tuple(Refusal), tuple(Action), tuple(View), tuple(Change)


def choose_core(registry: Registry, *, form_fields: AbstractSet[str]) -> Core:
    """The native core; if it was not built, the Python core and a warning, since it takes many times as long."""
    if not IS_BUILT:
        log.warning(
            "native_core_not_built",
            effect="events are folded in Python: as right, and far slower",
            remedy="install taskbridge-streams[native] where a wheel of it fits; in a checkout: make native",
        )
    core = NativeCore if IS_BUILT else PythonCore
    return core(
        events=task_event_head_codec(registry, with_form=bool(form_fields)),
        states=task_state_codec(registry),
        notifications=task_notification_codec(registry),
        form_fields=form_fields,
    )


class NativeCore(Core):
    name = "native"

    def fold(self, records: Chunk, read: Read, *, too_large: AbstractSet[int] = NONE) -> Folded:
        assert CORE is not None, "only used where it is built"
        folded = CORE.fold(
            records,
            own_frames=self.events.own_frames(),
            translate=self._translate,
            load=read,
            renew=self._renew,
            state_frame=self.states.frame(),
            notification_frame=self.notifications.frame(),
            now_ms=self.now_ms(),
            too_large=too_large,
            max_published_bytes=self.max_published_bytes,
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
            largest=folded.largest,
            unpublished=frozenset(folded.unpublished),
        )

    def _translate(self, value: bytes | None) -> bytes | RecordError:
        """An event written with another version's schema, encoded with ours; or why it cannot be decoded."""
        try:
            return self.events.encode_body(self.events.decode(value))
        except RecordError as reason:
            return reason

    def _renew(self, stored: bytes) -> bytes:
        """An instance stored with another version's schema, encoded with ours."""
        instance = unpack(stored, self.states)
        state = self.states.encode(instance.state)
        return pack(state, instance, now_ms=age_of(stored).written_ms, events_lost=are_events_lost(stored))
