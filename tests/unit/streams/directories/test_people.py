"""People are as in their latest records; and an id for signing in identifies one person only."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskbridge.schemas.events import MAX_NAME_CHARACTERS, PersonRecord
from taskbridge.streams.directories.people import People
from taskbridge.streams.query.search import text_matcher

USERS, IDS = ("u1", "u2", "u3"), ("a", "b")


def person(user_id: str, name: str | None = "王芳", *, number: str | None = None, **ids: str) -> PersonRecord:
    return PersonRecord(user_id, name, None, number, ids)


def test_a_name_is_the_latest_of_this_corp() -> None:
    people = People(most=10)
    people.know("corp", person("u1", "王芳"))
    people.know("other", person("u1", "李雷"))
    people.know("corp", person("u1", "王方"))
    assert (people.name_of("corp", "u1"), people.name_of("other", "u1"), people.count) == ("王方", "李雷", 2)
    people.forget("corp", "u1")
    people.forget("corp", "u1")
    people.forget("nobody", "u1")
    assert (people.name_of("corp", "u1"), people.name_of("nobody", "u1"), people.count) == (None, None, 1)


def test_there_is_room_for_so_many_and_it_is_known_who_had_none() -> None:
    people = People(most=1, mapped_id="ldap")
    people.is_read = True
    people.know("corp", person("u1", ldap="a"))
    assert people.is_whole
    people.know("corp", person("u2", ldap="a"))
    assert (people.count, people.left_out, people.name_of("corp", "u2")) == (1, 1, None)
    assert not people.is_whole, "the id may be another's too"
    people.know("corp", person("u1", "王方", ldap="a"))
    assert people.name_of("corp", "u1") == "王方"
    people.forget("corp", "u1")
    people.know("corp", person("u3"))
    assert people.count == 1
    people.clear()
    assert (people.count, people.left_out, people.is_read) == (0, 0, False)


@pytest.mark.parametrize(
    ("mapped_id", "known"),
    [("ldap", person("u1", None, ldap="w")), ("employee_number", person("u1", number="w", employee_number="x"))],
)
def test_a_user_is_found_by_the_id_that_is_named(mapped_id: str, known: PersonRecord) -> None:
    people = People(most=10, mapped_id=mapped_id)
    people.know("corp", known)
    assert people.users_of("corp", "w") == ("u1",)
    assert people.users_of("other", "w") == people.users_of("corp", "u1") == people.users_of("corp", "x") == ()
    assert People(most=10).users_of("corp", "w") == ()


def test_a_blank_id_and_one_that_nobody_may_give_are_none() -> None:
    people = People(most=10, mapped_id="ldap")
    longest = "a" * MAX_NAME_CHARACTERS
    for user_id, ldap in (("u1", ""), ("u2", longest + "a"), ("u3", longest)):
        people.know("corp", person(user_id, ldap=ldap))
    assert [people.users_of("corp", each) for each in ("", longest + "a", longest)] == [(), (), ("u3",)]


@given(st.lists(st.tuples(st.sampled_from(USERS), st.none() | st.sampled_from(IDS), st.booleans())))
def test_who_has_an_id_depends_on_the_last_record_of_each_only(records: list[tuple[str, str | None, bool]]) -> None:
    people, last = People(most=10, mapped_id="ldap"), dict[str, str | None]()
    for user_id, ldap, stays in records:
        last.pop(user_id, None)
        if stays:
            people.know("corp", person(user_id, **({} if ldap is None else {"ldap": ldap})))
            last[user_id] = ldap
        else:
            people.forget("corp", user_id)
    assert people.count == len(last)
    for each in IDS:
        users = sorted(user for user, ldap in last.items() if ldap == each)
        assert sorted(people.users_of("corp", each)) == users
        assert (("corp", each) in people.shared) == (len(users) > 1)


def found(people: People, q: str, *, limit: int = 50, corps: str = "") -> list[str]:
    """The users who are found, of these corps or of all."""
    searching = people.search(q.strip(), text_matcher(q), lambda each: each in (corps or each), limit=limit)
    return [user for _, user, _ in asyncio.run(searching)]


def test_people_are_found_by_any_part_of_name_department_or_id_and_in_any_case() -> None:
    people = People(most=10)
    full_width = PersonRecord("u22", None, "\uff29\uff34")
    for record in (PersonRecord("u1", "王芳", "财务部"), PersonRecord("u2", "Ann-Marie"), full_width):
        people.know("corp", record)
    people.know("other", PersonRecord("o1", "王伟"))
    assert {q: found(people, q) for q in ("王", "财务", "MARIE", "it", "u2", "2", " 王芳 ", "nobody")} == {
        "王": ["u1", "o1"],
        "财务": ["u1"],
        "MARIE": ["u2"],
        "it": ["u22"],
        "u2": ["u2", "u22"],
        "2": ["u2", "u22"],
        " 王芳 ": ["u1"],
        "nobody": [],
    }
    assert found(people, "") == ["u1", "u2", "u22", "o1"]
    assert (found(people, "", limit=2), found(people, "", corps="other")) == (["u1", "u2"], ["o1"])
    people.forget("corp", "u1")
    assert found(people, "王") == ["o1"]


def test_the_person_with_exactly_the_id_is_found_first_and_once() -> None:
    people = People(most=10)
    for user_id in ("u10", "u11", "u1"):
        people.know("corp", person(user_id))
    assert found(people, "u1") == ["u1", "u10", "u11"]
    assert found(people, "u1", limit=1) == ["u1"]
    people.know("other", person("u1"))
    assert found(people, "u1", limit=1, corps="other") == ["u1"]


def test_a_search_gives_the_loop_back_and_bears_that_people_come_and_go_meanwhile() -> None:
    people = People(most=10_000)
    for number in range(5_000):
        people.know("corp", person(f"u{number}", f"{number}"))

    async def search() -> list[str]:
        searching = asyncio.ensure_future(people.search("4999", text_matcher("4999"), lambda _: True, limit=50))
        await asyncio.sleep(0)
        assert not searching.done()
        people.know("corp", person("u5000", "4999"))
        people.forget("corp", "u4999")
        return [user for _, user, _ in await searching]

    assert asyncio.run(search()) == []


def test_a_department_that_is_too_long_takes_no_more_room_than_a_name() -> None:
    people = People(most=1)
    people.know("corp", PersonRecord("u1", "王芳", "部" * (MAX_NAME_CHARACTERS + 1)))
    known = people.find("corp", "u1")
    assert known is not None
    assert known.department == "部" * MAX_NAME_CHARACTERS
