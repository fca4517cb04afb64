"""How reconcile stands, from what it keeps: for the command, for programs, and for whoever watches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskbridge.schemas.cloudevents import iso

if TYPE_CHECKING:
    from taskbridge.reconcile.assembly import Memory


def status_of(memory: Memory) -> dict[str, Any]:
    """Cursors, calls that are left, what was found missing by app and day, each app's last callback, absences.

    An absence waits for its second time.
    """
    kept, budget = memory.kept, memory.budget
    return {
        "last_pass_at": _iso(kept.found.last_pass_ms(whole=False)),
        "last_whole_pass_at": _iso(kept.found.last_pass_ms(whole=True)),
        "forms": [
            {**place._asdict(), "since": iso(cursor.since_ms), "read_until": iso(cursor.until_ms)}
            for place, cursor in kept.cursors.all()
        ],
        "calls": [
            {"corp_id": each, "today": used.day, "this_month": used.month, "left_today": budget.left(each)}
            for each, used in ((each, budget.used(each)) for each in memory.corp_ids)
        ],
        "found": [
            {
                "corp_id": each.corp_id,
                "app_type": each.app_type,
                "day": each.day,
                "kind": each.kind.value,
                "missing": each.is_lost,
                "found_by": each.work,
                "events": each.repairs,
            }
            for each in kept.found.counts()
        ],
        "callbacks": [
            {
                "corp_id": each.corp_id,
                "app_type": each.app_type,
                "last_at": iso(each.since_ms),
                "missing_since": each.missing,
            }
            for each in kept.callbacks.all()
        ],
        "absences": [
            {"corp_id": corp_id, "app_type": app_type, "instance_id": instance_id, "first_at": iso(first_ms)}
            for corp_id, app_type, instance_id, first_ms in kept.absences.all()
        ],
    }


def _iso(at_ms: int | None) -> str | None:
    return None if at_ms is None else iso(at_ms)
