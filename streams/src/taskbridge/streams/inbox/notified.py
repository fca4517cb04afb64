"""What the inbox agent tells its listeners."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from taskbridge.schemas.events import TaskNotification


class Notified(NamedTuple):
    """A notification that is in its recipient's inbox now, and where it stands on its partition."""

    offset: int
    corp_id: str
    user_id: str
    notification: TaskNotification
