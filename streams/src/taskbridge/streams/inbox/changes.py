"""What a chunk of notifications does to the keys of people's inboxes: see ``streams.inbox.layout``. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.schemas.dead_letters import DlqReason
from taskbridge.schemas.errors import RecordError
from taskbridge.schemas.events import Change, View, notification_key
from taskbridge.schemas.topics import USUAL_MESSAGE_BYTES
from taskbridge.streams.fold.rejections import TooLarge, check_moment
from taskbridge.streams.inbox import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from taskbridge.schemas.events import TaskNotification

Values = dict[bytes, "bytes | None"]


class UnknownView(RecordError):
    """The notification is about a view or a change that this version does not know."""

    dlq_reason = DlqReason.UNKNOWN_VIEW


class MisplacedNotification(RecordError):
    """The record's key is not its notification's corp and recipient, so their inbox may live on another partition."""

    dlq_reason = DlqReason.MISPLACED_NOTIFICATION


def check(notification: TaskNotification, key: bytes | None, *, size: int) -> None:
    """Refuse notifications that no inbox can store.

    Raises:
        UnknownView: of a newer schema.
        OutsideContract: of a moment that the API could not write.
        TooLarge: ids are in an inbox's keys, with up to twice their bytes: it might not fit into a record.
        MisplacedNotification: under another person's key.
    """
    check_moment("occurred_at", notification.occurred_at)
    if notification.entered_at is not None:
        check_moment("entered_at", notification.entered_at)
    if notification.updated_at is not None:
        check_moment("updated_at", notification.updated_at)
    if notification.finished_at is not None:
        check_moment("finished_at", notification.finished_at)
    if size > USUAL_MESSAGE_BYTES:
        raise TooLarge(f"a notification of {size} bytes; ours have at most {USUAL_MESSAGE_BYTES}")
    if notification.view is View.UNKNOWN or notification.change is Change.UNKNOWN:
        raise UnknownView(f"view {notification.view}, change {notification.change}")
    if key != notification_key(notification.corp_id, notification.recipient_id):
        raise MisplacedNotification("the record's key is not its notification's corp_id and recipient_id")


def keys_read(notifications: Iterable[TaskNotification]) -> list[bytes]:
    """Every key that ``inbox_changes`` will read, so that they can be read together."""
    keys: set[bytes] = set()
    for each in notifications:
        user = layout.user_part(each.corp_id, each.recipient_id)
        keys.add(layout.counts_key(user))
        keys.add(layout.line_key(user, each.view, layout.line_part(each.instance_id, each.task_id)))
    return list(keys)


def inbox_changes(notifications: Iterable[TaskNotification], *, stored: Callable[[bytes], bytes | None]) -> Values:
    """The keys to be written, None for those that go, when these arrive in this order at what is ``stored``.

    A line stands where its notification says, and moves when that says another time. Notifications of older versions
    say none: then a line that is there stays, and one that is not enters at the time of the notification, also of an
    update. What goes that is not there changes nothing.
    """
    changed: Values = {}

    def now(key: bytes) -> bytes | None:
        return changed[key] if key in changed else stored(key)

    for each in notifications:
        user = layout.user_part(each.corp_id, each.recipient_id)
        suffix = layout.line_part(each.instance_id, each.task_id)
        line_key = layout.line_key(user, each.view, suffix)
        entered = now(line_key)
        if each.change is Change.REMOVED:
            if entered is None:
                continue
            changed[line_key] = None
            changed[layout.entry_key(user, each.view, layout.Line(layout.read_time(entered), suffix))] = None
            _count(changed, now, user, each.view, -1)
            continue
        was_at = None if entered is None else layout.read_time(entered)
        entered_at = each.entered_at
        if entered_at is None:
            entered_at = each.occurred_at if was_at is None else was_at
        if entered_at != was_at:
            changed[line_key] = layout.write_time(entered_at)
            if was_at is None:
                _count(changed, now, user, each.view, 1)
            else:
                changed[layout.entry_key(user, each.view, layout.Line(was_at, suffix))] = None
        entry_key = layout.entry_key(user, each.view, layout.Line(entered_at, suffix))
        changed[entry_key] = layout.write_item(layout.item_of(each, entered_at=entered_at))
    return changed


def _count(changed: Values, now: Callable[[bytes], bytes | None], user: bytes, view: View, difference: int) -> None:
    key = layout.counts_key(user)
    counts = list(layout.read_counts(now(key)))
    counts[layout.VIEWS.index(view)] += difference
    changed[key] = layout.write_counts((counts[0], counts[1], counts[2], counts[3]))
