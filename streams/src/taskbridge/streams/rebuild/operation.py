"""What a rebuild and a retelling have in common: Kafka, the workers, a folder of their own, and a way to be stopped."""

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
from taskbridge.streams.positions.version import VERSION_TOPIC, Retold
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
"""What brokers allow a transaction at most, unless they are told otherwise."""


class Stopped(OperatorError):
    """It was stopped before it was done: run it again."""


class HalfMoved(OperatorError):
    """Some topics have another number of partitions already, and all have to get it before anything else is done."""


class Operation:
    """Of one run."""

    def __init__(self, settings: StreamsSettings, tell: Callable[[str], None], stopping: Callable[[], None]) -> None:
        """``stopping`` raises once the run was told to stop."""
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
        """Tells people how far that is."""
        return Ticker(self.tell, what, stopping=self.stopping)

    def copy_of(self, topic: str, path: Path) -> TopicCopy:
        return TopicCopy(path, topic, consumer=self.consumer, offsets=self.offsets)

    @contextmanager
    def alone(
        self, folder_name: str, *, partitions: int | None = None
    ) -> Generator[tuple[TransactionalWriter, Versions, Path]]:
        """Be the only one at work: the one who may write, which version is live, and a folder to work in.

        ``partitions``: the number that all topics are being brought to, where this is what the run is for.

        Raises:
            AnotherRebuild: somebody else is.
            HalfMoved: topics are on their way to another number, and must come to that first.
        """
        self.live_version.prepare()
        with alone(self.offsets, self.consumer), _emptied(self.settings.data_dir / folder_name) as folder:
            # From here on, no earlier run can make its version live.
            writer = self.claimed_writer()
            versions = self.live_version.read()
            if versions.partitions is not None:
                if versions.partitions != partitions:
                    raise HalfMoved(
                        f"a move to {versions.partitions} partitions ended halfway: run"
                        f" taskbridge streams --rebuild --partitions {versions.partitions} first"
                    )
            elif versions.next is not None:
                versions = versions._replace(next=None)
                with writer.transaction():
                    say(writer, versions)
            yield writer, versions, folder

    @contextmanager
    def nobody_at_work(self, writer: TransactionalWriter, versions: Versions, following: int) -> Generator[ExitStack]:
        """The workers have stopped, and wait until it is said which version is live: the ``following`` one, or another.

        Where this ends with an error, they go on with what ``versions`` says; ``pop_all`` takes that way back away.
        Should this process die, the first worker that asks finds that nobody is there, and goes on.

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
        """The only one that can write; an earlier one cannot any more."""
        writer = TransactionalWriter(self.producer, REBUILD_ID, timeout_ms=_TRANSACTION_MAX_MS)
        writer.claim()
        return writer

    def topics(self) -> dict[str, int]:
        """How many partitions each has."""
        return {name: len(each.partitions) for name, each in self.admin.list_topics(timeout=_ANSWER_S).topics.items()}

    def told_now(self) -> Retold:
        """Where the notifications end."""
        name = topics.TASK_NOTIFICATIONS.name
        topic = self.offsets.topics([name])[name]
        return Retold(topic.topic_id, self.offsets.ends(name, range(topic.partitions)))

    def ground(self, source: str, changelog: str, changelog_id: str, *, version: int, partitions: int) -> Ground:
        """What workers are to stand upon that read ``source``, with the changelog that was made for it."""
        ids = {name: each.topic_id for name, each in self.offsets.topics([source, VERSION_TOPIC.name]).items()}
        return Ground(ids[source], changelog, Mark(version, partitions, changelog_id, ids[VERSION_TOPIC.name]))

    def new_inboxes(self, version: int, partitions: int) -> Ground:
        """What workers are to stand upon that make the inboxes anew."""
        made = self.make_anew(INBOX_CHANGELOG, partitions=partitions)
        return self.ground(
            topics.TASK_NOTIFICATIONS.name, INBOX_CHANGELOG.name, made, version=version, partitions=partitions
        )

    def make_anew(self, topic: Topic, *, partitions: int) -> str:
        """The topic is there, empty; returns Kafka's id of it. Blocks until it is: Kafka deletes in its own time."""
        if topic.name in self.topics():
            delete_topics(self.admin, [topic.name])
        deadline = time.monotonic() + _ANSWER_S
        made = False
        while True:
            # One that goes or comes is not the same to all who are asked.
            with suppress(TopicsUnavailable, KafkaException):
                made = made or apply_topics(self.admin, [topic], partitions=partitions)[0].created
                if made:
                    return self.offsets.topic_id(topic.name)
            if time.monotonic() > deadline:
                raise OperatorError(f"{topic.name} could not be made anew")
            time.sleep(_LOOK_S)


@contextmanager
def operation(environment: Mapping[str, str], tell: Callable[[str], None]) -> Generator[Operation]:
    """One run, which SIGTERM and SIGINT stop where nothing is half done.

    Raises:
        ConfigurationError: before anything is begun.
        OperatorError: Kafka refuses or does not answer, or the run was stopped.
    """
    settings = load_settings(StreamsSettings, environment)
    configure_logs(settings.log_format, "WARNING")
    collect_garbage_rarely()
    try:
        with _stop_told() as stopping:
            run = Operation(settings, tell, stopping)
            with closing(run.registry):
                yield run
    except (KafkaException, TimeoutError) as error:
        raise OperatorError(f"Kafka refuses or does not answer: {error}. Run it again") from error


def _say_if_possible(writer: TransactionalWriter, versions: Versions) -> None:
    with suppress(OperatorError, KafkaException), writer.transaction():
        say(writer, versions)


def delete_topics(admin: AdminClient, names: list[str]) -> None:
    """Blocks until Kafka has begun to."""
    for future in cast("dict[str, Any]", admin.delete_topics(names, operation_timeout=_ANSWER_S)).values():
        future.result(_ANSWER_S)


@contextmanager
def _emptied(folder: Path) -> Generator[Path]:
    """A folder of this run's own. What a run that was killed left there goes first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _stop_told() -> Generator[Callable[[], None]]:
    """A check that raises once SIGTERM or SIGINT came, where nothing is half done."""
    told = threading.Event()

    def stopping() -> None:
        if told.is_set():
            raise Stopped("stopped before it was done: run it again")

    def tell(_signum: int, _frame: object) -> None:
        told.set()

    before = {each: signal.signal(each, tell) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
