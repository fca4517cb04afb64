"""Was this callback received, and what became of it? One sentence that can be read out on the phone."""

from __future__ import annotations

from typing import Any

from taskbridge.center.operations.records import mentions, verdict

EVENTS = [
    {"action": "CREATED", "occurred_at": "2026-01-31T08:00:00.000Z", "received_at": "2026-01-31T08:00:01.000Z"},
    {"action": "COMPLETED", "occurred_at": "2026-01-31T09:00:00.000Z", "received_at": "2026-01-31T09:00:01.000Z"},
]
HISTORY: dict[str, Any] = {"events": EVENTS, "complete": True}
STATE: dict[str, Any] = {"instance_id": "I-1"}
REJECTED: dict[str, Any] = {"reason": "wrong-sign", "replayed_at": None}


def said(**found: Any) -> str:
    nothing: Any = {"deleted": False, "state": None, "history": None, "quarantined": [], "dead_letters": []}
    nothing |= {"people": 0, "searched": {"since": "2026-01-24T08:00:00.000Z"}}
    return verdict(nothing | found)


def test_received() -> None:
    assert said(state=STATE, history=HISTORY, people=2) == (
        "Received: 2 events, last completed at 2026-01-31T09:00:00.000Z; 2 people were notified."
    )


def test_one_event_and_one_person() -> None:
    history = {"events": EVENTS[:1], "complete": False}
    assert said(state=STATE, history=history, people=1) == (
        "Received: at least 1 event, last created at 2026-01-31T08:00:00.000Z; 1 person was notified."
    )


def test_rejected() -> None:
    assert said(quarantined=[REJECTED, REJECTED]) == (
        "Received, and not accepted. Rejected by the edge twice: wrong-sign (2 times); it waits in the quarantine."
    )


def test_received_and_one_of_its_callbacks_was_not_accepted() -> None:
    sentence = said(state=STATE, history=HISTORY, quarantined=[{**REJECTED, "reason": "unknown-app"}])
    assert "2 events" in sentence
    assert sentence.endswith("Rejected by the edge once: unknown-app; it waits in the quarantine.")


def test_rejected_and_replayed_since() -> None:
    first, second = "2026-01-31T10:00:00.000Z", "2026-01-31T11:00:00.000Z"
    replayed = [{"reason": "wrong-sign", "replayed_at": at} for at in (second, first)]
    assert said(quarantined=replayed[1:]) == (f"Received. Rejected by the edge once: wrong-sign; replayed at {first}.")
    assert said(state=STATE, history=HISTORY, quarantined=replayed).endswith(
        f"Rejected by the edge twice: wrong-sign (2 times); replayed, the last at {second}."
    )
    waiting = {"reason": "unknown-app", "replayed_at": None}
    assert said(quarantined=[*replayed, waiting]) == (
        "Received, and not accepted. Rejected by the edge 3 times: wrong-sign (2 times), unknown-app; "
        f"1 waits in the quarantine, the others were replayed, the last at {second}."
    )
    letter = {"reason": "undecodable", "replayed_at": first}
    assert said(dead_letters=[letter]) == f"Received. Parked as a dead letter once: undecodable; replayed at {first}."


def test_parked() -> None:
    assert said(dead_letters=[{**REJECTED, "reason": "undecodable"}]).endswith(
        "Parked as a dead letter once: undecodable; it waits to be put back."
    )


def test_deleted_and_never_seen() -> None:
    assert said(state=STATE, deleted=True, history=HISTORY) == "Received, and deleted since."
    assert said().startswith("Never received here since 2026-01-24T08:00:00.000Z")


def test_events_without_a_state_were_received() -> None:
    """The state could not be read, or is not read yet."""
    assert said(history=HISTORY, people=0).startswith("Received: 2 events, last completed")


def test_old_events_are_said_to_be_gone() -> None:
    sentence = said(state=STATE, history={"events": [], "complete": False})
    assert sentence == "Received: its events are no longer stored; no person was notified."


def test_an_id_is_looked_for_as_it_may_stand_in_a_request() -> None:
    assert mentions("I-1") == ["I-1"]
    assert set(mentions('a b/"é')) == {'a b/"é', "a%20b%2F%22%C3%A9", "a+b%2F%22%C3%A9", 'a b/\\"\\u00e9'}
