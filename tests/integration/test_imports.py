"""People and forms come from a file onto their topics: all or nothing, once, and away again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from taskbridge.cli.program import app
from taskbridge.cli.topic_update import FORMS_TARGET, PEOPLE_TARGET
from taskbridge.schemas.cloudevents import CONTENT_TYPE, headers_of
from taskbridge.schemas.events import Form, PersonRecord

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from typer.testing import Result

    from taskbridge.cli.connection import Connection
    from taskbridge.cli.topic_update import Target

pytestmark = pytest.mark.integration


class File:
    """A file of people, or of forms, of a corp of the test's own, and what the program makes of it."""

    def __init__(self, path: Path, connection: Connection) -> None:
        self._path = path
        self._connection = connection
        self.corp_id = f"ding-{path.parent.name}"

    def imports(self, lines: str, *flags: str, what: str = "people") -> Result:
        self._path.write_text(lines, "utf-8-sig")
        where = ["--bootstrap-servers", self._connection.bootstrap_servers]
        where += ["--registry-url", self._connection.registry_url]
        return CliRunner().invoke(
            app, [what, "import", str(self._path), "--corp", self.corp_id, "--json", *flags, *where]
        )

    def on_topic(self, target: Target[Any] = PEOPLE_TARGET) -> list[tuple[str, Any]]:
        """The records of the corp, by id in the order of arrival; None for a tombstone."""
        codec = target.codec(self._connection.registry)
        found: list[tuple[str, Any]] = []
        for message in self._connection.read_to_end(target.topic.name, progress=lambda _: None):
            corp_id, _, its_id = (message.key() or b"").decode().partition("/")
            value = message.value()
            if corp_id == self.corp_id:
                assert headers_of(message) == ([] if value is None else [CONTENT_TYPE])
                found.append((its_id, None if value is None else codec.decode(value)))
        return sorted(found, key=lambda each: each[0])


@pytest.fixture
def file(tmp_path: Path, connection: Connection) -> File:
    return File(tmp_path / "people.csv", connection)


def result_of(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def outcome(**counts: int) -> Mapping[str, int | bool]:
    return {**counts, "dry_run": False}


WANG, LI = "u1,王芳,采购部,wang.fang\n", "u2,李雷,,\n"
HEADS = "user_id,name,department,ldap\n"


def test_people_are_written_once_changed_and_forgotten(file: File) -> None:
    wang, li = PersonRecord("u1", "王芳", "采购部", None, {"ldap": "wang.fang"}), PersonRecord("u2", "李雷")
    assert result_of(file.imports(HEADS + WANG + LI)) == outcome(new=2, changed=0, unchanged=0)
    assert file.on_topic() == [("u1", wang), ("u2", li)]

    assert result_of(file.imports(HEADS + LI + WANG)) == outcome(new=0, changed=0, unchanged=2)
    assert len(file.on_topic()) == 2

    changed = "user_id,name\nu2,李磊\nu3,韩梅梅\n"
    assert result_of(file.imports(changed, "--dry-run")) == {"new": 1, "changed": 1, "unchanged": 0, "dry_run": True}
    assert len(file.on_topic()) == 2
    assert result_of(file.imports(changed)) == outcome(new=1, changed=1, unchanged=0)
    assert dict(file.on_topic()) == {"u1": wang, "u2": PersonRecord("u2", "李磊"), "u3": PersonRecord("u3", "韩梅梅")}

    assert result_of(file.imports("user_id\nu2\nu9\n", "--delete")) == outcome(deleted=1, unchanged=1)
    assert dict(file.on_topic())["u2"] is None
    assert result_of(file.imports(HEADS + LI)) == outcome(new=1, changed=0, unchanged=0)


def test_forms_are_written_once_changed_as_a_whole_and_forgotten(file: File) -> None:
    heads = "form_uuid,form_title,field_id,label\n"
    contract = heads + "F-1,合同审批,textField_a,合同方\nF-1,,textField_b,金额\nF-2,,textField_a,事由\n"
    first = Form("F-1", "合同审批", {"textField_a": "合同方", "textField_b": "金额"})
    second = Form("F-2", None, {"textField_a": "事由"})
    assert result_of(file.imports(contract, what="forms")) == outcome(new=2, changed=0, unchanged=0)
    assert file.on_topic(FORMS_TARGET) == [("F-1", first), ("F-2", second)]
    assert result_of(file.imports(contract, what="forms")) == outcome(new=0, changed=0, unchanged=2)
    assert len(file.on_topic(FORMS_TARGET)) == 2
    result = file.imports(heads + "F-2,,textField_a,\nF-3,,textField_a,物品\n", what="forms")
    assert result.exit_code == 1
    assert "line 2: label is missing" in result.stderr
    assert len(file.on_topic(FORMS_TARGET)) == 2
    assert result_of(file.imports(heads + "F-1,,textField_a,对方\n", what="forms")) == outcome(
        new=0, changed=1, unchanged=0
    )
    assert dict(file.on_topic(FORMS_TARGET))["F-1"] == Form("F-1", None, {"textField_a": "对方"})
    gone = file.imports("form_uuid\nF-1\nF-9\n", "--delete", what="forms")
    assert result_of(gone) == outcome(deleted=1, unchanged=1)
    assert dict(file.on_topic(FORMS_TARGET)) == {"F-1": None, "F-2": second}
