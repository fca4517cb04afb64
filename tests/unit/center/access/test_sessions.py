"""Sessions and sign-ins under way, in both databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select, update

from taskbridge.center.access.sessions import SIGN_IN_S, Session, Sessions, SignIn
from taskbridge.center.tables import sessions, sign_ins
from taskbridge.runtime.database import Threads
from taskbridge.runtime.tokens import digest_of

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy import Table

    from taskbridge.center.tables import Person
    from taskbridge.runtime.database import Database

ANN, BOB = ("corp", "ann"), ("corp", "bob")
BEGUN = SignIn("nonce", "verifier", "/#pending")
IDLE_S, LONGEST_S = 600, 3600


@pytest.fixture
def store(database: Database) -> Generator[Sessions]:
    threads = Threads(1)
    yield Sessions(database, threads, idle_s=IDLE_S, longest_s=LONGEST_S)
    threads.close()


def age(database: Database, table: Table, seconds: float, *columns: str) -> None:
    """As if so much time had passed since."""
    with database.write() as connection:
        connection.execute(update(table).values({each: table.c[each] - int(seconds * 1000) for each in columns}))


def rows(database: Database, table: Table) -> int:
    with database.read() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


async def token_of(store: Sessions, person: Person, *, instead_of: str | None = None) -> str:
    """Of a new session."""
    token, _ = await store.open(person, (), instead_of=instead_of)
    return token


async def test_a_sign_in_ends_once_in_the_browser_that_began_it(store: Sessions) -> None:
    await store.add_sign_in("state", "browser", BEGUN)
    assert await store.consume_sign_in("state", "another browser") is None
    assert await store.consume_sign_in("another state", "browser") is None
    assert await store.consume_sign_in("state", "browser") == BEGUN
    assert await store.consume_sign_in("state", "browser") is None


async def test_a_sign_in_that_took_too_long_is_refused_and_forgotten(store: Sessions, database: Database) -> None:
    await store.add_sign_in("state", "browser", BEGUN)
    age(database, sign_ins, SIGN_IN_S + 1, "at")
    assert await store.consume_sign_in("state", "browser") is None
    await store.add_sign_in("other", "browser", BEGUN)
    assert rows(database, sign_ins) == 1


async def test_the_database_knows_no_token(store: Sessions, database: Database) -> None:
    token, session = await store.open(ANN, {"operator", "auditor"}, instead_of=None)
    assert session == Session(*ANN, frozenset({"operator", "auditor"}), digest_of(token)) == await store.find(token)
    for wrong in (digest_of(token), token[:-1], token.upper(), ""):
        assert await store.find(wrong) is None
    with database.read() as connection:
        assert token not in str(connection.execute(select(sessions)).all())


async def test_a_new_session_replaces_that_of_the_browser_and_no_other(store: Sessions) -> None:
    first, elsewhere = [await token_of(store, ANN) for _ in range(2)]
    second = await token_of(store, ANN, instead_of=first)
    assert [await store.find(each) is not None for each in (first, elsewhere, second)] == [False, True, True]


@pytest.mark.parametrize(
    ("seconds", "columns"),
    [(IDLE_S + 1, ["used_at"]), (LONGEST_S + 1, ["created_at"])],
    ids=["not used", "signed in long ago"],
)
async def test_a_session_ends_by_itself(
    store: Sessions, database: Database, seconds: float, columns: list[str]
) -> None:
    token = await token_of(store, ANN)
    age(database, sessions, seconds - 5, *columns)
    assert await store.find(token) is not None
    age(database, sessions, seconds, *columns)
    assert await store.find(token) is None
    await token_of(store, BOB)
    assert rows(database, sessions) == 1


async def test_use_prolongs_a_session(store: Sessions, database: Database) -> None:
    token = await token_of(store, ANN)
    for _ in range(3):
        age(database, sessions, IDLE_S - 5, "used_at")
        assert await store.find(token) is not None
        await store.refresh()


@pytest.mark.parametrize("everywhere", [False, True], ids=["here", "everywhere"])
async def test_who_signs_out_ends_this_session_or_all_of_theirs(store: Sessions, *, everywhere: bool) -> None:
    here, there = [await token_of(store, ANN) for _ in range(2)]
    others = [await token_of(store, each) for each in (BOB, ("other", "ann"))]
    session = await store.find(here)
    assert session is not None
    await store.end(session, everywhere=everywhere)
    found = [await store.find(each) is not None for each in (here, there, *others)]
    assert found == [False, not everywhere, True, True]


async def test_an_open_stream_learns_that_its_session_has_ended_here_or_elsewhere(database: Database) -> None:
    ended: list[None] = []
    threads = Threads(1)
    store, elsewhere = (
        Sessions(database, threads, idle_s=IDLE_S, longest_s=LONGEST_S, ended=lambda: ended.append(None))
        for _ in range(2)
    )
    tokens = [await token_of(store, each) for each in (ANN, BOB)]
    found = [await store.find(each) for each in tokens]
    checks = [store.lasting(each.token_sha256) for each in found if each is not None]
    await store.refresh()
    assert [each(1.0) for each in checks] == [True, True]
    assert ended == []
    assert found[0] is not None
    assert found[1] is not None
    await elsewhere.end(found[0], everywhere=False)
    ended.clear()
    await store.refresh()
    assert ([each(1.0) for each in checks], len(ended)) == ([False, True], 1)
    await store.end(found[1], everywhere=True)
    assert ([each(1.0) for each in checks], len(ended)) == ([False, False], 2)
    threads.close()
