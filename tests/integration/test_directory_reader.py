"""The directory of people follows its topic: with any records, and when the topic appears, changes or disappears."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from structlog.testing import capture_logs

from taskbridge.runtime.kafka import consumer_config, producer_config
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas.codec import person_codec
from taskbridge.schemas.events import PersonRecord, notification_key
from taskbridge.schemas.registry import Registry, RegistryUnavailable
from taskbridge.schemas.topics import Topic
from taskbridge.streams.directories.people import People
from taskbridge.streams.directories.reader import DirectoryReader
from taskbridge.streams.offsets import Offsets

if TYPE_CHECKING:
    from collections.abc import Generator

    from taskbridge.cli.connection import Connection

pytestmark = pytest.mark.integration


class PeoplesTopic:
    """A topic of people of the test's own, and a directory that follows it."""

    def __init__(
        self, connection: Connection, registry: Registry | None = None, *, mapped_id: str | None = None
    ) -> None:
        self.name = f"people-{uuid.uuid4()}"
        self._admin = connection.admin()
        self._codec = person_codec(connection.registry)
        self._producer = Producer(producer_config(connection.bootstrap_servers))
        self.directory = People(most=3, mapped_id=mapped_id)
        config = consumer_config(connection.bootstrap_servers, "tests")
        self.reader = DirectoryReader(
            self.directory,
            config,
            offsets=Offsets(config),
            codec=person_codec(registry or connection.registry),
            topic=self.name,
        )

    def make(self) -> None:
        apply_topics(self._admin, [Topic(self.name, None, {"cleanup.policy": "compact"})], partitions=2)

    def delete(self) -> None:
        self._admin.delete_topics([self.name])[self.name].result()

    def write(self, **names: str | None) -> None:
        """People of ``corp`` by their user id; None has one forgotten."""
        for user_id, name in names.items():
            value = None if name is None else self._codec.encode(PersonRecord(user_id, name))
            self.produce(notification_key("corp", user_id), value)

    def write_record(self, person: PersonRecord) -> None:
        self.produce(notification_key("corp", person.user_id), self._codec.encode(person))

    def produce(self, key: bytes | None, value: bytes | None) -> None:
        self._producer.produce(self.name, key=key, value=value)
        assert self._producer.flush(30) == 0

    def looked(self) -> list[dict[str, Any]]:
        """The log lines of one look."""
        with capture_logs() as logs:
            self.reader.look()
        return [dict(each) for each in logs]

    def names(self, *users: str) -> list[str | None]:
        found = [self.directory.find("corp", each) for each in users]
        return [each and each.name for each in found]


@pytest.fixture
def people(connection: Connection) -> Generator[PeoplesTopic]:
    made = PeoplesTopic(connection)
    yield made
    asyncio.run(made.reader.close())


def test_a_topic_that_comes_later_is_found_and_followed(people: PeoplesTopic, eventually: Any) -> None:
    logged = people.looked()
    assert [each["event"] for each in logged] == ["people_not_read"]
    assert "there is no topic" in logged[0]["problem"]
    assert people.looked() == [], "once"
    people.make()
    people.write(u1="王芳", u2="李雷")

    def all_read() -> bool:
        people.reader.look()
        return people.directory.count == 2

    eventually(all_read, what="the topic is found")
    assert people.names("u1", "u2", "u3") == ["王芳", "李雷", None]
    assert people.directory.is_whole
    people.write(u1="王方", u2=None)
    people.looked()
    assert people.names("u1", "u2") == ["王方", None]
    people.delete()


def test_a_recreated_topic_is_another_topic(people: PeoplesTopic, eventually: Any) -> None:
    people.make()
    people.write(u1="王芳", u2="李雷")
    eventually(lambda: people.reader.look() or people.directory.count == 2, what="it is read")
    people.delete()
    eventually(lambda: people.reader.look() or people.directory.count == 0, what="nothing is known any more")
    people.make()
    people.write(u1="韩梅梅", u3="张红", u4="陈晨")
    eventually(lambda: people.reader.look() or people.directory.count == 3, what="it is read from its beginning")
    assert people.names("u1", "u2", "u3") == ["韩梅梅", None, "张红"]
    people.delete()


def test_unreadable_records_are_logged_and_stop_nothing(people: PeoplesTopic, connection: Connection) -> None:
    people.make()
    people.write(u1="王芳")
    people.looked()
    codec = person_codec(connection.registry)
    good = codec.encode(PersonRecord("u2", "李雷"))
    for key, value in (
        (b"corp/u1", b"another program's"),
        (b"corp", good),
        (b"corp/", codec.encode(PersonRecord("", "nobody"))),
        (b"\xff/u2", good),
        (b"corp/u3", good),
        (b"corp/u4", codec.encode(PersonRecord("u4", "x" * 257))),
    ):
        people.produce(key, value)
    people.write(u5="陈晨")
    logged = people.looked()
    assert [(each["event"], each.get("records")) for each in logged] == [("people_undecodable", 6)]
    assert people.names("u1", "u2", "u3", "u4", "u5") == [None, None, None, None, "陈晨"]
    assert people.looked() == []
    people.delete()


def test_more_people_than_the_limit_are_logged(people: PeoplesTopic) -> None:
    people.make()
    people.write(u1="王芳", u2="李雷", u3="韩梅梅", u4="张红")
    logged = people.looked()
    assert [(each["event"], each.get("records")) for each in logged] == [("people_left_out", 1), ("people_read", None)]
    assert people.directory.count == 3
    people.delete()


def test_people_who_share_a_sign_in_id_are_logged_without_it(connection: Connection) -> None:
    people = PeoplesTopic(connection, mapped_id="ldap")
    people.make()
    for user_id in ("u1", "u2"):
        people.write_record(PersonRecord(user_id, other_ids={"ldap": "wang.fang"}))
    logged = people.looked()
    assert [each["event"] for each in logged] == ["people_share_an_id", "people_read"]
    assert logged[0]["users"] == ["u1", "u2"]
    assert "wang" not in str(logged)
    people.write_record(PersonRecord("u2"))
    assert people.looked() == []
    assert people.directory.users_of("corp", "wang.fang") == ("u1",)
    asyncio.run(people.reader.close())
    people.delete()


class AwayRegistry(Registry):
    """Does not answer until the test lets it."""

    away = True

    def text_of(self, schema_id: int) -> str:
        if self.away:
            raise RegistryUnavailable("away")
        return super().text_of(schema_id)


def test_a_registry_that_is_away_is_waited_for(connection: Connection) -> None:
    registry = AwayRegistry(connection.registry_url)
    people = PeoplesTopic(connection, registry)
    people.make()
    people.write(u1="王芳", u2="李雷")
    logged = people.looked()
    assert [each["event"] for each in logged] == ["people_not_read"]
    assert not people.directory.is_whole
    registry.away = False
    people.looked()
    assert people.names("u1", "u2") == ["王芳", "李雷"]
    asyncio.run(people.reader.close())
    people.delete()
    registry.close()


def test_an_unreachable_kafka_is_logged_and_known_names_stay(people: PeoplesTopic, monkeypatch: Any) -> None:
    people.make()
    people.write(u1="王芳")
    people.looked()
    with monkeypatch.context() as away:

        def refuse(*_: object) -> None:
            raise TimeoutError("away")

        away.setattr(Offsets, "topics", refuse)
        assert [each["event"] for each in people.looked()] == ["people_not_read"]
    assert people.names("u1") == ["王芳"]
    people.write(u2="李雷")
    assert [each["event"] for each in people.looked()] == ["people_read"]
    assert people.names("u1", "u2") == ["王芳", "李雷"]
    people.delete()
