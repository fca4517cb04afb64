"""What events add up to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.schemas.views import views
from taskbridge.streams.fold.instance import fold

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskbridge.schemas.events import TaskEvent, View


def lists_of(events: Iterable[TaskEvent]) -> set[tuple[str, View, str | None]]:
    """Person, view and task of each entry."""
    instance = None
    for each in events:
        instance = fold(instance, each)
    return {(key.user_id, key.view, key.task_id) for key in views(instance.state)} if instance else set()
