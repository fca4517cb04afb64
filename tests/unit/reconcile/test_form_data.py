"""The topic of form data follows what people edit at DingTalk, by few calls, and nothing is written twice."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import pytest
from msgspec import structs

from support.form_topics import HOUR_MS, ORDINARY, RULES, forms, truth, values
from support.reconcile import APP_TYPE, CORP_ID, FORM, MINUTE_MS, NOW, Streams, filed, happened
from taskbridge.dingtalk import wire
from taskbridge.dingtalk.api import YidaApi
from taskbridge.dingtalk.apps import Organisation
from taskbridge.dingtalk.organisation import GetFormComponentDefinitionList, OrganisationApi
from taskbridge.dingtalk.times import DAY_MS, next_month_ms
from taskbridge.local.fake_answers import Refused
from taskbridge.local.fake_dingtalk import FakeDingTalk
from taskbridge.reconcile.budget import Allowance
from taskbridge.reconcile.form_store import WORK, FormStore, Target
from taskbridge.reconcile.names import FORM as FORM_NAME
from taskbridge.reconcile.repairer import RECONCILE, Context, Rules
from taskbridge.reconcile.runs import make_pass
from taskbridge.reconcile.store import Cursor, CursorKey, open_database
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import Action, FormData
from taskbridge.schemas.topics import FORM_DATA, TASK_EVENTS

if TYPE_CHECKING:
    from pathlib import Path

    from taskbridge.local.fake_dingtalk import TrueInstance
    from taskbridge.schemas.events import TaskEvent

DAY_S, HOUR_S = 86_400, 3600
TO_CHECK = (
    "SELECT 1 FROM form_records WHERE (corp_id, app_type, ordinary) = (1, 2, 3) AND is_deleted = 0 AND due_ms <= 4"
    " ORDER BY due_ms"
)
TO_READ = (
    "SELECT 1 FROM form_reads WHERE (corp_id, app_type, ordinary) = (1, 2, 3) AND due_ms <= 4 ORDER BY changed_ms DESC"
)
LATELY = (
    "SELECT 1 FROM form_records WHERE (corp_id, app_type, ordinary) = (1, 2, 3) AND is_deleted = 0 AND form_uuid = 4"
    " AND absent_ms IS NULL ORDER BY due_ms DESC"
)
SEEN = (
    "SELECT 1 FROM form_records WHERE (corp_id, app_type, ordinary) = (1, 2, 3) AND is_deleted = 0 AND due_ms >= 4"
    " AND form_uuid = 5 AND as_of_ms >= 6"
)
LONG_AGO = (
    "SELECT 1 FROM form_records WHERE (corp_id, app_type, form_uuid) = (1, 2, 3) AND is_deleted = 0 AND changed_ms < 4"
)
NEXT_FORM = (
    "SELECT min(form_uuid) FROM form_records WHERE (corp_id, app_type) = (1, 2) AND is_deleted = 0 AND form_uuid > 3"
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
        assert found.forms.find("I-1", now_ms=NOW) is None


@pytest.mark.parametrize("pattern", ["*", "FORM-[1o]*"])
async def test_values_that_did_not_change_for_the_days_of_their_form_go_and_do_not_come_back(
    tmp_path: Path, pattern: str
) -> None:
    keep_days = (("FORM-other", 1), (pattern, 10))
    async with forms(tmp_path, ordinary_forms=(ORDINARY,), keep_days=keep_days) as found:
        old, edited = (created("I-old"), row("R-old", text_1="a")), (created("I-new"), row("R-new", text_1="a"))
        found.happen(*old, *edited, announced=False)
        found.topics.arrive(old[0], edited[0])
        await found.run(2 * DAY_S)
        assert found.topics.newest().keys() == {"I-old", "I-new", "R-old", "R-new"}
        found.edit("R-new", text_1="b")
        # The values stay the same, and DingTalk says that somebody changed the instance.
        found.edit("I-new", number_1="100")
        await found.run(DAY_S)
        await found.run(8 * DAY_S)
        assert found.topics.newest().keys() == {"I-new", "R-new"}
        assert [found.topics.written(each)[-1] for each in ("I-old", "R-old")] == [None, None]
        written = len(found.topics.written())
        # Callbacks come again; another machine, which knows the topic alone, lists 30 days; and all is checked.
        found.topics.arrive(old[0], agreed("I-old"))
        await found.run(60)
        found.restart(tmp_path / "another")
        found.store.cursors.move(CursorKey(RECONCILE, CORP_ID, APP_TYPE, FORM), Cursor(0, 0))
        await found.run(60)
        assert len(found.topics.written()) == written
        found.edit("R-old", text_1="c")
        await found.run(DAY_S + HOUR_S)
        assert found.topics.newest()["R-old"].data == {"text_1": "c"}


async def test_a_decision_counts_as_a_change_although_no_call_reads_it(tmp_path: Path) -> None:
    async with forms(tmp_path, keep_days=(("*", 10),)) as found:
        found.happen(created(), created("I-2"))
        await found.run(9.5 * DAY_S)
        found.was_scanned(FORM)
        # The values of one are read, and are the same; those of the other wait for calls.
        found.happen(agreed(at=found.api.clock.now_ms()))
        await found.run(11)
        found.happen(agreed("I-2", at=found.api.clock.now_ms()))
        found.api.dingtalk.faults.is_down = True
        with pytest.raises(OperatorError, match="down"):
            await found.run(DAY_S / 2 + HOUR_S)
        assert found.topics.newest().keys() == {"I-1", "I-2"}


async def test_events_before_the_days_of_their_form_cost_no_call(tmp_path: Path) -> None:
    async with forms(tmp_path, keep_days=(("*", 10),)) as found:
        at = NOW - 11 * DAY_MS
        found.happen(created(at=at), agreed(at=at + MINUTE_MS), announced=False)
        found.topics.arrive(created(at=at))
        await found.run(60)
        assert (found.calls(), found.topics.written()) == (0, [])


async def test_values_that_are_read_long_after_their_change_stay_no_longer(tmp_path: Path) -> None:
    async with forms(tmp_path, keep_days=(("*", 10),)) as found:
        found.happen(created(at=NOW - 9 * DAY_MS), agreed(at=NOW - 9 * DAY_MS), announced=False)
        found.topics.arrive(agreed(at=NOW - 9 * DAY_MS))
        await found.run(60)
        assert found.topics.newest().keys() == {"I-1"}
        found.was_scanned(FORM)
        await found.run(DAY_S)
        assert found.topics.newest().keys() == set()


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


async def test_an_older_reading_is_read_again_also_if_both_come_at_once(tmp_path: Path) -> None:
    async with forms(tmp_path) as found:
        found.happen(created())
        await found.run()
        [old] = found.topics.written()
        assert old is not None
        found.edit("I-1", number_1="3")
        new, older = ({"data": {"number_1": each}, "read_at": old.read_at + int(each)} for each in ("2", "1"))
        await found.topics.write_forms([structs.replace(old, **new), structs.replace(old, **older)])
        await found.run(60)
        assert values(found) == truth(found)


async def test_a_later_reading_has_a_later_time_by_any_clock(tmp_path: Path) -> None:
    """Who follows the topic keeps the later one of two readings."""
    async with forms(tmp_path) as found:
        clock = found.api.clock
        found.happen(created(received_at=NOW + HOUR_MS), created("I-2", form_data={}))
        clock.set_by_s(3 * DAY_S)
        found.happen(agreed("I-2", clock.now_ms()))
        await found.run(75)
        clock.set_by_s(-3 * DAY_S)
        for each in ("I-1", "I-2"):
            found.edit(each, number_1="2")
            found.happen(agreed(each))
        await found.run(3600)
        assert values(found) == truth(found)
        for each in ("I-1", "I-2"):
            found.happen(happened(Action.DELETED, clock.now_ms(), instance_id=each))
        await found.run(3600)
        for each in ("I-1", "I-2"):
            [first, second, last] = [record for record in found.topics.written(each) if record is not None]
            assert first.read_at < second.read_at < last.read_at
            assert last.deleted


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
        # 1,000 calls for nine and a half days.
        assert {second - first for first, second in pairwise(read)} == {14}
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


async def test_a_text_that_looks_like_lines_has_no_new_field(tmp_path: Path) -> None:
    """Each new field costs a call, and anybody may write such a text."""
    async with forms(tmp_path) as found:
        found.happen(created())
        await found.run()
        found.store.names.was_read(FORM_NAME, CORP_ID, [FORM], now_ms=NOW)
        found.happen(created("I-2", form_data={"number_1": '[{"new_1":1}]'}))
        await found.run()
        assert found.store.names.due(FORM_NAME, CORP_ID, now_ms=NOW) == []
        found.happen(created("I-3", form_data={"tableField_1": '[{"new_1":1}]'}))
        await found.run()
        assert len(found.store.names.due(FORM_NAME, CORP_ID, now_ms=NOW)) == 1


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


async def test_a_field_is_published_once_its_label_is_known(tmp_path: Path) -> None:
    async with forms(tmp_path, omit_fields=("身份证*",)) as found:
        labels = {"number_1": "金额"}
        found.api.dingtalk.organisation.labels[FORM] = labels
        found.happen(created())
        await found.run(20)
        assert values(found) == {"I-1": {"number_1": "100"}}
        # Ten minutes later the form has two more fields; the definition has one of them an hour later still.
        labels |= {"text_8": "备注", "text_9": "身份证号"}
        data = {"number_1": "1", "text_7": "late", "text_8": "new", "text_9": "110101199001011234"}
        found.happen(created("I-2", at=NOW + 10 * MINUTE_MS, form_data=data))
        await found.run(620)
        assert values(found)["I-2"] == {"number_1": "1", "text_8": "new"}
        assert found.left_out[APP_TYPE] == 1
        definitions = found.api.dingtalk.calls[GetFormComponentDefinitionList.path]
        found.happen(created("I-3", at=found.api.clock.now_ms(), form_data=data))
        await found.run()
        assert values(found)["I-3"] == {"number_1": "1", "text_8": "new"}
        assert found.api.dingtalk.calls[GetFormComponentDefinitionList.path] == definitions
        labels["text_7"] = "日期"
        await found.run(3600)
        assert values(found)["I-3"] == values(found)["I-2"] == {"number_1": "1", "text_8": "new", "text_7": "late"}


async def test_names_of_fields_that_never_end_cost_few_calls(tmp_path: Path) -> None:
    async with forms(tmp_path, omit_fields=("身份证*",)) as found:
        labels = found.api.dingtalk.organisation.labels
        labels[FORM] = {"number_1": "金额"}
        for each in range(60):
            data = {"number_1": "1", f"text_{each}": "x"}
            found.happen(created(f"I-{each}", found.api.clock.now_ms(), form_data=data))
            await found.run(60)
        await found.run(60)
        assert {tuple(each) for each in values(found).values()} == {("number_1",)}
        assert found.api.dingtalk.calls[GetFormComponentDefinitionList.path] <= 7
        labels[FORM] |= {f"text_{each}": "later" for each in range(60)}
        await found.run(2 * 3600)
        assert values(found) == truth(found)


async def test_a_form_without_a_definition_stops_no_other(tmp_path: Path) -> None:
    async with forms(tmp_path, omit_fields=("身份证*",), scanned=(FORM, ORDINARY, "FORM-2")) as found:
        found.api.dingtalk.organisation.labels["FORM-2"] = {"number_1": "金额"}
        found.happen(created("I-2", form_uuid="FORM-2"), created("I-1", NOW + 5000))
        with pytest.raises(OperatorError, match="pageInstanceNotFound"):
            await found.run(20)
        for day in range(3):
            at = found.api.clock.now_ms()
            found.edit("I-2", number_1=str(day))
            found.happen(agreed("I-2", at))
            await found.run(20)
            assert values(found) == {"I-2": {"number_1": str(day)}}
            with suppress(OperatorError):
                await found.run(DAY_S)
        found.api.dingtalk.organisation.labels[FORM] = {"number_1": "金额"}
        for _ in range(2):
            with suppress(OperatorError):
                await found.run(DAY_S)
        assert values(found) == truth(found)


async def test_a_definition_that_is_gone_later_stops_no_other_form(tmp_path: Path) -> None:
    async with forms(tmp_path, omit_fields=("身份证*",), scanned=(FORM, ORDINARY, "FORM-2")) as found:
        labels = found.api.dingtalk.organisation.labels
        labels |= {FORM: {"number_1": "金额"}, "FORM-2": {"number_1": "金额"}}
        found.happen(created(form_data={"number_1": "1", "text_7": "of a field that was removed"}))
        await found.run(20)
        labels.pop(FORM)
        for day in range(3):
            with suppress(OperatorError):
                await found.run(DAY_S)
            found.happen(created(f"J-{day}", found.api.clock.now_ms(), form_uuid="FORM-2", form_data={}))
            found.edit(f"J-{day}", number_1="5")
            await found.run(20)
            assert values(found)[f"J-{day}"] == {"number_1": "5"}


async def test_without_a_key_hashed_fields_are_left_out_and_nothing_else(tmp_path: Path) -> None:
    async with forms(tmp_path, rules=replace(RULES, hash_key=b""), hash_fields=("text_*",)) as found:
        found.api.dingtalk.organisation.labels[FORM] = {"number_1": "金额", "text_1": "姓名"}
        found.happen(created(form_data={"number_1": "1", "text_1": "王芳"}))
        with pytest.raises(OperatorError, match="RECONCILE_HASH_KEY_FILE"):
            await found.run(20)
        assert values(found) == {"I-1": {"number_1": "1"}}


async def test_numbers_have_the_digits_that_dingtalk_sends(tmp_path: Path) -> None:
    exact = '[{"number_2":12345678901234567.89,"number_3":1.10}]'
    async with forms(tmp_path, ordinary_forms=(ORDINARY,)) as found:
        row_of = found.api.dingtalk._form_row  # pyright: ignore[reportPrivateUsage]
        raw = msgspec.Raw(exact.encode())
        found.api.dingtalk._form_row = lambda known: msgspec.structs.replace(  # pyright: ignore[reportPrivateUsage]
            row_of(known), form_data={"table_1": raw, "number_1": msgspec.Raw(b"12345678901234567.89")}
        )
        found.happen(row(text_1="a"), announced=False)
        await found.run(DAY_S)
        assert values(found)["R-1"] == {"table_1": exact, "number_1": "12345678901234567.89"}


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


async def test_instances_that_do_not_exist_hide_no_other(tmp_path: Path) -> None:
    ids = [f"I-{each:02}" for each in range(50)]
    gone = {*ids[::5]}
    async with forms(tmp_path) as found:
        found.happen(*(created(each) for each in ids))
        await found.run()
        for each in ids:
            found.edit(each, number_1="2")
            found.happen(agreed(each))
        found.api.dingtalk.faults.absent |= gone
        for _ in range(5):
            await found.run(75)
        assert {key for key, each in values(found).items() if each == {"number_1": "2"}} == {*ids} - gone
        assert found.forms.waiting() == []
        assert found.calls() < 10 * 12 * 2, "for each that does not exist, twice up to a dozen calls"


async def test_a_recreated_topic_is_filled_again(tmp_path: Path) -> None:
    async with forms(tmp_path) as found:
        found.happen(created())
        await found.run()
        await found.run()
        found.topics.logs[FORM_DATA.name].clear()
        found.topics.logs[TASK_EVENTS.name].clear()
        await found.run()
        assert values(found) == truth(found)


@pytest.mark.parametrize("rows", [3, 57])
async def test_lost_access_to_a_form_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    hidden = {FORM, ORDINARY}
    known = FakeDingTalk._known  # pyright: ignore[reportPrivateUsage]

    def visible(self: FakeDingTalk, app_type: str, **more: Any) -> list[TrueInstance]:
        return [each for each in known(self, app_type, **more) if each.form_uuid not in hidden]

    async with forms(tmp_path, ordinary_forms=(ORDINARY,)) as found:
        found.happen(*(row(f"R-{each}", text_1="a") for each in range(rows)), announced=False)
        found.happen(*(created(f"I-{each}") for each in range(rows)))
        await found.run(DAY_S)
        before = values(found)
        assert len(before) == 2 * rows
        with monkeypatch.context() as patched:
            patched.setattr(FakeDingTalk, "_known", visible)
            patched.setattr(FakeDingTalk, "_one", _refuse)
            for _ in range(12):
                await found.run(DAY_S)
            assert values(found) == before
            # Nor if instances of another form are visible.
            hidden -= {FORM}
            for _ in range(12):
                with suppress(OperatorError):
                    await found.run(DAY_S)
            assert values(found) == before
            # Nor if nobody understands the answers.
            found.api.dingtalk.faults.garbled |= {f"I-{each}" for each in range(rows - 1)}
            found.happen(happened(Action.DELETED, NOW, instance_id=f"I-{rows - 1}"), announced=False)
            for _ in range(20):
                await found.run(DAY_S)
            assert values(found) == before
            found.api.dingtalk.faults.garbled.clear()
        for _ in range(9):
            await found.run(DAY_S)
        assert values(found) == truth(found)


def _refuse(*_: object) -> NoReturn:
    raise Refused(400, "invalidState.form.dataDoesNotExistOrIsDeleted", "数据不存在或已删除")


async def test_an_instance_that_is_not_returned_and_exists_is_not_deleted(tmp_path: Path) -> None:
    async with forms(tmp_path) as found:
        found.happen(created(), created("I-2"))
        await found.run(DAY_S)
        found.api.dingtalk._processes = lambda app_type: [  # pyright: ignore[reportPrivateUsage]
            each
            for each in found.api.company.instances(at_ms=found.api.clock.now_ms())
            if (each.app_type, each.instance_id) != (app_type, "I-2")
        ]
        for _ in range(20):
            await found.run(DAY_S)
        assert values(found) == truth(found)


async def test_a_look_up_without_an_answer_holds_up_no_other(tmp_path: Path) -> None:
    async with forms(tmp_path) as found:
        found.happen(*(created(f"I-{each}") for each in range(4)))
        await found.run()
        found.api.dingtalk.faults.broken.add("I-0")
        gone = (happened(Action.DELETED, NOW, instance_id=f"I-{each}") for each in range(3))
        found.happen(*gone, announced=False)
        for _ in range(12):
            with suppress(OperatorError):
                await found.run(DAY_S)
        assert values(found).keys() == {"I-0", "I-3"}
        found.api.dingtalk.faults.broken.clear()
        for _ in range(3):
            await found.run(DAY_S)
        assert values(found).keys() == {"I-3"}


async def test_a_large_day_is_listed_within_the_calls_of_several_days(tmp_path: Path) -> None:
    few = Allowance(per_second=10, per_day=12, per_month=100_000)
    async with forms(tmp_path, allowance=few, ordinary_forms=(ORDINARY,)) as found:
        found.happen(*(row(f"R-{each:04}", NOW + each, text_1="a") for each in range(1500)), announced=False)
        for day in range(1, 8):
            await found.run(DAY_S)
            assert found.calls() <= 3, "a quarter of the day's calls"
            assert len(values(found)) >= min(1500, 200 * day)
            found.restart()
        assert values(found) == truth(found)


async def test_apps_take_turns(tmp_path: Path) -> None:
    few = Allowance(per_second=10, per_day=12, per_month=100_000)
    async with forms(tmp_path, allowance=few, scanned=()) as found:
        other = replace(found.app, app_type="APP_2")
        found.api.dingtalk.system_tokens["APP_2"] = other.system_token.get_secret_value()
        apis = [found.client, YidaApi(found.api.calls, other, found.api.clock)]
        organisations = [OrganisationApi(found.api.calls, Organisation(found.app.corp, found.app.user_id))]
        await found.sync.run(apis, organisations)
        for day in range(4):
            now_ms = found.api.clock.now_ms()
            found.happen(*(created(f"I-{day}-{each}", now_ms + each, form_data={}) for each in range(400)))
            found.happen(structs.replace(created(f"J-{day}", now_ms, form_data={}), app_type="APP_2"))
            found.api.clock.pass_s(DAY_S)
            await found.sync.run(apis, organisations)
            assert found.forms.due(Target(CORP_ID, "APP_2"), now_ms=found.api.clock.now_ms(), most=1) == []


async def test_an_app_says_nothing_about_instances_of_another(tmp_path: Path) -> None:
    async with forms(tmp_path) as found:
        other = replace(found.app, app_type="APP_2")
        found.api.dingtalk.system_tokens["APP_2"] = other.system_token.get_secret_value()
        apis = [found.client, YidaApi(found.api.calls, other, found.api.clock)]
        organisations = [OrganisationApi(found.api.calls, Organisation(found.app.corp, found.app.user_id))]
        found.happen(created())
        await found.sync.run(apis, organisations)
        deleted = happened(Action.DELETED, NOW + MINUTE_MS)
        found.topics.arrive(*(structs.replace(each, app_type="APP_2") for each in (agreed(), deleted)))
        await found.sync.run(apis, organisations)
        found.edit("I-1", number_1="2")
        found.happen(agreed())
        found.api.clock.pass_s(75)
        await found.sync.run(apis, organisations)
        assert values(found) == truth(found)


async def test_the_values_of_forms_leave_calls_for_repairs(tmp_path: Path) -> None:
    few = Allowance(per_second=10, per_day=40, per_month=400)
    async with forms(tmp_path, allowance=few) as found:
        budget, clock = found.api.budget, found.api.clock
        found.happen(*(created(f"I-{each}", form_data={}) for each in range(2000)))
        await found.run(60)
        assert budget.used(CORP_ID).day == 16
        assert budget.may_spend(CORP_ID), "read-backs"
        clock.pass_s((next_month_ms(clock.now_ms()) - clock.now_ms()) / 1000 + 1)
        for _ in range(30 * 24):
            for above in (0.6, 0.75, 0.85):
                while budget.may_spend(CORP_ID, above=above, of_month=True):
                    await budget.acquire(CORP_ID)
            if clock.now_ms() // HOUR_MS % 3 == 0:
                await budget.acquire(CORP_ID)  # a pass: Spent is never raised
            clock.pass_s(3600)


async def test_a_clock_that_was_ahead_hides_no_change(tmp_path: Path) -> None:
    async with forms(tmp_path, ordinary_forms=(ORDINARY,)) as found:
        clock = found.api.clock
        found.happen(created(), row(text_1="a"), announced=False)
        clock.set_by_s(3 * DAY_S)
        found.topics.arrive(created(), agreed(at=clock.now_ms()))
        await found.run(11)
        assert values(found) == truth(found)
        clock.set_by_s(-3 * DAY_S)
        found.edit("I-1", number_1="2")
        found.edit("R-1", text_1="b")
        found.happen(agreed())
        await found.run(3600)
        assert values(found) == truth(found)


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (TO_CHECK, "form_records_due"),
        ("SELECT 1 FROM form_records WHERE is_deleted AND due_ms <= 4 ORDER BY due_ms", "form_records_deleted"),
        (LONG_AGO, "form_records_changed"),
        (NEXT_FORM, "form_records_changed"),
        (TO_READ, "form_reads_newest"),
        ("SELECT corp_id, count(*) FROM form_reads GROUP BY 1 ORDER BY 1", "form_reads_newest"),
        ("SELECT DISTINCT corp_id, app_type, ordinary FROM form_reads", "form_reads_newest"),
        (LATELY, "form_records_due"),
        (SEEN, "form_records_due"),
    ],
)
async def test_an_index_serves_each_query(tmp_path: Path, query: str, index: str) -> None:
    database = open_database(tmp_path)
    FormStore(database)
    plan = [each[-1] for each in database.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()]
    assert any(index in each for each in plan), plan
    assert not any("TEMP B-TREE" in each for each in plan), plan
