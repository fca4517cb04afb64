"""Instances that DingTalk no longer shows: asked for by id, and deleted only after it said twice that there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from taskbridge.reconcile.dingtalk.errors import Absent
from taskbridge.reconcile.kept.states import GONE
from taskbridge.reconcile.repairs.events import deletion

if TYPE_CHECKING:
    from taskbridge.reconcile.runs.mending import Mender

_SUSPICIOUS = 10
"""Where none of so many is there, it is the one in whose name is asked who may not see them any more."""

_log = structlog.stdlib.get_logger(__name__)


async def look_for_deleted(mender: Mender) -> None:
    """Ask again for what was absent a day ago, then for what was not seen for long. Raises what calls may."""
    app, kept, now_ms = mender.api.app, mender.kept, mender.clock.now_ms()
    for instance_id in kept.absences.due(app.corp_id, app.app_type, now_ms=now_ms):
        if kept.states.find(instance_id) in (None, GONE):
            kept.absences.seen(app.corp_id, app.app_type, instance_id)
        else:
            await _ask(mender, instance_id)
    ids = kept.states.unseen(app.corp_id, app.app_type, now_ms=now_ms, most=mender.rules.ids_a_pass)
    shown = await mender.api.instances_by_id(ids)
    kept.states.seen(shown, now_ms=now_ms)
    for instance_id in shown:
        kept.absences.seen(app.corp_id, app.app_type, instance_id)
    if not shown and len(ids) >= _SUSPICIOUS:
        _log.warning("no_instances_visible", app_type=app.app_type, instances=len(ids), user_id=app.user_id)
        return
    for instance_id in ids:
        if instance_id not in shown:
            await _ask(mender, instance_id)


async def _ask(mender: Mender, instance_id: str) -> None:
    app, kept, now_ms = mender.api.app, mender.kept, mender.clock.now_ms()
    try:
        await mender.api.instance(instance_id)
    except Absent:
        first_ms = kept.absences.absent(app.corp_id, app.app_type, instance_id, now_ms=now_ms)
    else:
        first_ms = None
        kept.absences.seen(app.corp_id, app.app_type, instance_id)
    kept.states.seen([instance_id], now_ms=now_ms)
    if first_ms is not None:
        await mender.deliver(
            [deletion(app.corp_id, app.app_type, instance_id, first_absent_ms=first_ms, received_at=now_ms)]
        )
        kept.absences.seen(app.corp_id, app.app_type, instance_id)
