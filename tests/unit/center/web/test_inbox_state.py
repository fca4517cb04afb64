"""What a person's task center shows after some events: the pages' own function, run by Node."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import taskbridge.center.web
from support.toolchains import NODE

MODULE = Path(taskbridge.center.web.__file__).parent / "assets" / "inbox-state.js"
# Every state is frozen: a change of one that was given fails.
REDUCE = f"""
import {{ INITIAL, countOf, groupsOf, reduce }} from "{MODULE.as_uri()}";
const frozen = (value) => {{
  if (value !== null && typeof value === "object") Object.values(value).forEach(frozen);
  return Object.freeze(value);
}};
const ids = (items) => items.map((item) => item.instance_id);
let state = frozen(INITIAL);
for (const event of JSON.parse(process.argv[1])) state = frozen(reduce(state, event));
const {{ pinned, items, hidden, hiddenCount }} = groupsOf(state);
const groups = {{ pinned: ids(pinned), items: ids(items), hidden: ids(hidden), hiddenCount }};
const shown = {{ ...groups, arrived: ids(state.arrived) }};
console.log(JSON.stringify({{ ...state, shown, count: countOf(state, "pending") }}));
"""


def after(*events: dict[str, Any]) -> Any:
    """The state, and what is ``shown`` of it, as ids of instances."""
    command = [NODE, "--no-warnings", "--input-type=module", "--eval", REDUCE, json.dumps(events)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout)


def item(day: int, **more: Any) -> dict[str, Any]:
    when = f"2026-11-{day:02}T08:00:00.000Z"
    about = {"view": "pending", "instance_id": f"{day}", "task_id": f"{day}", "title": f"Task {day}"}
    return {**about, "created_at": when, "updated_at": when, **more}


def notified(change: str, day: int, **more: Any) -> dict[str, Any]:
    given = item(day)
    return {"type": "notified", "notification": {**given, "entered_at": given["created_at"], "change": change, **more}}


def loaded(*days: int, cursor: str | None = None, more: bool = False) -> dict[str, Any]:
    return {"type": "loaded", "page": {"items": [item(day) for day in days], "next_cursor": cursor}, "isMore": more}


def requested(*, more: bool = False) -> dict[str, Any]:
    return {"type": "requested", "isMore": more}


def test_what_is_notified_while_a_page_loads_changes_that_page() -> None:
    meanwhile = notified("ADDED", 9), notified("REMOVED", 5), notified("UPDATED", 3, title="Another title")
    state = after(requested(), *meanwhile, loaded(5, 3))
    assert state["shown"]["items"] == ["9", "3"]
    assert state["shown"]["arrived"] == ["9"]
    assert [each["title"] for each in state["items"]] == ["Task 9", "Another title"]
    assert (state["phase"], state["waiting"]) == ("ready", None)


def test_what_was_notified_before_a_page_was_asked_for_does_not_change_that_page() -> None:
    came, left = notified("ADDED", 9), notified("REMOVED", 5)
    state = after(requested(), came, left, requested(), loaded(5, 3))
    assert state["shown"]["items"] == ["5", "3"]
    # Where the page does not come, what was shown stays, with what was notified.
    state = after(requested(), loaded(5, 3), requested(), came, left, requested(), {"type": "failed", "problem": {}})
    assert state["shown"]["items"] == ["9", "3"]
    # It is nothing to a list that was narrowed since: its page is newer.
    state = after(requested(), came, {"type": "chosen", "q": "Task"}, requested())
    assert state["shown"]["items"] == []


def test_what_a_page_has_already_is_shown_once_and_is_new_all_the_same() -> None:
    state = after(requested(), notified("ADDED", 5), loaded(5, 3))
    assert state["shown"]["items"] == ["5", "3"]
    assert state["shown"]["arrived"] == ["5"]
    # Nothing arrives twice.
    assert after(requested(), notified("ADDED", 5), loaded(5), requested())["arrived"] == []


def test_an_item_goes_to_its_place_in_time_as_far_as_the_list_is_loaded() -> None:
    both = notified("ADDED", 4), notified("ADDED", 1)
    assert after(requested(), loaded(5, 3, cursor="next"), *both)["shown"]["items"] == ["5", "4", "3"]
    assert after(requested(), loaded(5, 3), *both)["shown"]["items"] == ["5", "4", "3", "1"]
    rest = requested(more=True), loaded(3, 1, more=True)
    assert after(requested(), loaded(5, 3, cursor="next"), *both, *rest)["shown"]["items"] == ["5", "4", "3", "1"]


def test_only_what_matches_is_shown_and_the_rest_of_a_view_is_forgotten_with_it() -> None:
    narrowed = {"type": "chosen", "q": "task 7"}
    state = after(requested(), loaded(5, 3), narrowed, requested(), loaded(7), notified("ADDED", 9))
    assert state["shown"]["items"] == ["7"]
    state = after(requested(), loaded(5), {"type": "chosen", "overdue": "true"}, {"type": "chosen", "view": "created"})
    assert (state["view"], state["filter"]["overdue"], state["items"], state["phase"]) == ("created", "", [], "loading")


def test_what_was_sent_waits_for_nobody_and_is_counted_out_once() -> None:
    sent = {"type": "sent", "items": [item(5)]}
    known = requested(), loaded(5, 3), {"type": "counted", "counts": {"pending": 2}}, sent
    assert after(*known)["count"] == 1
    assert after(*known, notified("REMOVED", 5))["count"] == 1
    # An answer of before it left says that it is under way.
    assert after(*known, notified("REMOVED", 5), sent)["count"] == 1
    # It waits for the person again.
    assert after(*known, notified("REMOVED", 5), notified("ADDED", 5), sent)["count"] == 0


def test_a_pinned_task_that_left_does_not_come_back_by_a_late_answer() -> None:
    pinned = {**item(3), "marks": {"read": True, "pinned": True, "hidden_until": None}}
    found = {"type": "found", "marked": [pinned], "elsewhere": []}
    state = after(requested(), loaded(5, 3), found, notified("REMOVED", 3), found)
    assert state["shown"]["pinned"] == []
    # It waits again, or a whole new list has it.
    assert after(requested(), loaded(3), notified("REMOVED", 3), notified("ADDED", 3), found)["shown"]["pinned"] == [
        "3"
    ]
    assert after(requested(), notified("REMOVED", 3), requested(), loaded(3), found)["shown"]["pinned"] == ["3"]
