"""What ``--rebuild`` and ``--republish`` share: Kafka, the workers, a working folder, and stopping on a signal."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import Consumer, KafkaException
from faust.types import TP
from msgspec.structs import replace

from taskbridge.runtime.kafka import LIBRDKAFKA, admin_client, consumer_config, producer_config, read_kafka_config
from taskbridge.runtime.logs import configure_logs
from taskbridge.runtime.process import collect_garbage_rarely
from taskbridge.runtime.settings import load_settings
from taskbridge.runtime.topic_admin import TopicsUnavailable, apply_topics
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.registry import Registry
from taskbridge.schemas.topics import TASK_EVENTS, Topic
from taskbridge.streams.contract.live_version import REBUILD_ID, LiveVersion, announce
from taskbridge.streams.contract.start import source_topic
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.engine.joint_producer import JointProducer
from taskbridge.streams.rebuild.copies import DECIDED_S, TopicCopy
from taskbridge.streams.settings import StreamsSettings
from taskbridge.streams.table_versions import UNUSED_TOPICS, VERSION_TOPIC, Versions
from taskbridge.streams.transactions.group_commit import fence
from taskbridge.streams.transactions.offsets import Offsets, readers_of
from taskbridge.streams.transactions.positions import SourceTopic

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
    from pathlib import Path

    from confluent_kafka.admin import AdminClient

    from taskbridge.runtime.kafka import Admin
    from taskbridge.streams.records import RecordWithHeaders

_ANSWER_S = 15
_TOGETHER = 20_000
_LOOK_S = 0.5
_POLL_S = 0.02
_REPORT_S = 2.0
_LEAVE_S = 180.0
_SESSION_MS = 6_000
"""No broker allows less by default."""


class CannotRun(OperatorError):
    """The command cannot run or end as things are. It is safe to run it again."""


class Operation:
    def __init__(self, settings: StreamsSettings, report: Callable[[str], None]) -> None:
        self.settings = settings
        self.report = report
        servers, properties = settings.kafka_bootstrap_servers, read_kafka_config(settings.kafka_config_file)
        self.registry = Registry(settings.schema_registry_url, properties=properties)
        self.consumer = consumer_config(servers, REBUILD_ID, properties)
        self.producer = producer_config(servers, properties)
        self.admin = admin_client(servers, properties)
        self.offsets = Offsets(self.consumer)
        self.live_version = LiveVersion(servers, properties, self.offsets)
        claim = partial(fence, self.producer)
        self.workers = Workers(self.offsets, claim=claim, report=report)

    def ticker(self, what: str) -> Callable[[int, int], None]:
        reported = time.monotonic()

        def tick(done: int, total: int) -> None:
            nonlocal reported
            if time.monotonic() - reported >= _REPORT_S:
                reported = time.monotonic()
                self.report(f"{what}: {done:,} of {total:,}")

        return tick

    def copy_of(self, topic: str, path: Path) -> TopicCopy:
        return TopicCopy(path, topic, consumer=self.consumer, offsets=self.offsets)

    @contextmanager
    def alone(
        self, folder_name: str, *, partitions: int | None = None
    ) -> Generator[tuple[JointProducer, Versions, Path]]:
        """Run alone: gives the only writer, which version is live, and a working folder; else raises CannotRun.

        ``partitions``: the target number of partitions of all topics, where the run moves them.
        """
        self.live_version.prepare()
        with (
            alone(self.offsets, self.consumer),
            _emptied(self.settings.data_dir / folder_name) as folder,
            closing(JointProducer(self.producer, REBUILD_ID)) as writer,
        ):
            # From here on, no earlier run can make its version live.
            writer.claim()
            versions = self.live_version.read()
            if versions.partitions is not None:
                if versions.partitions != partitions:
                    raise CannotRun(
                        f"an earlier move to {versions.partitions} partitions is incomplete: run"
                        f" taskbridge streams --rebuild --partitions {versions.partitions} first"
                    )
            elif versions.next is not None:
                versions = replace(versions, next=None)
                with writer.transaction():
                    announce(writer, versions)
            yield writer, versions, folder

    @contextmanager
    def workers_stopped(self, writer: JointProducer, versions: Versions, following: int) -> Generator[ExitStack]:
        """Stop all workers; they wait until a version is declared live: ``following``, or another.

        If the block fails, they continue with ``versions``, unless ``pop_all`` was called. If this process dies, the
        first worker that finds its group empty continues.
        """
        with writer.transaction():
            announce(writer, replace(versions, next=following))
        with ExitStack() as undo:
            undo.callback(_announce_if_possible, writer, versions)
            self.workers.wait_until_gone()
            yield undo
            undo.pop_all()

    def number(self) -> int:
        """Differs from that of each earlier run, which has at least announced itself."""
        return self.offsets.ends(VERSION_TOPIC.name, [0])[0]

    def topics(self) -> dict[str, int]:
        return {name: len(each.partitions) for name, each in self.admin.list_topics(timeout=_ANSWER_S).topics.items()}

    def recreate(self, topic: Topic, *, partitions: int) -> None:
        """Delete the topic and create it, empty. Blocks, since Kafka deletes asynchronously."""
        if topic.name in self.topics():
            delete_topics(self.admin, [topic.name])

        def is_created() -> bool:
            # Brokers disagree for a moment about a topic that is being deleted.
            with suppress(TopicsUnavailable, KafkaException):
                return apply_topics(self.admin, [topic], partitions=partitions)[0].created
            return False

        wait_for(is_created, lambda: OperatorError(f"Kafka did not recreate {topic.name}: run it again"))
        # Nor do they all know the new one at once.
        wait_for(
            lambda: topic.name in self.offsets.topics([topic.name]),
            lambda: OperatorError(f"Kafka did not recreate {topic.name}: run it again"),
        )


@contextmanager
def operation(environment: Mapping[str, str], report: Callable[[str], None]) -> Generator[Operation]:
    """One run, which SIGTERM and SIGINT may stop at any point: the next one deletes what it has not completed.

    Raises:
        ConfigurationError: a setting is wrong; nothing was started.
        OperatorError: Kafka refuses or does not answer, or a signal stopped the run.
    """
    settings = load_settings(StreamsSettings, environment)
    configure_logs(settings.log_format, "WARNING")
    collect_garbage_rarely()
    run = Operation(settings, report)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with closing(run.registry):
            yield run
    except KeyboardInterrupt:
        raise CannotRun("a signal stopped the command before its end: run it again") from None
    except (KafkaException, TimeoutError) as error:
        raise OperatorError(f"Kafka refuses or does not answer: {error}. Run the command again") from error
    finally:
        signal.signal(signal.SIGTERM, before)


def write_all(
    writer: JointProducer,
    topic: str,
    records: Iterable[tuple[RecordWithHeaders, int]],
    tick: Callable[[int, int], None],
) -> int:
    """Write records to their partitions (-1: that of the key) in transactions of bounded size; returns their number."""
    left, written = iter(records), 0
    while some := list(islice(left, _TOGETHER)):
        with writer.transaction():
            for record, partition in some:
                writer.send(topic, [record], partition=partition)
        written += len(some)
        tick(written, written)
    return written


def _announce_if_possible(writer: JointProducer, versions: Versions) -> None:
    with suppress(OperatorError, KafkaException), writer.transaction():
        announce(writer, versions)


def delete_topics(admin: AdminClient, names: list[str]) -> None:
    """Blocks until Kafka has started to delete them."""
    deleted = cast("Any", admin).delete_topics(names, operation_timeout=_ANSWER_S, request_timeout=_ANSWER_S)
    for future in deleted.values():
        future.result()


def unused_topics(admin: Admin) -> list[str]:
    """Internal topics that only earlier releases used, as far as they exist. Blocks."""
    there = admin.list_topics(timeout=_ANSWER_S).topics
    return [name for name in UNUSED_TOPICS if name in there]


def delete_unused_topics(admin: Admin, names: Sequence[str]) -> None:
    """Delete these topics once nobody uses them; raises CannotRun if somebody does. Blocks."""
    for name in names:
        if readers := readers_of(admin, APP_ID, name):
            raise CannotRun(f"{name} is used by workers of an earlier release: {', '.join(readers)}. Stop them first")
    if names:
        delete_topics(admin, [*names])


@contextmanager
def _emptied(folder: Path) -> Generator[Path]:
    """An empty folder for this run; the remains of a killed run are deleted first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(eq=False)
class Workers:
    """The workers' positions, and whether all have stopped. Every method blocks.

    Raises:
        KafkaException, TimeoutError: Kafka refuses, or does not answer.
    """

    offsets: Offsets
    claim: Callable[[str], object]
    report: Callable[[str], None]

    def positions(self) -> dict[int, int]:
        """The least position of each partition of events; partitions without one are missing.

        Waits for open transactions: their records may be readable a moment before their position.
        """
        left = self._sources()
        found: dict[int, int] = {}
        deadline = time.monotonic() + DECIDED_S
        while left:
            for source, at in self.offsets.committed(APP_ID, left).items():
                if at.is_stable:
                    left.discard(source)
                    if at.offset >= 0:
                        found[source.partition] = at.offset
            if left and time.monotonic() > deadline:
                raise TimeoutError(
                    f"transactions are still open on partitions {sorted(each.partition for each in left)}"
                )
            time.sleep(_POLL_S if left else 0)
        return found

    def wait_until_gone(self) -> None:
        """Return once no worker is in the group, and no transaction of theirs is open; raises CannotRun after minutes.

        A frozen worker that has left the group can write nothing when it resumes: its producers are fenced.
        """
        deadline, reported = time.monotonic() + _LEAVE_S, dict[str, str]()
        while found := self.offsets.members(APP_ID):
            if time.monotonic() > deadline:
                raise CannotRun(
                    f"workers still run after {_LEAVE_S:.0f} s: {_named(found)}. Stop them, and run it again"
                )
            if found != reported:
                reported = found
                self.report(f"waiting for workers to stop: {_named(found)}")
            time.sleep(_LOOK_S)
        # Owners that may have an open transaction: see ``streams.transactions.takeover``.
        committed = self.offsets.committed(APP_ID, self._sources())
        if owners := {at.owner for at in committed.values() if at.owner}:
            with ThreadPoolExecutor(len(owners)) as pool:
                for claim in [pool.submit(self.claim, owner) for owner in owners]:
                    claim.result()

    def _sources(self) -> set[TP]:
        return {TP(TASK_EVENTS.name, each) for each in self.offsets.partitions(TASK_EVENTS.name)}


def wait_for(condition: Callable[[], bool], error: Callable[[], OperatorError]) -> None:
    deadline = time.monotonic() + _ANSWER_S
    while not condition():
        if time.monotonic() > deadline:
            raise error()
        time.sleep(_LOOK_S)


def known_source(offsets: Offsets, partitions: int, version: int) -> SourceTopic:
    """As ``source_topic``, of topics that were just created: not all brokers know them at once. Blocks."""
    found = list[SourceTopic]()

    def is_known() -> bool:
        with suppress(KeyError):
            found.append(source_topic(offsets, partitions, version))
        return bool(found)

    wait_for(is_known, lambda: OperatorError(f"Kafka does not know the topics of version {version}: run it again"))
    return found[0]


@contextmanager
def alone(offsets: Offsets, consumer: Mapping[str, object]) -> Generator[None]:
    """Make sure that no other rebuild runs, by membership in a group.

    Two may start at the same moment: then the first one to claim the transactional id is fenced, and fails at its
    next write.

    Raises:
        CannotRun: another one runs.
    """

    def is_member() -> bool:
        return bool(offsets.members(REBUILD_ID))

    # A killed one stays in the group until its session ends.
    wait_for(lambda: not is_member(), lambda: CannotRun("another rebuild is running. Wait for its end"))
    stop = threading.Event()
    thread = threading.Thread(target=_stay_member, args=(consumer, stop), name="rebuild-membership", daemon=True)
    thread.start()
    try:
        wait_for(is_member, lambda: OperatorError(f"cannot join the group {REBUILD_ID}: check Kafka and its ACLs"))
        yield
    finally:
        stop.set()
        thread.join()


def _stay_member(consumer: Mapping[str, object], stop: threading.Event) -> None:
    with closing(
        Consumer({**consumer, "client.id": REBUILD_ID, "session.timeout.ms": _SESSION_MS}, logger=LIBRDKAFKA)
    ) as member:
        member.subscribe([VERSION_TOPIC.name])
        while not stop.is_set():
            member.poll(_LOOK_S)


def _named(members: Mapping[str, str]) -> str:
    return ", ".join(f"{name} on {host}" for name, host in members.items())
