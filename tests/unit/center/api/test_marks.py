"""Marks of a person's entries: read until they change, pinned wherever they are, hidden for a while; theirs alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete, func, select
from starlette.testclient import TestClient

from support.center_rows import fill, items, state, unchecked
from support.sign_in import SAME_SITE, Served, me, sign_in, signing_in
from taskbridge.center.api import marks as module
from taskbridge.center.api.marks import MarksStore
from taskbridge.center.api.personal import personal_router
from taskbridge.center.tables import entries, instances, marks
from taskbridge.schemas.events import Person, Status, TaskEntry
from taskbridge.schemas.topics import TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from support.center_rows import AnsweringCenter
    from support.identity_provider import IdentityProvider
    from taskbridge.runtime.database import Database

ANN = "/v1/corps/corp/users/ann"
LATER, PAST = "2126-01-01T00:00:00.000Z", "2026-01-01T00:00:00.000Z"


def pending(number: int, *, updated_at: int = 1_000, user: str = "ann") -> Any:
    """An instance with a task that waits for the user."""
    return state(
        f"I-{number}",
        title=f"{number}",
        began_at=number,
        updated_at=updated_at,
        tasks=(TaskEntry("T-1", Status.PENDING, (user,), None, None, number, due_at=number),),
    )


@pytest.fixture
def client(center: AnsweringCenter) -> Generator[TestClient]:
    personal = personal_router(center.access, center.marks, center.database, center.threads)
    with TestClient(center.http(personal)) as client:
        yield client


def mark(client: TestClient, *given: dict[str, Any], user: str = "ann") -> None:
    keys = {"view": "pending", "task_id": "T-1"}
    answer = client.put(f"/v1/corps/corp/users/{user}/marks", json={"items": [keys | each for each in given]})
    assert answer.status_code == 204, answer.text


def marked(client: TestClient, number: int) -> dict[str, Any]:
    found = client.get(f"{ANN}/tasks?view=pending&marks=true").json()["items"]
    return next(each["marks"] for each in found if each["instance_id"] == f"I-{number}")


def count(database: Database) -> int:
    with database.read() as connection:
        return connection.execute(select(func.count()).select_from(marks)).scalar_one()


def test_an_entry_is_read_until_it_changes_and_items_have_marks_on_request_only(
    client: TestClient, center: AnsweringCenter
) -> None:
    center.store(pending(1), pending(2))
    shown = client.get(f"{ANN}/tasks?view=pending").json()
    assert "marks" not in shown["items"][0]
    assert marked(client, 1) == {"read": False, "pinned": False, "hidden_until": None}
    updated_at = shown["items"][1]["updated_at"]
    mark(client, {"instance_id": "I-1", "read": updated_at})
    assert (marked(client, 1)["read"], marked(client, 2)["read"]) == (True, False)
    mark(client, {"instance_id": "I-1", "read": "1970-01-01T00:00:00.999Z"})
    assert marked(client, 1)["read"] is False, "another version of it was read"
    mark(client, {"instance_id": "I-1", "read": updated_at}, {"instance_id": "I-1", "read": None})
    assert (marked(client, 1)["read"], count(center.database)) == (False, 0)
    assert client.get(f"{ANN}/tasks?view=pending").json() == shown


def test_what_the_person_did_is_read_until_it_ends_or_is_marked_unread(
    client: TestClient, center: AnsweringCenter
) -> None:
    def shown(view: str) -> dict[str, bool]:
        found = client.get(f"{ANN}/tasks?view={view}&marks=true").json()["items"]
        return {each["instance_id"]: each["marks"]["read"] for each in found}

    def done(actor: str, **more: Any) -> TaskEntry:
        return TaskEntry("T-1", Status.COMPLETED, (actor,), actor, None, None, 1_500, **more)

    ann, waits = Person("ann", None), TaskEntry("T-2", Status.PENDING, ("bob",))
    center.store(
        state("by-me", tasks=(done("ann"),)),
        state("by-a-delegate", tasks=(done("ann", decided_by="DELEGATE"),)),
        state("filed", originator=ann, tasks=(waits,)),
        state("next-step", originator=ann, tasks=(done("bob"), waits)),
        state("decided", originator=ann, tasks=(done("bob"),)),
        state("ended", originator=ann, tasks=(waits,), finished_at=2_000),
    )
    assert shown("handled") == {"by-me": True, "by-a-delegate": False}
    assert shown("created") == {"filed": True, "next-step": True, "decided": False, "ended": False}
    updated_at = client.get(f"{ANN}/tasks?view=handled").json()["items"][0]["updated_at"]
    of_mine = {"view": "handled", "instance_id": "by-me"}
    mark(client, {**of_mine, "read": None}, {"view": "created", "instance_id": "filed", "task_id": None, "read": None})
    assert (shown("handled")["by-me"], shown("created")["filed"]) == (False, False)
    mark(client, {**of_mine, "read": updated_at})
    assert shown("handled")["by-me"] is True


def test_pinned_and_hidden_entries_are_listed_wherever_they_are(client: TestClient, center: AnsweringCenter) -> None:
    center.store(*(pending(number) for number in range(1, 120)), pending(200, user="bob"))
    mark(
        client,
        {"instance_id": "I-3", "pinned": True},
        {"instance_id": "I-90", "pinned": True, "hidden_until": LATER},
        {"instance_id": "I-50", "hidden_until": LATER},
        {"instance_id": "I-51", "hidden_until": PAST},
        {"instance_id": "I-52", "read": PAST},
        {"instance_id": "I-200", "pinned": True},
        {"instance_id": "never", "pinned": True},
        {"instance_id": "I-4", "task_id": None, "pinned": True},
    )
    found = client.get(f"{ANN}/marked?view=pending").json()["items"]
    assert [each["instance_id"] for each in found] == ["I-90", "I-50", "I-3"]
    assert [(each["marks"]["pinned"], each["marks"]["hidden_until"]) for each in found] == [
        (True, LATER),
        (False, LATER),
        (True, None),
    ]
    assert found[-1]["due_at"] == "1970-01-01T00:00:00.003Z", "as in the list"
    mark(client, {"instance_id": "I-90", "pinned": False}, {"instance_id": "I-50", "hidden_until": None})
    found = client.get(f"{ANN}/marked?view=pending").json()["items"]
    assert [each["instance_id"] for each in found] == ["I-90", "I-3"]
    assert client.get(f"{ANN}/marked?view=handled").json() == {"items": []}
    # Marks change nothing about the order of the list, which is the contract's.
    first = client.get(f"{ANN}/tasks?view=pending&marks=true").json()
    assert items(first) == [(f"I-{number}", "T-1") for number in range(119, 69, -1)]
    assert first["next_cursor"] == client.get(f"{ANN}/tasks?view=pending").json()["next_cursor"]


def test_marks_of_what_is_gone_are_deleted_but_not_while_lists_are_filled(
    client: TestClient, center: AnsweringCenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    center.store(pending(1), pending(2), pending(3))
    mark(client, *({"instance_id": f"I-{number}", "read": PAST, "pinned": True} for number in (1, 2)))
    mark(client, {"instance_id": "I-3", "hidden_until": LATER})
    store = MarksStore(center.database, unchecked)
    with center.database.write() as connection:
        gone = select(instances.c.id).where(instances.c.instance_id == "I-1")
        connection.execute(delete(entries).where(entries.c.instance.in_(gone)))
    for read, of in ((0, 0), (1, 2)):
        if of:
            fill(center.database, TASK_STATES.name, read=read, of=of)
        assert store.purge() == 0
    fill(center.database, TASK_STATES.name, read=2, of=2)
    assert (store.purge(), store.purge(), count(center.database)) == (2, 0, 3)
    monkeypatch.setattr(module, "now_ms", lambda: 1 << 50)
    assert (store.purge(), count(center.database)) == (1, 2), "what no longer hides anything"
    assert [each["instance_id"] for each in client.get(f"{ANN}/marked?view=pending").json()["items"]] == ["I-2"]


def test_what_no_mark_is_says_why(client: TestClient) -> None:
    its = {"view": "pending", "instance_id": "I-1"}
    wrong: list[dict[str, Any]] = [
        {},
        {"items": []},
        {"items": [{"view": "pending"}]},
        {"items": [{**its, "view": "all"}]},
        {"items": [{**its, "hidden_until": "tomorrow"}]},
        {"items": [{**its, "hidden_until": 1769846400}]},
        {"items": [{**its, "hidden_until": "2026-01-01T00:00:00"}]},
        {"items": [{**its, "starred": True}]},
        {"items": [its] * 201},
    ]
    for given in wrong:
        answer = client.put(f"{ANN}/marks", json=given)
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json"), given


@pytest.fixture
def served(sqlite_database: Database, tmp_path: Path) -> Generator[tuple[Served, IdentityProvider]]:
    """People who sign in; Ann is an operator."""
    with signing_in(sqlite_database, tmp_path, operators="ours/ann") as found:
        yield found


def test_nobody_else_marks_or_sees_what_a_person_marked(served: tuple[Served, IdentityProvider]) -> None:
    center, provider = served
    operator = center.signed_in()
    body = {"items": [{"view": "pending", "instance_id": "I-bob", "task_id": "T-1", "pinned": True}]}
    bobs = "/v1/corps/ours/users/bob"
    assert operator.get(f"{bobs}/tasks?view=pending").status_code == 200
    assert operator.put(f"{bobs}/marks", json=body, headers=SAME_SITE).status_code == 403
    assert operator.get(f"{bobs}/marked?view=pending").status_code == 403
    assert operator.get(f"{bobs}/tasks?view=pending&marks=true").status_code == 403

    provider.claims |= {"preferred_username": "bob"}
    bob = center.signed_in()
    elsewhere = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    assert bob.put(f"{bobs}/marks", json=body, headers=elsewhere).status_code == 403
    assert bob.put("/v1/corps/ours/users/ann/marks", json=body, headers=SAME_SITE).status_code == 403
    assert count(center.database) == 0
    assert bob.put(f"{bobs}/marks", json=body, headers=SAME_SITE).status_code == 204
    assert len(bob.get(f"{bobs}/marked?view=pending").json()["items"]) == count(center.database) == 1


def test_preferences_follow_the_person_to_every_browser(served: tuple[Served, IdentityProvider]) -> None:
    center, provider = served
    desk, phone = center.browser(), center.browser()
    sign_in(desk)
    nothing = {"language": None, "theme": None, "notifications": None}
    assert me(desk)["preferences"] == nothing
    chosen = {"language": "en", "theme": "dark", "notifications": True}
    assert desk.put("/v1/me/preferences", json=chosen).status_code == 403, "not from a page of ours"
    assert desk.put("/v1/me/preferences", json={"theme": "pink"}, headers=SAME_SITE).status_code == 400
    assert desk.put("/v1/me/preferences", json=chosen, headers=SAME_SITE).status_code == 204
    sign_in(phone)
    assert me(phone)["preferences"] == chosen
    assert phone.put("/v1/me/preferences", json={"theme": "auto"}, headers=SAME_SITE).status_code == 204
    assert me(desk)["preferences"] == {"language": None, "theme": "auto", "notifications": None}
    provider.claims |= {"preferred_username": "bob"}
    sign_in(bob := center.browser())
    assert me(bob)["preferences"] == nothing


def test_who_is_nobody_has_no_preferences(client: TestClient) -> None:
    assert client.get("/v1/me").json()["preferences"] is None
    assert client.put("/v1/me/preferences", json={}).status_code == 403
