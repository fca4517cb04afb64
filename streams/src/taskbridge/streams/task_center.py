"""The task center's parts of a worker, put together: the inboxes, and the API that reads them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from taskbridge.schemas.codec import (
    form_codec,
    person_codec,
    task_event_codec,
    task_notification_codec,
    task_state_codec,
)
from taskbridge.streams.api.access import build_access, own_hosts
from taskbridge.streams.api.forwarding import Forwarding
from taskbridge.streams.api.owners import Owners
from taskbridge.streams.api.resolver import OwnerResolver
from taskbridge.streams.directories.forms import Forms
from taskbridge.streams.directories.people import People
from taskbridge.streams.directories.reader import DirectoryReader
from taskbridge.streams.engine.parts import consumer_of, partitions_by_worker
from taskbridge.streams.inbox.agent import InboxAgent
from taskbridge.streams.operations.reporting import OperationsReporter
from taskbridge.streams.operations.routes import operations_router
from taskbridge.streams.query.history import EventReader, Histories
from taskbridge.streams.query.inboxes import Inboxes
from taskbridge.streams.query.instances import Instances
from taskbridge.streams.query.routes import ApiContext, Readers, build_instances_router, build_router
from taskbridge.streams.query.wholeness import Wholeness
from taskbridge.streams.sse.event_streams import EventStreams
from taskbridge.streams.topology import inbox_table, notifications_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import faust
    from fastapi import APIRouter

    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.registry import Registry
    from taskbridge.streams.directories.directory import Directory
    from taskbridge.streams.monitoring.metrics import Metrics
    from taskbridge.streams.positions.offsets import Offsets
    from taskbridge.streams.settings import StreamsSettings
    from taskbridge.streams.tables.store import Store
    from taskbridge.streams.transactions.group_commit import GroupCommit


class InstancesTable(NamedTuple):
    """What the worker has of the instances."""

    store: Store
    changelog: str
    partitions: int
    actives: Callable[[], Collection[int]]
    """As ``Owners.join`` says."""


class Upstream(NamedTuple):
    """Kafka beside the tables: how it is read, where its topics end, and what its records say."""

    consumer: Mapping[str, object]
    offsets: Offsets
    registry: Registry


class TaskCenter:
    """Made before anything is connected, so that the API can say so; ``open`` brings the tables."""

    def __init__(self, settings: StreamsSettings) -> None:
        """Raise ConfigurationError where the settings of who may ask are wrong."""
        self._people = People(most=settings.people_max, mapped_id=settings.sso_mapped_id)
        self._forms = Forms(most=settings.labels_max)
        self.access = build_access(settings, self._people)
        self.owners = Owners(settings.url)
        self.forwarding = Forwarding(self.access.seal)
        resolver = OwnerResolver(self.access, self.owners, self.forwarding)
        self.only_hosts = own_hosts(settings) if self.access.is_open else None
        self._context = ApiContext(resolver)
        self._history: EventReader | None = None
        self._directories: list[DirectoryReader[Any]] = []
        self.event_streams = EventStreams(
            resolver,
            most=settings.event_streams,
            most_of_person=settings.event_streams_per_user,
            names=self._people.find,
        )
        self.operations = OperationsReporter(
            self._context,
            own_url=settings.url,
            edge_urls=settings.edge_urls,
            streams=lambda: self.event_streams.hub.count,
        )

    @property
    def routers(self) -> list[APIRouter]:
        return [
            build_router(self._context),
            build_instances_router(self._context),
            self.event_streams.router,
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
    ) -> InboxAgent:
        """Keep the inboxes and answer from them, once they are as far as is ``told``."""
        consumer, offsets, registry = upstream
        inbox, inbox_changelog = inbox_table(app, partitions=instances.partitions)
        agent = InboxAgent(
            app,
            store=inbox,
            changelog=inbox_changelog,
            group_commit=group_commit,
            offsets=offsets,
            notifications=task_notification_codec(registry),
            metrics=metrics,
        )
        app.agent(notifications_topic(app), name="inbox")(agent.run)
        tokens = self.access.tokens
        if tokens is not None:
            metrics.watch_tokens(lambda: tokens.broken is None)
        self.operations.open(consumer=consumer, offsets=offsets, registry=registry, flow=metrics.flow)
        self.event_streams.open(app, agent, consumer=consumer, offsets=offsets, registry=registry, metrics=metrics)
        self._history = EventReader(consumer)
        self._follow(self._people, person_codec(registry), upstream, metrics)
        self._follow(self._forms, form_codec(registry), upstream, metrics)
        self._context.open(
            Readers(
                Inboxes(inbox, Wholeness(lambda: consumer_of(app).positions, told)),
                Instances(instances.store, task_state_codec(registry)),
                Histories(self._history, task_event_codec(registry), self._people.find, self._forms.find),
                self._people.find,
                self._forms.find,
            )
        )
        self.owners.join(
            partitions=instances.partitions,
            distribution=lambda: partitions_by_worker(app),
            actives=instances.actives,
            changelog=instances.changelog,
        )
        return agent

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
            self.event_streams.keep(),
            self.operations.keep(),
            *([] if tokens is None else [tokens.watch()]),
            *(each.keep() for each in self._directories),
        )

    def stop(self) -> None:
        """End what is open: nothing new is to be told from here."""
        self.event_streams.stop()

    async def close(self) -> None:
        readers = [each.close() for each in (self._history, *self._directories) if each is not None]
        await asyncio.gather(self.forwarding.close(), self.event_streams.close(), self.operations.close(), *readers)
