"""What Yida's parameters mean, in every shape that is documented or guessed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.edge.fakes import APP_TYPE, CORP_ID, parameters_of, task_of
from taskbridge.edge.decision.callbacks import ACTIONS, event_of, locate
from taskbridge.edge.errors import Malformed
from taskbridge.schemas.events import Action, Person, TaskEvent, event_id_for

RECEIVED_AT = 1_700_000_000_000


def interpret(wire_action: str, parameters: dict[str, str]) -> TaskEvent:
    return event_of(locate(wire_action, parameters), parameters, received_at=RECEIVED_AT)


def with_task(wire_action: str = "create", outside: dict[str, str] | None = None, **changed: Any) -> TaskEvent:
    task = json.dumps({**task_of("inst-1"), **changed}, ensure_ascii=False)
    return interpret(wire_action, {"task": task, "dateTime": "1693462062502", **(outside or {})})


def reason(wire_action: str, parameters: dict[str, str]) -> str:
    with pytest.raises(Malformed) as caught:
        interpret(wire_action, parameters)
    return caught.value.reason


def test_a_create_becomes_an_event() -> None:
    parameters = parameters_of("create", instance_id="inst-1") | {"sign": "abc"}
    assert interpret("create", parameters) == TaskEvent(
        event_id=event_id_for("yida", "create", parameters),
        source="yida",
        action=Action.CREATED,
        corp_id=CORP_ID,
        app_type=APP_TYPE,
        instance_id="inst-1",
        task_id="2199132092",
        recipient_ids=("0169", "0170"),
        originator=Person("01690741902689", "张红"),
        title="张红的1位访客申请",
        url="https://www.aliwork.com/APP_RY60OCRF33Z7534TEST1/processDetail?id=1",
        process_code="TPROC--9BC6687125N9XAJ8873I0864QY122BZ96A2GL1",
        process_name="访客申请",
        form_uuid="FORM-MT866EA1X3N9W79GDQM2HB400M413OS76A2GL51",
        instance_status="RUNNING",
        created_at=1693462062502,
        occurred_at=1693462062502,
        received_at=RECEIVED_AT,
        form_data={"numberField_l4s57vma": "1", "imageField_llyrklcy": None, "deep": '{"n":1.0,"b":true}'},
        raw_parameters=parameters,
    )


@pytest.mark.parametrize(("wire_action", "action"), [("complete", Action.COMPLETED), ("cancel", Action.CANCELLED)])
def test_complete_and_cancel_are_about_one_task(wire_action: str, action: Action) -> None:
    event = interpret(wire_action, parameters_of(wire_action, instance_id="inst-1") | {"title": "not documented"})
    assert (event.action, event.instance_id, event.task_id) == (action, "inst-1", "2199132092")
    assert (event.actor_id, event.recipient_ids, event.title) == ("01690741902689", (), None)


@pytest.mark.parametrize(
    ("said", "decided_by"),
    [
        ({}, None),
        ({"taskExecuteType": "NORMAL"}, "PERSON"),
        ({"taskExecuteType": "NORMAL", "operatorAgentIdList": "[]"}, "PERSON"),
        ({"taskExecuteType": "NORMAL", "operatorAgentIdList": '[{"userId":"0171","displayName":"李"}]'}, "DELEGATE"),
        ({"operatorAgentIdList": "0171,0172"}, "DELEGATE"),
        ({"taskExecuteType": "AUTO"}, "AUTOMATIC"),
        ({"taskExecuteType": "FILTERED", "operatorAgentIdList": "0171"}, "AUTOMATIC"),
    ],
)
def test_a_decision_says_its_step_and_who_decided_if_the_callback_does(
    said: dict[str, str], decided_by: str | None
) -> None:
    step = {"showName": "部门审批", "activityId": "node_1"}
    event = interpret("complete", parameters_of("complete", instance_id="inst-1") | step | said)
    assert (event.step_name, event.step_id, event.decided_by) == ("部门审批", "node_1", decided_by)


@pytest.mark.parametrize("said", [{"taskExecuteType": "ROBOT"}, {"operatorAgentIdList": "[{"}])
def test_who_decided_never_sinks_a_callback(said: dict[str, str]) -> None:
    parameters, skipped = parameters_of("complete", instance_id="inst-1") | said, list[str]()
    event = event_of(locate("complete", parameters), parameters, received_at=RECEIVED_AT, skipped=skipped.append)
    assert (event.decided_by, skipped) == (None, [*said])


def test_the_step_of_a_created_task_is_in_the_task_or_in_the_parameters() -> None:
    event = with_task(outside={"activityId": "node_1", "showName": "outside"}, showName="部门审批")
    assert (event.step_name, event.step_id, event.decided_by) == ("部门审批", "node_1", None)


@pytest.mark.parametrize("actor", [None, "", " "])
def test_the_actor_may_be_absent_or_blank(actor: str | None) -> None:
    parameters = parameters_of("complete", instance_id="inst-1")
    del parameters["actualWorkId"]
    assert interpret("complete", parameters | ({} if actor is None else {"actualWorkId": actor})).actor_id is None


def test_a_delete_is_about_the_whole_instance() -> None:
    event = interpret("delete", parameters_of("delete", instance_id="inst-1"))
    assert (event.action, event.instance_id, event.task_id) == (Action.DELETED, "inst-1", None)


def test_a_cc_may_look_like_a_create() -> None:
    event = with_task("cc", {"actualWorkId": "9,0170"}, ccUserIds=["7", 8])
    assert event.action is Action.COPIED
    assert event.recipient_ids == ("0169", "0170", "7", "8", "9")
    assert (event.actor_id, event.title) == (None, "张红的1位访客申请")


def test_a_cc_may_be_flat() -> None:
    parameters = parameters_of("complete", instance_id="inst-1") | {"ccUserIds": '["7"]', "title": "t", "task": ""}
    event = interpret("cc", parameters)
    assert (event.instance_id, event.task_id, event.actor_id) == ("inst-1", "2199132092", None)
    assert (event.recipient_ids, event.title) == (("01690741902689", "7"), "t")


def test_the_documented_sample_without_task_id_recipients_and_url_is_an_event() -> None:
    event = with_task(corpId=None, taskId=None, actionerId=None, url=None, originatorId="")
    assert (event.corp_id, event.task_id, event.recipient_ids, event.url) == (CORP_ID, None, (), None)
    assert event.originator is None


@pytest.mark.parametrize("date_time", [None, "", "soon", "0"])
def test_without_a_readable_date_time_the_receipt_counts(date_time: str | None) -> None:
    parameters = parameters_of("delete", instance_id="inst-1")
    del parameters["dateTime"]
    event = interpret("delete", parameters | ({} if date_time is None else {"dateTime": date_time}))
    assert event.occurred_at == event.received_at == RECEIVED_AT


def test_the_instance_is_found_under_each_of_its_names() -> None:
    names = {"formInstanceId": None, "formInstId": "", "processInstanceId": "p"}
    for changed, instance_id in (({}, "p"), ({"formInstId": "f"}, "f"), ({"formInstId": 17}, "17")):
        task = json.dumps({**task_of("inst-1"), **names, **changed})
        assert interpret("create", {"task": task}).instance_id == instance_id
        assert interpret("create", {"task": task, "formInstId": "top"}).instance_id == "top"


def test_parameters_next_to_the_task_count_where_the_task_has_none() -> None:
    outside = {"title": "outside", "processName": "outside", "serialNo": "outside"}
    event = with_task(outside=outside, title=" ", processName=None)
    assert (event.title, event.process_name, event.serial_no) == ("outside", "outside", "outside")
    assert with_task(outside=outside).title == "张红的1位访客申请"


def test_numbers_serve_as_texts_and_times_as_texts_too() -> None:
    event = with_task(taskId=2199132092, originatorId=1690741902689, createTime="2023-08-31 14:07:42", version=1.0)
    assert (event.task_id, event.created_at) == ("2199132092", 1693462062000)
    assert event.originator == Person("1690741902689", "张红")


def test_the_url_is_the_first_that_is_a_web_address() -> None:
    assert with_task(url="javascript:1", taskUrl="", detailUrl="http://a/", formUrl="http://b/").url == "http://a/"


def test_descriptive_fields_of_any_type_never_reject_a_callback() -> None:
    event = with_task(title={"zh": "张"}, dataMap=[1], createTime={}, finishTime=[], url=True, serialNo=False)
    assert (event.title, event.form_data, event.created_at, event.url) == ('{"zh":"张"}', {}, None, None)


@pytest.mark.parametrize("key", ["taskId", "formInstanceId", "appType"])
@pytest.mark.parametrize("value", [True, {"a": 1}, [[]], "x" * 129])
def test_ids_of_a_wrong_type_are_malformed(key: str, value: Any) -> None:
    with pytest.raises(Malformed):
        interpret("create", {"task": json.dumps({**task_of("inst-1"), key: value})})


@pytest.mark.parametrize(
    ("changed", "expected", "noted"),
    list[tuple[dict[str, Any], dict[str, Any], list[str]]](
        [
            ({"actionerId": [{"userId": "0169", "name": "a"}, {"id": 170}]}, {"recipient_ids": ("0169", "170")}, []),
            ({"actionerId": [{"name": "a"}, "0170"]}, {"recipient_ids": ("0170",)}, ["recipients"]),
            ({"actionerId": ["x" * 129, "0170", [], True]}, {"recipient_ids": ("0170",)}, ["recipients"]),
            ({"actionerId": "[1,"}, {"recipient_ids": ()}, ["recipients"]),
            ({"actionerId": '{"userId": "0169"}'}, {"recipient_ids": ("0169",)}, []),
            ({"originatorId": {"userId": "9"}}, {"originator": Person("9", "张红")}, []),
            ({"originatorId": {"name": "x"}}, {"originator": None}, ["originatorId"]),
            ({"originatorId": ["9", "10"]}, {"originator": None}, ["originatorId"]),
            ({"createTime": "yesterday"}, {"created_at": None}, ["createTime"]),
            ({"createTime": RECEIVED_AT + 300_000}, {"created_at": RECEIVED_AT + 300_000}, []),
            ({"createTime": RECEIVED_AT + 300_001}, {"created_at": RECEIVED_AT}, ["createTime"]),
            ({"finishTime": "9999-12-31 00:00:00"}, {"finished_at": RECEIVED_AT}, ["finishTime"]),
            ({"dataMap": [1]}, {"form_data": {}}, ["dataMap"]),
        ]
    ),
)
def test_what_only_describes_is_left_out_and_noted_where_it_is_not_understood(
    changed: dict[str, Any], expected: dict[str, Any], noted: list[str]
) -> None:
    task = json.dumps({**task_of("inst-1"), **changed}, ensure_ascii=False)
    parameters = {"task": task, "dateTime": "1693462062502"}
    left_out: list[str] = []
    event = event_of(locate("create", parameters), parameters, received_at=RECEIVED_AT, skipped=left_out.append)
    assert {name: getattr(event, name) for name in expected} == expected
    assert left_out == noted
    assert event.raw_parameters["task"] == task


def test_a_form_that_is_nested_too_deep_costs_its_values_and_nothing_else() -> None:
    deep = "[" * 200 + "]" * 200
    task = json.dumps({**task_of("inst-1"), "dataMap": {"x": "DEEP"}, "serialNo": "DEEP"}).replace('"DEEP"', deep)
    parameters = {"task": task}
    left_out: list[str] = []
    event = event_of(locate("create", parameters), parameters, received_at=RECEIVED_AT, skipped=left_out.append)
    assert (event.instance_id, event.form_data, event.serial_no, left_out) == ("inst-1", {}, deep, ["dataMap"])


def test_a_date_in_the_future_counts_as_the_receipt() -> None:
    for ahead, occurred_at in ((300_000, RECEIVED_AT + 300_000), (300_001, RECEIVED_AT), (10**12, RECEIVED_AT)):
        parameters = parameters_of("complete", instance_id="inst-1") | {"dateTime": str(RECEIVED_AT + ahead)}
        event = interpret("complete", parameters)
        assert event.occurred_at == occurred_at
        assert event.raw_parameters["dateTime"] == str(RECEIVED_AT + ahead)


def test_an_escaped_or_repeated_name_is_found_as_every_parser_finds_it() -> None:
    task = json.dumps(task_of("inst-1"))[:-1] + ', "\\u0074itle": "second", "formInstanceId": "last"}'
    event = interpret("create", {"task": task})
    assert (event.title, event.instance_id) == ("second", "last")


def test_a_top_level_app_serves_where_task_names_none_and_must_agree_where_it_does() -> None:
    assert with_task(outside={"appType": APP_TYPE}, appType=None).app_type == APP_TYPE
    assert with_task(outside={"appType": APP_TYPE}).app_type == APP_TYPE
    task = json.dumps(task_of("inst-1"))
    assert reason("create", {"task": task, "appType": "APP_OTHER"}) == "no-app"
    assert reason("create", {"task": task, "corpId": "other"}) == "two-corps"


@pytest.mark.parametrize("wire_action", ["complete", "cancel"])
def test_complete_and_cancel_need_a_task_id(wire_action: str) -> None:
    assert reason(wire_action, parameters_of(wire_action, instance_id="i") | {"taskId": " "}) == "no-taskId"


@pytest.mark.parametrize("wire_action", ACTIONS)
def test_every_action_needs_app_corp_and_instance(wire_action: str) -> None:
    flat = {"appType": APP_TYPE, "corpId": CORP_ID, "taskId": "1", "formInstId": "i"}
    more = {"task": "{}"} if wire_action in ("create", "cc") else {}
    interpret(wire_action, flat | more)
    for key in ("appType", "corpId", "formInstId"):
        expected = "no-app" if key == "appType" else f"no-{key}"
        assert reason(wire_action, flat | more | {key: " "}) == expected


@pytest.mark.parametrize("task", ["", "{", "[]", "null", "1", '{"a": NaN}', "[" * 5000, '{"appType": ["x"]}'])
def test_a_create_whose_task_is_no_object_with_an_app_is_malformed(task: str) -> None:
    assert reason("create", {"task": task}) in ("task-json", "no-app", "bad-appType")


def test_the_signature_is_read_unchanged_and_a_blank_one_is_none() -> None:
    parameters = parameters_of("create", instance_id="inst-1")
    assert locate("create", parameters | {"sign": " abc "}).sign == "abc"
    assert locate("create", parameters | {"sign": " "}).sign is None


def test_another_reading_with_the_same_task_does_not_look_at_it_again() -> None:
    parameters = parameters_of("create", instance_id="inst-1")
    before = locate("create", parameters)
    assert locate("create", dict(parameters), before).described is before.described
    other = parameters | {"task": json.dumps(task_of("inst-2"))}
    found = locate("create", other, before)
    assert found.described is not before.described
    assert found.described.get("appType") == before.described.get("appType")


def test_a_corp_that_is_the_same_in_all_places_is_one() -> None:
    parameters = parameters_of("create", instance_id="inst-1") | {"corpId": CORP_ID}
    assert locate("create", parameters).corp_ids == [CORP_ID, CORP_ID]
    assert interpret("create", parameters).corp_id == CORP_ID


@pytest.mark.parametrize(
    ("outside", "task", "corps"),
    [
        ("ours", {"corpId": "theirs", "originatorCorpId": "third"}, ["ours", "theirs"]),
        (" ", {"corpId": "theirs", "originatorCorpId": "third"}, ["theirs"]),
        ("", {"corpId": ["theirs"], "originatorCorpId": "third"}, ["third"]),
        ("", {"corpId": None, "originatorCorpId": " "}, []),
        ("", {"originatorCorpId": ["third"]}, []),
    ],
)
def test_corps_are_texts_and_the_originators_counts_where_no_other_is_named(
    outside: str, task: dict[str, Any], corps: list[str]
) -> None:
    parameters = {"corpId": outside, "task": json.dumps({"appType": APP_TYPE, **task})}
    assert locate("create", parameters).corp_ids == corps
