"""What assistants read: texts of third parties marked as such, in answers of a bounded size. Pure."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, cast

import msgspec

from taskbridge.schemas.json_forms import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taskbridge.center.api import models
    from taskbridge.center.api.models import CommentOut

TEXT_MAX = 2_000
_JSON_MAX = 6 * TEXT_MAX + 2
"""As JSON has it. So the longest texts of an answer fit into it, of any characters."""
ANSWER_MAX = 256 * 1024
_HEAD = 1024
"""Of an answer around its content."""
_OURS = re.compile(
    ".*_(id|ids|at|type|uuid|code)|at|view|source|status|action|lifecycle|reason|next_cursor|link"
).fullmatch
"""Fields with ids, times and words of ours. Everything else is a text of somebody."""
_NO_SENTENCE = re.compile(r"[\w.:/#%?=&@+,~-]*", re.ASCII).fullmatch
"""Ids of other systems may be any text."""
LISTED_MOST = 1_000
"""Of a list, before its size is looked at."""


def untrusted(text: str) -> dict[str, Any]:
    shown = text[:TEXT_MAX]
    while len(json.dumps(shown)) > _JSON_MAX:
        shown = shown[: len(shown) // 2]
    return {"untrusted": True, "text": shown, **({} if shown == text else {"truncated": True})}


def marked(value: object) -> Any:
    """An answer of the API, with each text of others as an object that says so."""
    return _marked(msgspec.json.decode(to_json(value)), "")


def _marked(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {key: _marked(each, key) for key, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_marked(each, name) for each in cast("list[Any]", value)]
    return untrusted(value) if isinstance(value, str) and not (_OURS(name) and _NO_SENTENCE(value)) else value


def task_content(
    instance: models.InstanceOut,
    history: models.HistoryOut,
    comments: Sequence[CommentOut],
    reason: str | None,
    task_id: str | None,
) -> dict[str, Any]:
    """One instance: its state, its last events, form and comments. Forms are lists, because ids of fields are texts."""
    labels: Mapping[str, str] = history["form_labels"]
    left_out = "form_data", "form_labels", "people", "url"
    people = {each["user_id"]: each for each in (*instance["people"], *history["people"])}
    return {
        **{name: value for name, value in instance.items() if name not in left_out},
        "tasks": [each for each in instance["tasks"] if task_id in (None, each["task_id"])],
        "people": [*people.values()],
        "events": history["events"],
        "form": [{"field": name, "label": labels.get(name), "value": value} for name, value in history["form"].items()],
        "files": [{"field": place, **each} for place, found in history["files"].items() for each in found],
        "comments": comments,
        "reason": reason,
    }


def fits(found: object) -> bool:
    """Whether the answer is within ANSWER_MAX: it has the content as values, and again as a text."""
    text = to_json(found).decode()
    return len(json.dumps(found)) + len(json.dumps(text)) <= ANSWER_MAX - _HEAD


def cut(content: dict[str, Any]) -> dict[str, Any]:
    """The same, marked, with fewer items in its longest lists, until it fits."""
    listed: dict[str, Any] = {name: value[:LISTED_MOST] for name, value in content.items() if isinstance(value, list)}
    found: dict[str, Any] = marked(content | listed)
    if any(len(value) < len(content[name]) for name, value in listed.items()):
        found["truncated"] = True
    while not fits(found):
        lists = (name for name, value in found.items() if isinstance(value, list) and value)
        if (name := max(lists, key=lambda each: len(json.dumps(found[each])), default=None)) is None:
            break
        found = {**found, name: found[name][: len(found[name]) // 2], "truncated": True}
    return found
