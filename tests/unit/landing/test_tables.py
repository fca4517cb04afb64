"""What the tables of a target have after records of every kind, in PostgreSQL and SQLite."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from support.center_records import NOW_MS
from support.landing import APP, CORP, FORM, TABLE, LandProcess, Source, rows_of
from taskbridge.landing.tables import prepare
from taskbridge.runtime.follow.batch import PositionLost
from taskbridge.schemas.events import Lifecycle, Person, PersonRecord, Status, TaskEntry, TaskState

if TYPE_CHECKING:
    from taskbridge.runtime.database import Database

FIELDS = {
    "amount": "NumberField",
    "dateField_1": "DateField",
    "cascadeDateField_1": "CascadeDateField",
    "employeeField_1": "EmployeeField",
    "tableField_1": "TableField",
    "tableField_1/numberField_2": "NumberField",
}
LABELS = {
    "amount": "金额",
    "dateField_1": "日期",
    "cascadeDateField_1": "期间",
    "employeeField_1": "申请人",
    "numberField_2": "数量",
}
VALUES: dict[str, Any] = {
    "amount": 1280.5,
    "dateField_1": NOW_MS,
    "cascadeDateField_1": [str(NOW_MS), None],
    "employeeField_1": ["王芳"],
    "employeeField_1_id": ["u-1"],
    "tableField_1": [{"numberField_2": 1}, {"numberField_2": "two"}],
}


def at(target: Database, ms: int) -> object:
    return ms if target.is_sqlite else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


def parsed(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def test_a_form_has_a_table_and_one_for_each_sub_form(source: Source, target: Database) -> None:
    source.define(FIELDS, LABELS, title="采购")
    source.land(target)
    record = source.fill("I-1", VALUES)
    source.land(target)
    [row] = rows_of(target, TABLE)
    assert parsed(row.pop("employeefield_1")) == ["u-1"]
    assert parsed(row.pop("employeefield_1__names")) == ["王芳"]
    assert row == {
        "instance_id": "I-1",
        "corp_id": CORP,
        "app_type": APP,
        "_modified_at": at(target, record.read_at - 1),
        "_read_at": at(target, record.read_at),
        "_deleted": False,
        "_raw": None,
        "amount": Decimal("1280.5"),
        "datefield_1": at(target, NOW_MS),
        "cascadedatefield_1__from": at(target, NOW_MS),
        "cascadedatefield_1__to": None,
    }
    first, second = rows_of(target, f"{TABLE}__tablefield_1")
    assert (first["instance_id"], first["line"], first["numberfield_2"], first["_raw"]) == ("I-1", 1, 1, None)
    assert (second["line"], second["numberfield_2"], parsed(second["_raw"])) == (2, None, {"numberField_2": "two"})
    [shown] = rows_of(target, f"v_{TABLE}")
    assert [*shown][7:] == ["金额", "日期", "期间__from", "期间__to", "申请人", "申请人__names"]
    assert [*rows_of(target, f"v_{TABLE}__tablefield_1")[0]] == ["instance_id", "line", "_raw", "数量"]
    assert rows_of(target, "forms") == [
        {
            "form_uuid": FORM,
            "app_type": APP,
            "corp_id": CORP,
            "label": "采购",
            "table_name": TABLE,
            "process_code": None,
        }
    ]


def columns(target: Database) -> dict[str, tuple[str, str | None, bool]]:
    found = rows_of(target, "form_columns")
    return {each["column_name"]: (each["type"], each["label"], bool(each["dropped"])) for each in found}


def test_a_new_label_changes_the_view_and_never_the_column(source: Source, target: Database) -> None:
    source.define({"a": "TextField", "b": "TextField"}, {"a": "甲", "b": "乙"})
    source.fill("I-1", {"a": "1", "b": "2"})
    source.land(target)
    source.define({"a": "TextField", "b": "TextField"}, {"a": "乙", "b": "甲"})
    source.land(target)
    [shown] = rows_of(target, f"v_{TABLE}")
    assert (shown["乙"], shown["甲"]) == ("1", "2")
    assert columns(target) == {"a": ("text", "乙", False), "b": ("text", "甲", False)}


def test_a_view_keeps_its_grants_and_the_views_on_it(source: Source, target: Database) -> None:
    if target.is_sqlite:
        pytest.skip("SQLite has no grants")
    source.define({"a": "TextField"}, {"a": "甲"})
    source.fill("I-1", {"a": "1"})
    source.land(target)
    with target.write() as connection:
        connection.exec_driver_sql(f"CREATE VIEW theirs AS SELECT * FROM v_{TABLE}")  # noqa: S608
        connection.exec_driver_sql(f"GRANT SELECT ON v_{TABLE} TO PUBLIC")
    source.define({"b": "TextField", "a": "TextField"}, {"a": "新", "b": "乙"})
    source.land(target)
    [shown] = rows_of(target, f"v_{TABLE}")
    assert (shown["新"], shown["乙"]) == ("1", None)
    with target.read() as connection:
        granted = (
            "SELECT count(*) FROM information_schema.role_table_grants WHERE grantee = 'PUBLIC' AND table_name = %s"
        )
        assert connection.exec_driver_sql(granted, (f"v_{TABLE}",)).scalar() == 1


def test_a_removed_field_keeps_its_column(source: Source, target: Database) -> None:
    source.define({"a": "TextField", "b": "NumberField"})
    source.fill("I-1", {"a": "x", "b": "1"})
    source.land(target)
    source.define({"a": "TextField"})
    source.fill("I-2", {"a": "y"})
    source.land(target)
    assert [(each["a"], each["b"]) for each in rows_of(target, TABLE)] == [("x", 1), ("y", None)]
    assert columns(target)["b"] == ("number", None, True)


def test_a_changed_kind_gets_another_column_with_all_values_that_fit(source: Source, target: Database) -> None:
    source.define({"a": "TextField"}, {"a": "金额"})
    source.fill("I-1", {"a": "12"})
    source.fill("I-2", {"a": "twelve"})
    source.land(target)
    source.define({"a": "NumberField"}, {"a": "金额"})
    source.land(target)
    first, second = rows_of(target, f"v_{TABLE}")
    assert (first["金额"], first["金额 (2)"], first["_raw"]) == (12, "12", None)
    assert (second["金额"], second["金额 (2)"], parsed(second["_raw"])) == (None, "twelve", {"a": "twelve"})
    assert columns(target) == {"a": ("text", "金额", True), "a_2": ("number", "金额", False)}
    source.define({"a": "TextField"})
    source.land(target)
    assert {name: dropped for name, (_, _, dropped) in columns(target).items()} == {"a": False, "a_2": True}


def test_a_value_waits_in_raw_for_the_definition_of_its_field(source: Source, target: Database) -> None:
    source.fill("I-1", {"amount": "12", "numberField_1": "3", "tableField_1": [{"price": 1}]})
    process = source.land(target)
    [row] = rows_of(target, TABLE)
    assert (parsed(row["_raw"]), row["numberfield_1"]) == ({"amount": "12"}, 3)
    assert [count for wrote in process.wrote for _, _, count in wrote] == [2]
    source.define({"amount": "NumberField", "tableField_1": "TableField", "tableField_1/price": "NumberField"})
    source.land(target)
    [row] = rows_of(target, TABLE)
    assert (row["_raw"], row["amount"]) == (None, 12)
    assert columns(target)["numberfield_1"][2], "the definition has no such field"
    [line] = rows_of(target, f"{TABLE}__tablefield_1")
    assert (line["price"], line["_raw"]) == (1, None)


def test_an_instance_is_what_was_read_last_and_once(source: Source, target: Database) -> None:
    first = source.fill("I-1", {"textField_1": "old", "tableField_1": [{"textField_2": "a"}, {"textField_2": "b"}]})
    source.fill("I-1", {"textField_1": "new", "tableField_1": [{"textField_2": "c"}]})
    source.land(target)
    source.put(first)
    source.land(target)
    assert [each["textfield_1"] for each in rows_of(target, TABLE)] == ["new"]
    assert [each["textfield_2"] for each in rows_of(target, f"{TABLE}__tablefield_1")] == ["c"]
    source.fill("I-1", {})
    source.land(target)
    assert [each["textfield_1"] for each in rows_of(target, TABLE)] == [None]
    assert rows_of(target, f"{TABLE}__tablefield_1") == []


def test_a_deleted_instance_stays_without_its_values_until_its_tombstone(source: Source, target: Database) -> None:
    source.fill("I-1", {"textField_1": "secret", "tableField_1": [{"textField_2": "a"}]})
    source.land(target)
    source.fill("I-1", {}, deleted=True)
    source.land(target)
    [row] = rows_of(target, TABLE)
    assert (bool(row["_deleted"]), row["textfield_1"]) == (True, None)
    assert rows_of(target, f"{TABLE}__tablefield_1") == []
    source.forget("I-1")
    source.land(target)
    assert rows_of(target, TABLE) == []
    assert rows_of(target, "landed") == []


def test_an_instance_may_come_to_another_form(source: Source, target: Database) -> None:
    source.fill("I-1", {"textField_1": "a"})
    source.land(target)
    source.fill("I-1", {"textField_1": "b"}, form="FORM-2")
    source.land(target)
    assert rows_of(target, TABLE) == []
    assert [each["textfield_1"] for each in rows_of(target, "f_form2")] == ["b"]


HOSTILE = [
    '"; DROP TABLE forms; --',
    "100%",
    "%s %(a)s ?",
    "a\\b",
    "a'b",
    "\u202eabc",
    "select",
    "ctid",
    "x" * 300,
    "a\0b",
    "\n",
    "金额" * 50,
]


def test_hostile_ids_and_labels_are_names_like_others(source: Source, target: Database) -> None:
    for at, each in enumerate(HOSTILE):
        form = f"{each}-{at}"
        fields = {name.replace("/", "_"): "TextField" for name in (*HOSTILE, "instance_id", "INSTANCE_ID", "_raw", "t")}
        fields["t"] = "TableField"
        fields |= {f"t/{name.replace('/', '_')}": "NumberField" for name in HOSTILE}
        source.define(
            fields, {name: HOSTILE[(n + 1) % len(HOSTILE)] for n, name in enumerate(fields)}, form=form, title=each
        )
        values = {name: "1" for name in fields if "/" not in name and name != "t"}
        source.fill(f"I-{at}", {**values, "t": [dict.fromkeys(HOSTILE, 1)]}, form=form)
    source.land(target)
    forms = rows_of(target, "forms")
    assert len({each["table_name"] for each in forms}) == len(HOSTILE)
    for each in forms:
        [row] = rows_of(target, each["table_name"])
        assert [value for value in row.values() if value == "1"] == ["1"] * (len(HOSTILE) + 3)
        assert len(rows_of(target, f"v_{each['table_name']}")) == 1
    for each in {row["table_name"] for row in rows_of(target, "form_columns")}:
        assert len(rows_of(target, each)) == 1
    source.define({"renamed": "TextField"}, form=f"{HOSTILE[0]}-0")
    source.land(target)


def test_a_form_may_have_more_fields_than_a_table_has_columns(source: Source, target: Database) -> None:
    names = [f"textField_{at:04}" for at in range(1_700)]
    source.define(dict.fromkeys(names, "TextField"))
    source.fill("I-0", {})
    source.land(target)
    source.fill("I-1", dict.fromkeys(names[-3:], "late") | {names[0]: "first"})
    source.land(target)
    _, row = rows_of(target, TABLE)
    assert row[names[0].lower()] == "first"
    assert parsed(row["_raw"]) == dict.fromkeys(names[-3:], "late")
    assert len(row) < 1_100


def test_a_row_that_the_database_refuses_stops_no_other(source: Source, target: Database) -> None:
    """A time that no timestamp has: the record is skipped by the follower, which writes halves."""
    source.fill("I-1", {"textField_1": "a"})
    process = LandProcess(target, *source.topics)
    broken = source.fill("I-2", {"textField_1": "b"}, read_at=1 << 60)
    assert broken.read_at == 1 << 60
    if target.is_sqlite:
        source.land(target)
        return
    with pytest.raises(OverflowError):
        process.follow()
    process = LandProcess(target, *source.topics)
    process.write([source.values.records[0]])
    assert [each["instance_id"] for each in rows_of(target, TABLE)] == ["I-1"]


def test_two_processes_write_each_record_once_and_know_of_each_others_columns(source: Source, target: Database) -> None:
    one, other = LandProcess(target, *source.topics), LandProcess(target, *source.topics)
    source.fill("I-1", {"textField_1": "a"})
    one.follow()
    with pytest.raises(PositionLost):
        other.follow()
    source.fill("I-2", {"textField_1": "b", "textField_2": "c"})
    other.assign({*other.assigned})
    other.follow()
    source.fill("I-3", {"textField_2": "d"})
    one.assign({*one.assigned})
    one.follow()
    assert [(each["textfield_1"], each["textfield_2"]) for each in rows_of(target, TABLE)] == [
        ("a", None),
        ("b", "c"),
        (None, "d"),
    ]


def test_a_partition_is_read_again_without_its_former_rows(source: Source, target: Database) -> None:
    for at in range(20):
        source.fill(f"I-{at}", {"tableField_1": [{"textField_1": "a"}]})
        source.move(TaskState(f"I-{at}", CORP, APP, NOW_MS, 1, tasks=(TaskEntry("T", Status.COMPLETED),)))
        source.name(PersonRecord(f"u-{at}", "王芳"))
    source.define({"amount": "NumberField"})
    process = source.land(target)
    for name in process.followed:
        with target.write() as connection:
            process.followed[name].drop(connection, 1)
    kept = {each.its_key for each in source.values.records if each.its_partition != 1}
    for table in (TABLE, f"{TABLE}__tablefield_1", "instances", "tasks", "decisions"):
        assert {each["instance_id"].encode() for each in rows_of(target, table)} == kept
    assert len(rows_of(target, "people")) < 20


def test_tasks_and_decisions_are_those_of_the_states(source: Source, target: Database) -> None:
    done = TaskEntry(
        "T-1", Status.COMPLETED, ("u-1", "u-2"), "u-1", created_at=NOW_MS, decided_at=NOW_MS + 5, outcome="AGREE",
        remark="好\0", step_name="主管", decided_by="PERSON",
    )  # fmt: skip
    open_ = TaskEntry("T-2", Status.PENDING, (), step_name="财务", created_at=NOW_MS + 5, due_at=NOW_MS + 9)
    state = TaskState(
        "I-1", CORP, APP, NOW_MS + 5, 2, "请假", originator=Person("u-3"), tasks=(done, open_), began_at=NOW_MS
    )  # fmt: skip
    source.move(state)
    source.name(PersonRecord("u-1", "王芳", "采购部", "A1"))
    source.land(target)
    assert rows_of(target, "instances") == [
        {
            "instance_id": "I-1",
            "corp_id": CORP,
            "app_type": APP,
            "source": "yida",
            "title": "请假",
            "originator_id": "u-3",
            "began_at": at(target, NOW_MS),
            "finished_at": None,
            "result": None,
        }
    ]
    assert [
        (each["task_id"], each["assignee_id"], each["status"], each["due_at"])
        for each in rows_of(target, "tasks", order="2, 3")
    ] == [
        ("T-1", "u-1", "COMPLETED", None),
        ("T-1", "u-2", "COMPLETED", None),
        ("T-2", "", "PENDING", at(target, NOW_MS + 9)),
    ]
    assert rows_of(target, "decisions") == [
        {
            "instance_id": "I-1",
            "task_id": "T-1",
            "actor_id": "u-1",
            "outcome": "AGREE",
            "remark": "好\ufffd",
            "decided_by": "PERSON",
            "decided_at": at(target, NOW_MS + 5),
            "step_name": "主管",
        }
    ]
    source.states.append(b"I-1", None)
    source.land(target)
    assert [rows_of(target, each) for each in ("instances", "tasks", "decisions")] == [[], [], []]


def test_a_deleted_state_is_no_instance(source: Source, target: Database) -> None:
    source.move(TaskState("I-1", CORP, APP, NOW_MS, 1))
    source.move(TaskState("I-1", CORP, APP, NOW_MS, 2, lifecycle=Lifecycle.DELETED))
    source.land(target)
    assert rows_of(target, "instances") == []


def test_a_target_is_prepared_once_and_has_an_id_of_its_own(target: Database) -> None:
    assert prepare(target) == prepare(target)
