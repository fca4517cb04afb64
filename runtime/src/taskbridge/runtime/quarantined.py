"""What lists show of quarantined callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskbridge.schemas.cloudevents import rfc3339

if TYPE_CHECKING:
    from taskbridge.schemas.events import QuarantinedCallback


def quarantined_summary(entry: QuarantinedCallback) -> dict[str, Any]:
    """What a list shows of a quarantined callback: nothing that a stranger wrote but ids, and no secrets.

    ``replayed_at`` is for who knows of the entry's replay.
    """
    return {
        "id": entry.quarantine_id,
        "received_at": rfc3339(entry.received_at),
        "action": entry.action,
        "reason": entry.reason,
        "app_type": entry.app_type,
        "remote_address": entry.remote_address,
        "replayed_at": None,
    }
