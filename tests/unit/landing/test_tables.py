"""What the tables of a target have after records of every kind, in PostgreSQL and SQLite."""

from __future__ import annotations

import json
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event

from support.center_records import NOW_MS
from support.landing import APP, CORP, FORM, TABLE, LandProcess, Source, rows_of
from taskbridge.landing import records as landing_records
from taskbridge.landing.shapes import COLUMNS_MAX, LINE_TABLES_MAX
from taskbridge.landing.tables import SCHEMA, prepare
from taskbridge.runtime.database import DatabaseUnavailable, open_target
from taskbridge.runtime.follow.batch import PositionLost, write_batch
from taskbridge.schemas.events import Lifecycle, Person, PersonRecord, Status, TaskEntry, TaskState
from taskbridge.schemas.topics import FORM_DATA

if TYPE_CHECKING:
    from collections.abc import Generator

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


def execute(target: Database, statement: str) -> None:
    with target.write() as connection:
        connection.exec_driver_sql(statement)


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


def test_labels_like_names_between_names_change_places(source: Source, target: Database) -> None:
    fields = {"a": "TextField", "b": "TextField", "c": "TextField"}
    source.define(fields, {"a": "_7", "b": "_8", "c": "_9"})
    source.fill("I-1", {"a": "1", "b": "2", "c": "3"})
    source.land(target)
    source.define(fields, {"a": "_8", "b": "_9", "c": "_7"})
    source.land(target)
    [shown] = rows_of(target, f"v_{TABLE}")
    assert (shown["_7"], shown["_8"], shown["_9"]) == ("3", "1", "2")


def test_numbers_are_exact(source: Source, target: Database) -> None:
    numbers = ["12345678901234567.89", "12345678901234567890", "9007199254740993", "0.1", "1e99", "-3.50", "9" * 300]
    source.define({"n": "NumberField"})
    for at, each in enumerate(numbers):
        source.fill(f"I-{at}", {"n": each, "tableField_1": [{"numberField_1": each}]})
    source.land(target)
    for row, each in zip(rows_of(target, TABLE), numbers, strict=True):
        assert Decimal(str(row["n"])) == Decimal(each)
    if target.is_sqlite:
        assert [row["n"] for row in rows_of(target, TABLE)[2:6]] == [9007199254740993, 0.1, 1e99, -3.5]


def test_a_nul_is_a_character_like_others(source: Source, target: Database) -> None:
    source.define({"attachmentField_1": "AttachmentField"})
    source.fill("I-1", {"attachmentField_1": '[{"name":"a\\u0000b.pdf","size":3,"fileId":"f"}]', "x": '["\\u0000"]'})
    lines = '[{"attachmentField_1":[{"name":"\\u0000"}],"x":{"\\u0000url":"s","y":"\\u0000"}}]'
    source.fill("I-2", {"tableField_1": lines})
    source.land(target)
    assert parsed(rows_of(target, TABLE)[0]["attachmentfield_1"]) == [{"name": "a\ufffdb.pdf", "size": 3, "id": "f"}]
    [line] = rows_of(target, f"{TABLE}__tablefield_1")
    assert (parsed(line["attachmentfield_1"])[0]["name"], parsed(line["_raw"])) == ("\ufffd", {"x": '{"y":"\ufffd"}'})


def test_what_has_no_room_is_raw_and_counted(source: Source, target: Database) -> None:
    long = "长" * 900
    source.fill("I-0", {f"textField_{at}": f"{at}{long}" for at in range(COLUMNS_MAX - 5)})
    source.fill("I-1", {f"tableField_{at}": [{"numberField_1": 1}] for at in range(LINE_TABLES_MAX - 1)})
    source.land(target)
    late: dict[str, object] = {f"employeeField_{at}": f"人{at}" for at in range(20)}
    late |= {f"employeeField_{at}_id": f"u-{at}" for at in range(20)}
    late |= {f"tableField_late{at}": [{"numberField_1": at}] for at in range(3)}
    source.fill("I-2", late)
    process = source.land(target)
    row = rows_of(target, TABLE)[2]
    raw = parsed(row["_raw"])
    landed = [name for name, value in row.items() if name.startswith("employeefield_") and value is not None]
    assert len(landed) == 4, "two columns for each of the people that there was room for"
    assert len([name for name in raw if name.startswith("employee")]) == 2 * 18
    assert len([name for name in raw if name.startswith("table")]) == 2
    assert [count for wrote in process.wrote for _, _, count in wrote] == [2 * 18 + 2]
    assert len(rows_of(target, f"{TABLE}__tablefield_late0")) == 1
    assert rows_of(target, TABLE)[0]["textfield_0"] == f"0{long}"


def test_values_are_typed_before_the_transaction_and_never_twice_alike(
    source: Source, target: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.fill("I-0", {"textField_1": "a"})
    process = source.land(target)
    source.fill("I-1", {"textField_1": "b"})
    records = process.records([source.values.records[-1]])
    monkeypatch.setattr(landing_records, "typed", None)
    write_batch(target, process.followed, records, {each.assigned: each.offset + 1 for each in records})
    assert [each["textfield_1"] for each in rows_of(target, TABLE)] == ["a", "b"]


def test_a_transaction_is_never_idle_for_long(
    source: Source, target: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(5):
        source.fill(f"I-{at}", {"tableField_1": [{"numberField_1": at}]})
    process = LandProcess(target, *source.topics)
    statements = list[str]()
    event.listen(target.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    clock = SimpleNamespace(monotonic=count(0, 3).__next__)
    monkeypatch.setattr(landing_records, "time", clock)
    process.follow()
    assert statements.count("SELECT 1") == 3 * 5, "to type values takes three seconds each, in three rounds"


@pytest.mark.parametrize("dropped", ["TABLE {table}", "TABLE {table}__tablefield_1", "column", "VIEW v_{table}"])
def test_what_an_administrator_drops_is_made_again(source: Source, target: Database, dropped: str) -> None:
    source.define(FIELDS, LABELS)
    source.fill("I-1", VALUES)
    process = source.land(target)
    tables = (TABLE, f"{TABLE}__tablefield_1", f"v_{TABLE}", f"v_{TABLE}__tablefield_1")
    before = [rows_of(target, each) for each in tables]
    with target.write() as connection:
        if dropped == "column":
            if target.is_sqlite:
                connection.exec_driver_sql(f"DROP VIEW v_{TABLE}")
            end = "" if target.is_sqlite else " CASCADE"
            connection.exec_driver_sql(f"ALTER TABLE {TABLE} DROP COLUMN amount{end}")
        else:
            connection.exec_driver_sql(f"DROP {dropped.format(table=TABLE)}{'' if target.is_sqlite else ' CASCADE'}")
    source.fill("I-2", {"tableField_1": VALUES["tableField_1"]})
    with suppress(DatabaseUnavailable):
        process.follow()
    with suppress(PositionLost):
        process.assign({*process.assigned})
        process.follow()
    source.fill("I-3", {})
    source.land(target)
    for table, rows in zip(tables, before, strict=True):
        assert [each for each in rows_of(target, table) if each["instance_id"] == "I-1"] == [
            {name: row[name] for name in rows_of(target, table)[0]} for row in rows
        ]


def test_a_dropped_column_that_an_administrator_drops_is_gone(source: Source, target: Database) -> None:
    """It has values that were erased since."""
    source.define({"amount": "TextField"}, LABELS)
    source.fill("I-1", {"amount": "secret"})
    source.land(target)
    source.define({"amount": "NumberField"}, LABELS)
    source.land(target)
    source.fill("I-1", {"amount": None})
    source.land(target)
    assert [(each["amount"], each["amount_2"]) for each in rows_of(target, TABLE)] == [("secret", None)]
    with target.write() as connection:
        connection.exec_driver_sql(f"DROP VIEW v_{TABLE}")
        connection.exec_driver_sql(f"ALTER TABLE {TABLE} DROP COLUMN amount")
    source.fill("I-1", {"amount": "5"})
    for _ in range(2):
        with suppress(DatabaseUnavailable, PositionLost):
            source.land(target)
    for table in (TABLE, f"v_{TABLE}"):
        [row] = rows_of(target, table)
        assert "secret" not in row.values()
        assert row["amount_2" if table == TABLE else LABELS["amount"]] == 5
    assert [each["column_name"] for each in rows_of(target, "form_columns")] == ["amount_2"]


def test_an_unchanged_definition_changes_nothing(source: Source, target: Database) -> None:
    source.define(FIELDS, LABELS)
    source.fill("I-1", VALUES)
    process = source.land(target)
    source.define(FIELDS, LABELS)
    statements = list[str]()
    event.listen(target.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    process.follow()
    assert [each for each in statements if each.startswith(("LOCK", "ALTER", "CREATE", "DROP"))] == []


def test_locks_are_taken_in_one_order(source: Source, target: Database) -> None:
    """Another process that reads again, and readers: first the lock of writers, then positions; view, then table."""
    if target.is_sqlite:
        pytest.skip("SQLite has one writer")
    source.define(FIELDS, LABELS)
    source.fill("I-1", VALUES)
    process = source.land(target)
    source.define({**FIELDS, "amount": "TextField"}, LABELS)
    source.fill("I-2", VALUES)
    statements = list[str]()
    event.listen(target.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    process.follow()
    kinds = {"pg_advisory": "writer", "UPDATE positions": "position", "LOCK TABLE": "view", "ALTER TABLE": "table"}
    found = [kind for each in statements for start, kind in kinds.items() if start in each]
    assert found.index("writer") < found.index("position") < found.index("view") < found.index("table")


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
    assert len(row) < 450


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


@pytest.mark.parametrize("renamed", ["COLUMN amount TO theirs", "TO theirs"])
def test_a_view_shows_no_former_values_of_what_an_administrator_renamed(
    source: Source, target: Database, renamed: str
) -> None:
    source.define({"amount": "NumberField"}, LABELS)
    source.fill("I-1", {"amount": "1"})
    source.land(target)
    with target.write() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {TABLE} RENAME {renamed}")
    source.fill("I-1", {"amount": "2"})
    for _ in range(2):
        with suppress(DatabaseUnavailable, PositionLost):
            source.land(target)
    assert [each["金额"] for each in rows_of(target, f"v_{TABLE}")] == [2]


def test_a_column_of_an_administrator_is_no_column_of_a_field(source: Source, target: Database) -> None:
    source.fill("I-1", {"textField_1": "a"})
    source.land(target)
    with target.write() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {TABLE} ADD COLUMN note text")
    source.define({"textField_1": "TextField", "note": "TextField"})
    source.fill("I-1", {"textField_1": "b", "note": "c"})
    with suppress(DatabaseUnavailable):
        source.land(target)
    source.land(target)
    [row] = rows_of(target, TABLE)
    assert (row["textfield_1"], row["note"], row["note_2"]) == ("b", None, "c")


def land_despite_refusals(process: LandProcess) -> None:
    """As a follower does, which repeats what failed."""
    for _ in range(6):
        with suppress(DatabaseUnavailable, PositionLost):
            process.assign({*process.assigned})
            process.follow()


@contextmanager
def without_create(target: Database) -> Generator[tuple[Database, str]]:
    """The target as a user sees it who may change rows, and create nothing; with the user's name."""
    user = f"land_{target.engine.url.database}"
    for each in (
        f"CREATE ROLE {user} LOGIN PASSWORD 'x'",
        f"GRANT USAGE ON SCHEMA {SCHEMA} TO {user}",
        f"GRANT ALL ON ALL TABLES IN SCHEMA {SCHEMA} TO {user}",
    ):
        execute(target, each)
    url = target.engine.url.set(username=user, password="x")
    with closing(open_target(url.render_as_string(hide_password=False), schema=SCHEMA)) as limited:
        yield limited, user
    execute(target, f"DROP OWNED BY {user}")
    execute(target, f"DROP ROLE {user}")


def test_a_form_whose_table_may_not_be_created_stops_no_other(source: Source, target: Database) -> None:
    if target.is_sqlite:
        pytest.skip("SQLite has no rights")
    source.fill("I-1", {"textField_1": "a"})
    source.land(target)
    with without_create(target) as (limited, user):
        prepare(limited)
        process = LandProcess(limited, *source.topics)
        source.fill("I-2", {"textField_1": "b", "tableField_1": [{"numberField_1": 1}]}, form="FORM-2")
        source.fill("I-3", {"textField_1": "c"})
        land_despite_refusals(process)
        assert source.has_landed(target)
        assert [each["textfield_1"] for each in rows_of(target, TABLE)] == ["a", "c"]
        [waiting] = rows_of(target, "waiting")
        assert (waiting["form_uuid"], "permission denied" in waiting["problem"]) == ("FORM-2", True)
        values = process.followed[FORM_DATA.name]
        assert values.purge(0) == 0, "nothing has changed"
        source.define({"textField_1": "TextField"}, {"textField_1": "甲"}, form="FORM-2")
        land_despite_refusals(process)
        execute(target, f"GRANT CREATE ON SCHEMA {SCHEMA} TO {user}")
        values.purge(0)
        land_despite_refusals(process)
        assert rows_of(target, "waiting") == []
        assert [each["甲"] for each in rows_of(target, "v_f_form2")] == ["b"]
        assert [each["numberfield_1"] for each in rows_of(target, "f_form2__tablefield_1")] == [1]


def test_a_dropped_table_that_may_not_be_made_again_stops_no_other_form(source: Source, target: Database) -> None:
    if target.is_sqlite:
        pytest.skip("SQLite has no rights")
    for each in ("I-1", "I-2"):
        source.fill(each, {"textField_1": "a", "tableField_1": [{"textField_1": "x"}]})
    source.land(target)
    lines = f"{TABLE}__tablefield_1"
    execute(target, f"DROP TABLE {lines} CASCADE")
    with without_create(target) as (limited, _):
        process = LandProcess(limited, *source.topics)
        source.forget("I-1")
        source.fill("I-3", {"textField_1": "c"}, form="FORM-2")
        land_despite_refusals(process)
        assert source.has_landed(target)
        assert [each["form_uuid"] for each in rows_of(target, "waiting")] == ["FORM-2", FORM]
        assert [each["instance_id"] for each in rows_of(target, TABLE)] == ["I-2"]
    process = LandProcess(target, *source.topics)
    land_despite_refusals(process)
    process.followed[FORM_DATA.name].purge(0)
    land_despite_refusals(process)
    assert rows_of(target, "waiting") == []
    assert [each["textfield_1"] for each in rows_of(target, lines)] == ["x"]
    assert [each["textField_1"] for each in rows_of(target, f"v_{lines}")] == ["x"]
    assert [each["textfield_1"] for each in rows_of(target, "f_form2")] == ["c"]


@pytest.mark.parametrize("theirs", ["1 AS theirs", '1 AS "乙"'])
def test_somebodys_column_in_a_view_stops_no_other_form(source: Source, target: Database, theirs: str) -> None:
    if target.is_sqlite:
        pytest.skip("in SQLite, views are made again")
    source.define({"a": "TextField"}, {"a": "甲"})
    source.fill("I-1", {"a": "1", "tableField_1": [{"textField_1": "x"}]})
    process = source.land(target)
    view = f"v_{TABLE}"
    with target.read() as connection:
        shown = connection.exec_driver_sql(f"SELECT pg_get_viewdef('{SCHEMA}.{view}'::regclass)").scalar()
    execute(target, f"CREATE OR REPLACE VIEW {view} AS SELECT *, {theirs} FROM ({str(shown).rstrip(';')}) AS its")  # noqa: S608
    source.define({"a": "TextField", "b": "TextField"}, {"a": "甲", "b": "乙"})
    source.fill("I-1", {"a": "2", "b": "3", "tableField_1": [{"textField_1": "y"}]})
    source.fill("I-2", {"textField_1": "c"}, form="FORM-2")
    land_despite_refusals(process)
    assert source.has_landed(target)
    assert [each["textfield_1"] for each in rows_of(target, "f_form2")] == ["c"]
    assert [each["form_uuid"] for each in rows_of(target, "waiting")] == [FORM]
    source.fill("I-1", {"a": "3"})
    land_despite_refusals(process)
    assert [each["甲"] for each in rows_of(target, view)] == ["2"], "its records wait, and its rows stay"
    assert [each["textfield_1"] for each in rows_of(target, f"{TABLE}__tablefield_1")] == ["y"]
    source.fill("I-1", {}, deleted=True)
    land_despite_refusals(process)
    assert rows_of(target, TABLE) == rows_of(target, f"{TABLE}__tablefield_1") == []
    source.forget("I-1")
    source.fill("I-4", {"a": "4", "b": "5"})
    execute(target, f"DROP VIEW {view}")
    # Another process, which begins.
    process = LandProcess(target, *source.topics)
    process.followed[FORM_DATA.name].purge(0)
    land_despite_refusals(process)
    assert source.has_landed(target)
    assert rows_of(target, "waiting") == []
    assert [(each["甲"], each["乙"]) for each in rows_of(target, view)] == [("4", "5")]
    assert rows_of(target, f"{TABLE}__tablefield_1") == []


@pytest.mark.parametrize("end", ["", "?password=SECRET", "?password=SECRET&none=SECRET"])
def test_no_error_shows_the_password_of_a_target(end: str) -> None:
    with pytest.raises(DatabaseUnavailable) as raised:
        prepare(open_target(f"postgresql://land:SECRET@127.0.0.1:9/warehouse{end}", schema=SCHEMA))
    assert "SECRET" not in str(raised.value)
    assert "land" in str(raised.value)
