"""`schemas check` finds every incompatible change, in both directions, and stored records that no longer decode."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from publish_schema import publish
from taskbridge.cli.schemas import check, published_versions, records, versions_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copy = tmp_path / "versions"
    shutil.copytree(versions_folder(), copy)
    return copy


def test_every_record_has_a_published_version_and_is_compatible_with_all() -> None:
    reports = check()
    assert {report.record for report in reports} == set(records())
    assert [report for report in reports if report.problems] == []


def test_publishing_stores_a_version_and_records_that_it_wrote(folder: Path) -> None:
    assert publish("TaskEvent", folder) == max(published_versions("TaskEvent", versions_folder())) + 1
    assert [report for report in check(folder) if report.problems] == []


def _with_required_field(schema: dict[str, Any]) -> None:
    schema["fields"].append({"name": "later", "type": "string"})


def _without_required_field(schema: dict[str, Any]) -> None:
    schema["fields"] = [each for each in schema["fields"] if each["name"] != "corp_id"]


def _with_another_type(schema: dict[str, Any]) -> None:
    next(each for each in schema["fields"] if each["name"] == "corp_id")["type"] = "long"


@pytest.mark.parametrize("change", [_with_required_field, _without_required_field, _with_another_type])
def test_an_incompatible_published_version_is_reported(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "TaskEvent.1.avsc"
    schema = json.loads(path.read_text("utf-8"))
    change(schema)
    path.write_text(json.dumps(schema), "utf-8")
    report, *_ = check(folder, ["TaskEvent"])
    assert report.problems


def test_a_stored_record_that_does_not_decode_is_reported(folder: Path) -> None:
    path = folder / "TaskEvent.1.avro"
    path.write_bytes(path.read_bytes()[:-30])
    report, *_ = check(folder, ["TaskEvent"])
    assert any("does not decode" in problem for problem in report.problems)
