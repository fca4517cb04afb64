"""Reads a form's instances by the time of their modification, and moves its cursor behind what was read whole."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

from taskbridge.reconcile.dingtalk.api import By, Days
from taskbridge.reconcile.dingtalk.moments import DAY_MS, day_of, day_start_ms
from taskbridge.reconcile.kept.cursors import Cursor, Place

if TYPE_CHECKING:
    from taskbridge.reconcile.dingtalk import wire
    from taskbridge.reconcile.runs.mending import Mender

_SLICE_DAYS = 28
_LONG_DAYS = 7
_SLICE_ROWS = 2000
"""A slice of more is halved: what is given up before its end is read again from its beginning."""


async def read_form(mender: Mender, form: wire.Form, since_ms: int) -> None:
    """Look at whatever of the form was modified from ``since_ms``, or from the cursor on, until now.

    Days are DingTalk's: a day more is asked for at both ends, which is also what readings overlap by. What was
    modified just before our states were read, or since, is left behind the cursor.

    Raises:
        Later, Refused, Unexpected: calls do; what was read before stands, and the cursor at the end of that.
    """
    settled_ms = mender.kept.states.current_ms - mender.rules.settle_ms
    place = Place(mender.work, mender.api.app.corp_id, mender.api.app.app_type, form.form_uuid)
    cursors = mender.kept.cursors
    cursor = cursors.find(place)
    if cursor is None or cursor.since_ms > since_ms:
        cursor = Cursor(since_ms, since_ms)
    first = day_of(cursor.until_ms - DAY_MS)
    last = day_of(mender.clock.now_ms() + DAY_MS)
    while first <= last:
        days = await _slice(mender, form, Days(first, last))
        async for rows in mender.api.instances(form.form_uuid, days, by=By.MODIFIED):
            await mender.look_at(rows, _name(form))
        if (error := mender.not_understood) is not None:
            mender.not_understood = None
            raise error
        until_ms = min(day_start_ms(days.last), settled_ms)
        cursor = Cursor(cursor.since_ms, max(cursor.until_ms, until_ms))
        cursors.move(place, cursor)
        first = _plus(days.last, 1)


async def _slice(mender: Mender, form: wire.Form, days: Days) -> Days:
    """The first of these days, no more than are read in one go."""
    last = min(days.last, _plus(days.first, _SLICE_DAYS - 1))
    while _length(days.first, last) > _LONG_DAYS:
        count = await mender.api.count(form.form_uuid, Days(days.first, last), by=By.MODIFIED)
        if count <= _SLICE_ROWS:
            break
        last = _plus(days.first, _length(days.first, last) // 2 - 1)
    return Days(days.first, last)


def _length(first: str, last: str) -> int:
    return (date.fromisoformat(last) - date.fromisoformat(first)).days + 1


def _plus(day: str, days: int) -> str:
    return (date.fromisoformat(day) + timedelta(days=days)).isoformat()


def _name(form: wire.Form) -> str | None:
    return None if form.title is None else form.title.in_chinese or form.title.in_english
