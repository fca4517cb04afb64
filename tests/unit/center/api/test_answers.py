"""What responses contain; a bad query gets a problem that says what is wrong."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from support.center_rows import entry_row, state
from support.records import event
from taskbridge.center.api import routes
from taskbridge.center.api.marks import MarkChange
from taskbridge.center.api.queries import BEHIND_MS
from taskbridge.center.tables import PINNED
from taskbridge.schemas.events import (
    Action,
    CopiedEntry,
    Form,
    Person,
    PersonRecord,
    Status,
    TaskEntry,
)

if TYPE_CHECKING:
    import pytest
    from starlette.testclient import TestClient

    from support.center_rows import AnsweringCenter


def test_a_request_says_for_whom_it_waits(client: TestClient, center: AnsweringCenter) -> None:
    def pending(task_id: str, *users: str) -> TaskEntry:
        return TaskEntry(task_id, Status.PENDING, users)

    done = TaskEntry("T-9", Status.COMPLETED, ("eve",), "eve")
    center.know("corp", PersonRecord("bob", "王伟"))
    center.store(
        state(
            "I-1", originator=Person("ann", "Ann"), tasks=(pending("T-1", "carl", "bob"), pending("T-2", "bob"), done)
        ),
        state("I-2", originator=Person("ann", "Ann"), tasks=(pending("T-1", "carl"),)),
        state("I-3", originator=Person("ann", "Ann"), tasks=(done,)),
        state("I-4", originator=Person("ann", "Ann"), tasks=(pending("T-1", "carl"),), finished_at=2_000),
    )
    expected = {
        "I-1": {"user_id": "bob", "name": "王伟", "others": 1},
        "I-2": {"user_id": "carl", "name": None, "others": 0},
        "I-3": None,
        "I-4": None,
    }
    for path in ("tasks", "marked"):
        for each in expected:
            center.marks.change(("corp", "ann"), [MarkChange("created", each, None, {PINNED: 1})])
        found = client.get(f"/v1/corps/corp/users/ann/{path}?view=created").json()["items"]
        assert {each["instance_id"]: each["waits_for"] for each in found} == expected
    assert client.get("/v1/corps/corp/users/bob/tasks?view=pending").json()["items"][0]["waits_for"] is None


def test_an_item_is_as_the_contract_has_it(client: TestClient, center: AnsweringCenter) -> None:
    center.store(
        state(
            title="<b>",
            url="https://x",
            process_name="请假",
            originator=Person("ann", "Ann"),
            began_at=1_769_846_400_000,
            finished_at=1_769_846_401_234,
            result="agree",
            tasks=(
                TaskEntry(
                    "T-1",
                    Status.COMPLETED,
                    ("bob",),
                    "ann",
                    created_at=1_769_846_400_000,
                    decided_at=1_769_846_401_234,
                    outcome="ok",
                    step_name="部门审批",
                    decided_by="AUTOMATIC",
                    due_at=1_769_846_500_000,
                ),
            ),
        ),
        state("I-2", copied=(CopiedEntry("ann", 5),), title=None),
    )
    handled = client.get("/v1/corps/corp/users/ann/tasks?view=handled").json()
    expected = {
        "instance_id": "I-1",
        "task_id": "T-1",
        "view": "handled",
        "title": "<b>",
        "url": "https://x",
        "app_type": "APP",
        "source": "yida",
        "process_name": "请假",
        "originator": {"user_id": "ann", "name": "Ann"},
        "status": "COMPLETED",
        "created_at": "2026-01-31T08:00:01.234Z",
        "updated_at": "2026-01-31T08:00:01.234Z",
        "step_name": "部门审批",
        "decided_by": "AUTOMATIC",
        "outcome": "ok",
        "finished_at": None,
        "result": None,
        "due_at": None,
        "waits_for": None,
    }
    assert handled == {"items": [expected], "next_cursor": None}
    created = client.get("/v1/corps/corp/users/ann/tasks?view=created").json()["items"][0]
    assert (created["created_at"], created["task_id"]) == ("2026-01-31T08:00:00.000Z", None)
    assert (created["finished_at"], created["result"]) == ("2026-01-31T08:00:01.234Z", "agree")
    copied = client.get("/v1/corps/corp/users/ann/tasks?view=copied").json()["items"][0]
    assert (copied["originator"], copied["title"]) == (None, None)
    counts = client.get("/v1/corps/corp/users/ann/counts").json()
    assert counts == {"created": 1, "pending": 0, "handled": 1, "copied": 1}
    apps = client.get("/v1/corps/corp/users/ann/apps").json()
    assert apps == {"items": [{"app_type": "APP", "process_name": "请假", "source": "yida"}]}


def test_people_have_the_names_that_are_known_in_their_corp(client: TestClient, center: AnsweringCenter) -> None:
    for corp, user, name in (
        ("corp", "ann", "another Ann"),
        ("corp", "bob", "鲍勃"),
        ("corp", "cai", "蔡"),
        ("corp", "eve", None),
        ("corp", "zoe", "who is not in it"),
        ("theirs", "dan", "of theirs"),
    ):
        center.know(corp, PersonRecord(user, name))
    tasks = (TaskEntry("T-1", Status.COMPLETED, ("bob", "eve"), "bob"),)
    copied = (CopiedEntry("cai", 1), CopiedEntry("dan", 1))
    center.store(state(originator=Person("ann", "Ann"), tasks=tasks, copied=copied))
    center.store_events(
        event(Action.CREATED, task_id="T-1", recipient_ids=("bob", "eve"), originator=Person("ann", "Ann")),
        event(Action.COPIED, recipient_ids=("cai", "dan")),
        event(Action.COMPLETED, task_id="T-1", actor_id="bob"),
    )
    found = client.get("/v1/instances/I-1").json()
    assert found["originator"] == {"user_id": "ann", "name": "Ann"}, "the sender's name for her"
    named = {"ann": "another Ann", "bob": "鲍勃", "cai": "蔡"}
    assert {each["user_id"]: each["name"] for each in found["people"]} == named
    assert len(found["people"]) == len(named), "each once"
    history = client.get("/v1/instances/I-1/history").json()
    assert sorted(each["user_id"] for each in history["people"]) == ["bob", "cai"]


def test_fields_have_the_labels_of_the_form_in_its_corp(client: TestClient, center: AnsweringCenter) -> None:
    labels = {"days": "天数", "table": "明细", "within": "物品"}
    center.label("corp", Form("F-1", "请假申请", labels))
    center.label("theirs", Form("F-2", "of theirs", labels))

    def answers(
        instance_id: str, form_uuid: str | None, form: dict[str, str], shown: dict[str, str]
    ) -> list[tuple[str, Any]]:
        """Of the instance and of its history."""
        center.store(state(instance_id, form_uuid=form_uuid, form_data=shown))
        center.store_events(event(Action.CREATED, instance_id=instance_id, form_uuid=form_uuid, form_data=form))
        found = client.get(f"/v1/instances/{instance_id}").json()
        history = client.get(f"/v1/instances/{instance_id}/history").json()
        return [(each["form_title"], each["form_labels"]) for each in (found, history)]

    days = {"days": "3"}
    assert answers("I-1", "F-1", days, days) == 2 * [("请假申请", labels)]
    assert answers("I-2", "F-1", days, {}) == [("请假申请", {}), ("请假申请", labels)], "where there are values"
    assert answers("I-3", "F-2", days, days) == 2 * [(None, {})]
    assert answers("I-4", None, days, days) == 2 * [(None, {})]


def test_an_originator_is_shown_and_found_by_name_though_the_sender_gave_an_id_only(
    client: TestClient, center: AnsweringCenter
) -> None:
    center.know("corp", PersonRecord("bob", "鲍勃", "财务部"))
    center.know("theirs", PersonRecord("cai", "鲍"))
    center.add(*(entry_row(f"I-{who}", originator=Person(who, None)) for who in ("bob", "cai")))
    tasks = "/v1/corps/corp/users/ann/tasks?view=pending"
    shown = [each["originator"] for each in client.get(tasks).json()["items"]]
    assert shown == [{"user_id": "bob", "name": "鲍勃"}, {"user_id": "cai", "name": None}]
    assert [each["instance_id"] for each in client.get(f"{tasks}&q=鲍").json()["items"]] == ["I-bob"]
    for q in ("bob", "财务", "鲍勃2"):
        assert client.get(f"{tasks}&q={q}").json()["items"] == [], "by the name alone"


def test_a_create_of_a_history_shows_how_the_instance_had_ended(client: TestClient, center: AnsweringCenter) -> None:
    begun = event(Action.CREATED, occurred_at=1_000, instance_status="RUNNING")
    ended = event(
        Action.CREATED, occurred_at=2_000, instance_status="COMPLETED", approved_result="disagree", finished_at=1_900
    )
    center.store(state())
    center.store_events(begun, ended)
    shown = client.get("/v1/instances/I-1/history").json()["events"]
    assert [(each["instance_status"], each["approved_result"], each["finished_at"]) for each in shown] == [
        ("RUNNING", None, None),
        ("COMPLETED", "disagree", "1970-01-01T00:00:01.900Z"),
    ]


def test_an_instance_and_its_history(client: TestClient, center: AnsweringCenter) -> None:
    created = event(
        Action.CREATED,
        task_id="T-1",
        recipient_ids=("bob",),
        originator=Person("ann", "Ann"),
        title="Leave",
        occurred_at=5_000,
        form_data={"days": "2"},
    )
    copied = event(Action.COPIED, recipient_ids=("cai",), occurred_at=7_000, form_data={"days": "3", "why": None})
    completed = event(Action.COMPLETED, task_id="T-1", actor_id="bob", occurred_at=6_000)
    theirs = event(Action.CREATED, corp_id="theirs", occurred_at=1)
    task = TaskEntry("T-1", Status.COMPLETED, ("bob",), "bob", created_at=5_000, decided_at=6_000)
    center.store(state(originator=Person("ann", "Ann"), tasks=(task,), began_at=5_000))
    center.store_events(completed, created, copied, theirs)
    found = client.get("/v1/instances/I-1").json()
    assert found["created_at"] == "1970-01-01T00:00:05.000Z", "it began with the create, whichever came first"
    history = client.get("/v1/instances/I-1/history").json()
    assert [(each["action"], each["partition"], each["offset"]) for each in history["events"]] == [
        ("CREATED", 3, 2),
        ("COMPLETED", 3, 1),
        ("COPIED", 3, 3),
    ], "oldest first, and only its own"
    assert (history["form"], history["form_of"]) == ({"days": "3", "why": None}, copied.event_id)
    assert history["complete"] is True


def test_a_history_is_complete_with_the_event_that_the_instance_began_with(
    client: TestClient, center: AnsweringCenter
) -> None:
    cases: dict[str, tuple[int | None, dict[str, int], bool]] = {
        "I-1": (1_000, {"occurred_at": 1_000}, True),
        "I-2": (500, {"occurred_at": 1_000, "created_at": 500}, True),
        "I-3": (400, {"occurred_at": 1_000, "created_at": 500}, False),
        "I-4": (None, {"occurred_at": 1_000}, True),
    }
    for instance_id, (began_at, fields, complete) in cases.items():
        center.store(state(instance_id, began_at=began_at))
        center.store_events(event(Action.CREATED, instance_id=instance_id, **fields))
        assert client.get(f"/v1/instances/{instance_id}/history").json()["complete"] is complete


def test_ids_with_a_zero_byte_are_no_error(client: TestClient, center: AnsweringCenter) -> None:
    """PostgreSQL stores no U+0000: rows have U+FFFD there."""
    center.add(entry_row(user="a\ufffdn"))
    found = client.get("/v1/corps/corp/users/a%00n/tasks?view=pending").json()["items"]
    assert [each["instance_id"] for each in found] == ["I-1"]
    for path in ("instances/%00", "people?q=%00", "corps/c/users/u/tasks?view=pending&q=%00&app_type=%00"):
        assert client.get(f"/v1/{path}").status_code in (200, 404)


def test_a_bad_query_is_a_problem_that_says_what_is_wrong(client: TestClient) -> None:
    for query in (
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
    ):
        answer = client.get(f"/v1/corps/corp/users/ann/tasks?{query}")
        assert answer.status_code == 400, query
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
    wrong = client.post("/v1/me")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET")
    assert client.get("/v1/corps/corp/users/nobody/tasks?view=pending").json() == {"items": [], "next_cursor": None}


def test_every_route_is_documented_with_an_example_and_its_problems(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    queries = {path: each["get"] for path, each in document["paths"].items() if path.startswith("/v1")}
    for path, operation in queries.items():
        if path.endswith("/files"):
            assert operation["responses"]["303"]["headers"]["Location"]["example"], path
        elif path.endswith(".csv"):
            assert operation["responses"]["200"]["content"]["text/csv"]["example"], path
        else:
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


def test_a_history_waits_for_the_events_of_its_state(
    client: TestClient, center: AnsweringCenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "_EVENTS_S", 0)
    now = time.time_ns() // 1_000_000
    center.store(state(updated_at=now, began_at=5_000))
    center.store_events(event(Action.CREATED, occurred_at=5_000))
    behind = client.get("/v1/instances/I-1/history")
    assert (behind.status_code, behind.headers["retry-after"]) == (503, "1")
    center.store_events(event(Action.COPIED, occurred_at=now))
    assert len(client.get("/v1/instances/I-1/history").json()["events"]) == 2


def test_a_history_does_not_wait_for_events_that_are_long_gone(client: TestClient, center: AnsweringCenter) -> None:
    center.store(state(updated_at=time.time_ns() // 1_000_000 - BEHIND_MS))
    assert client.get("/v1/instances/I-1/history").json()["events"] == []
