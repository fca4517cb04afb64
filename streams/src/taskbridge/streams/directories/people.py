"""People: their names, and who has the id that single sign-on gives."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import TYPE_CHECKING

from msgspec import Struct

from taskbridge.schemas.codec import Undecodable
from taskbridge.schemas.events import MAX_NAME_CHARACTERS, PersonRecord
from taskbridge.schemas.topics import PEOPLE
from taskbridge.streams.directories.directory import Directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EMPLOYEE_NUMBER = "employee_number"
"""Of a person's ids, the one that has a field of its own."""


_SLICE = 500
"""People whom a search looks at before other queries have their turn: about a millisecond."""


class Known(Struct, frozen=True, gc=False):
    """What is known of a person."""

    name: str | None
    department: str | None


class People(Directory[PersonRecord, Known]):
    """People of all corps by corp and user."""

    what, topic = "people", PEOPLE

    def __init__(self, *, most: int, mapped_id: str | None = None) -> None:
        """Of no more than ``most`` people; users are found by their ``mapped_id`` where one is named."""
        self._mapped_id = mapped_id
        super().__init__(most=most)

    def clear(self) -> None:
        """Know nobody."""
        super().clear()
        self._departments: dict[str, str] = {}
        """Each text once: many people share one."""
        self._ids: dict[tuple[str, str], str] = {}
        self._users: dict[tuple[str, str], tuple[str, ...]] = {}
        self.shared: set[tuple[str, str]] = set()
        """Corps and ids that several people have."""
        self._shared_told: set[tuple[str, str]] = set()

    def name_of(self, corp_id: str, user_id: str) -> str | None:
        """How this user is called, where that is known."""
        known = self.find(corp_id, user_id)
        return None if known is None else known.name

    async def search(
        self, user: str, matches: Callable[[str], bool], may_see: Callable[[str], bool], *, limit: int
    ) -> list[tuple[str, str, Known]]:
        """The first ``limit`` people whose user id, name or department matches: corp, user, and what is known.

        Only of corps that the caller ``may_see``. Those whose user id is exactly ``user`` come first.
        """
        # Copies, each made in one step: people may come and go between the slices.
        corps = [corp_id for corp_id in sorted(self._known) if may_see(corp_id)]
        is_in_department = lru_cache(maxsize=1024)(matches)
        found = [(corp_id, user, known) for corp_id in corps if (known := self.find(corp_id, user)) is not None]
        for corp_id in corps:
            for number, user_id in enumerate(list(self._known.get(corp_id, ())), 1):
                if len(found) >= limit:
                    return found[:limit]
                if number % _SLICE == 0:
                    await asyncio.sleep(0)
                known = self.find(corp_id, user_id)
                if known is None or user_id == user:
                    continue
                name, department = known.name, known.department
                if matches(user_id) or (name and matches(name)) or (department and is_in_department(department)):
                    found.append((corp_id, user_id, known))
        return found[:limit]

    @property
    def is_whole(self) -> bool:
        """Whether an id that one person has here is surely no other's."""
        return self.is_read and not self.left_out

    def users_of(self, corp_id: str, mapped_id: str) -> tuple[str, ...]:
        """The corp's users who have this id: several, where it was given twice."""
        return self._users.get((corp_id, mapped_id), ())

    def check(self, its_id: str, record: PersonRecord) -> None:
        """Raise Undecodable where the record is about somebody else, or their name or id is too long."""
        if record.user_id != its_id:
            raise Undecodable("it is about somebody else than its key")
        if max(len(record.user_id), len(record.name or "")) > MAX_NAME_CHARACTERS:
            raise Undecodable(f"its name or id has more than {MAX_NAME_CHARACTERS} characters")

    def know(self, corp_id: str, record: PersonRecord) -> None:
        """Add a person's record, instead of the one before it."""
        department = (record.department or "")[:MAX_NAME_CHARACTERS] or None
        if department is not None and len(self._departments) < self.most:
            department = self._departments.setdefault(department, department)
        if self._keep(corp_id, record.user_id, Known(record.name, department)) and self._mapped_id is not None:
            self._map(corp_id, record.user_id, _id_of(record, self._mapped_id))

    def forget(self, corp_id: str, its_id: str) -> None:
        """Know this person no more."""
        self._map(corp_id, its_id, None)
        super().forget(corp_id, its_id)

    def news(self) -> Iterator[tuple[str, dict[str, object]]]:
        """Also that people share the id to sign in by: who, and not the id, which is personal and not for a log."""
        fresh, self._shared_told = self.shared - self._shared_told, set(self.shared)
        if fresh:
            corp_id, mapped_id = min(fresh)
            users = sorted(self.users_of(corp_id, mapped_id))
            yield "share_an_id", {"ids": len(self.shared), "corp_id": corp_id, "users": users}
        yield from super().news()

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
    return found if found and len(found) <= MAX_NAME_CHARACTERS else None
