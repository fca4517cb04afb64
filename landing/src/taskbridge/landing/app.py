"""The composition root of land: settings, signals, the followers and the HTTP side."""

from __future__ import annotations

import asyncio
import os
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import prometheus_client
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.process_collector import ProcessCollector

from taskbridge.landing.acls import GROUPS
from taskbridge.landing.export import export
from taskbridge.landing.records import Definitions, People, States, Values
from taskbridge.landing.settings import LandSettings
from taskbridge.landing.shapes import Shapes
from taskbridge.landing.tables import SCHEMA, prepare
from taskbridge.runtime.database import DatabaseUnavailable, open_target
from taskbridge.runtime.follow.follower import Follower
from taskbridge.runtime.follow.metrics import FollowerCollector
from taskbridge.runtime.follow.positions import progress, read_positions
from taskbridge.runtime.kafka import consumer_config, read_kafka_config
from taskbridge.runtime.logs import configure_logs
from taskbridge.runtime.operation import operation_app, serve_until_stopped
from taskbridge.runtime.partition_reader import PartitionReader
from taskbridge.runtime.settings import load_settings
from taskbridge.schemas.errors import ConfigurationError, OperatorError
from taskbridge.schemas.registry import Registry
from taskbridge.schemas.topics import FORM_DATA, FORMS, PEOPLE, TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Mapping

    from taskbridge.landing.records import Unfit
    from taskbridge.runtime.database import Database
    from taskbridge.runtime.follow.positions import Place

PREFIX = "taskbridge_land_"
_PARQUET = "parquet:"
_LOOK_S, _END_S = 0.5, 10.0
_TOPICS = (FORMS.name, PEOPLE.name, TASK_STATES.name, FORM_DATA.name)

log = structlog.get_logger(__name__)


def run(environment: Mapping[str, str] = os.environ, *, once: bool = False) -> None:
    """Follow the topics until SIGTERM or SIGINT; with ``once``, until what they have now has landed.

    Raises:
        ConfigurationError: before anything is started.
        OperatorError: the database cannot be used, or with ``once``, forms wait for their tables.
    """
    settings = load_settings(LandSettings, environment)
    target: str | Path = settings.to.get_secret_value()
    if folder := str(target).removeprefix(_PARQUET) if str(target).startswith(_PARQUET) else "":
        if not once:
            raise ConfigurationError("parquet:FOLDER needs --once, which writes what has landed at its end")
        Path(folder).mkdir(parents=True, exist_ok=True)
        target = Path(folder) / "landed.db"
    with closing(open_target(target, schema=SCHEMA)) as database:
        configure_logs(settings.log_format, settings.log_level)
        service = Land(settings, database, once=once)
        asyncio.run(service.serve())
        if service.is_over and (waiting := service.waiting()):
            raise OperatorError("; ".join(waiting))
    if folder and service.is_over:
        made = Path(folder) / f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}"
        log.info("parquet_written", folder=str(made), rows=export(target, {"parquet": made})["parquet"])


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.raw = prometheus_client.Counter(
            PREFIX + "raw_values",
            "Values that do not fit their fields, or have no field, and were kept in `_raw`, by table.",
            ("table",),
            registry=self.registry,
        )


class Land:
    def __init__(self, settings: LandSettings, database: Database, *, once: bool = False) -> None:
        self._settings, self._database, self._once = settings, database, once
        self._kafka = read_kafka_config(settings.kafka_config_file)
        self._registry = Registry(settings.schema_registry_url, properties=self._kafka)
        self.metrics = Metrics()
        self.followers: list[Follower] = []
        self._target = ""
        self._shapes = Shapes(database)
        """Of the values."""
        self.is_over = False
        """Whether all that was wanted ``once`` has landed."""

    async def serve(self) -> None:
        self._target = await asyncio.to_thread(prepare, self._database)
        self.metrics.registry.register(FollowerCollector(PREFIX, lambda: [each.health() for each in self.followers]))
        http = operation_app(
            "land",
            readiness=self.readiness,
            ready="Ready while the database answers and topics are read",
            registry=self.metrics.registry,
        )
        await serve_until_stopped(
            http,
            service="land",
            address=(self._settings.host, self._settings.port),
            end_s=_END_S,
            start=self._start,
            close=self._close,
        )

    def readiness(self) -> dict[str, Any]:
        found = [each.health() for each in self.followers]
        problems = [each.problem for each in found if each.problem is not None]
        return {
            "ready": bool(found) and not problems,
            "kafka": "connected" if found and not problems else "waiting",
            "lag": sum(each.lag for each in found),
            "problems": [*dict.fromkeys(problems), *self.waiting()],
        }

    def waiting(self) -> list[str]:
        """They stop no other form, so they are no reason not to be ready."""
        waiting = [*self._shapes.waiting.items()]  # at once: the follower's thread changes them
        return [f"form {form} waits for its tables: {why}" for (_, form), (_, why) in waiting]

    async def _start(self) -> list[Coroutine[Any, Any, None]]:
        shapes = Shapes(self._database)
        known = [Definitions(self._database, self._registry, shapes), People(self._database, self._registry)]
        self.followers = [self._follower("names", [*known, States(self._database, self._registry)])]
        self.followers[0].start()
        return [self._land(Values(self._database, self._registry, self._shapes))]

    def _follower(self, name: str, topics: list[Any]) -> Follower:
        return Follower(
            self._database,
            name,
            topics,
            # Processes with one target share its partitions.
            service=f"land-{self._target}",
            servers=self._settings.kafka_bootstrap_servers,
            kafka=self._kafka,
            on_change=self._count,
        )

    def _count(self, found: Collection[Unfit]) -> None:
        for table, _, count in found:
            self.metrics.raw.labels(table).inc(count)

    async def _land(self, values: Values) -> None:
        """Follow the values once all definitions are known: they decide what columns there are."""
        ends = await asyncio.to_thread(self._ends) if self._once else None
        await self._until(lambda: self._is_filled(FORMS.name))
        # The follower does it too, but a single run may be over before.
        await self._until(lambda: values.purge(0) == 0)
        self.followers.append(self._follower("values", [values]))
        self.followers[1].start()
        await self._until(lambda: ends is not None and self._has_landed(ends))
        self.is_over = True

    async def _until(self, is_so: Callable[[], bool]) -> None:
        """Look from time to time; a database that does not answer is one that is not so far."""
        while True:
            try:
                if await asyncio.to_thread(is_so):
                    return
            except DatabaseUnavailable as error:
                log.warning("database_unavailable", problem=str(error))
            await asyncio.sleep(_LOOK_S)

    def _ends(self) -> dict[Place, int]:
        reader = PartitionReader(consumer_config(self._settings.kafka_bootstrap_servers, GROUPS, self._kafka))
        with closing(reader):
            return {
                (topic, partition): end
                for topic in _TOPICS
                for partition, (_, end) in reader.bounds(topic).items()
            }  # fmt: skip

    def _is_filled(self, topic: str) -> bool:
        with self._database.read() as connection:
            return progress(connection, topic).complete

    def _has_landed(self, ends: Mapping[Place, int]) -> bool:
        """By the database, which another process may write; by this one's position where no records are left."""
        with self._database.read() as connection:
            stored = read_positions(connection, _TOPICS)
        reached = {
            (each.topic, each.partition): each for follower in self.followers for each in follower.health().partitions
        }
        return all(
            place in stored
            and stored[place].next_offset >= stored[place].fill_end
            and (stored[place].next_offset >= end or (place in reached and reached[place].next_offset >= end))
            for place, end in ends.items()
        )

    async def _close(self) -> None:
        for each in self.followers:
            await asyncio.to_thread(each.stop)
        self._registry.close()
