"""What became of a callback, in one plain sentence. Does no I/O."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def verdict(found: Mapping[str, Any]) -> str:
    """Of the answer, all but this."""
    aside = _set_aside(found["quarantined"], found["dead_letters"])
    if found["deleted"]:
        return f"Received, and deleted since.{aside}"
    if found["state"] is not None or found["history"] is not None:
        return f"Received: {_events(found['history'])}; {_notified(found['people'])}.{aside}"
    if not aside:
        return f"Never received here since {found['searched']['since']}, as far as records are stored."
    if all(each["replayed_at"] for each in (*found["quarantined"], *found["dead_letters"])):
        return f"Received.{aside}"
    return f"Received, and not accepted.{aside}"


def _events(history: Mapping[str, Any] | None) -> str:
    events: Sequence[Mapping[str, Any]] = () if history is None else history["events"]
    if not events:
        return "its events are no longer stored"
    last = events[-1]
    count = f"{len(events)} event{'s' if len(events) != 1 else ''}"
    at_least = "" if history is None or history["complete"] else "at least "
    return f"{at_least}{count}, last {last['action'].lower()} at {last['occurred_at']}"


def _notified(people: int) -> str:
    return f"{people or 'no'} {'person was' if people in (0, 1) else 'people were'} notified"


def _set_aside(quarantined: Sequence[Mapping[str, Any]], dead_letters: Sequence[Mapping[str, Any]]) -> str:
    said = ""
    if quarantined:
        reasons = Counter(str(each["reason"]) for each in quarantined)
        named = ", ".join(
            reason if count == 1 else f"{reason} ({count} times)" for reason, count in reasons.most_common()
        )
        said += f" Rejected by the edge {_times(len(quarantined))}: {named}; {_replays(quarantined, _IN_QUARANTINE)}."
    if dead_letters:
        reasons = Counter(str(each["reason"]) for each in dead_letters)
        named = ", ".join(reasons)
        said += f" Parked as a dead letter {_times(len(dead_letters))}: {named}; {_replays(dead_letters, _PARKED)}."
    return said


_IN_QUARANTINE, _PARKED = "in the quarantine", "to be put back"


def _replays(entries: Sequence[Mapping[str, Any]], where: str) -> str:
    replayed = [str(each["replayed_at"]) for each in entries if each["replayed_at"]]
    waiting = len(entries) - len(replayed)
    if not replayed:
        return f"it waits {where}"
    if waiting:
        return f"{waiting} waits {where}, the others were replayed, the last at {max(replayed)}"
    return f"replayed at {replayed[0]}" if len(replayed) == 1 else f"replayed, the last at {max(replayed)}"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
