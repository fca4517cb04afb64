"""The audit trail: who did what, in a chain that shows what is changed or missing."""

from __future__ import annotations

import asyncio
import csv
import io
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import delete, select, update

from support.identity_provider import CLIENT_ID, CLIENT_SECRET, IdentityProvider
from support.sign_in import SAME_SITE, Served, settings_of, sign_in
from taskbridge.center.access import audit as module
from taskbridge.center.access.access import Caller
from taskbridge.center.access.audit import Audit, AuditEntry, purge, verify
from taskbridge.center.access.sessions import Session
from taskbridge.center.tables import audit
from taskbridge.runtime.database import Threads

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

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


def rows(database: Database) -> list[AuditEntry]:
    with database.read() as connection:
        return [AuditEntry(*row) for row in connection.execute(select(audit).order_by(audit.c.seq))]


def test_entries_say_who_did_what_from_where_and_by_which_session(trail: Audit, database: Database) -> None:
    add(trail, 20)
    found = rows(database)
    assert [each.seq for each in found] == [*range(1, 21)]
    assert sorted(each.subject for each in found) == sorted(f"{each}\ufffd" for each in range(20))
    assert {each[2:5] + each[6:8] for each in found} == {("corp", "ann", "act", "192.0.2.1", "0123456789ab")}
    assert verify(database) == (20, None)


@pytest.mark.parametrize("where", [1, 3, 5], ids=["first", "middle", "last"])
@pytest.mark.parametrize("column", AuditEntry._fields[1:])
def test_a_changed_entry_shows(trail: Audit, database: Database, column: str, where: int) -> None:
    add(trail, 5)
    with database.write() as connection:
        value = 7 if column == "at" else "x"
        connection.execute(update(audit).where(audit.c.seq == where).values({column: value}))
    assert verify(database) == (where - 1, where)


@pytest.mark.parametrize(("gone", "shows"), [([1], 2), ([3], 4), ([1, 2], 3)])
def test_a_removed_entry_shows_at_the_next_one(trail: Audit, database: Database, gone: list[int], shows: int) -> None:
    add(trail, 5)
    with database.write() as connection:
        connection.execute(delete(audit).where(audit.c.seq.in_(gone)))
    assert verify(database)[1] == shows


def test_old_entries_are_deleted_with_a_word_and_the_chain_goes_on(
    trail: Audit, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(day=0)
    monkeypatch.setattr(module, "now_ms", lambda: clock.day * 86_400_000)
    for clock.day in range(5):
        add(trail, 1)
    assert purge(database, days=2) == 2
    assert ([each.seq for each in rows(database)], verify(database)) == ([3, 4, 5, 6], (4, None))
    clock.day = 6
    assert (purge(database, days=2), purge(database, days=2)) == (2, 0)
    assert ([each.seq for each in rows(database)], verify(database)) == ([5, 6, 7], (3, None))
    with database.write() as connection:
        connection.execute(delete(audit).where(audit.c.seq == 7))
    assert verify(database) == (0, 5), "nobody said that those before were deleted"


@pytest.fixture
def served(sqlite_database: Database, tmp_path: Path) -> Generator[tuple[Served, IdentityProvider]]:
    (tmp_path / "secret").write_text(CLIENT_SECRET)
    with IdentityProvider({"preferred_username": "ann"}).running() as provider:
        found = Served(
            settings_of(
                oidc_issuer=provider.url,
                oidc_client_id=CLIENT_ID,
                oidc_client_secret_file=str(tmp_path / "secret"),
                oidc_corp_id="ours",
                operators="ours/ann",
                auditor_groups="audit",
            ),
            sqlite_database,
        )
        yield found, provider
        found.rows.close()


def test_what_operators_look_at_is_recorded_and_auditors_see_it(served: tuple[Served, IdentityProvider]) -> None:
    center, provider = served
    operator = center.browser()
    sign_in(operator)
    for path in ("ours/users/ann/counts", "ours/users/bob/counts", "ours/users/bob/tasks?view=pending"):
        assert operator.get(f"/v1/corps/{path}").status_code == 200
    assert operator.get("/v1/instances/I-dan").status_code == 200
    for path in 2 * ["ours/users/bob/tasks.csv?view=pending"] + ["ours/users/ann/tasks.csv?view=handled"]:
        assert operator.get(f"/v1/corps/{path}").status_code == 200
    assert operator.get("/v1/audit").status_code == 403, "it is about them"
    operator.post("/sign-out", headers=SAME_SITE)

    provider.claims |= {"preferred_username": "bob", "groups": ["audit"]}
    auditor = center.browser()
    sign_in(auditor)
    assert auditor.get("/v1/corps/ours/users/ann/counts").status_code == 403
    found = auditor.get("/v1/audit").json()["items"]
    assert [(each["actor"], each["action"], each["subject"]) for each in reversed(found)] == [
        ("ann", "signed_in", ""),
        ("ann", "read", "ours/bob"),
        ("ann", "read", "I-dan"),
        *2 * [("ann", "exported", "ours/bob pending")],
        ("ann", "signed_out", ""),
        ("bob", "signed_in", ""),
    ]
    assert [each["seq"] for each in auditor.get("/v1/audit?before=3&limit=1").json()["items"]] == [2]
    assert verify(center.database) == (7, None)


def test_a_spreadsheet_takes_no_text_for_a_formula(served: tuple[Served, IdentityProvider]) -> None:
    center, provider = served
    provider.claims |= {"groups": ["audit"]}
    auditor = center.browser()
    sign_in(auditor)
    formula = '=HYPERLINK("https://evil.example";"a")'
    assert auditor.get(f"/v1/instances/{formula.replace('/', '%2F')}").status_code == 404
    answer = auditor.get("/v1/audit.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    shown = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(each["action"], each["subject"]) for each in shown] == [("read", f"'{formula}"), ("signed_in", "")]
