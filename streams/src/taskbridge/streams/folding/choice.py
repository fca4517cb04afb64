"""Which implementation folds: the native core wherever it was built."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from taskbridge.schemas.codec import task_event_head_codec, task_notification_codec, task_state_codec
from taskbridge.streams.folding.native import IS_BUILT, NativeFolding
from taskbridge.streams.folding.python import PythonFolding

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from taskbridge.schemas.registry import Registry
    from taskbridge.streams.folding.folding import Folding

log = structlog.get_logger(__name__)


def choose_folding(registry: Registry, *, cached_instances: int, form_fields: AbstractSet[str]) -> Folding:
    """The native core, or the Python implementation with a warning: it gives the same, and takes many times as long."""
    if not IS_BUILT:
        log.warning(
            "native_core_not_built",
            effect="events are folded in Python: as right, and far slower",
            remedy="install taskbridge-streams[native]; in a checkout: make native, with Rust from https://rustup.rs",
        )
    folding = NativeFolding if IS_BUILT else PythonFolding
    return folding(
        events=task_event_head_codec(registry, with_form=bool(form_fields)),
        states=task_state_codec(registry),
        notifications=task_notification_codec(registry),
        cached_instances=cached_instances,
        form_fields=form_fields,
    )
