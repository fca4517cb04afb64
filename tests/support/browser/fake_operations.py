"""The fake's answers for the operator's page: a bridge after a bad quarter of an hour."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

WORKERS = ("http://10.0.0.11:8510", "http://10.0.0.12:8510", "http://10.0.0.13:8510")
REPLICAS = ("center-0:8500", "center-1:8500")

WEBHOOKS: dict[str, Any] = {
    "services": [
        {"url": "http://10.0.0.41:8700", "reachable": True, "ready": True, "problem": None, "lag_records": 1204},
    ],
    "endpoints": [
        {
            "id": "erp",
            "url": "https://erp.example/…",
            "format": "notification",
            "state": "failing",
            "disabled": None,
            "failing_since": "2026-01-31T08:00:00.000Z",
            "waiting": 2310,
            "oldest_s": 95.2,
            "given_up": 3,
            "attempts": 100,
            "delivered": 41,
            "failures": [
                {
                    "id": 7,
                    "webhook_id": "0d6f",
                    "at": "2026-01-31T08:00:00.000Z",
                    "outcome": "given_up",
                    "attempts": 10,
                    "attempted_at": "2026-01-31T08:00:05.000Z",
                    "status": 500,
                    "problem": "500 <script>alert(1)</script>" + "x" * 200,
                }
            ],
        },
        {
            "id": "robot",
            "url": "https://oapi.example/…",
            "format": "template",
            "state": "disabled",
            "disabled": "it answered 410 Gone",
            "failing_since": None,
            "waiting": 0,
            "oldest_s": 0.0,
            "given_up": 0,
            "attempts": 0,
            "delivered": 0,
            "failures": [],
        },
    ],
}
"""An endpoint that fails, and one that is disabled."""

REPLAYED = 1
"""Which of the rejected callbacks was replayed."""


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _flow(base: float, phase: float) -> list[int]:
    return [round(base * (1 + 0.5 * math.sin(minute / 9 + phase) + 0.12 * ((minute * 7) % 5))) for minute in range(60)]


def overview(
    now: datetime, *, dead_workers: int = 0, rejected: int = 5, not_in_force: str | None = None
) -> dict[str, Any]:
    """Equal at every call except for ``at``. The last ``dead`` workers are dead, and no other has taken over."""
    found = _all_alive(now)
    if not_in_force is not None:
        found["edges"][1].update(degraded=True, problem=f"credentials: {not_in_force}")
        found["workers"][0]["problem"] = not_in_force
    found["quarantine"]["latest"] = [_rejected(now, number) for number in range(rejected)]
    for worker in found["workers"][len(WORKERS) - dead_workers :]:
        found["partitions"] = [each for each in found["partitions"] if each["worker"] != worker["url"]]
        unknown = dict.fromkeys(("lag_records", "since"))
        worker.update(unknown, reachable=False, ready=False, active=[], standby=[])
    return found


def _rejected(now: datetime, number: int) -> dict[str, Any]:
    return {
        "id": f"q-{number}",
        "received_at": _iso(now - timedelta(minutes=3 + 11 * number)),
        "action": ("create", "complete", "cc", "create", "unknown")[number % 5],
        "reason": ("wrong-sign", "unknown-app", "no-app", "wrong-sign", "unknown-path")[number % 5],
        "app_type": "APP_FNXK2201QW8810" if number % 2 else None,
        "remote_address": "203.0.113.7",
        "replayed_at": _iso(now - timedelta(minutes=1)) if number == REPLAYED else None,
    }


def _all_alive(now: datetime) -> dict[str, Any]:
    times = [_iso(now - timedelta(minutes=59 - minute)) for minute in range(60)]
    outage = [max(0, 900 - abs(minute - 38) * 150) for minute in range(60)]
    return {
        "at": _iso(datetime.now(UTC)),
        "flow": {
            "minutes": times,
            "actions": {
                "CREATED": _flow(42, 0),
                "COMPLETED": _flow(35, 0.6),
                "CANCELLED": _flow(4, 1.9),
                "DELETED": _flow(1.4, 3),
                "COPIED": _flow(9, 2.2),
            },
        },
        "edges": [
            {
                "url": "http://10.0.0.21:8400",
                "reachable": True,
                "ready": True,
                "degraded": True,
                "outcomes": {"accepted": 128_734, "wrong-sign": 41, "unknown-app": 7, "no-app": 3},
                "spool": {"records": 212, "bytes": 3_400_000, "oldest_age_s": 95.0},
                "problem": "Kafka did not acknowledge within 1000 ms",
            },
            {
                "url": "http://10.0.0.22:8400",
                "reachable": True,
                "ready": True,
                "degraded": False,
                "outcomes": {"accepted": 127_020, "wrong-sign": 2},
                "spool": {"records": 0, "bytes": 0, "oldest_age_s": None},
                "problem": None,
            },
        ],
        "quarantine": {
            "total": 53,
            "reasons": {"wrong-sign": 43, "unknown-app": 7, "no-app": 3},
        },
        "dead_letters": {
            "total": 2,
            "reasons": {"undecodable": 1, "other-corp": 1},
            "latest": [
                {
                    "id": "3-8812",
                    "at": _iso(now - timedelta(minutes=22)),
                    "reason": "undecodable",
                    "detail": "schema id 77 is not known to the registry",
                    "partition": 3,
                    "offset": 8812,
                    "key": "<b>inst-00007</b>",
                    "replayed_at": None,
                },
                {
                    "id": "7-140",
                    "at": _iso(now - timedelta(hours=5)),
                    "reason": "other-corp",
                    "detail": "the instance is of another corp",
                    "partition": 7,
                    "offset": 140,
                    "key": "inst-00020",
                    "replayed_at": None,
                },
            ],
        },
        "partitions": [
            {
                "partition": partition,
                "worker": WORKERS[partition // 4],
                "lag_records": (0, 2, 1, 0, 0, 340, 1, 0, 0, 3, 0, 0)[partition],
                "lag_seconds": (0.0, 0.1, 0.1, 0.0, 0.0, 12.5, 0.1, 0.0, 0.0, 0.2, 0.0, 0.0)[partition],
            }
            for partition in range(12)
        ],
        "workers": [
            {
                "url": url,
                "reachable": True,
                "ready": True,
                "problem": None,
                "active": list(range(4 * index, 4 * index + 4)),
                "standby": [(4 * index + 8 + number) % 12 for number in range(4)],
                "lag_records": (3, 341, 3)[index],
                "since": _iso(now - timedelta(days=3 - index, hours=4)),
            }
            for index, url in enumerate(WORKERS)
        ],
        "center": {
            "database": "postgresql",
            "filled": 1.0,
            "replicas": [
                {
                    "replica": replica,
                    "reachable": True,
                    "ready": True,
                    "problem": None,
                    "lag_records": index,
                    "sse_connections": (812, 1635)[index],
                    "since": _iso(now - timedelta(days=3 - index, hours=4)),
                }
                for index, replica in enumerate(REPLICAS)
            ],
        },
        "errors": [
            {
                "at": _iso(now - timedelta(minutes=21)),
                "worker": REPLICAS[0],
                "level": "error",
                "message": "a record was parked: undecodable <script>alert(1)</script>",
            },
            {
                "at": _iso(now - timedelta(minutes=38)),
                "worker": REPLICAS[1],
                "level": "warning",
                "message": "waiting_for_kafka: problem KafkaException: KafkaError{code=_TRANSPORT,val=-195,"
                'str="127.0.0.1:9092/bootstrap:Connect_to_ipv4#127.0.0.1:9092_failed:Connection_refused"}',
            },
        ],
        "history": {
            "times": times,
            "lag_records": [round(value / 2) + minute % 4 for minute, value in enumerate(outage)],
            "spool_records": [round(value / 1.5) for value in outage],
            "accepted_per_minute": _flow(92, 0.3),
            "rejected_per_minute": [minute % 7 == 0 for minute in range(60)],
        },
    }


def callbacks(instance_id: str, state: Any, history: Any, now: datetime) -> dict[str, Any]:
    """What became of the callbacks of an instance."""
    assignees: list[str] = state["tasks"][0]["assignee_ids"] if state else []
    quarantined = instance_id in ("inst-rejected", "inst-replayed")
    return {
        "instance_id": instance_id,
        "state": state,
        "deleted": False,
        "history": history,
        "quarantined": [
            {
                "id": "q-9",
                "received_at": _iso(now - timedelta(minutes=9)),
                "action": "create",
                "reason": "wrong-sign",
                "app_type": None,
                "remote_address": "203.0.113.7",
                "replayed_at": _iso(now) if instance_id == "inst-replayed" else None,
                "detail": "the digests differ",
            }
        ]
        if quarantined
        else [],
        "dead_letters": [],
        "people": len(assignees),
        "notifications": [
            {
                "recipient_id": recipient,
                "view": "pending",
                "change": "ADDED",
                "status": "PENDING",
                "occurred_at": _iso(now),
                "notification_id": f"n-{recipient}",
            }
            for recipient in assignees
        ],
        "searched": {
            "quarantine_records": 53,
            "dead_letter_records": 2,
            "since": _iso(now - timedelta(days=7)),
            "complete": True,
        },
    }
