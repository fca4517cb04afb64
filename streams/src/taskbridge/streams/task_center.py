"""The task center's parts of a worker, put together: the inboxes, and the API that reads them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from taskbridge.runtime.process import allow_open_files
from taskbridge.schemas.codec import (
    form_codec,
    person_codec,
    task_event_codec,
    task_notification_codec,
    task_state_codec,
)
from taskbridge.schemas.topics import TASK_NOTIFICATIONS
from taskbridge.streams.api.access import build_access, own_hosts
from taskbridge.streams.api.forwarding import Forwarding
from taskbridge.streams.api.owners import Owners
from taskbridge.streams.api.resolver import OwnerResolver
from taskbridge.streams.directories.forms import Forms
from taskbridge.streams.directories.people import People
from taskbridge.streams.directories.reader import DirectoryReader
from taskbridge.streams.engine.app import chunks_of, consumer_of, on_assigned, partitions_by_worker
from taskbridge.streams.inbox.agent import InboxAgent
from taskbridge.streams.operations.reporting import OperationsReporter
from taskbridge.streams.operations.routes import operations_router
from taskbridge.streams.query.answers import ApiContext, Readers
from taskbridge.streams.query.history import EventReader, Histories
from taskbridge.streams.query.inboxes import Inboxes, Wholeness
from taskbridge.streams.query.instances import Instances
from taskbridge.streams.query.routes import build_instances_router, build_router
from taskbridge.streams.sse.hub import Hub, keep_beating
from taskbridge.streams.sse.metrics import HubCollector
from taskbridge.streams.sse.missed import MissedReader
from taskbridge.streams.sse.routes import events_router
from taskbridge.streams.tables.store import inbox_table

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import faust
    from fastapi import APIRouter
    from faust.types import TP

    from taskbridge.runtime.otel import Tracing
    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.registry import Registry
    from taskbridge.streams.directories.directory import Directory
    from taskbridge.streams.monitoring.metrics import Metrics
    from taskbridge.streams.offsets import Offsets
    from taskbridge.streams.settings import StreamsSettings
    from taskbridge.streams.tables.store import Store
    from taskbridge.streams.transactions.group_commit import GroupCommit


log = structlog.get_logger(__name__)

_OWN_FILES = 8192
"""Tables of two dozen partitions, with their standbys, and connections to Kafka and to other workers."""


class InstancesTable(NamedTuple):
    """What the worker has of the instances."""

    store: Store
    changelog: str
    partitions: int
    actives: Callable[[], Collection[int]]
    """As ``Owners.join`` says."""


class Upstream(NamedTuple):
    """Kafka as the task center reads it directly: consumer settings, offsets, and the registry for its records."""

    consumer: Mapping[str, object]
    offsets: Offsets
    registry: Registry


class TaskCenter:
    """Built before anything is connected, so that the API can answer so; ``open`` adds the tables."""

    def __init__(self, settings: StreamsSettings) -> None:
        """Raise ConfigurationError if the settings of access are wrong."""
        self._people = People(most=settings.people_max, mapped_id=settings.sso_mapped_id)
        self._forms = Forms(most=settings.labels_max)
        self.access = build_access(settings, self._people)
        self.owners = Owners(settings.url)
        self.forwarding = Forwarding(self.access.seal)
        self._resolver = OwnerResolver(self.access, self.owners, self.forwarding)
        self.only_hosts = own_hosts(settings) if self.access.is_open else None
        self.context = ApiContext(self._resolver)
        self._history: EventReader | None = None
        self._directories: list[DirectoryReader[Any]] = []
        self._missed: MissedReader | None = None
        self._inboxes: InboxAgent | None = None
        self.hub = Hub(
            next_offset=lambda partition: self._inboxes and self._inboxes.next_offset(partition),
            most=_most_streams(settings.event_streams),
            most_of_person=settings.event_streams_per_user,
            names=self._people.name_of,
        )
        self.operations = OperationsReporter(
            self.context,
            own_url=settings.url,
            edge_urls=settings.edge_urls,
            reconcile_url=settings.reconcile_url,
            streams=lambda: self.hub.count,
        )

    @property
    def routers(self) -> list[APIRouter]:
        return [
            build_router(self.context),
            build_instances_router(self.context),
            events_router(self.hub, lambda: self._missed, self._resolver),
            operations_router(self.operations, self.access),
        ]

    def open(
        self,
        app: faust.App,
        instances: InstancesTable,
        upstream: Upstream,
        group_commit: GroupCommit,
        metrics: Metrics,
        *,
        told: Mapping[int, int],
        tracing: Tracing | None = None,
    ) -> None:
        """Build the inboxes and answer from them, once they have reached the offsets ``told``."""
        consumer, offsets, registry = upstream
        notifications = task_notification_codec(registry)
        inbox, inbox_changelog = inbox_table(app, partitions=instances.partitions)
        agent = self._inboxes = InboxAgent(
            app,
            store=inbox,
            changelog=inbox_changelog,
            group_commit=group_commit,
            topic_id=group_commit.source_topics[TASK_NOTIFICATIONS.name].source_id,
            notifications=notifications,
            metrics=metrics,
            tracing=tracing,
        )
        app.agent(chunks_of(app, TASK_NOTIFICATIONS), name="inbox")(agent.run)
        tokens = self.access.tokens
        if tokens is not None:
            metrics.watch_tokens(lambda: tokens.broken is None)
        self.operations.open(consumer=consumer, offsets=offsets, registry=registry, flow=metrics.flow)
        self._missed = MissedReader(consumer, offsets=offsets, codec=notifications, names=self._people.name_of)
        metrics.registry.register(HubCollector(self.hub))
        agent.listen(self.hub.told, self.hub.comes_again)
        on_assigned(app, self._assigned)
        self._history = EventReader(consumer)
        self._follow(self._people, person_codec(registry), upstream, metrics)
        self._follow(self._forms, form_codec(registry), upstream, metrics)
        self.context.open(
            Readers(
                Inboxes(inbox, Wholeness(lambda: consumer_of(app).positions, told)),
                agent.told_ahead,
                Instances(instances.store, task_state_codec(registry)),
                Histories(self._history, task_event_codec(registry), self._people.name_of, self._forms.find),
                self._people,
                self._forms.find,
            )
        )
        self.owners.join(
            partitions=instances.partitions,
            distribution=lambda: partitions_by_worker(app),
            actives=instances.actives,
            changelog=instances.changelog,
        )

    def _follow(self, directory: Directory[Any, Any], codec: Codec[Any], upstream: Upstream, metrics: Metrics) -> None:
        if not directory.most:
            return
        consumer, offsets, _ = upstream
        reader = DirectoryReader(directory, consumer, offsets=offsets, codec=codec)
        self._directories.append(reader)
        metrics.watch_directory(
            directory.what, lambda: directory.count, lambda: directory.left_out, lambda: reader.age_s
        )

    async def watch(self) -> None:
        """Keep up with tokens, people and forms, event streams alive, samples for operators, until cancelled."""
        tokens = self.access.tokens
        await asyncio.gather(
            keep_beating(self.hub),
            self.operations.keep(),
            *([] if tokens is None else [tokens.watch()]),
            *(each.keep() for each in self._directories),
        )

    def stop(self) -> None:
        """End all streams: this worker publishes no more."""
        self.hub.stop()

    async def close(self) -> None:
        readers = [each.close() for each in (self._history, self._missed, *self._directories) if each is not None]
        await asyncio.gather(self.forwarding.close(), self.operations.close(), *readers)

    async def _assigned(self, assigned: set[TP]) -> None:
        """The streams whose partitions leave end."""
        self.hub.assigned({tp.partition for tp in assigned if tp.topic == TASK_NOTIFICATIONS.name})


def _most_streams(wanted: int) -> int:
    """So many event streams, as far as the process may open files for them."""
    allowed = allow_open_files(wanted + _OWN_FILES)
    if allowed >= wanted + _OWN_FILES:
        return wanted
    most = max(1, allowed - _OWN_FILES)
    log.warning("event_stream_limit_lowered", open_files_allowed=allowed, streams=most)
    return most
