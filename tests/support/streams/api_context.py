"""The read API on real stores and without Kafka: this worker has every partition, and inboxes are written directly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from taskbridge.runtime.settings import load_settings
from taskbridge.schemas.codec import task_event_codec, task_state_codec
from taskbridge.schemas.events import Change, Person, Status, TaskNotification, View, notification_key
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.streams.api.forwarding import Forwarding
from taskbridge.streams.api.owners import Owners
from taskbridge.streams.api.resolver import OwnerResolver
from taskbridge.streams.directories.forms import Forms
from taskbridge.streams.directories.people import People
from taskbridge.streams.engine.app import build_faust_app
from taskbridge.streams.fold.stored_instance import pack
from taskbridge.streams.http import build_http
from taskbridge.streams.inbox.changes import inbox_changes
from taskbridge.streams.inbox.told_ahead import ToldAhead
from taskbridge.streams.monitoring.metrics import Metrics
from taskbridge.streams.query.answers import ApiContext, Readers
from taskbridge.streams.query.history import Histories
from taskbridge.streams.query.inboxes import Inboxes, Wholeness
from taskbridge.streams.query.instances import Instances
from taskbridge.streams.query.routes import build_instances_router, build_router
from taskbridge.streams.settings import StreamsSettings
from taskbridge.streams.tables.store import inbox_table, instances_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import faust
    from fastapi import FastAPI

    from taskbridge.streams.api.access import Access
    from taskbridge.streams.fold.instance import Instance


PARTITIONS = 3
URL = "http://127.0.0.1:8500"
WHOLE = Wholeness(dict, {})


def notification(
    change: Change = Change.ADDED, *, corp: str = "corp", user: str = "ann", **fields: object
) -> TaskNotification:
    """A notification; what a test does not care about has a default."""
    given: dict[str, Any] = {
        "notification_id": "n",
        "view": View.PENDING,
        "instance_id": "I-1",
        "task_id": "T-1",
        "title": "Leave",
        "url": None,
        "app_type": "APP",
        "originator": Person("ann", "Ann"),
        "actor_id": None,
        "status": Status.PENDING,
        "occurred_at": 1_000,
        "event_id": "e",
        **fields,
    }
    return TaskNotification(corp_id=corp, recipient_id=user, change=change, **given)


class MemoryEvents:
    """The events topic as far as a history needs it."""

    def __init__(self) -> None:
        self.values: dict[tuple[int, int], bytes] = {}

    async def read(self, partition: int, offsets: Sequence[int]) -> dict[int, bytes]:
        return {each: self.values[partition, each] for each in offsets if (partition, each) in self.values}


class AnsweringWorker:
    """A worker that answers queries."""

    def __init__(self, folder: Path, access: Access) -> None:
        app = faust_app(folder, partitions=PARTITIONS, url=URL)
        self.instances, _ = instances_table(app, partitions=PARTITIONS)
        self.inbox, _ = inbox_table(app, partitions=PARTITIONS)
        self.actives = set(range(PARTITIONS))
        self.distribution: dict[str, dict[str, list[int]]] = {}
        for store in (self.instances, self.inbox):
            store.follow("first")
            for partition in self.actives:
                store.hold(partition)
        self.owners = Owners(URL)
        self.owners.join(
            partitions=PARTITIONS,
            distribution=lambda: self.distribution,
            actives=lambda: self.actives,
            changelog="changelog",
        )
        self.registry = FakeRegistry()
        self.states = task_state_codec(self.registry)
        self.events = MemoryEvents()
        self.metrics = Metrics()
        self.told_ahead = ToldAhead()
        self.people = People(most=100)
        self.forms = Forms(most=100)
        self.context = context = ApiContext(OwnerResolver(access, self.owners, Forwarding(access.seal)))
        context.open(
            Readers(
                Inboxes(self.inbox, WHOLE),
                self.told_ahead,
                Instances(self.instances, self.states),
                Histories(
                    cast("Any", self.events), task_event_codec(self.registry), self.people.name_of, self.forms.find
                ),
                self.people,
                self.forms.find,
            )
        )
        self.routers = [build_router(context), build_instances_router(context)]

    def http(self, *, only_hosts: frozenset[str] | None = None, directly: bool = True) -> FastAPI:
        context = self.context if directly else None
        return build_http(dict, self.metrics, routers=self.routers, directly=context, only_hosts=only_hosts)

    def apply(self, notifications: Iterable[TaskNotification]) -> None:
        """Apply notifications, each as a chunk."""
        for each in notifications:
            partition = self.owners.partition(notification_key(each.corp_id, each.recipient_id))

            def stored(key: bytes, partition: int = partition) -> bytes | None:
                return self.inbox.read(partition, key)

            self.inbox.write_chunk(partition, inbox_changes([each], stored=stored), changelog_offset=1)

    def store(self, instance: Instance, offsets: Sequence[int] = ()) -> int:
        """Store an instance; returns its partition."""
        key = instance.state.instance_id.encode()
        partition = self.owners.partition(key)
        stored = pack(self.states.encode(instance.state), instance, offsets, now_ms=1)
        self.instances.write_chunk(partition, {key: stored}, changelog_offset=1)
        return partition

    def close(self) -> None:
        for store in (self.instances, self.inbox):
            for partition in store.held:
                store.release(partition)


def faust_app(folder: Path, *, partitions: int, url: str = "http://127.0.0.1:1") -> faust.App:
    environment = {
        "STREAMS_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
        "STREAMS_SCHEMA_REGISTRY_URL": "http://127.0.0.1:9",
        "STREAMS_DATA_DIR": str(folder),
        "STREAMS_ADVERTISED_URL": url,
    }
    return build_faust_app(load_settings(StreamsSettings, environment), partitions=partitions, kafka_properties={})
