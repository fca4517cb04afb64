"""Imported people are listed by the last record of each on their topic."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from taskbridge.cli.connection import Connection
from taskbridge.cli.program import app
from taskbridge.schemas.codec import person_codec
from taskbridge.schemas.events import PersonRecord, notification_key
from taskbridge.schemas.testing import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator

CODEC = person_codec(FakeRegistry())
WANG = PersonRecord("0169", "王芳", "采购部", "A1024", {"ldap": "wang.fang"})


class Record:
    def __init__(self, key: bytes | None, value: bytes | None) -> None:
        self._key, self._value = key, value

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return 42


def record(corp: str, person: PersonRecord, *, deleted: bool = False) -> Record:
    return Record(notification_key(corp, person.user_id), None if deleted else CODEC.encode(person))


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    records = [
        record("ding2", PersonRecord("0169", "Somebody else")),
        record("ding1", PersonRecord("0169", "王方")),  # as she was called before
        record("ding1", WANG),
        record("ding1", PersonRecord("0170", "李雷")),
        record("ding1", PersonRecord("0171", "Gone")),
        record("ding1", PersonRecord("0171"), deleted=True),
        Record(b"ding1/0172", b"no record"),
    ]

    def read(*_: object, **__: object) -> Iterator[Record]:
        return iter(records)

    monkeypatch.setattr(Connection, "read_to_end", read)
    monkeypatch.setattr(Connection, "registry", FakeRegistry())
    return records


def people(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["people", "list", *arguments])


def ids(*arguments: str) -> list[str]:
    found = people(*arguments, "--json")
    assert found.exit_code == 0, found.output
    return [json.loads(line)["id"] for line in found.stdout.splitlines()]


@pytest.mark.usefixtures("topic")
def test_the_last_record_of_each_person_is_listed() -> None:
    found = people("--json")
    assert json.loads(found.stdout.splitlines()[0]) == {
        "id": "ding1/0169",
        "corp_id": "ding1",
        "user_id": "0169",
        "name": "王芳",
        "department": "采购部",
        "employee_number": "A1024",
        "other_ids": {"ldap": "wang.fang"},
    }
    assert ids() == ["ding1/0169", "ding1/0170", "ding2/0169"]
    assert "partition 3, offset 42: " in found.stderr


@pytest.mark.usefixtures("topic")
def test_a_list_is_filtered_by_corp_and_by_any_text_of_a_person() -> None:
    assert ids("--corp", "ding2") == ["ding2/0169"]
    for text in ("0170", "李雷"):
        assert ids(text) == ["ding1/0170"]
    for text in ("采购", "a1024", "WANG.F", "王"):
        assert ids(text) == ["ding1/0169"]
    assert ids("0169", "--corp", "ding1") == ["ding1/0169"]


@pytest.mark.usefixtures("topic")
def test_each_person_is_one_line() -> None:
    assert people("--corp", "ding1").stdout.splitlines() == [
        "ding1  0169  王芳  采购部  A1024  ldap=wang.fang",
        "ding1  0170  李雷  -  -  -",
    ]


def test_an_empty_result_says_what_to_do(topic: list[Record]) -> None:
    found = people("nobody")
    assert (found.exit_code, found.stdout) == (0, "")
    assert found.stderr.endswith("none of the 3 imported people matches 'nobody'\n")
    topic.clear()
    assert people().stderr == "no people imported yet: import a CSV file with 'taskbridge people import'\n"


def test_control_characters_do_not_reach_the_terminal(topic: list[Record]) -> None:
    topic[:] = [record("ding1", PersonRecord("1", "\x1b[2J\n0170"))]
    assert people().stdout.splitlines()[0].startswith("ding1  1  \\u001b[2J\\n0170")
