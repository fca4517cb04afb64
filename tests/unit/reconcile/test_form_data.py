"""The topic of form data follows what people edit at DingTalk, by few calls, and nothing is written twice."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from support.form_topics import HOUR_MS, ORDINARY, RULES, forms, truth, values
from support.reconcile import APP_TYPE, CORP_ID, FORM, MINUTE_MS, NOW, Streams, filed, happened
from taskbridge.dingtalk import wire
from taskbridge.dingtalk.organisation import GetFormComponentDefinitionList
from taskbridge.dingtalk.times import DAY_MS
from taskbridge.reconcile.budget import Allowance
from taskbridge.reconcile.form_store import WORK, FormStore
from taskbridge.reconcile.names import FORM as FORM_NAME
from taskbridge.reconcile.repairer import Context, Rules
from taskbridge.reconcile.runs import make_pass
from taskbridge.reconcile.store import Cursor, CursorKey, open_database
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import Action, FormData
from taskbridge.schemas.topics import FORM_DATA, TASK_EVENTS

if TYPE_CHECKING:
    from pathlib import Path

    from taskbridge.schemas.events import TaskEvent

DAY_S = 86_400
TO_CHECK = (
    "SELECT 1 FROM form_records WHERE (corp_id, app_type, ordinary) = (1, 2, 3) AND is_deleted = 0 AND due_ms <= 4"
    " ORDER BY due_ms"
)
TO_READ = (
    "SELECT 1 FROM form_reads WHERE (corp_id, app_type, ordinary) = (1, 2, 3) AND due_ms <= 4 ORDER BY changed_ms DESC"
)
BY_ID = wire.GetInstancesByIdList.path


def created(instance_id: str = "I-1", at: int = NOW, **more: object) -> TaskEvent:
    return filed(instance_id, at, **{"form_data": {"number_1": "100"}, **more})


def agreed(instance_id: str = "I-1", at: int = NOW + MINUTE_MS) -> TaskEvent:
    return happened(Action.COMPLETED, at, instance_id=instance_id, task_id="1", actor_id="u-li")


def row(instance_id: str = "R-1", at: int = NOW, **values: str) -> TaskEvent:
    """An instance of a form without a process, for which there is no callback."""
    return filed(instance_id, at, form_uuid=ORDINARY, process_code=None, form_data=values)


async def test_the_values_of_a_create_are_a_record_without_a_call(tmp_path: Path) -> None:
    async with forms(tmp_path) as found:
        found.happen(created())
        await found.run()
        [record] = found.topics.written()
        assert record == FormData(
            *(CORP_ID, APP_TYPE, FORM),
            process_code="TPROC--1",
            instance_id="I-1",
            data={"number_1": "100"},
            read_at=NOW,
            cause="create",
            event_id=f"filed I-1 {NOW}",
        )
        found.restart()
        await found.run(DAY_S / 2)
        assert len(found.topics.written()) == 1
        assert found.calls() == 0


async def test_an_approvers_edit_is_read_after_the_decision_and_once_more(tmp_path: Path) -> None:
    async with forms(tmp_path) as found:
        found.happen(*(created(f"I-{each}") for each in range(50)))
        await found.run(60)
        for each in range(50):
            found.edit(f"I-{each}", number_1="90")
            found.happen(agreed(f"I-{each}"))
        await found.run(5)
        assert found.calls() == 0, "they are collected"
        await found.run(6)
        assert found.calls() == 1, "fifty instances by one call"
        assert values(found) == truth(found)
        assert {each.cause for each in found.topics.newest().values()} == {"event"}
        assert {each.event_id for each in found.topics.newest().values()} >= {agreed("I-7").event_id}
        found.edit("I-7", number_1="80")
        await found.run(60)
        assert found.calls() == 1
        await found.run(61)
        assert (found.calls(), values(found)) == (2, truth(found))
        written = len(found.topics.written())
        await found.run(3600)
        assert (found.calls(), len(found.topics.written())) == (2, written), "an unchanged answer writes nothing"


async def test_an_edit_that_no_callback_announces_is_found_by_a_scan(tmp_path: Path) -> None:
    async with forms(tmp_path) as found:
        found.happen(created())
        await found.run()
        await found.run(DAY_S / 2)
        found.edit("I-1", number_1="1")
        found.happen(created("I-lost"), announced=False)
        await found.run(DAY_S / 2 + 2 * 3600)
        assert values(found) == truth(found)
        assert {each.cause for each in found.topics.newest().values()} == {"scan"}
        calls = found.calls()
        await found.run(3600)
        assert found.calls() == calls


async def test_the_first_scan_goes_back_for_so_many_days_and_an_interrupted_one_continues(tmp_path: Path) -> None:
    old = [created(f"I-{each}", NOW - each * DAY_MS) for each in range(60)]
    async with forms(tmp_path, *old, scanned=[]) as found:
        found.store.cursors.move(CursorKey("reconcile", CORP_ID, APP_TYPE, FORM), Cursor(NOW, NOW))
        found.api.dingtalk.faults.is_down = True
        with pytest.raises(OperatorError, match="down"):
            await found.run()
        found.api.dingtalk.faults.is_down = False
        await found.run(120)
        assert {f"I-{each}" for each in range(31)} <= values(found).keys() <= {f"I-{each}" for each in range(33)}


async def test_ordinary_forms_are_followed_by_their_scan(tmp_path: Path) -> None:
    async with forms(tmp_path, ordinary_forms=(ORDINARY,)) as found:
        found.happen(row(text_1="a"), row("R-2", text_1="b"), announced=False)
        await found.run(DAY_S)
        assert values(found) == truth(found)
        assert {each.process_code for each in found.topics.newest().values()} == {None}
        found.edit("R-1", text_1="c")
        found.happen(happened(Action.DELETED, NOW + DAY_MS, instance_id="R-2"), announced=False)
        await found.run(DAY_S + 3600)
        assert values(found)["R-1"] == {"text_1": "c"}
        await found.run(6 * DAY_S)
        assert "R-2" in values(found), "absent once"
        await found.run(DAY_S)
        assert values(found) == truth(found)
        record = found.topics.newest()["R-2"]
        assert (record.deleted, record.data, record.cause, record.form_uuid) == (True, {}, "scan", ORDINARY)


async def test_a_deletion_is_a_record_without_values_and_later_a_tombstone(tmp_path: Path) -> None:
    async with forms(tmp_path) as found:
        found.happen(created())
        await found.run()
        found.happen(agreed(), happened(Action.DELETED, NOW + 2 * MINUTE_MS))
        found.topics.arrive(created())
        await found.run()
        record = found.topics.newest()["I-1"]
        assert (record.deleted, record.data, record.cause, record.form_uuid) == (True, {}, "event", FORM)
        found.topics.arrive(created("I-2"), happened(Action.DELETED, NOW, instance_id="I-3"), created("I-3"))
        await found.run(29 * DAY_S)
        assert found.topics.newest().keys() == {"I-1", "I-2"}
        await found.run(2 * DAY_S)
        assert found.topics.written("I-1")[-1] is None
        assert found.forms.find("I-1") is None


async def test_a_list_that_is_behind_replaces_no_newer_values(tmp_path: Path) -> None:
    async with forms(tmp_path) as found:
        found.happen(created())
        await found.run(2 * 3600)
        found.edit("I-1", number_1="2")
        found.happen(agreed(at=found.api.clock.now_ms()))
        await found.run(11)
        assert values(found) == truth(found)
        found.api.dingtalk.faults.lag_ms = HOUR_MS
        found.store.cursors.move(CursorKey(WORK, CORP_ID, APP_TYPE, FORM), Cursor(0, NOW - 2 * DAY_MS))
        await found.run(1)
        assert [each and each.data["number_1"] for each in found.topics.written()] == ["100", "2"]


async def test_a_pass_spares_the_scan(tmp_path: Path) -> None:
    async with forms(tmp_path) as found:
        streams = Streams()

        async def catch_up() -> None:
            found.store.states.current_ms = found.api.clock.now_ms()

        rules = Rules(settle_ms=15 * MINUTE_MS, forms=True)
        context = Context(found.store, streams, found.api.clock, rules, catch_up)
        found.happen(created(), created("I-2"))
        await found.run(DAY_S)
        found.edit("I-1", number_1="2")
        assert (await make_pass(context, [found.client])).is_whole
        lists = found.api.dingtalk.calls[wire.GetInstances.path]
        await found.run(2 * 3600)
        assert values(found) == truth(found)
        assert found.topics.newest()["I-1"].cause == "scan"
        assert found.api.dingtalk.calls[wire.GetInstances.path] == lists
        # A pass that began later than the scan ended leaves a gap, so it spares nothing.
        key = CursorKey(WORK, CORP_ID, APP_TYPE, FORM)
        cursor = found.store.cursors.find(key)
        found.store.cursors.extend(key, NOW + 3 * DAY_MS, until_ms=NOW + 4 * DAY_MS)
        assert found.store.cursors.find(key) == cursor


async def test_what_another_process_wrote_is_not_written_again_and_an_older_reading_is_read_again(
    tmp_path: Path,
) -> None:
    async with forms(tmp_path) as found:
        found.happen(created())
        await found.run()
        found.edit("I-1", number_1="2")
        found.happen(agreed())
        await found.run(75)
        [old, new] = found.topics.written()
        found.restart(tmp_path / "another")
        found.was_scanned(FORM)
        await found.run()
        await found.run(300)
        assert found.topics.written() == [old, new], "after the loss of the data folder too"
        assert old is not None
        # A process that was stopped between its reading and its writing.
        await found.topics.write_forms([old])
        await found.run()
        assert values(found) == truth(found)


async def test_when_calls_are_short_events_come_first_the_newest_before_others(tmp_path: Path) -> None:
    few = Allowance(per_second=10, per_day=4, per_month=1000)
    async with forms(tmp_path, allowance=few, ordinary_forms=(ORDINARY,)) as found:
        found.happen(*(created(f"I-{each}", form_data={}) for each in range(120)))
        found.happen(*(agreed(f"I-{each}", NOW + each) for each in range(120)))
        found.happen(row(text_1="a"), announced=False)
        await found.run(60)
        assert found.calls() == 2, "passes have the other half"
        assert values(found).keys() == {f"I-{each}" for each in range(20, 120)}
        for _ in range(9):
            await found.run(DAY_S)
        assert values(found) == truth(found), "late rather than never"


async def test_calls_for_events_last_until_the_end_of_the_day_and_the_month(tmp_path: Path) -> None:
    half_an_hour = Allowance(per_second=10, per_day=250, per_month=2500)
    async with forms(tmp_path, allowance=half_an_hour) as found:
        read = list[int]()
        for each in range(60):
            if each % 4 == 0:
                found.happen(created(f"I-{each}", form_data={}, at=found.api.clock.now_ms()))
            calls = found.calls()
            await found.run(60)
            read += [each] * (found.calls() - calls)
        assert read[0] == 0, "the first is read at once"
        # 1,250 calls for nine and a half days.
        assert {second - first for first, second in pairwise(read)} == {11}
        await found.run(3600)
        assert values(found) == truth(found)


async def test_a_refused_call_stops_no_other_and_is_made_again_after_an_hour(tmp_path: Path) -> None:
    async with forms(tmp_path, ordinary_forms=(ORDINARY,)) as found:
        found.happen(created(form_data={}), row(text_1="a"))
        found.api.dingtalk.faults.denied[BY_ID] = "Yida.Process.Read"
        with pytest.raises(OperatorError, match=r"Yida\.Process\.Read"):
            await found.run(DAY_S)
        assert values(found).keys() == {"R-1"}
        for _ in range(5):
            await found.run(10)
        assert found.api.dingtalk.calls[BY_ID] == 1
        found.api.dingtalk.faults.denied.clear()
        await found.run(3600)
        assert values(found).keys() == {"R-1", "I-1"}


async def test_a_form_gets_its_labels_again_when_a_value_has_a_new_field(tmp_path: Path) -> None:
    async with forms(tmp_path) as found:
        found.happen(created())
        await found.run()
        names = found.store.names
        [due] = names.due(FORM_NAME, CORP_ID, now_ms=NOW)
        assert (due.id, due.app_type) == (FORM, APP_TYPE)
        names.was_read(FORM_NAME, CORP_ID, [FORM], now_ms=NOW)
        found.happen(created("I-2"))
        await found.run()
        assert names.due(FORM_NAME, CORP_ID, now_ms=NOW) == []
        found.happen(created("I-3", form_data={"number_1": "1", "text_2": "x"}))
        await found.run()
        assert [each.id for each in names.due(FORM_NAME, CORP_ID, now_ms=NOW)] == [FORM]


async def test_protected_values_are_not_published_before_the_labels_are_known(tmp_path: Path) -> None:
    async with forms(tmp_path, omit_fields=("身份证*",), hash_fields=("text_2",)) as found:
        data = {"number_1": "100", "text_1": "110101", "text_1_id": "110101", "text_2": "王芳"}
        found.happen(created(form_data=data))
        found.api.dingtalk.faults.denied[GetFormComponentDefinitionList.path] = "Yida.Form.Read"
        with pytest.raises(OperatorError, match=r"Yida\.Form\.Read"):
            await found.run(20)
        assert found.topics.written() == []
        found.api.dingtalk.faults.denied.clear()
        labels = {"number_1": "金额", "text_1": "身份证号", "text_2": "姓名"}
        found.api.dingtalk.organisation.labels[FORM] = labels
        await found.run(3600)
        record = found.topics.newest()["I-1"]
        assert record.data.keys() == {"number_1", "text_2"}
        assert len(record.data["text_2"] or "") == 64
        # The labels are known now: a create needs no call.
        calls = found.calls()
        found.happen(created("I-2", form_data=data))
        await found.run()
        assert found.topics.newest()["I-2"].data == record.data
        assert found.calls() == calls


async def test_hashes_need_a_key(tmp_path: Path) -> None:
    async with forms(tmp_path, rules=replace(RULES, hash_key=b""), hash_fields=("x",)) as found:
        found.happen(created())
        with pytest.raises(OperatorError, match="RECONCILE_HASH_KEY_FILE"):
            await found.run()
        assert found.topics.written() == []


async def test_only_forms_of_the_apps_file_are_published(tmp_path: Path) -> None:
    async with forms(tmp_path, forms=("FORM-2",)) as found:
        found.happen(created(), agreed(), created("I-2", form_uuid="FORM-2"), created("I-3", form_uuid="FORM-3"))
        await found.run(20)
        assert found.topics.newest().keys() == {"I-2"}
        found.topics.arrive(structs.replace(created("I-4"), app_type="APP_OTHER"))
        await found.run()
        assert found.forms.waiting() == [], "none of them is to be read"
        assert found.calls() == 0


async def test_an_instance_that_cannot_be_read_holds_up_no_other(tmp_path: Path) -> None:
    async with forms(tmp_path) as found:
        found.happen(*(created(f"I-{each}", form_data={}) for each in range(4)))
        found.api.dingtalk.faults.garbled.add("I-2")
        await found.run(20)
        assert values(found).keys() == {"I-0", "I-1", "I-3"}


async def test_a_recreated_topic_is_filled_again(tmp_path: Path) -> None:
    async with forms(tmp_path) as found:
        found.happen(created())
        await found.run()
        await found.run()
        found.topics.logs[FORM_DATA.name].clear()
        found.topics.logs[TASK_EVENTS.name].clear()
        await found.run()
        assert values(found) == truth(found)


async def test_if_no_instance_is_visible_nothing_is_deleted(tmp_path: Path) -> None:
    async with forms(tmp_path, ordinary_forms=(ORDINARY,)) as found:
        found.happen(*(row(f"R-{each}", text_1="a") for each in range(12)), announced=False)
        await found.run(DAY_S)
        assert len(values(found)) == 12
        for each in range(12):
            found.happen(happened(Action.DELETED, NOW + 2 * DAY_MS, instance_id=f"R-{each}"), announced=False)
        for _ in range(10):
            await found.run(2 * DAY_S)
        assert len(values(found)) == 12, "the user may have lost the right to see them"


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (TO_CHECK, "form_records_due"),
        ("SELECT 1 FROM form_records WHERE is_deleted AND due_ms <= 4 ORDER BY due_ms", "form_records_deleted"),
        (TO_READ, "form_reads_newest"),
        ("SELECT corp_id, count(*) FROM form_reads GROUP BY 1 ORDER BY 1", "form_reads_newest"),
        ("SELECT DISTINCT corp_id, app_type, ordinary FROM form_reads", "form_reads_newest"),
    ],
)
async def test_an_index_serves_each_query(tmp_path: Path, query: str, index: str) -> None:
    database = open_database(tmp_path)
    FormStore(database)
    plan = [each[-1] for each in database.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()]
    assert any(index in each for each in plan), plan
    assert not any("TEMP B-TREE" in each for each in plan), plan
