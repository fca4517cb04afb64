"""Answers look as the OpenAPI document says, to the letter, and a bad query gets a problem that says what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import TypeAdapter
from starlette.testclient import TestClient

from support.streams.api_context import notification
from taskbridge.schemas.codec import task_event_codec
from taskbridge.schemas.events import Action, Change, Form, Person, PersonRecord, Status, View
from taskbridge.streams.fold.chunk import EVENTS_LOST, MAX_OFFSETS
from taskbridge.streams.fold.instance import fold
from taskbridge.streams.query import models

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from pydantic import BaseModel

    from support.streams.api_context import AnsweringWorker
    from taskbridge.schemas.events import TaskEvent


@pytest.fixture
def client(context: AnsweringWorker) -> Generator[TestClient]:
    with TestClient(context.http()) as client:
        yield client


def fits(model: type[BaseModel], answer: dict[str, Any]) -> None:
    """Every field is there, of its type, and none besides."""
    known = set(model.model_fields)
    assert set(answer) == known
    TypeAdapter(model).validate_python(answer, strict=True)


def test_an_item_is_as_the_contract_has_it(client: TestClient, context: AnsweringWorker) -> None:
    context.apply(
        [
            notification(occurred_at=1_769_846_400_000, originator=Person("王", None), url="https://x"),
            notification(
                Change.UPDATED,
                occurred_at=1_769_846_401_234,
                title="<b>",
                status=Status.CANCELLED,
                outcome="withdrawn",
                process_name="请假",
            ),
            notification(view=View.CREATED, task_id=None, title=None, originator=None),
            notification(
                Change.UPDATED,
                view=View.CREATED,
                task_id=None,
                originator=None,
                finished_at=1_769_846_401_234,
                result="agree",
            ),
        ]
    )
    pending = client.get("/v1/corps/corp/users/ann/tasks?view=pending").json()
    fits(models.PageOut, pending)
    assert pending == {
        "items": [
            {
                "instance_id": "I-1",
                "task_id": "T-1",
                "view": "pending",
                "title": "<b>",
                "url": None,
                "app_type": "APP",
                "source": "yida",
                "process_name": "请假",
                "originator": {"user_id": "ann", "name": "Ann"},
                "status": "CANCELLED",
                "created_at": "2026-01-31T08:00:00.000Z",
                "updated_at": "2026-01-31T08:00:01.234Z",
                "outcome": "withdrawn",
                "finished_at": None,
                "result": None,
            }
        ],
        "next_cursor": None,
    }
    created = client.get("/v1/corps/corp/users/ann/tasks?view=created").json()
    fits(models.ItemOut, created["items"][0])
    assert created["items"][0]["originator"] is None
    assert (created["items"][0]["finished_at"], created["items"][0]["result"]) == ("2026-01-31T08:00:01.234Z", "agree")
    counts = client.get("/v1/corps/corp/users/ann/counts").json()
    fits(models.CountsOut, counts)
    assert counts == {"created": 1, "pending": 1, "handled": 0, "copied": 0}
    apps = client.get("/v1/corps/corp/users/ann/apps").json()
    fits(models.AppsOut, apps)
    assert apps == {"items": [{"app_type": "APP", "process_name": "请假", "source": "yida"}]}
    fits(models.MeOut, client.get("/v1/me").json())


def test_people_are_called_as_is_known_of_their_corp(
    client: TestClient, context: AnsweringWorker, make_event: Callable[..., TaskEvent]
) -> None:
    for corp, user, name in (
        ("corp", "ann", "another Ann"),
        ("corp", "bob", "鲍勃"),
        ("corp", "cai", "蔡"),
        ("corp", "eve", None),
        ("corp", "zoe", "who is not in it"),
        ("theirs", "dan", "of theirs"),
    ):
        context.people.know(corp, PersonRecord(user, name))
    created = make_event(Action.CREATED, task_id="T-1", recipient_ids=("bob", "eve"), originator=Person("ann", "Ann"))
    copied = make_event(Action.COPIED, recipient_ids=("cai", "dan"))
    completed = make_event(Action.COMPLETED, task_id="T-1", actor_id="bob")
    offsets = [1, 2, 3]
    partition = context.store(fold(fold(fold(None, created), copied), completed), offsets)
    codec = task_event_codec(context.registry)
    for offset, event in zip(offsets, (created, copied, completed), strict=True):
        context.events.values[partition, offset] = codec.encode(event)
    found = client.get("/v1/instances/I-1").json()
    fits(models.InstanceOut, found)
    assert found["originator"] == {"user_id": "ann", "name": "Ann"}, "as the sender calls her"
    named = {"ann": "another Ann", "bob": "鲍勃", "cai": "蔡"}
    assert {each["user_id"]: each["name"] for each in found["people"]} == named
    assert len(found["people"]) == len(named), "each once"
    history = client.get("/v1/instances/I-1/history").json()
    fits(models.HistoryOut, history)
    assert sorted(each["user_id"] for each in history["people"]) == ["bob", "cai"]


def test_fields_are_called_as_is_known_of_the_form_in_its_corp(
    client: TestClient, context: AnsweringWorker, make_event: Callable[..., TaskEvent]
) -> None:
    labels = {"days": "天数", "table": "明细", "within": "物品"}
    context.forms.know("corp", Form("F-1", "请假申请", labels))
    context.forms.know("theirs", Form("F-2", "of theirs", labels))
    codec = task_event_codec(context.registry)

    def answers(instance_id: str, form_uuid: str | None, form_data: dict[str, str]) -> list[tuple[str, Any]]:
        """Of the instance and of its history."""
        event = make_event(Action.CREATED, instance_id=instance_id, form_uuid=form_uuid, form_data=form_data)
        partition = context.store(fold(None, event, form_fields={"days"}), [1])
        context.events.values[partition, 1] = codec.encode(event)
        found = client.get(f"/v1/instances/{instance_id}").json()
        fits(models.InstanceOut, found)
        history = client.get(f"/v1/instances/{instance_id}/history").json()
        fits(models.HistoryOut, history)
        return [(each["form_title"], each["form_labels"]) for each in (found, history)]

    assert answers("I-1", "F-1", {"days": "3"}) == 2 * [("请假申请", labels)]
    assert answers("I-2", "F-1", {"other": "3"}) == [("请假申请", {}), ("请假申请", labels)], "where there are values"
    assert answers("I-3", "F-2", {"days": "3"}) == 2 * [(None, {})]
    assert answers("I-4", None, {"days": "3"}) == 2 * [(None, {})]


def test_who_started_it_is_shown_and_found_by_name_though_the_sender_gave_an_id_only(
    client: TestClient, context: AnsweringWorker
) -> None:
    context.people.know("corp", PersonRecord("bob", "鲍勃"))
    context.apply([notification(instance_id=f"I-{who}", originator=Person(who, None)) for who in ("bob", "cai")])
    tasks = "/v1/corps/corp/users/ann/tasks?view=pending"
    shown = [each["originator"] for each in client.get(tasks).json()["items"]]
    assert sorted(shown, key=str) == [{"user_id": "bob", "name": "鲍勃"}, {"user_id": "cai", "name": None}]
    assert [each["instance_id"] for each in client.get(f"{tasks}&q=鲍").json()["items"]] == ["I-bob"]


def test_a_create_of_a_history_says_where_the_instance_had_ended(
    client: TestClient, context: AnsweringWorker, make_event: Callable[..., TaskEvent]
) -> None:
    begun = make_event(Action.CREATED, occurred_at=1_000, instance_status="RUNNING")
    ended = make_event(
        Action.CREATED, occurred_at=2_000, instance_status="COMPLETED", approved_result="disagree", finished_at=1_900
    )
    partition = context.store(fold(fold(None, begun), ended), [1, 2])
    codec = task_event_codec(context.registry)
    context.events.values = {(partition, 1): codec.encode(begun), (partition, 2): codec.encode(ended)}
    told = client.get("/v1/instances/I-1/history").json()["events"]
    assert [(each["instance_status"], each["approved_result"], each["finished_at"]) for each in told] == [
        ("RUNNING", None, None),
        ("COMPLETED", "disagree", "1970-01-01T00:00:01.900Z"),
    ]


def test_people_are_found_of_every_corp_as_many_as_are_asked_for(client: TestClient, context: AnsweringWorker) -> None:
    context.people.know("corp", PersonRecord("bob", "鲍勃", "财务部"))
    context.people.know("theirs", PersonRecord("dan", None))
    found = client.get("/v1/people").json()
    fits(models.PeopleOut, found)
    assert found["items"] == [
        {"corp_id": "corp", "user_id": "bob", "name": "鲍勃", "department": "财务部"},
        {"corp_id": "theirs", "user_id": "dan", "name": None, "department": None},
    ]
    assert [each["user_id"] for each in client.get("/v1/people?limit=1").json()["items"]] == ["bob"]
    assert [each["user_id"] for each in client.get("/v1/people?q=D").json()["items"]] == ["dan"]
    for query in ("limit=0", "limit=201", f"q={'a' * 201}"):
        assert client.get(f"/v1/people?{query}").status_code == 400


def test_a_moment_beyond_the_calendar_is_no_error(client: TestClient, context: AnsweringWorker) -> None:
    context.apply([notification(occurred_at=1 << 60), notification(instance_id="I-2", occurred_at=-(1 << 60))])
    items = client.get("/v1/corps/corp/users/ann/tasks?view=pending").json()["items"]
    assert [item["created_at"] for item in items] == ["9999-12-31T23:59:59.999Z", "0001-01-01T00:00:00.000Z"]


def test_an_instance_and_its_history(
    client: TestClient, context: AnsweringWorker, make_event: Callable[..., TaskEvent]
) -> None:
    created = make_event(
        Action.CREATED,
        task_id="T-1",
        recipient_ids=("bob",),
        originator=Person("ann", "Ann"),
        title="Leave",
        occurred_at=5_000,
        form_data={"days": "2"},
    )
    copied = make_event(Action.COPIED, recipient_ids=("cai",), occurred_at=7_000, form_data={"days": "3", "why": None})
    completed = make_event(Action.COMPLETED, task_id="T-1", actor_id="bob", occurred_at=6_000)
    foreign = make_event(Action.CREATED, instance_id="I-2", occurred_at=1)
    instance = fold(fold(fold(None, completed), created), copied)
    offsets = [3, 4, 7, 9, 12, 20]
    partition = context.store(instance, offsets)
    codec = task_event_codec(context.registry)
    for offset, event in zip(offsets, (completed, created, copied, created, foreign), strict=False):
        context.events.values[partition, offset] = codec.encode(event)
    found = client.get("/v1/instances/I-1").json()
    fits(models.InstanceOut, found)
    fits(models.TaskOut, found["tasks"][0])
    assert found["created_at"] == "1970-01-01T00:00:05.000Z", "it began with the create, whichever came first"
    history = client.get("/v1/instances/I-1/history").json()
    fits(models.HistoryOut, history)
    fits(models.EventOut, history["events"][0])
    assert [(each["action"], each["offset"]) for each in history["events"]] == [
        ("CREATED", 4),
        ("COMPLETED", 3),
        ("COPIED", 7),
    ], "oldest first, each event once, and only its own"
    assert (history["form"], history["form_of"]) == ({"days": "3", "why": None}, copied.event_id)
    assert history["complete"] is False, "the event at 20 is gone"
    context.events.values[partition, 20] = codec.encode(completed)
    assert client.get("/v1/instances/I-1/history").json()["complete"] is False, "another's stands at 12"
    context.events.values[partition, 12] = codec.encode(created)
    assert client.get("/v1/instances/I-1/history").json()["complete"] is True


@pytest.mark.parametrize("offsets", [(), EVENTS_LOST, (*EVENTS_LOST, 9)])
@pytest.mark.parametrize("at_0", [True, False])
def test_the_history_of_an_instance_whose_events_are_gone_is_not_complete(
    client: TestClient,
    context: AnsweringWorker,
    make_event: Callable[..., TaskEvent],
    offsets: tuple[int, ...],
    *,
    at_0: bool,
) -> None:
    created = make_event(Action.CREATED)
    partition = context.store(fold(None, created), offsets)
    codec = task_event_codec(context.registry)
    if at_0:
        context.events.values[partition, 0] = codec.encode(make_event(Action.CREATED, instance_id="I-2"))
    context.events.values[partition, 9] = codec.encode(created)
    history = client.get("/v1/instances/I-1/history").json()
    assert [each["offset"] for each in history["events"]] == [each for each in offsets if each]
    assert history["complete"] is False


def test_with_the_last_hundred_events_there_may_be_more(
    client: TestClient, context: AnsweringWorker, make_event: Callable[..., TaskEvent]
) -> None:
    created = make_event(Action.CREATED)
    partition = context.store(fold(None, created), range(MAX_OFFSETS))
    value = task_event_codec(context.registry).encode(created)
    context.events.values = {(partition, offset): value for offset in range(MAX_OFFSETS)}
    assert client.get("/v1/instances/I-1/history").json()["complete"] is False


@pytest.mark.parametrize(
    "query",
    [
        "",
        "view=",
        "view=all",
        "view=PENDING",
        "view=pending&limit=0",
        "view=pending&limit=201",
        "view=pending&limit=ten",
        "view=pending&cursor=",
        "view=pending&cursor=nonsense",
        f"view=pending&cursor={'A' * 3000}",
        f"view=pending&q={'a' * 201}",
        f"view=pending&app_type={'a' * 257}",
    ],
)
def test_a_bad_query_is_a_problem_that_says_what_is_wrong(client: TestClient, query: str) -> None:
    answer = client.get(f"/v1/corps/corp/users/ann/tasks?{query}")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert found["status"] == 400
    assert found["success"] is False
    assert found["detail"].split(":")[0] in {"view", "limit", "cursor", "q", "app_type"}


def test_what_is_not_there_is_a_problem_too(client: TestClient) -> None:
    for path, status in (("/v1/instances/nothing", 404), ("/v1/nothing", 404)):
        answer = client.get(path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
    assert client.post("/v1/me").status_code == 405
    assert client.get("/v1/corps/corp/users/nobody/tasks?view=pending").json() == {"items": [], "next_cursor": None}


def test_every_route_is_documented_with_an_example_and_its_problems(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    asked = {path: each["get"] for path, each in document["paths"].items() if path.startswith("/v1")}
    for path, operation in asked.items():
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        model = document["components"]["schemas"][schema["$ref"].split("/")[-1]]
        assert model["examples"], path
        assert {"401", "429"} <= set(operation["responses"]), path
        assert operation["security"] == [{"HTTPBearer": []}], path


def test_queries_are_measured_by_their_route(client: TestClient) -> None:
    client.get("/v1/corps/corp/users/somebody/counts")
    client.get("/v1/corps/corp/users/somebody/tasks?view=nothing")
    text = client.get("/metrics").text
    assert 'query_seconds_count{route="/v1/corps/{corp_id}/users/{user_id}/counts",status="200"} 1.0' in text
    assert 'query_seconds_count{route="/v1/corps/{corp_id}/users/{user_id}/tasks",status="400"} 1.0' in text
    assert "somebody" not in text


@pytest.mark.parametrize(
    "path",
    [
        "/v1/corps/corp/users/ann/counts",
        "/v1/corps/corp/users/ann/tasks?view=pending",
        "/v1/corps/corp/users/ann/tasks?view=pending&q=leave",
        "/v1/corps/corp/users/ann/apps",
        "/v1/instances/I-1",
        "/v1/instances/I-1/history",
    ],
)
def test_what_moves_to_another_worker_while_it_is_read_may_be_asked_for_again_soon(
    path: str, client: TestClient, context: AnsweringWorker
) -> None:
    context.close()
    answer = client.get(path)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["detail"] == "the data is moving to another worker"
