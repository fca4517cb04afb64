"""The composition root of ``taskbridge streams --rebuild``: makes the states anew beside the workers, and switches."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import KafkaException

from schemas import topics
from schemas.codec import task_notification_codec, task_state_codec
from schemas.errors import OperatorError
from schemas.registry import Registry
from service.garbage import collect_garbage_rarely
from service.kafka import admin_client, consumer_config, producer_config, read_kafka_config
from service.logs import configure_logs
from service.settings import load_settings
from service.topic_admin import apply_topics
from streams.commit.rounds import claimed
from streams.commit.transaction import TransactionalWriter
from streams.contract import notification_bytes
from streams.fold.folding_choice import choose_folding
from streams.live_version import REBUILD_ID, LiveVersion, say
from streams.rebuild.alone import alone
from streams.rebuild.publication import Publication
from streams.rebuild.rebuilding import Rebuilding, Sources
from streams.rebuild.workers import Workers
from streams.settings import StreamsSettings
from streams.tables.changelog_topic import instances_changelog
from streams.tables.offsets import Offsets
from streams.topology import APP_ID
from streams.version import VERSION_TOPIC, Versions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from confluent_kafka.admin import AdminClient

_ANSWER_S = 15
_LOOK_S = 0.5
_SWITCH_MAX_MS = 15 * 60 * 1000
"""What brokers allow a transaction at most, unless they are told otherwise."""


class Stopped(OperatorError):
    """The rebuild was stopped before the switch: nothing changed."""


class NothingToRebuild(OperatorError):
    """There is no events topic on this Kafka."""


def rebuild(environment: Mapping[str, str], *, dry_run: bool, tell: Callable[[str], None]) -> dict[str, Any]:
    """Make the live version of the instances anew from the events; returns what it came to, by name.

    Workers go on meanwhile, and stop for the switch only. With ``dry_run`` nothing is written to Kafka at all.

    Raises:
        ConfigurationError: before anything is begun.
        OperatorError: nothing changed; it can be started again.
    """
    settings = load_settings(StreamsSettings, environment)
    configure_logs(settings.log_format, "WARNING")
    collect_garbage_rarely()
    try:
        with _stop_told() as stopping:
            return _Rebuild(settings, tell, stopping).run(dry_run=dry_run)
    except (KafkaException, TimeoutError) as error:
        raise OperatorError(f"Kafka refuses or does not answer, nothing changed: {error}") from error


class _Rebuild:
    def __init__(self, settings: StreamsSettings, tell: Callable[[str], None], stopping: Callable[[], None]) -> None:
        self._settings = settings
        self._tell = tell
        self._stopping = stopping
        self._servers = settings.kafka_bootstrap_servers
        self._properties = read_kafka_config(settings.kafka_config_file)
        self._consumer = consumer_config(self._servers, REBUILD_ID, self._properties)
        self._producer = producer_config(self._servers, self._properties)
        self._admin = admin_client(self._servers, self._properties)
        self._offsets = Offsets(self._consumer)
        self._live_version = LiveVersion(self._servers, self._properties, self._offsets)
        self._workers = Workers(
            self._admin,
            self._offsets,
            group=APP_ID,
            claim=partial(claimed, self._producer),
            tell=tell,
            stopping=stopping,
        )

    def run(self, *, dry_run: bool) -> dict[str, Any]:
        began = time.monotonic()
        data_dir = self._settings.data_dir
        with closing(Registry(self._settings.schema_registry_url)) as registry:
            if dry_run:
                # On the disk of the data folder, and of a missing one nothing is to be left behind.
                there = next(each for each in (data_dir, *data_dir.absolute().parents) if each.is_dir())
                with tempfile.TemporaryDirectory(prefix="rebuild-dry-run-", dir=there) as folder:
                    found = self._try(registry, Path(folder))
            else:
                self._live_version.prepare()
                folder = data_dir / "rebuild"
                with alone(self._admin, self._consumer), _emptied(folder):
                    found = self._rebuild(registry, folder)
        return {**found, "seconds": round(time.monotonic() - began, 1)}

    def _try(self, registry: Registry, folder: Path) -> dict[str, Any]:
        live = (self._live_version.read() if VERSION_TOPIC.name in self._topics() else Versions()).live
        with closing(self._rebuilding(registry, folder, live)) as rebuilding:
            rebuilding.catch_up()
            # Once more for what came meanwhile, or it would count as a difference.
            rebuilding.catch_up()
            for _ in rebuilding.outcomes(live + 1):
                pass
            return {"version": live, "switched": False, **asdict(rebuilding.counts)}

    def _rebuild(self, registry: Registry, folder: Path) -> dict[str, Any]:
        writer = TransactionalWriter(self._producer, REBUILD_ID, timeout_ms=_SWITCH_MAX_MS)
        # From here on, no earlier rebuild can make its version live.
        writer.claim()
        versions = self._live_version.read()
        if versions.next is not None:
            with writer.transaction():
                say(writer, Versions(versions.live))
        live = versions.live
        changelog = self._fresh_changelog(live + 1)
        publication = Publication(
            writer,
            changelog=changelog,
            live=live,
            notifications=task_notification_codec(registry),
            tell=self._tell,
            stopping=self._stopping,
        )
        self._tell(f"version {live + 1} of the instances is made beside version {live}, which stays live")
        with closing(self._rebuilding(registry, folder, live)) as rebuilding:
            rebuilding.catch_up()
            publication.write_changelog(rebuilding)
            # What came meanwhile, so that little is left while no worker works.
            rebuilding.catch_up()
            publication.switch(rebuilding, self._workers)
            return {"version": live + 1, "switched": True, **asdict(rebuilding.counts)}

    def _rebuilding(self, registry: Registry, folder: Path, live: int) -> Rebuilding:
        there, changelog = self._topics(), instances_changelog(live).name
        if topics.TASK_EVENTS.name not in there or topics.TASK_STATES.name not in there:
            raise NothingToRebuild(f"{topics.TASK_EVENTS.name} or {topics.TASK_STATES.name} is not on this Kafka")
        if changelog not in there:
            self._tell(f"{changelog} is lost: what the events do not tell is taken from the published states")
        sources = Sources(
            consumer=self._consumer,
            offsets=self._offsets,
            positions=self._workers.positions,
            changelog=changelog if changelog in there else None,
            partitions=there[topics.TASK_EVENTS.name],
            states_partitions=there[topics.TASK_STATES.name],
            folding=choose_folding(registry, live_instances=self._settings.live_instances),
            notification_bytes=notification_bytes(self._offsets),
            states=task_state_codec(registry),
            retention_days=self._settings.retention_days,
        )
        return Rebuilding(folder, sources, say=self._tell, stopping=self._stopping)

    def _topics(self) -> dict[str, int]:
        """How many partitions each has."""
        return {name: len(each.partitions) for name, each in self._admin.list_topics(timeout=_ANSWER_S).topics.items()}

    def _fresh_changelog(self, version: int) -> str:
        """The new version's changelog, empty: what an earlier rebuild left in it is deleted first."""
        topic = instances_changelog(version)
        there = self._topics()
        if topic.name in there:
            self._tell(f"{topic.name}, which an earlier rebuild left half made, is made anew")
            delete_topics(self._admin, [topic.name])
        deadline = time.monotonic() + _ANSWER_S
        while not apply_topics(self._admin, [topic], partitions=there[topics.TASK_EVENTS.name])[0].created:
            # Kafka deletes in its own time.
            if time.monotonic() > deadline:
                raise OperatorError(f"{topic.name} could not be made anew")
            time.sleep(_LOOK_S)
        return topic.name


def delete_topics(admin: AdminClient, names: list[str]) -> None:
    """Blocks until Kafka has begun to."""
    for future in cast("dict[str, Any]", admin.delete_topics(names, operation_timeout=_ANSWER_S)).values():
        future.result(_ANSWER_S)


@contextmanager
def _emptied(folder: Path) -> Generator[None]:
    """A folder of this run's own. What a run that was killed left there goes first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _stop_told() -> Generator[Callable[[], None]]:
    """A check that raises once SIGTERM or SIGINT came, where nothing is half done."""
    told = threading.Event()

    def stopping() -> None:
        if told.is_set():
            raise Stopped("stopped before the switch: nothing changed")

    def tell(_signum: int, _frame: object) -> None:
        told.set()

    before = {each: signal.signal(each, tell) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
