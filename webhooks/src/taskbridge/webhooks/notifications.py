"""From records of topics to deliveries: each notification for every endpoint that wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Connection, delete, select

from taskbridge.runtime.database import Database, Upsert, clean
from taskbridge.runtime.follow.batch import FollowedTopic, Record, key_of
from taskbridge.runtime.tracing import TRACEPARENT, traceparent_of
from taskbridge.schemas.cloudevents import headers_of, notification_headers
from taskbridge.schemas.codec import Undecodable, person_codec, task_notification_codec
from taskbridge.schemas.events import Change, TaskNotification, TaskState, state_id_for
from taskbridge.schemas.json_forms import notification_json, to_json
from taskbridge.schemas.topics import PEOPLE, TASK_NOTIFICATIONS
from taskbridge.schemas.views import notification_of, views
from taskbridge.webhooks import store
from taskbridge.webhooks.store import New
from taskbridge.webhooks.tables import people

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from confluent_kafka import Message

    from taskbridge.schemas.registry import Registry
    from taskbridge.webhooks.endpoints import Endpoint

_ATTRIBUTE = "ce_"


def event_of(notification: TaskNotification, *, traceparent: str | None = None, present: bool = False) -> bytes:
    """The notification as CloudEvents 1.0 JSON; an entry that was there before the endpoint has ``present``."""
    attributes = {
        name.removeprefix(_ATTRIBUTE): value.decode()
        for name, value in notification_headers(notification)
        if name.startswith(_ATTRIBUTE)
    }
    more: dict[str, Any] = {} if traceparent is None else {TRACEPARENT: traceparent}
    if present:
        more["present"] = True
    data = notification_json(notification)
    return to_json({**attributes, **more, "datacontenttype": "application/json", "data": data})


def entry_of(notification: TaskNotification) -> str:
    """The list entry whose changes are delivered in order."""
    each = notification
    return clean(to_json((each.corp_id, each.recipient_id, each.view, each.instance_id, each.task_id)).decode())


def deliveries_of(
    notification: TaskNotification, endpoints: Mapping[str, Endpoint], event: Callable[[], bytes]
) -> Iterator[New]:
    wanted = [name for name, endpoint in endpoints.items() if endpoint.wants(notification)]
    if wanted:
        data, entry = event(), entry_of(notification)
        for name in wanted:
            yield New(name, entry, notification.notification_id, data)


class Notifications(FollowedTopic):
    """The topic of notifications, from now on: a new database begins at its end."""

    topic, make_codec = TASK_NOTIFICATIONS, task_notification_codec
    begins_at_end = True

    def __init__(
        self,
        database: Database,
        registry: Registry,
        endpoints: Callable[[], Mapping[str, Endpoint]],
        claim: Callable[[Connection, Collection[str]], Collection[Any]],
    ) -> None:
        super().__init__(database, registry)
        self._endpoints, self._claim = endpoints, claim

    def read(self, message: Message) -> tuple[str, Any]:
        return key_of(message), self.codec.decode(message.value())

    def write(self, connection: Connection, records: Sequence[Record]) -> Collection[str]:
        endpoints, new = self._endpoints(), list[New]()
        for record in records:
            trace = traceparent_of(headers_of(record.message))

            def event(notification: TaskNotification = record.value, trace: str | None = trace) -> bytes:
                return event_of(notification, traceparent=trace)

            new += deliveries_of(record.value, endpoints, event)
        return self._claim(connection, store.add(self.database, connection, new)) if new else ()


_PUT_PEOPLE = Upsert(people)


class People(FollowedTopic):
    """Further ids of people, which formats of vendors need."""

    topic, make_codec = PEOPLE, person_codec

    def read(self, message: Message) -> tuple[str, Any]:
        value, key = message.value(), key_of(message)
        if "/" not in key:
            raise Undecodable("its key names no corp and no id in it")
        return key, None if value is None else self.codec.decode(value)

    def write(self, connection: Connection, records: Sequence[Record]) -> Collection[str]:
        rows = [
            (*each.key.split("/", 1), each.partition, to_json({} if each.value is None else each.value.other_ids))
            for each in {each.key: each for each in records}.values()
        ]
        self.database.put(connection, _PUT_PEOPLE, sorted(rows))
        return ()

    def drop(self, connection: Connection, partition: int, /) -> None:
        connection.execute(delete(people).where(people.c.partition == partition))


def other_id(database: Database, corp_id: str, user_id: str, name: str) -> str | None:
    query = select(people.c.other_ids).where(people.c.corp_id == corp_id, people.c.user_id == user_id)
    with database.read() as connection:
        found = connection.scalar(query)
    return None if found is None else msgspec.json.decode(found).get(name)


def present(state: TaskState) -> Iterator[TaskNotification]:
    """What an endpoint gets of an instance that was there before it: each entry, as added."""
    cause = state_id_for(state), state.updated_at
    for key, entry in views(state).items():
        yield notification_of(Change.ADDED, key, entry, (state.corp_id, state.instance_id), cause)
