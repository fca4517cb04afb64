"""Events that reconcile found without callbacks, for the overview. Pure: it is given reconcile's answer."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

ROWS = 200
_BACKFILL = "backfill"


def missed_of(url: str, status: Any) -> dict[str, Any]:
    """By app and day of China, the latest first, and which apps are silent; ``status`` is reconcile's, or None.

    History that a backfill brought in was not missed. ``added`` is what no callback contains: how something was decided
    or ended. ``silent``: since when none of an app's callbacks came, and what is missing since, where something is.
    """
    try:
        return {"url": url, "reachable": True, **_shown(status)}
    except (KeyError, TypeError, AttributeError):
        return {"url": url, "reachable": False, "last_whole_pass_at": None, "silent": [], "days": []}


def _shown(status: Any) -> dict[str, Any]:
    counts: dict[tuple[str, str, str], Counter[bool]] = {}
    for each in status["found"]:
        if each["found_by"] != _BACKFILL:
            key = str(each["day"]), str(each["corp_id"]), str(each["app_type"])
            counts.setdefault(key, Counter())[bool(each["missing"])] += int(each["events"])
    latest = sorted(counts.items(), key=lambda each: each[0][0], reverse=True)
    return {
        "last_whole_pass_at": status["last_whole_pass_at"],
        "silent": [
            {"corp_id": each["corp_id"], "app_type": each["app_type"], "since": each["last_at"], "missing": missing}
            for each in status["callbacks"]
            if (missing := int(each["missing_since"])) > 0
        ],
        "days": [
            {"day": day, "corp_id": corp_id, "app_type": app_type, "missing": found[True], "added": found[False]}
            for (day, corp_id, app_type), found in islice(latest, ROWS)
        ],
    }
