"""A registry in memory, for tests that encode and decode without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.schemas import topics
from taskbridge.schemas.registry import Registry, RegistryUnavailable, SchemaRef, SchemaRefused, UnknownSchema

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskbridge.schemas.topics import Topic


class FakeRegistry(Registry):
    """Has our schemas under the ids 1, 2, 3, … and those in ``others``. While ``away``, it only knows these."""

    def __init__(self, *, away: bool = False) -> None:
        super().__init__("http://registry.invalid")
        self.others: dict[int, str] = {}
        self.away = away
        if not away:
            self.register(topics.ALL)

    def register(self, requested: Iterable[Topic]) -> dict[str, int]:
        self._refuse_while_away()
        subjects = [topic.subject for topic in topics.ALL if topic.record is not None]
        registered: dict[str, int] = {}
        for topic in requested:
            if topic.record is not None:
                registered[topic.subject] = subjects.index(topic.subject) + 1
                self._remember(SchemaRef.of(topic), registered[topic.subject])
        return registered

    def text_of(self, schema_id: int) -> str:
        own = self._own.get(schema_id) or self.others.get(schema_id)
        if own is not None:
            return own
        self._refuse_while_away()
        raise UnknownSchema(f"no schema has the id {schema_id}")

    def id_of(self, schema: SchemaRef) -> int:
        known = self.known_id(schema)
        if known is None:
            self._refuse_while_away()
            raise SchemaRefused(f"{schema.subject} is not registered")
        return known

    def _refuse_while_away(self) -> None:
        if self.away:
            raise RegistryUnavailable("the fake registry is away")
