"""What events of process engines have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from taskbridge.edge.parsing.fields import first

if TYPE_CHECKING:
    from collections.abc import Mapping


def definition_of(told: Mapping[str, Any]) -> str | None:
    """The key of the process definition; its id is the key, the version and a number of the engine's."""
    return first(told, ("processDefinitionKey",)) or str(told.get("processDefinitionId") or "").partition(":")[0]


def assignees_of(told: Mapping[str, Any], candidates: str) -> list[Any]:
    """Who has the task, and who may take it."""
    others = told.get(candidates)
    return [told.get("assignee"), *(cast("list[Any]", others) if isinstance(others, list) else [others])]


def object_of(told: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object that stands under the name; one of nothing, where there is none."""
    found = told.get(name)
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}
