"""People as their records say, whatever came before; and an id that is to say who somebody is says it of one only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskbridge.schemas.events import MAX_NAME_CHARACTERS, PersonRecord
from taskbridge.streams.directories.people import People

USERS, IDS = ("u1", "u2", "u3"), ("a", "b")


def person(user_id: str, name: str | None = "王芳", *, number: str | None = None, **ids: str) -> PersonRecord:
    return PersonRecord(user_id, name, None, number, ids)


def test_a_name_is_the_latest_of_this_corp() -> None:
    people = People(most=10)
    people.know("corp", person("u1", "王芳"))
    people.know("other", person("u1", "李雷"))
    people.know("corp", person("u1", "王方"))
    assert (people.find("corp", "u1"), people.find("other", "u1"), people.count) == ("王方", "李雷", 2)
    people.forget("corp", "u1")
    people.forget("corp", "u1")
    people.forget("nobody", "u1")
    assert (people.find("corp", "u1"), people.find("nobody", "u1"), people.count) == (None, None, 1)


def test_there_is_room_for_so_many_and_it_is_known_who_had_none() -> None:
    people = People(most=1, mapped_id="ldap")
    people.is_read = True
    people.know("corp", person("u1", ldap="a"))
    assert people.is_whole
    people.know("corp", person("u2", ldap="a"))
    assert (people.count, people.left_out, people.find("corp", "u2")) == (1, 1, None)
    assert not people.is_whole, "the id may be another's too"
    people.know("corp", person("u1", "王方", ldap="a"))
    assert people.find("corp", "u1") == "王方"
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
