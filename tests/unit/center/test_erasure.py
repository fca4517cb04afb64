"""An erased person is gone from the database, and the audit trail has entries of nobody whose chain holds."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from support.center_rows import AnsweringCenter, state
from taskbridge.center.access.access import Access, Caller
from taskbridge.center.access.audit import Audit, AuditQuery, verify
from taskbridge.center.access.sessions import Sessions
from taskbridge.center.erasure import Erasure
from taskbridge.center.tables import FOLLOWED, PERSONAL, metadata
from taskbridge.schemas.events import PersonRecord, Status, TaskEntry

if TYPE_CHECKING:
    from collections.abc import Generator

    from taskbridge.runtime.database import Database

ANN, OTHER_ANN, BOB = ("corp", "ann"), ("other", "ann"), ("corp", "bob")
NOT_PERSONAL = {"audit.actor": "the trail is kept, under pseudonyms"}
"""Columns with people in them that erasing leaves as they are, with the reason."""


@pytest.fixture
def rows(database: Database) -> Generator[AnsweringCenter]:
    center = AnsweringCenter(database, Access(tokens=None))
    for (corp_id, user_id), number in ((ANN, "1"), (OTHER_ANN, "2"), (BOB, "3")):
        center.know(corp_id, PersonRecord(user_id, user_id.title(), employee_number=number))
    yield center
    center.close()


def caller(person: tuple[str, str]) -> Caller:
    return Caller("sso", corp_id=person[0], user_id=person[1])


def everything_in(database: Database) -> dict[str, list[str]]:
    """All rows of all tables, as text."""
    with database.read() as connection:
        return {each.name: [str(row) for row in connection.execute(select(each))] for each in metadata.sorted_tables}


def test_an_erased_person_is_gone_and_others_stay(rows: AnsweringCenter, database: Database) -> None:
    sessions = Sessions(database, rows.threads, idle_s=60, longest_s=60)
    trail = Audit(database, rows.threads)

    async def live() -> list[str]:
        tokens = [(await sessions.open(each, (), instead_of=None))[0] for each in (ANN, ANN, OTHER_ANN, BOB)]
        for actor, about in ((ANN, ""), (ANN, BOB), (BOB, ANN), (OTHER_ANN, "ann"), (BOB, "")):
            await trail.add(caller(actor), "act", about, address="")
        return tokens

    tokens = asyncio.run(live())
    erasure = Erasure(database)
    assert erasure.find(ANN) == {"person_ids": 1, "people": 1, "sessions": 2, "pseudonyms": 1}
    with capture_logs() as logs:
        erased = erasure.erase(ANN)

    assert erased.deleted == {"person_ids": 1, "people": 1, "sessions": 2, "pseudonyms": 1}
    assert erased.pseudonymous == 3
    left = {name: [row for row in found if "ann" in row] for name, found in everything_in(database).items()}
    others = {name: [row for row in found if "'other'" not in row] for name, found in left.items()}
    assert {name for name, found in others.items() if found} == set()
    assert erasure.find(ANN) is None
    assert erasure.find(OTHER_ANN) is not None

    async def found() -> list[bool]:
        return [await sessions.find(each) is not None for each in tokens]

    assert asyncio.run(found()) == [False, False, True, True]
    assert verify(database) == (6, None)
    shown = list(reversed(asyncio.run(trail.page(AuditQuery(10)))))
    pseudonym = erased.entry.subject
    assert [(each["actor"], each["subject"]) for each in shown] == [
        (pseudonym, ""),
        (pseudonym, "corp/bob"),
        ("bob", pseudonym),
        ("ann", "ann"),
        ("bob", ""),
        ("", pseudonym),
    ]
    assert [each["event"] for each in logs] == ["audit_entry_added"]
    assert "ann" not in json.dumps(logs)


def test_who_signs_in_again_is_somebody_else_in_the_trail(rows: AnsweringCenter, database: Database) -> None:
    trail, erasure = Audit(database, rows.threads), Erasure(database)
    for _ in range(2):
        asyncio.run(trail.add(caller(ANN), "act", address=""))
        erasure.erase(ANN)
    shown = asyncio.run(trail.page(AuditQuery(10)))
    assert len({each["actor"] for each in shown if each["action"] == "act"}) == 2
    assert [each["subject"] for each in shown if each["action"] == "person_erased"] == [
        each["actor"] for each in shown if each["action"] == "act"
    ]
    assert asyncio.run(trail.page(AuditQuery(10, person=ANN))) == []


def test_somebody_in_lists_only_is_known_and_a_stranger_is_not(rows: AnsweringCenter, database: Database) -> None:
    rows.store(state("I-1", tasks=(TaskEntry("T-1", Status.PENDING, ("cai",)),)))
    erasure = Erasure(database)
    assert erasure.find(("corp", "cai")) == {}
    assert erasure.find(("corp", "dan")) is None
    erasure.erase(("corp", "cai"))
    assert verify(database) == (1, None)


@pytest.mark.usefixtures("rows")
def test_an_erasure_that_fails_erases_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("taskbridge.center.erasure.delete", fail)
    erasure = Erasure(database)
    with pytest.raises(RuntimeError):
        erasure.erase(ANN)
    assert erasure.find(ANN) == {"person_ids": 1, "people": 1}
    assert verify(database) == (0, None)


def test_every_column_with_people_in_it_is_erased_or_says_why_not() -> None:
    """A new one: add it to PERSONAL, or here with the reason."""
    with_people = {
        str(column)
        for table in metadata.sorted_tables
        if table not in FOLLOWED
        for column in table.columns
        if column.name.endswith(("user_id", "actor", "actor_id", "delegate_id", "recipient_id"))
    }
    assert with_people == {str(each) for each in PERSONAL} | NOT_PERSONAL.keys()
    assert all("corp_id" in each.table.c for each in PERSONAL)
