"""What ``--rebuild`` and ``--republish`` share: Kafka, the workers, a working folder, and stopping on a signal."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import KafkaException

from taskbridge.runtime.kafka import admin_client, consumer_config, producer_config, read_kafka_config
from taskbridge.runtime.logs import configure_logs
from taskbridge.runtime.process import collect_garbage_rarely
from taskbridge.runtime.settings import load_settings
from taskbridge.runtime.topic_admin import TopicsUnavailable, apply_topics
from taskbridge.schemas import topics
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.registry import Registry
from taskbridge.streams.contract.live_version import REBUILD_ID, LiveVersion, say
from taskbridge.streams.positions.changelog_topic import INBOX_CHANGELOG
from taskbridge.streams.positions.mark import Ground, Mark
from taskbridge.streams.positions.offsets import Offsets
from taskbridge.streams.positions.version import VERSION_TOPIC, Republished
from taskbridge.streams.rebuild.sources.copies import Ticker, TopicCopy
from taskbridge.streams.rebuild.workers import Workers, alone
from taskbridge.streams.settings import StreamsSettings
from taskbridge.streams.transactions.group_commit import claimed
from taskbridge.streams.transactions.transaction import TransactionalWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

    from confluent_kafka.admin import AdminClient

    from taskbridge.schemas.topics import Topic
    from taskbridge.streams.positions.version import Versions

_ANSWER_S = 15
_LOOK_S = 0.5
_TRANSACTION_MAX_MS = 15 * 60 * 1000
"""The default of brokers for ``transaction.max.timeout.ms``."""


class Stopped(OperatorError):
    """A signal stopped the run before its end: run it again."""


class HalfMoved(OperatorError):
    """A move to another number of partitions ended halfway, and has to be completed before anything else."""


class Operation:
    """One run of a command."""

    def __init__(self, settings: StreamsSettings, tell: Callable[[str], None], stopping: Callable[[], None]) -> None:
        """``stopping`` raises once a signal has asked the run to stop."""
        self.settings = settings
        self.tell = tell
        self.stopping = stopping
        servers, properties = settings.kafka_bootstrap_servers, read_kafka_config(settings.kafka_config_file)
        self.registry = Registry(settings.schema_registry_url, properties=properties)
        self.consumer = consumer_config(servers, REBUILD_ID, properties)
        self.producer = producer_config(servers, properties)
        self.admin = admin_client(servers, properties)
        self.offsets = Offsets(self.consumer)
        self.live_version = LiveVersion(servers, properties, self.offsets)
        claim = partial(claimed, self.producer)
        self.workers = Workers(self.offsets, claim=claim, tell=tell, stopping=stopping)

    def ticker(self, what: str) -> Ticker:
        """Reports progress to people."""
        return Ticker(self.tell, what, stopping=self.stopping)

    def copy_of(self, topic: str, path: Path) -> TopicCopy:
        return TopicCopy(path, topic, consumer=self.consumer, offsets=self.offsets)

    @contextmanager
    def alone(
        self, folder_name: str, *, partitions: int | None = None
    ) -> Generator[tuple[TransactionalWriter, Versions, Path]]:
        """Run alone: gives the only writer, which version is live, and a working folder.

        ``partitions``: the target number of partitions of all topics, where the run moves them.

        Raises:
            AnotherRebuild: another run is active.
            HalfMoved: an earlier move to another number of partitions has to be completed first.
        """
        self.live_version.prepare()
        with alone(self.offsets, self.consumer), _emptied(self.settings.data_dir / folder_name) as folder:
            # From here on, no earlier run can make its version live.
            writer = self.claimed_writer()
            versions = self.live_version.read()
            if versions.partitions is not None:
                if versions.partitions != partitions:
                    raise HalfMoved(
                        f"an earlier move to {versions.partitions} partitions is incomplete: run"
                        f" taskbridge streams --rebuild --partitions {versions.partitions} first"
                    )
            elif versions.next is not None:
                versions = versions._replace(next=None)
                with writer.transaction():
                    say(writer, versions)
            yield writer, versions, folder

    @contextmanager
    def nobody_at_work(self, writer: TransactionalWriter, versions: Versions, following: int) -> Generator[ExitStack]:
        """All workers have stopped, and wait until a version is declared live: ``following``, or another.

        If the block fails, they continue with what ``versions`` says, unless ``pop_all`` was called. If this process
        dies, the first worker that looks finds the group empty, and continues.

        Raises:
            WorkersStay: they do not stop.
        """
        with writer.transaction():
            say(writer, versions._replace(next=following))
        with ExitStack() as way_back:
            way_back.callback(_say_if_possible, writer, versions)
            self.workers.wait_until_gone()
            yield way_back
            way_back.pop_all()

    def claimed_writer(self) -> TransactionalWriter:
        """The only writer: an earlier one is fenced."""
        writer = TransactionalWriter(self.producer, REBUILD_ID, timeout_ms=_TRANSACTION_MAX_MS)
        writer.claim()
        return writer

    def topics(self) -> dict[str, int]:
        """The number of partitions of each topic."""
        return {name: len(each.partitions) for name, each in self.admin.list_topics(timeout=_ANSWER_S).topics.items()}

    def notification_ends(self) -> Republished:
        """The end offset of each partition of the notifications."""
        name = topics.TASK_NOTIFICATIONS.name
        topic = self.offsets.topics([name])[name]
        return Republished(topic.topic_id, self.offsets.ends(name, range(topic.partitions)))

    def ground(self, source: str, changelog: str, changelog_id: str, *, version: int, partitions: int) -> Ground:
        """The ground of workers that read ``source``, with the changelog that was created for it."""
        ids = {name: each.topic_id for name, each in self.offsets.topics([source, VERSION_TOPIC.name]).items()}
        return Ground(ids[source], changelog, Mark(version, partitions, changelog_id, ids[VERSION_TOPIC.name]))

    def new_inboxes(self, version: int, partitions: int) -> Ground:
        """The ground of workers that rebuild the inboxes, with a new changelog."""
        made = self.recreate(INBOX_CHANGELOG, partitions=partitions)
        return self.ground(
            topics.TASK_NOTIFICATIONS.name, INBOX_CHANGELOG.name, made, version=version, partitions=partitions
        )

    def recreate(self, topic: Topic, *, partitions: int) -> str:
        """Delete the topic and create it, empty; returns its id. Blocks, since Kafka deletes asynchronously."""
        if topic.name in self.topics():
            delete_topics(self.admin, [topic.name])
        deadline = time.monotonic() + _ANSWER_S
        made = False
        while True:
            # Brokers disagree for a moment about a topic that is being deleted or created.
            with suppress(TopicsUnavailable, KafkaException):
                made = made or apply_topics(self.admin, [topic], partitions=partitions)[0].created
                if made:
                    return self.offsets.topic_id(topic.name)
            if time.monotonic() > deadline:
                raise OperatorError(f"Kafka did not recreate {topic.name} within {_ANSWER_S} s: run it again")
            time.sleep(_LOOK_S)


@contextmanager
def operation(environment: Mapping[str, str], tell: Callable[[str], None]) -> Generator[Operation]:
    """One run, which SIGTERM and SIGINT stop at a point where nothing is half done.

    Raises:
        ConfigurationError: a setting is wrong; nothing was started.
        OperatorError: Kafka refuses or does not answer, or a signal stopped the run.
    """
    settings = load_settings(StreamsSettings, environment)
    configure_logs(settings.log_format, "WARNING")
    collect_garbage_rarely()
    try:
        with _stop_signal() as stopping:
            run = Operation(settings, tell, stopping)
            with closing(run.registry):
                yield run
    except (KafkaException, TimeoutError) as error:
        raise OperatorError(f"Kafka refuses or does not answer: {error}. Run the command again") from error


def _say_if_possible(writer: TransactionalWriter, versions: Versions) -> None:
    with suppress(OperatorError, KafkaException), writer.transaction():
        say(writer, versions)


def delete_topics(admin: AdminClient, names: list[str]) -> None:
    """Blocks until Kafka has started to delete them."""
    for future in cast("dict[str, Any]", admin.delete_topics(names, operation_timeout=_ANSWER_S)).values():
        future.result(_ANSWER_S)


@contextmanager
def _emptied(folder: Path) -> Generator[Path]:
    """An empty folder for this run; the remains of a killed run are deleted first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _stop_signal() -> Generator[Callable[[], None]]:
    """A check that raises once SIGTERM or SIGINT came, where nothing is half done."""
    received = threading.Event()

    def stopping() -> None:
        if received.is_set():
            raise Stopped("a signal stopped the command before its end: run it again")

    def receive(_signum: int, _frame: object) -> None:
        received.set()

    before = {each: signal.signal(each, receive) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
