"""Messages of Flowable, Camunda 7 and 8 and a unified to-do list become events.

Flowable's and Camunda 7's payloads are what ``examples/engines`` posts out of real engines, see
``integration/test_engines.py``; Camunda 8's are records of a real engine, see ``vectors/zeebe-records.md``. The push of
e-cology's ``ReceiveRequestInfoByJson`` has the fields and types of its own document.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.edge.client import EdgeClient
from support.edge.fakes import CORP_ID, MemoryPublisher
from taskbridge.edge.app import create_app
from taskbridge.edge.errors import Unverified
from taskbridge.edge.quarantine import reconsider
from taskbridge.edge.verification.credentials import Credentials, parse_credentials
from taskbridge.edge.verification.replays import MemoryWindow
from taskbridge.runtime import standard_webhooks
from taskbridge.runtime.settings import FileBroken
from taskbridge.schemas.events import Action, Person, TaskEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    import httpx2

    from taskbridge.edge.settings import EdgeSettings

VECTORS = Path(__file__).parents[3] / "vectors"
SYSTEMS = ("flowable", "camunda", "todo")
TOKEN = "a-token-of-a-system-that-cannot-sign"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def credentials_of(token: str = TOKEN) -> str:
    return "".join(
        f'[[sources]]\nname = "{each}"\nformat = "{each}"\ncorp_id = "{CORP_ID}"\n'
        f'secrets = ["{SECRET}"]\nbearer_tokens = ["{token}"]\n'
        for each in SYSTEMS
    )


@pytest.fixture
def client(settings: EdgeSettings, publisher: MemoryPublisher) -> Generator[EdgeClient]:
    settings.credentials_file.write_text(credentials_of())
    with EdgeClient(create_app(settings, publisher=publisher)) as client:
        yield client


def post(client: EdgeClient, system: str, body: Any, action: str = "", authorization: str = TOKEN) -> httpx2.Response:
    path = f"/sources/{system}/tasks" + (f"/{action}" if action else "")
    headers = {"Authorization": f"Bearer {authorization}"} if authorization else {}
    return client.post(path, json=body, headers=headers)


@pytest.fixture
def event_of(client: EdgeClient, publisher: MemoryPublisher) -> Callable[..., TaskEvent]:
    def event_of(system: str, body: Mapping[str, Any], action: str = "") -> TaskEvent:
        answer = post(client, system, body, action)
        assert answer.status_code == 200, answer.text
        event = publisher.published[-1]
        assert json.loads(event.raw_parameters["body"]) == body
        assert event.source == system
        return event

    return event_of


def brief(event: TaskEvent) -> tuple[Any, ...]:
    return (event.action, event.app_type, event.instance_id, event.task_id, event.recipient_ids, event.actor_id)


FLOWABLE_TASK = {
    "id": "30",
    "name": "Check the days",
    "taskDefinitionKey": "check",
    "processInstanceId": "4",
    "processDefinitionId": "leave:1:3",
    "createTime": "2026-11-26T12:18:56.321Z",
    "assignee": "gonzo",
    "candidateUsers": ["fozzie", "gonzo"],
    "timestamp": "2026-11-26T12:18:57.090Z",
}
FLOWABLE_INSTANCE = {
    "id": "4",
    "processInstanceId": "4",
    "processDefinitionId": "leave:1:3",
    "processDefinitionName": "Leave",
    "name": None,
    "businessKey": "2026-0001",
    "startUserId": "piggy",
    "startTime": "2026-11-26T12:18:55.875Z",
    "timestamp": "2026-11-26T12:18:55.883Z",
}


@pytest.mark.parametrize(
    ("kind", "data", "found"),
    [
        ("TASK_CREATED", {"assignee": None}, (Action.CREATED, "30", ("fozzie", "gonzo"), None)),
        ("TASK_CREATED", {"candidateUsers": []}, (Action.CREATED, "30", ("gonzo",), None)),
        ("TASK_CREATED", {"assignee": None, "candidateUsers": None}, (Action.CREATED, "30", (), None)),
        ("TASK_ASSIGNED", {}, (Action.CREATED, "30", ("gonzo", "fozzie"), None)),
        ("TASK_COMPLETED", {}, (Action.COMPLETED, "30", (), "gonzo")),
        ("TASK_COMPLETED", {"completedBy": None}, (Action.COMPLETED, "30", (), "gonzo")),
        ("TASK_COMPLETED", {"completedBy": "statler"}, (Action.COMPLETED, "30", (), "statler")),
        ("ENTITY_DELETED", {}, (Action.CANCELLED, "30", (), None)),
    ],
)
def test_flowables_tasks(
    event_of: Callable[..., TaskEvent], kind: str, data: Mapping[str, Any], found: tuple[Any, ...]
) -> None:
    event = event_of("flowable", {"type": kind, "data": {**FLOWABLE_TASK, **data}})
    action, task_id, recipients, actor = found
    assert brief(event) == (action, "leave", "flowable:4", task_id, recipients, actor)
    assert (event.title, event.occurred_at) == ("Check the days", 1795695537090)


@pytest.mark.parametrize("kind", ["PROCESS_CREATED", "PROCESS_STARTED"])
def test_flowables_instances_begin(event_of: Callable[..., TaskEvent], kind: str) -> None:
    event = event_of("flowable", {"type": kind, "data": FLOWABLE_INSTANCE})
    assert brief(event) == (Action.CREATED, "leave", "flowable:4", None, (), None)
    assert (event.originator, event.process_name, event.serial_no) == (Person("piggy"), "Leave", "2026-0001")
    assert (event.created_at, event.occurred_at, event.finished_at) == (1795695535875, 1795695535883, None)


@pytest.mark.parametrize(
    "kind", ["PROCESS_COMPLETED", "PROCESS_COMPLETED_WITH_TERMINATE_END_EVENT", "PROCESS_CANCELLED"]
)
def test_flowables_instances_end(event_of: Callable[..., TaskEvent], kind: str) -> None:
    event = event_of("flowable", {"type": kind, "data": FLOWABLE_INSTANCE})
    assert brief(event) == (Action.CREATED, "leave", "flowable:4", None, (), None)
    assert event.finished_at == event.occurred_at == 1795695535883


@pytest.mark.parametrize("system_", ["flowable", "camunda 7", "camunda 8", "todo"])
@pytest.mark.parametrize("nests", ["objects", "lists"])
def test_what_is_nested_too_deep_is_left_out_and_the_event_is_read(
    event_of: Callable[..., TaskEvent], system_: str, nests: str
) -> None:
    deep: Any = 1
    for _ in range(500):
        deep = {"a": deep} if nests == "objects" else [deep]
    variables = {"variables": deep}
    bodies: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
        "flowable": lambda more: {"type": "TASK_CREATED", "data": {**FLOWABLE_TASK, **more}, **more},
        "camunda 7": lambda more: {**CAMUNDA_7_TASK, **more},
        "camunda 8": lambda more: {**zeebe("CREATED", **more), **more},
        "todo": lambda more: {**TODO, "isremark": "0", **more},
    }
    system, body = system_.partition(" ")[0], bodies[system_]
    event, plain = event_of(system, body(variables)), event_of(system, body({}))
    assert brief(event) == brief(plain)
    assert (event.title, event.occurred_at) == (plain.title, plain.occurred_at)


def test_a_path_says_that_one_of_flowables_instances_is_deleted(event_of: Callable[..., TaskEvent]) -> None:
    event = event_of("flowable", {"type": "ENTITY_DELETED", "data": FLOWABLE_INSTANCE}, "delete")
    assert brief(event) == (Action.DELETED, "leave", "flowable:4", None, (), None)


CAMUNDA_7_TASK = {
    "taskId": "22",
    "assignee": "gonzo",
    "name": "Check the days",
    "priority": 50,
    "taskDefinitionKey": "check",
    "activityInstanceId": "check:21",
    "taskState": "Updated",
    "id": "22",
    "rootProcessInstanceId": "4",
    "processInstanceId": "4",
    "executionId": "11",
    "processDefinitionId": "leave:1:3",
    "processDefinitionKey": "leave",
    "processDefinitionName": "Leave",
    "processDefinitionVersion": 1,
    "eventType": "update",
    "sequenceCounter": 0,
    "candidateUsers": ["fozzie", "gonzo"],
    "timestamp": "2026-11-26T15:02:35.857Z",
}
CAMUNDA_7_ENDED = {
    **{name: each for name, each in CAMUNDA_7_TASK.items() if name not in ("candidateUsers", "timestamp")},
    "eventType": "complete",
    "deleteReason": "completed",
    "taskState": "Completed",
    "endTime": "2026-11-26T15:02:35.857Z",
}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({**CAMUNDA_7_TASK, "eventType": "create", "assignee": None}, (Action.CREATED, ("fozzie", "gonzo"), None)),
        (CAMUNDA_7_TASK, (Action.CREATED, ("gonzo", "fozzie"), None)),
        ({**CAMUNDA_7_TASK, "candidateUsers": []}, (Action.CREATED, ("gonzo",), None)),
        ({**CAMUNDA_7_TASK, "eventType": "migrate"}, (Action.CREATED, ("gonzo", "fozzie"), None)),
        (CAMUNDA_7_ENDED, (Action.COMPLETED, (), "gonzo")),
        ({**CAMUNDA_7_ENDED, "completedBy": "statler"}, (Action.COMPLETED, (), "statler")),
        ({**CAMUNDA_7_ENDED, "completedBy": None, "deleteReason": None}, (Action.COMPLETED, (), "gonzo")),
        ({**CAMUNDA_7_ENDED, "deleteReason": "no longer needed"}, (Action.CANCELLED, (), None)),
        ({**CAMUNDA_7_ENDED, "deleteReason": "deleted", "completedBy": "piggy"}, (Action.CANCELLED, (), None)),
    ],
)
def test_camunda_7s_tasks(event_of: Callable[..., TaskEvent], body: Mapping[str, Any], found: tuple[Any, ...]) -> None:
    event = event_of("camunda", body)
    action, recipients, actor = found
    assert brief(event) == (action, "leave", "camunda:4", "22", recipients, actor)
    assert (event.title, event.process_name) == ("Check the days", "Leave")
    assert event.occurred_at == 1795705355857


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"eventName": "create", "createTime": "2026-11-26T15:02:35.857Z"}, (Action.CREATED, ("gonzo",), None)),
        ({"eventName": "assignment"}, (Action.CREATED, ("gonzo",), None)),
        ({"eventName": "complete"}, (Action.COMPLETED, (), "gonzo")),
        ({"eventName": "delete"}, (Action.CANCELLED, (), None)),
    ],
)
def test_the_tasks_that_camunda_7s_listeners_are_given(
    event_of: Callable[..., TaskEvent], body: Mapping[str, Any], found: tuple[Any, ...]
) -> None:
    given = ("id", "name", "assignee", "taskDefinitionKey", "processInstanceId", "processDefinitionId")
    event = event_of("camunda", {**{name: CAMUNDA_7_TASK[name] for name in given}, **body})
    action, recipients, actor = found
    assert brief(event) == (action, "leave", "camunda:4", "22", recipients, actor)
    assert event.occurred_at == (1795705355857 if "createTime" in body else event.received_at)


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ({"eventType": "create", "startTime": 1795705355857}, 1795705355857),
        ({"eventType": "delete", "startTime": 1795705355857, "endTime": 1795705355999}, 1795705355999),
        ({"eventType": "complete", "startTime": 1795705355857, "endTime": 1795705355999}, 1795705355999),
        ({"eventType": "update", "startTime": 1795705355857}, None),
        ({"eventType": "update", "startTime": 1795705355857, "timestamp": 1795705355900}, 1795705355900),
    ],
)
def test_when_it_was_in_camunda_7(
    event_of: Callable[..., TaskEvent], written: Mapping[str, Any], moment: int | None
) -> None:
    event = event_of(
        "camunda", {**{name: each for name, each in CAMUNDA_7_TASK.items() if name != "timestamp"}, **written}
    )
    assert event.occurred_at == (event.received_at if moment is None else moment)


CAMUNDA_7_INSTANCE = {
    "businessKey": "2026-0001",
    "startUserId": "piggy",
    "startActivityId": "asked",
    "state": "ACTIVE",
    "startTime": "2026-11-26T15:02:35.706Z",
    "id": "4",
    "rootProcessInstanceId": "4",
    "processInstanceId": "4",
    "executionId": "4",
    "processDefinitionId": "leave:1:3",
    "processDefinitionKey": "leave",
    "processDefinitionName": "Leave",
    "processDefinitionVersion": 1,
    "eventType": "start",
    "sequenceCounter": 0,
}


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, (1795705355706, "ACTIVE", None)),
        ({"timestamp": "2026-11-26T15:02:35.712Z"}, (1795705355712, "ACTIVE", None)),
        ({"eventType": "update", "timestamp": 1795705355999, "state": "SUSPENDED"}, (1795705355999, "SUSPENDED", None)),
        ({"eventType": "migrate", "timestamp": 1795705355999}, (1795705355999, "ACTIVE", None)),
        (
            {"eventType": "end", "endTime": "2026-11-26T15:02:35.999Z", "state": "COMPLETED"},
            (1795705355999, "COMPLETED", 1795705355999),
        ),
    ],
)
def test_camunda_7s_instances(
    event_of: Callable[..., TaskEvent], changed: Mapping[str, Any], found: tuple[Any, ...]
) -> None:
    event = event_of("camunda", {**CAMUNDA_7_INSTANCE, **changed})
    assert brief(event) == (Action.CREATED, "leave", "camunda:4", None, (), None)
    assert (event.occurred_at, event.instance_status, event.finished_at) == found
    assert (event.originator, event.serial_no, event.created_at) == (Person("piggy"), "2026-0001", 1795705355706)
    assert (event.process_name, event.process_code) == ("Leave", "leave")


ZEEBE = [json.loads(line) for line in (VECTORS / "zeebe-records.jsonl").read_text("utf-8").splitlines()]
INSTANCES = sorted({each["value"]["processInstanceKey"] for each in ZEEBE})
NOT_YET = {"CREATING", "ASSIGNING", "UPDATING", "COMPLETING", "CANCELING"}
"""What an engine says of a task before its listeners have agreed."""
NOT_YET_OF_AN_INSTANCE = {"ELEMENT_ACTIVATING", "ELEMENT_COMPLETING", "ELEMENT_TERMINATING"}


def test_the_life_of_two_instances_in_camunda_8(client: EdgeClient, publisher: MemoryPublisher) -> None:
    refused = {each["intent"] for each in ZEEBE if post(client, "camunda", each).status_code == 400}
    assert refused == NOT_YET | NOT_YET_OF_AN_INSTANCE
    events = publisher.published
    assert {(each.app_type, each.process_code, each.originator, each.process_name) for each in events} == {
        ("leave", "leave", None, None)
    }
    accepted = [each for each in ZEEBE if each["intent"] not in refused]
    assert [each.occurred_at for each in events] == [each["timestamp"] for each in accepted]
    assert [each.task_id for each in events] == [
        str(each["value"]["userTaskKey"]) if each["valueType"] == "USER_TASK" else None for each in accepted
    ]
    first, second = (f"camunda:{each}" for each in INSTANCES)
    assert [
        (each.instance_id, each.title, each.action, each.recipient_ids, each.actor_id, each.finished_at is not None)
        for each in events
    ] == [
        (first, None, Action.CREATED, (), None, False),
        (first, "check", Action.CREATED, ("gonzo", "fozzie"), None, False),
        (first, "approve", Action.CREATED, ("kermit",), None, False),
        (first, "check", Action.CREATED, ("gonzo", "fozzie"), None, False),
        (first, "approve", Action.CREATED, ("kermit", "animal"), None, False),
        (first, "check", Action.COMPLETED, (), "gonzo", False),
        (first, "approve", Action.CREATED, ("rowlf", "animal"), None, False),
        (first, "approve", Action.CREATED, ("animal",), None, False),
        (first, "approve", Action.COMPLETED, (), None, False),
        (first, None, Action.CREATED, (), None, True),
        (second, None, Action.CREATED, (), None, False),
        (second, "check", Action.CREATED, ("gonzo", "fozzie"), None, False),
        (second, "approve", Action.CREATED, ("kermit",), None, False),
        (second, "check", Action.CANCELLED, (), None, False),
        (second, "approve", Action.CANCELLED, (), None, False),
        (second, None, Action.CREATED, (), None, True),
    ]


def zeebe(intent: str, **value: Any) -> dict[str, Any]:
    record = next(each for each in ZEEBE if each["intent"] == intent)
    return {**record, "value": {**record["value"], **value}}


@pytest.mark.parametrize(("claims", "actor"), [({"authorized_username": "statler"}, "statler"), ({}, "gonzo")])
def test_who_completed_a_camunda_8s_task(
    event_of: Callable[..., TaskEvent], claims: Mapping[str, str], actor: str
) -> None:
    event = event_of(
        "camunda", {**zeebe("COMPLETED"), "authorizations": {"authorized_client_id": "tasklist", **claims}}
    )
    assert (event.action, event.actor_id) == (Action.COMPLETED, actor)


TODO = {
    "syscode": "test",
    "flowid": "tes001",
    "requestname": "差旅报销",
    "workflowname": "差旅报销流程",
    "nodename": "直属领导",
    "pcurl": "http://oa.example/flow/tes001",
    "appurl": "http://oa.example/m/tes001",
    "creator": "10029460",
    "createdatetime": "2023-08-31 14:07:42",
    "receiver": "10029461",
    "receivedatetime": "2023-08-31 14:07:42",
    "receivets": "1693462062502",
    "isremark": "0",
    "viewtype": "0",
}


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ("0", (Action.CREATED, ("10029461",), None)),
        ("2", (Action.COMPLETED, (), "10029461")),
        ("4", (Action.COMPLETED, (), "10029461")),
        ("8", (Action.COPIED, ("10029461",), None)),
        (0, (Action.CREATED, ("10029461",), None)),
    ],
)
def test_a_to_do_lists_push(event_of: Callable[..., TaskEvent], state: Any, found: tuple[Any, ...]) -> None:
    event = event_of("todo", {**TODO, "isremark": state})
    action, recipients, actor = found
    assert brief(event) == (action, "test", "todo:tes001", "直属领导/10029461", recipients, actor)
    assert (event.title, event.process_name, event.originator) == ("差旅报销", "差旅报销流程", Person("10029460"))
    assert (event.url, event.occurred_at) == ("http://oa.example/flow/tes001", 1693462062502)
    assert event.finished_at == (1693462062502 if state == "4" else None)


def test_addresses_that_nobody_can_follow_and_other_times_are_left_out(event_of: Callable[..., TaskEvent]) -> None:
    event = event_of("todo", {**TODO, "pcurl": "/test.jsp", "receivets": ""})
    assert (event.url, event.occurred_at) == ("http://oa.example/m/tes001", 1693462062000)


def test_where_each_state_has_an_address_of_its_own_the_path_says_what_happened(
    event_of: Callable[..., TaskEvent],
) -> None:
    stateless = {name: each for name, each in TODO.items() if name not in ("isremark", "viewtype")}
    assert event_of("todo", stateless, "create").action is Action.CREATED
    assert event_of("todo", stateless, "complete").action is Action.COMPLETED
    deleted = event_of("todo", {"syscode": "test", "flowid": "tes001"}, "delete")
    assert brief(deleted) == (Action.DELETED, "test", "todo:tes001", None, (), None)


@pytest.mark.parametrize(
    ("system", "body"),
    [
        ("flowable", {}),
        ("flowable", {"type": "ENTITY_UPDATED", "data": FLOWABLE_TASK}),
        ("flowable", {"type": "ENTITY_DELETED", "data": FLOWABLE_INSTANCE}),
        ("flowable", {"type": "ENTITY_DELETED", "data": {**FLOWABLE_TASK, "processInstanceId": None}}),
        ("flowable", {"type": ["TASK_CREATED"], "data": FLOWABLE_TASK}),
        ("flowable", {"type": "TASK_CREATED", "data": []}),
        ("flowable", [{"type": "TASK_CREATED", "data": FLOWABLE_TASK}]),
        ("camunda", {**CAMUNDA_7_TASK, "eventType": "start"}),
        ("camunda", {**CAMUNDA_7_TASK, "eventType": None}),
        ("camunda", {**CAMUNDA_7_TASK, "processInstanceId": None}),
        ("camunda", {**CAMUNDA_7_INSTANCE, "eventType": "complete"}),
        ("camunda", {"eventType": "start", "activityId": "approve", "processInstanceId": "5"}),
        ("camunda", zeebe("ELEMENT_ACTIVATED", bpmnElementType="USER_TASK")),
        ("camunda", {**zeebe("CREATED"), "valueType": "JOB"}),
        ("camunda", {"valueType": "USER_TASK", "intent": "CREATED", "value": None}),
        ("todo", {**TODO, "isremark": "1"}),
        ("todo", {**TODO, "flowid": ""}),
        ("todo", {"syscode": "test", "flowid": "tes001"}),
    ],
)
def test_what_says_nothing_about_a_task_is_refused_and_stored(
    client: EdgeClient, publisher: MemoryPublisher, system: str, body: Any
) -> None:
    answer = post(client, system, body)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:taskbridge:problem:malformed")
    assert len(publisher.quarantined) == 1


@pytest.mark.parametrize("authorization", ["", "another-token-of-a-system-that-cannot-sign", TOKEN[:-1], "***"])
def test_without_its_token_a_system_is_not_proven(
    client: EdgeClient, publisher: MemoryPublisher, authorization: str
) -> None:
    answer = post(client, "todo", TODO, authorization=authorization)
    assert answer.status_code == 401
    assert publisher.published == []


def test_a_token_proves_one_system_only_and_none_by_its_digest(
    settings: EdgeSettings, publisher: MemoryPublisher
) -> None:
    other = "another-token-of-a-system-that-cannot-sign"
    more = f'[[sources]]\nname = "todo-2"\nformat = "todo"\ncorp_id = "{CORP_ID}"\nbearer_tokens = ["{other}"]\n'
    settings.credentials_file.write_text(credentials_of() + more)
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    with EdgeClient(create_app(settings, publisher=publisher)) as client:
        assert post(client, "todo-2", TODO).status_code == 401
        assert post(client, "todo-2", TODO, authorization=other).status_code == 200
        for header in (f"*** {digest}", f"Bearer {digest}", f"Basic {TOKEN}", TOKEN):
            answer = client.post("/sources/todo/tasks", json=TODO, headers={"Authorization": header})
            assert answer.status_code == 401


def test_a_signed_request_is_judged_by_its_signature_with_any_token(
    client: EdgeClient, publisher: MemoryPublisher
) -> None:
    body, timestamp = json.dumps(TODO).encode(), str(int(time.time()))
    signature = standard_webhooks.signature("msg_1", timestamp, body, key=standard_webhooks.key_of(SECRET))
    proof = {
        standard_webhooks.ID: "msg_1",
        standard_webhooks.TIMESTAMP: timestamp,
        standard_webhooks.SIGNATURE: signature,
    }
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
    for signed, status in (({}, 200), ({standard_webhooks.ID: "msg_2"}, 401)):
        answer = client.post("/sources/todo/tasks", content=body, headers={**headers, **proof, **signed})
        assert answer.status_code == status
    assert publisher.published[0].raw_parameters[standard_webhooks.ID] == "msg_1"


def test_a_request_refused_for_its_token_is_replayed_once_that_is_fixed_and_the_token_is_nowhere(
    client: EdgeClient, publisher: MemoryPublisher
) -> None:
    new = "the-new-token-of-a-system-that-cannot-sign"
    assert post(client, "todo", TODO, authorization=new).status_code == 401
    (callback,) = publisher.quarantined
    assert new not in repr(callback)

    def judged(credentials: Credentials) -> TaskEvent:
        return reconsider(callback, credentials=credentials, delete_extra_keys=(), window=MemoryWindow())

    event = judged(parse_credentials(credentials_of(new)))
    assert (event.instance_id, event.received_at) == ("todo:tes001", callback.received_at)
    with pytest.raises(Unverified):
        judged(parse_credentials(credentials_of()))


@pytest.mark.parametrize(
    "token", ["", "short", "x" * 31, "with spaces in it that no header can have", "x" * 40 + "\\n"]
)
def test_a_token_that_can_be_guessed_or_sent_in_no_header_breaks_the_file(token: str) -> None:
    with pytest.raises(FileBroken, match="bearer_tokens"):
        parse_credentials(credentials_of(token))
