"""What is known of people, in memory: their names, and who has the id that single sign-on gives. Does no I/O.

One thread writes, any may read: a look-up is one step, and finds a person as they are or as they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.schemas.events import MAX_PERSON_CHARACTERS

if TYPE_CHECKING:
    from taskbridge.schemas.events import PersonRecord

EMPLOYEE_NUMBER = "employee_number"
"""Of a person's ids, the one that has a field of its own."""


class Directory:
    """People of all corps, by corp and user."""

    def __init__(self, *, most: int, mapped_id: str | None = None) -> None:
        """Of no more than ``most`` people; users are found by their ``mapped_id`` where one is named."""
        self._most = most
        self._mapped_id = mapped_id
        self.clear()

    def clear(self) -> None:
        """Know nobody."""
        self.is_read = False
        """Whether all that the topic had was taken in, at least once."""
        self._names: dict[str, dict[str, str | None]] = {}
        self._ids: dict[tuple[str, str], str] = {}
        self._users: dict[tuple[str, str], tuple[str, ...]] = {}
        self.count = 0
        self.left_out = 0
        """Records of people for whom there was no room."""
        self.shared: set[tuple[str, str]] = set()
        """Corps and ids that several people have."""

    @property
    def is_whole(self) -> bool:
        """Whether an id that one person has here is surely no other's."""
        return self.is_read and not self.left_out

    def name(self, corp_id: str, user_id: str) -> str | None:
        """How the person is called, where that is known."""
        names = self._names.get(corp_id)
        return None if names is None else names.get(user_id)

    def users_of(self, corp_id: str, mapped_id: str) -> tuple[str, ...]:
        """The corp's users who have this id: several, where it was given twice."""
        return self._users.get((corp_id, mapped_id), ())

    def know(self, corp_id: str, person: PersonRecord) -> None:
        """Take a person's record in, in the place of the one before it."""
        names = self._names.setdefault(corp_id, {})
        if person.user_id not in names:
            if self.count >= self._most:
                self.left_out += 1
                return
            self.count += 1
        names[person.user_id] = person.name
        if self._mapped_id is not None:
            self._map(corp_id, person.user_id, _id_of(person, self._mapped_id))

    def forget(self, corp_id: str, user_id: str) -> None:
        """Know this person no more."""
        names = self._names.get(corp_id, {})
        if user_id in names:
            self._map(corp_id, user_id, None)
            del names[user_id]
            self.count -= 1

    def _map(self, corp_id: str, user_id: str, mapped_id: str | None) -> None:
        before = self._ids.get((corp_id, user_id))
        if before == mapped_id:
            return
        if before is not None:
            del self._ids[corp_id, user_id]
            others = tuple(each for each in self._users[corp_id, before] if each != user_id)
            self._have(corp_id, before, others)
        if mapped_id is not None:
            self._ids[corp_id, user_id] = mapped_id
            self._have(corp_id, mapped_id, (*self.users_of(corp_id, mapped_id), user_id))

    def _have(self, corp_id: str, mapped_id: str, users: tuple[str, ...]) -> None:
        key = corp_id, mapped_id
        if users:
            self._users[key] = users
        else:
            del self._users[key]
        if len(users) > 1:
            self.shared.add(key)
        else:
            self.shared.discard(key)


def _id_of(person: PersonRecord, name: str) -> str | None:
    found = person.employee_number if name == EMPLOYEE_NUMBER else person.other_ids.get(name)
    return found if found and len(found) <= MAX_PERSON_CHARACTERS else None
