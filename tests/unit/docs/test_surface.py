"""A release with the same major version breaks nothing that the last one had: docs/explanation/versions.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest

from reference_pages import surface
from reference_pages.surface import KINDS, breaks, released
from support.wheels import PYPROJECT

if TYPE_CHECKING:
    from collections.abc import Mapping

RELEASED = released()
HOW = """\
{kind} of {last} would break:
  {found}
Keep the old name or form too, at best with a log line that names its successor. If that cannot be, the next release
is {next}.0.0: set this version everywhere (RELEASING.md, step 1), and write under "Unreleased" in CHANGELOG.md what
users must change."""


def major(version: str) -> int:
    return int(version.partition(".")[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_release_of_the_same_major_version_breaks_no(kind: str) -> None:
    last, version = RELEASED["version"], PYPROJECT["project"]["version"]
    found = breaks(RELEASED[kind], dict(KINDS[kind]()))
    is_declared = major(version) > major(last)
    assert is_declared or not found, HOW.format(kind=kind, last=last, found="\n  ".join(found), next=major(last) + 1)


EXAMPLES = {
    "commands": ("taskbridge send", "taskbridge send --url"),
    "settings": ("edge", "edge EDGE_SPOOL_MAX_BYTES"),
    "topics": ("taskbridge.task-events.v1", "taskbridge.task-events.v1 TaskEvent ce_id"),
    "fields": ("TaskEvent originator", "TaskEvent originator user_id"),
    "routes": (
        "center GET:/v1/instances/{instance_id}",
        "center GET:/v1/instances/{instance_id} 200 application/json title",
    ),
    "metrics": ("taskbridge_edge_callbacks", "taskbridge_edge_callbacks"),
    "chart values": ("values edge", "values edge volume size"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_goes_or_changes_is_a_break(kind: str) -> None:
    before: Mapping[str, str] = RELEASED[kind]
    parent, name = EXAMPLES[kind]
    assert breaks(before, before) == []
    assert breaks(before, {**before, f"{parent} new": "optional value"}) == []
    renamed = {f"{each}-renamed" if each == name else each: promise for each, promise in before.items()}
    assert f"{name} is gone" in breaks(before, renamed)
    assert breaks(before, {**before, name: "other"}) == [f"{name} was '{before[name]}' and is 'other'"]
    assert breaks(before, {**before, f"{parent} new": "required value"}) == [f"{parent} new is new and required"]


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        (click.Option(["--new"]), []),
        (click.Argument(["new"], required=True), ["taskbridge x argument-1 is new and required"]),
    ],
)
def test_an_option_may_come_before_an_argument(
    monkeypatch: pytest.MonkeyPatch, added: click.Parameter, expected: list[str]
) -> None:
    command = click.Command("x", params=[click.Argument(["file"])])
    monkeypatch.setattr(surface, "commands", lambda: [("taskbridge x", command)])
    before = dict(KINDS["commands"]())
    command.params.insert(0, added)
    assert breaks(before, dict(KINDS["commands"]())) == expected


def test_what_asks_less_or_gives_more_is_no_break() -> None:
    before = {"a": "route", "a in": "required string", "a out": "sometimes string"}
    assert breaks(before, {"a": "route", "a in": "optional string", "a out": "always string"}) == []
    assert breaks(before, {**before, "b": "route", "b in": "required string"}) == [], "nobody uses a new route"
    assert breaks({"a in": "optional string"}, {"a in": "required string"}) == [
        "a in was 'optional string' and is 'required string'"
    ]
    assert breaks({"a out": "always string"}, {"a out": "always integer"}) != []
