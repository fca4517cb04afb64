"""What records of topics become."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from taskbridge.runtime.follow.batch import Assigned, Record
from taskbridge.runtime.follow.positions import Position
from taskbridge.schemas.events import PersonRecord
from taskbridge.schemas.registry import Registry
from taskbridge.webhooks.notifications import People, other_id

if TYPE_CHECKING:
    from confluent_kafka import Message

    from taskbridge.runtime.database import Database


def test_people_whose_record_may_be_gone_are_dropped_with_their_partition(database: Database) -> None:
    people, message = People(database, Registry("http://127.0.0.1:1")), cast("Message", None)

    def record(partition: int, user_id: str) -> Record:
        assigned = Assigned(("taskbridge.people.v1", partition), Position("id", 0, 0, 0))
        found = PersonRecord(user_id, other_ids={"union_id": f"UNION-{user_id}"})
        return Record(assigned, message, f"corp/{user_id}", found)

    with database.write() as connection:
        people.write(connection, [record(0, "ann"), record(1, "bob")])
        people.drop(connection, 0)

    assert other_id(database, "corp", "ann", "union_id") is None
    assert other_id(database, "corp", "bob", "union_id") == "UNION-bob"
