"""The audit trail: who did what, in a chain that shows what is changed or missing."""

from __future__ import annotations

import asyncio
import csv
import io
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete, insert, select, text, update

from support.center_rows import state
from support.plans import Plans
from support.sign_in import SAME_SITE, Served, signing_in
from taskbridge.center.access import audit as module
from taskbridge.center.access.access import Caller
from taskbridge.center.access.audit import Audit, AuditEntry, AuditQuery, Logged, append, purge, verify
from taskbridge.center.access.sessions import Session
from taskbridge.center.actions.store import Action
from taskbridge.center.tables import actions, audit, people, pseudonyms
from taskbridge.runtime.database import Threads
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from support.identity_provider import IdentityProvider
    from taskbridge.runtime.database import Database

SESSION = Session("corp", "ann", frozenset(), "0123456789abcdef" * 4)
ANN = Caller("sso", corp_id="corp", user_id="ann", session=SESSION)


@pytest.fixture
def trail(database: Database) -> Generator[Audit]:
    threads = Threads(4)
    yield Audit(database, threads)
    threads.close()


def add(trail: Audit, count: int) -> None:
    async def test() -> None:
        # At once: several threads, and on PostgreSQL several connections.
        await asyncio.gather(*(trail.add(ANN, "act", f"{each}\0", address="192.0.2.1") for each in range(count)))

    asyncio.run(test())


def page(trail: Audit, *, limit: int = 100, **given: Any) -> Sequence[dict[str, Any]]:
    return asyncio.run(trail.page(AuditQuery(limit, **given)))


def rows(database: Database) -> list[AuditEntry]:
    with database.read() as connection:
        return [AuditEntry(*row) for row in connection.execute(select(audit).order_by(audit.c.seq))]


def test_entries_say_who_did_what_from_where_and_by_which_session(trail: Audit, database: Database) -> None:
    add(trail, 20)
    found = rows(database)
    assert [each.seq for each in found] == [*range(1, 21)]
    assert sorted(each.subject for each in found) == sorted(f"{each}\ufffd" for each in range(20))
    (pseudonym,) = {each.actor for each in found}
    assert pseudonym.startswith("person-")
    assert {each[2:3] + each[4:5] + each[6:8] for each in found} == {("corp", "act", "192.0.2.1", "0123456789ab")}
    assert {each["actor"] for each in page(trail, limit=20)} == {"ann"}
    assert verify(database) == (20, None)


def test_a_changed_entry_shows(trail: Audit, database: Database) -> None:
    add(trail, 5)
    for before in rows(database)[::2]:
        entry = audit.c.seq == before.seq
        for column, value in before._asdict().items():
            if column != "seq":
                with database.write() as connection:
                    connection.execute(update(audit).where(entry).values({column: 7 if column == "at" else "x"}))
                assert verify(database) == (before.seq - 1, before.seq), column
                with database.write() as connection:
                    connection.execute(update(audit).where(entry).values({column: value}))
    assert verify(database) == (5, None)


def test_a_removed_entry_shows_at_the_next_one(trail: Audit, database: Database) -> None:
    add(trail, 5)
    entries = {each.seq: each._asdict() for each in rows(database)}
    for gone, shows in (([1], 2), ([3], 4), ([1, 2], 3)):
        with database.write() as connection:
            connection.execute(delete(audit).where(audit.c.seq.in_(gone)))
        assert verify(database)[1] == shows
        with database.write() as connection:
            connection.execute(insert(audit), [entries[each] for each in gone])


def test_old_entries_are_deleted_with_a_word_and_the_chain_goes_on(
    trail: Audit, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(day=0)
    monkeypatch.setattr(module, "now_ms", lambda: clock.day * 86_400_000)
    for clock.day in range(5):
        add(trail, 1)
    assert purge(database, days=2) == 2
    assert ([each.seq for each in rows(database)], verify(database)) == ([3, 4, 5, 6], (4, None))
    with pytest.raises(ConfigurationError, match="from 3 on"):
        verify(database, Logged(2, "0" * 64))
    clock.day = 6
    assert (purge(database, days=2), purge(database, days=2)) == (2, 0)
    assert ([each.seq for each in rows(database)], verify(database)) == ([5, 6, 7], (3, None))
    with database.write() as connection:
        connection.execute(delete(audit).where(audit.c.seq == 7))
    assert verify(database) == (0, 5), "nobody said that those before were deleted"


def test_pseudonyms_go_with_their_last_entries(
    trail: Audit, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(day=0)
    monkeypatch.setattr(module, "now_ms", lambda: clock.day * 86_400_000)
    bob = Caller("sso", corp_id="corp", user_id="bob")
    asyncio.run(trail.add(bob, "act", ("corp", "cai"), address=""))
    clock.day = 9
    asyncio.run(trail.add(ANN, "act", ("corp", "cai"), address=""))
    assert purge(database, days=2) == 1
    with database.read() as connection:
        found = connection.execute(select(pseudonyms.c.user_id).order_by(pseudonyms.c.user_id)).scalars().all()
    assert found == ["ann", "cai"]


def test_entries_are_found_by_person_action_and_time_page_by_page(
    trail: Audit, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0)
    monkeypatch.setattr(module, "now_ms", lambda: clock.now)
    bob, program = Caller("sso", corp_id="corp", user_id="bob"), Caller("token", name="ann")
    chain = [
        (ANN, "read", ("corp", "bob")),
        (bob, "read", "I-1"),
        (program, "act", ""),
        (ANN, "act", ("corp", "ann")),
        (bob, "act", ("other", "ann")),
        (Caller("sso", corp_id="other", user_id="ann"), "read", ("corp", "ann")),
    ]
    for clock.now, (caller, action, subject) in enumerate(chain, 1):
        asyncio.run(trail.add(caller, action, subject, address=""))
    with database.write() as connection:
        connection.execute(insert(people).values(corp_id="corp", user_id="bob", partition=0, name="Bob", search=""))

    def found(**given: Any) -> list[int]:
        return [each["seq"] for each in page(trail, **given)]

    assert found() == [6, 5, 4, 3, 2, 1]
    assert found(person=("corp", "ann")) == [6, 4, 1]
    assert found(person=("corp", "ann"), limit=2) == [6, 4]
    assert found(person=("corp", "ann"), limit=2, before=4) == [1]
    assert found(person=("corp", "ann"), action="act") == [4]
    assert found(person=("corp", "bob"), since=2) == [5, 2]
    assert found(action="read", until=6) == [2, 1]
    assert found(since=2, until=5, limit=2) == [4, 3]
    assert found(before=99) == [6, 5, 4, 3, 2, 1]
    assert found(person=("corp", "nobody")) == found(action="x") == []
    first = page(trail)[-1]
    who = ("actor", "actor_name", "subject", "subject_name")
    assert [first[each] for each in who] == ["ann", None, "corp/bob", "Bob"]


def test_every_filter_reads_an_index_in_its_order(trail: Audit, database: Database) -> None:
    rows = [
        AuditEntry(each, each, "corp", f"p{each % 99}", f"act{each % 99}", "", "", "", "") for each in range(1, 999)
    ]
    with database.write() as connection:
        connection.execute(insert(audit), [each._asdict() for each in rows])
        connection.execute(insert(pseudonyms).values(pseudonym="p7", corp_id="corp", user_id="ann"))
    with database.write() as connection:
        connection.execute(text("ANALYZE audit"))
    filters: list[tuple[dict[str, Any], str]] = [
        ({}, "audit_at"),
        ({"before": 500}, "audit_at"),
        ({"since": 1, "until": 2}, "audit_at"),
        ({"action": "act9", "before": 500}, "audit_of_action"),
        ({"person": ("corp", "ann"), "before": 500}, "audit_of_actor"),
        ({"person": ("corp", "ann")}, "audit_of_subject"),
    ]
    for given, index in filters:
        plans = Plans(database)
        page(trail, **given)
        (plan,) = [plan for sql, plan in plans.items() if "of_actor" in sql]
        assert index in plan, given
        assert "Seq Scan" not in plan, given


@pytest.fixture
def served(sqlite_database: Database, tmp_path: Path) -> Generator[tuple[Served, IdentityProvider]]:
    with signing_in(sqlite_database, tmp_path, operators="ours/ann", auditor_groups="audit") as found:
        yield found


def test_what_operators_look_at_is_recorded_and_auditors_see_it(served: tuple[Served, IdentityProvider]) -> None:
    center, provider = served
    operator = center.signed_in()
    for path in ("ours/users/ann/counts", "ours/users/bob/counts", "ours/users/bob/tasks?view=pending"):
        assert operator.get(f"/v1/corps/{path}").status_code == 200
    assert operator.get("/v1/instances/I-dan").status_code == 200
    for path in 2 * ["ours/users/bob/tasks.csv?view=pending"] + ["ours/users/ann/tasks.csv?view=handled"]:
        assert operator.get(f"/v1/corps/{path}").status_code == 200
    for path in ("/v1/audit", "/v1/audit?person=ours/ann", "/v1/audit.csv"):
        assert operator.get(path).status_code == 403, "it is about them"
    operator.post("/sign-out", headers=SAME_SITE)

    provider.claims |= {"preferred_username": "bob", "groups": ["audit"]}
    auditor = center.signed_in()
    assert auditor.get("/v1/corps/ours/users/ann/counts").status_code == 403
    found = auditor.get("/v1/audit").json()["items"]
    assert [
        (each["actor"], each["actor_name"], each["action"], each["subject"], each["subject_name"])
        for each in reversed(found)
    ] == [
        ("ann", "Ann", "signed_in", "", None),
        ("ann", "Ann", "read", "ours/bob", "Bob"),
        ("ann", "Ann", "read", "I-dan", None),
        *2 * [("ann", "Ann", "exported", "ours/bob", "Bob")],
        ("ann", "Ann", "signed_out", "", None),
        ("bob", "Bob", "signed_in", "", None),
    ]
    found_by = "/v1/audit?person=ours/bob&since=2026-01-01T00:00:00Z"
    assert [each["action"] for each in auditor.get(found_by).json()["items"]] == [
        "signed_in",
        "exported",
        "exported",
        "read",
    ]
    assert auditor.get("/v1/audit?until=2026-01-01T08:00:00%2B08:00").json() == {"items": []}
    for wrong in ("person=bob", "since=2026-01-01T00:00:00", "until=soon"):
        assert auditor.get(f"/v1/audit?{wrong}").status_code == 400
    assert [each["seq"] for each in auditor.get("/v1/audit?before=3&limit=1").json()["items"]] == [2]
    assert verify(center.database) == (7, None)


def test_entries_about_an_action_name_the_action_its_end_and_the_title(served: tuple[Served, IdentityProvider]) -> None:
    center, provider = served
    provider.claims |= {"groups": ["audit"]}
    center.rows.store(state("I 1", corp_id="ours", title="请假 3 天"))
    action = Action("a1", "ours", "bob", "bob", "I 1", "T-1", "yida", "APP", "agree", "", "", "DONE", "", 2, 1, None)
    with center.database.write() as connection:
        connection.execute(insert(actions).values(action._asdict()))
        for what, subject in (
            ("agree", "I 1 T-1 a1"),
            ("action_sent", "a1 SENDING"),
            ("action_sent", "a1 SENDING"),
            ("action_ended", "a1 DONE"),
            ("withdraw", "I-9  a0"),
            ("action_ended", "a0 FAILED"),
            ("read", "I 1"),
            ("read", ("ours", "bob")),
            ("read", ("ours", "without-a-name")),
            ("read", "person-0123456789abcdef"),
            ("read", "waiting ours APP"),
        ):
            append(connection, center.database, ("ours", "bob"), what, subject)
    auditor = center.signed_in()
    found = auditor.get("/v1/audit?until=2100-01-01T00:00:00Z&person=ours/bob").json()["items"]
    keys = "action", "action_id", "decision", "status", "instance_id", "task_id", "title"
    its = "a1", "agree", "DONE", "I 1", "T-1", "请假 3 天"
    assert [tuple(each[key] for key in keys) for each in reversed(found)] == [
        ("agree", *its),
        ("action_sent", *its),
        ("action_sent", *its),
        ("action_ended", *its),
        # A month later, what the entries say themselves is left.
        ("withdraw", "a0", "withdraw", None, "I-9", None, None),
        ("action_ended", "a0", None, "FAILED", None, None, None),
        ("read", None, None, None, "I 1", None, "请假 3 天"),
        *4 * [("read", None, None, None, None, None, None)],
    ]
    shown = csv.DictReader(io.StringIO(auditor.get("/v1/audit.csv?action=agree").text))
    assert [(each["decision"], each["status"], each["title"]) for each in shown] == [("agree", "DONE", "请假 3 天")]


def test_a_spreadsheet_takes_no_text_for_a_formula(served: tuple[Served, IdentityProvider]) -> None:
    center, provider = served
    provider.claims |= {"groups": ["audit"]}
    auditor = center.signed_in()
    formula = '=HYPERLINK("https://evil.example";"a")'
    assert auditor.get(f"/v1/instances/{formula.replace('/', '%2F')}").status_code == 404
    answer = auditor.get("/v1/audit.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    shown = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(each["action"], each["subject"]) for each in shown] == [("read", f"'{formula}"), ("signed_in", "")]
    assert [each["actor_name"] for each in shown] == ["Ann", "Ann"]
    assert len(auditor.get("/v1/audit.csv?action=read").text.splitlines()) == 2
