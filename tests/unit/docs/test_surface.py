"""A release with the same major version breaks nothing that the last one had: docs/explanation/versions.md."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

import click
import pytest
from pydantic_settings import BaseSettings

from reference_pages import surface
from reference_pages.surface import KINDS, breaks, released
from support.wheels import PYPROJECT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

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


def test_the_file_of_a_release_is_compared_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(surface, "RELEASED", tmp_path / "surface.json")
    monkeypatch.setattr(surface, "KINDS", {"commands": lambda: [("a", "command")]})
    surface.write_released("1.0.0")
    surface.compare_released("1.0.0")
    with pytest.raises(SystemExit, match=r"of 1\.0\.0, not 1\.1\.0"):
        surface.compare_released("1.1.0")
    monkeypatch.setattr(surface, "KINDS", {"commands": lambda: [("a", "command"), ("b", "command")]})
    with pytest.raises(SystemExit, match="its commands are not today's"):
        surface.compare_released("1.0.0")


USERS = "/v1/corps/{corp_id}/users/{user_id}"


def test_routes_are_of_a_service_and_name_values_and_items(monkeypatch: pytest.MonkeyPatch) -> None:
    before, center = dict(KINDS["routes"]()), surface.center_document()
    (view,) = (each for each in center["paths"][f"{USERS}/tasks"]["get"]["parameters"] if each["name"] == "view")
    view["schema"] = {"enum": ["created", "pending", "handled"]}
    item = center["components"]["schemas"]["ActedOnIn"]
    item["properties"]["why"] = {"type": "string"}
    item["required"].append("why")
    del center["paths"]["/healthz"]
    monkeypatch.setattr(surface, "center_document", lambda: center)
    found = breaks(before, dict(KINDS["routes"]()))
    assert f"center GET:{USERS}/tasks query:view =copied is gone" in found
    assert f"center POST:{USERS}/actions application/json items [] why is new and required" in found
    assert "center GET:/healthz is gone" in found
    assert not [each for each in found if each.startswith("edge")]


class _Settings(BaseSettings):
    form: Literal["text", "json"] = "text"
    size: int | None = None
    api_url: str = "https://api.example"


class _Others(BaseSettings):
    form: Literal["text"] = "text"
    size: bool | None = None
    api_url: str = "https://other.example"


def test_a_setting_keeps_its_type_its_values_and_where_it_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surface, "SERVICES", {"edge": _Settings})
    before = dict(KINDS["settings"]())
    monkeypatch.setattr(surface, "SERVICES", {"edge": _Others})
    assert breaks(before, dict(KINDS["settings"]())) == [
        "edge FORM =json is gone",
        "edge SIZE was 'optional integer' and is 'optional boolean'",
        "edge API_URL default was '`https://api.example`' and is '`https://other.example`'",
    ]


def test_the_chart_takes_what_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    before, schema = dict(KINDS["chart values"]()), json.loads(surface.chart_schema_text())
    items = schema["definitions"]["topologySpread"]["items"]
    items["properties"]["new"] = {"type": "string"}
    items["required"] = ["new"]
    schema["properties"]["edge"]["properties"]["affinity"] = {"type": "object", "additionalProperties": False}
    schema["properties"]["edge"]["properties"]["updatePartition"]["enum"] = [0]
    schema["definitions"]["labels"]["additionalProperties"] = {"type": "integer"}
    schema["definitions"]["peers"]["items"] |= {"additionalProperties": False, "properties": {"ipBlock": {}}}
    monkeypatch.setattr(surface, "chart_schema_text", lambda: json.dumps(schema))
    found = breaks(before, dict(KINDS["chart values"]()))
    assert {
        "values edge topologySpread [] new is new and required",
        "values edge affinity [] is gone",
        "values edge updatePartition takes only some values",
        "values edge podLabels [] was 'optional string' and is 'optional integer'",
        "values networkPolicy api [] [] is gone",
    } <= {*found}


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


def test_a_metric_that_has_counted_nothing_has_its_labels() -> None:
    assert dict(KINDS["metrics"]())["taskbridge_edge_left_out"] == "counter field"


def test_what_asks_less_or_gives_more_is_no_break() -> None:
    before = {"a": "route", "a in": "required string", "a out": "sometimes string"}
    assert breaks(before, {"a": "route", "a in": "optional string", "a out": "always string"}) == []
    assert breaks(before, {**before, "b": "route", "b in": "required string"}) == [], "nobody uses a new route"
    assert breaks({"a in": "optional string"}, {"a in": "required string"}) == [
        "a in was 'optional string' and is 'required string'"
    ]
    assert breaks({"a out": "always string"}, {"a out": "always integer"}) != []
