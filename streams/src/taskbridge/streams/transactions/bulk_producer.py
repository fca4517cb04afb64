"""A transactional producer for many records: one call adds them, one commits them with their offsets.

Streams has its own producers because a commit confirms all records together. ``taskbridge.runtime`` makes a future for
each record, which a callback needs. Here only the last record of a call has a delivery report: each costs a Python
object and a copy of the record.
"""

from __future__ import annotations

import struct
import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from taskbridge.runtime.kafka import NotAllowed, is_denied, not_allowed
from taskbridge.runtime.producer import DeliveryFailed, make_producer
from taskbridge.schemas.errors import OperatorError
from taskbridge.streams.positions import POSITION_KEY, RecordedPosition, write_metadata, write_position

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from confluent_kafka import Message

    from taskbridge.streams.positions import SourceTopic
    from taskbridge.streams.records import RecordWithHeaders

CLAIM_S = 30
OFFSETS_S = 8
_LATE_S = 1
COMMIT_S = 60
ABORT_S = 5

TRANSACTION_TIMEOUT_MS = 30_000
"""Kafka aborts a transaction that is open for longer; readers wait as long, unless the id is claimed before."""

FENCED = (
    # Another producer has the transactional id, or the transaction timed out.
    KafkaError._FENCED,  # noqa: SLF001 - how the library names its codes
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_ID_MAPPING,
    # The group has rebalanced without this worker.
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.FENCED_INSTANCE_ID,
)


class Fenced(OperatorError):
    """Others have the transactional id or the partitions, and nothing was written.

    The worker was away too long, or its transaction was open for longer than its timeout.
    """


class OffsetsNotAccepted(DeliveryFailed):
    """The group's coordinator did not accept the offsets. Nothing is committed; new producers can repeat all of it."""


class Sent:
    """Records that were sent with one call."""

    def __init__(self) -> None:
        self.last_offset = -1
        """Offset of the last record, if all are for one partition and committed; -1 if there was none."""
        self.error: KafkaError | None = None
        """Why the last record was not delivered."""

    def reported(self, error: KafkaError | None, message: Message) -> None:
        """The delivery report of the last record. A failure is raised by the commit."""
        self.error = error
        if error is None:
            self.last_offset = max(self.last_offset, message.offset() or 0)


@contextmanager
def naming_missing_permission(transactional_id: str) -> Generator[None]:
    """Raise NotAllowed with the missing permission if this Kafka user may not use the transactional id."""
    try:
        yield
    except KafkaException as raised:
        if is_denied(raised.args[0]):
            raise NotAllowed(not_allowed(f"Write on transactional-id {transactional_id}")) from raised
        raise


def commit_failure(transactional_id: str, error: KafkaError, why: str) -> Fenced | DeliveryFailed:
    """The error of a transaction that Kafka finally refused."""
    if error.code() in FENCED:
        return Fenced(f"{transactional_id}: {error.str()}")
    return DeliveryFailed(f"{transactional_id}: could not commit: {why}", error)


class BulkProducer:
    """One transaction at a time. Every method blocks; all must be called by one thread."""

    def __init__(
        self, config: Mapping[str, object], transactional_id: str, *, timeout_ms: int = TRANSACTION_TIMEOUT_MS
    ) -> None:
        """``timeout_ms``: after this long, Kafka aborts an open transaction."""
        self._id = transactional_id
        self._sent: list[tuple[str, Sent]] = []
        """With their topics, in the open transaction."""
        self._producer = make_producer(
            {**config, "transactional.id": transactional_id, "transaction.timeout.ms": timeout_ms}
        )

    def claim(self) -> None:
        """Fence the former producers of the transactional id, and abort their transaction. Once, before all else.

        Raises:
            NotAllowed: this Kafka user may not use the transactional id.
            KafkaException: Kafka does not answer, or refuses.
        """
        with naming_missing_permission(self._id):
            self._producer.init_transactions(CLAIM_S)

    def begin(self) -> None:
        """Begin a transaction: what is sent becomes visible with its commit, or never."""
        self._sent.clear()
        self._producer.begin_transaction()

    def send(self, topic: str, records: Sequence[RecordWithHeaders], *, partition: int = -1) -> Sent:
        """Send records; waits while the queue is full.

        Raises:
            DeliveryFailed: a record cannot be sent, for example because it is too large.
        """
        sent, last = Sent(), len(records) - 1
        self._sent.append((topic, sent))
        produce = self._producer.produce
        for at, (key, value, headers) in enumerate(records):
            report = sent.reported if at == last else None
            while True:
                try:
                    # Positional: the library looks up each name, which is a quarter of the call.
                    produce(topic, value, key, partition, report, None, 0, headers)
                except BufferError:
                    self._producer.flush()
                except KafkaException as error:
                    raise DeliveryFailed(f"{topic}: {error}", error.args[0]) from error
                else:
                    break
        return sent

    def commit(self, offsets: Sequence[TopicPartition] = (), group: bytes | None = None) -> None:
        """Return once all records are on all in-sync replicas, with the group's offsets: all or nothing.

        ``group`` is the group's metadata; without it, no offsets are committed.

        Raises:
            Fenced: others have the transactional id, or the group; nothing was written.
            OffsetsNotAccepted: the group's coordinator was not reached; nothing was written.
            DeliveryFailed: the commit failed. If Kafka did not answer, the transaction may be committed all the same.
        """
        if group is not None:
            self.send_offsets(list(offsets), group)
        deadline = time.monotonic() + COMMIT_S
        while True:
            try:
                self._producer.commit_transaction(COMMIT_S)
            except KafkaException as raised:
                error: KafkaError = raised.args[0]
                if error.retriable() and time.monotonic() < deadline:
                    continue
                raise commit_failure(self._id, error, self._why(error)) from raised
            else:
                return

    def _why(self, error: KafkaError) -> str:
        refused = [topic for topic, sent in self._sent if sent.error is not None and is_denied(sent.error)]
        return not_allowed(*(f"Write on topic {topic}" for topic in refused)) if refused else error.str()

    def abort(self) -> None:
        """Abort the open transaction, if Kafka answers soon; the next claim of the id aborts it otherwise.

        Raises:
            KafkaException: it was not aborted.
        """
        self._producer.abort_transaction(ABORT_S)

    def close(self) -> None:
        """Does nothing: librdkafka ends the producer itself, which may take long."""

    def send_offsets(self, offsets: list[TopicPartition], group: bytes) -> None:
        """Add the group's offsets to the transaction.

        Raises:
            Fenced, OffsetsNotAccepted, DeliveryFailed: as ``commit``.
        """
        deadline = time.monotonic() + OFFSETS_S
        while True:
            try:
                _in_time(lambda: self._producer.send_offsets_to_transaction(offsets, group, OFFSETS_S))
            except TimeoutError as late:
                raise OffsetsNotAccepted("the group's coordinator does not answer") from late
            except KafkaException as raised:
                error: KafkaError = raised.args[0]
                if error.code() in FENCED or not error.retriable():
                    raise commit_failure(self._id, error, error.str()) from raised
                if time.monotonic() >= deadline:
                    raise OffsetsNotAccepted(f"{self._id}: offsets not committed: {error.str()}", error) from raised
            else:
                return


def _in_time(call: Callable[[], object]) -> None:
    """Call in a thread that is abandoned after the time limit, because the library's own does not always hold.

    A producer whose group coordinator left the metadata may never look up the new one (librdkafka issue 5511).

    Raises:
        TimeoutError: it takes too long.
    """
    ended: Future[object] = Future()

    def run() -> None:
        try:
            ended.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it is the caller's
            ended.set_exception(error)

    threading.Thread(target=run, name="send-offsets", daemon=True).start()
    ended.result(OFFSETS_S + _LATE_S)


# librdkafka's serialized group metadata, as ``rd_kafka_consumer_group_metadata_write`` writes it (2.0 and later, format
# 2). A ``confluent_kafka.Consumer`` gives only its own, and here aiokafka is the member.
_MAGIC = b"CGMDv2:"


class Membership(NamedTuple):
    """What identifies a member to the group's coordinator, which refuses offsets of any but the current generation."""

    generation: int
    member_id: str
    instance_id: str | None


def group_metadata(group: str, membership: Membership) -> bytes:
    """For ``Producer.send_offsets_to_transaction``.

    Raises:
        UnicodeEncodeError: a name is not ASCII, which librdkafka requires.
    """
    instance_id = membership.instance_id
    return b"".join(
        (
            _MAGIC,
            struct.pack("=i", membership.generation),
            _text(group),
            _text(membership.member_id),
            b"\x01" if instance_id is None else b"\x00" + _text(instance_id),
        )
    )


def read_group_metadata(metadata: bytes) -> tuple[str, Membership]:
    """The group and the member in ``group_metadata``."""
    [generation] = struct.unpack_from("=i", metadata, len(_MAGIC))
    group, member_id, instance_id = metadata[len(_MAGIC) + 4 :].split(b"\0", 2)
    # The byte before an instance id says whether there is one.
    named = None if instance_id == b"\x01" else instance_id.strip(b"\0").decode("ascii")
    return group.decode("ascii"), Membership(generation, member_id.decode("ascii"), named)


def _text(name: str) -> bytes:
    return name.encode("ascii") + b"\0"


_NOBODY = Membership(-1, "", None)


class TransactionalWriter(BulkProducer):
    """The only producer with its transactional id, from ``claim`` until another one claims it."""

    @contextmanager
    def transaction(self) -> Generator[None]:
        """All that is sent within is written, or nothing; either is possible if Kafka did not confirm the commit."""
        self.begin()
        try:
            yield
            self.commit()
        except BaseException:
            # So that readers need not wait for its timeout. The next claim of the id aborts it otherwise.
            with suppress(KafkaException):
                self.abort()
            raise

    def write(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        *,
        partition: int = -1,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Add a record to the transaction; partition -1 is that of its key. Waits while the queue is full."""
        self.send(topic, [(key, value, list(headers))], partition=partition)

    def write_positions(self, group: str, source: str, source_topic: SourceTopic, positions: Mapping[int, int]) -> None:
        """Add the positions in ``source`` of a group without members, as committed offsets and in the changelog.

        They name the lineage, so that a worker notices if its topics are lost before it starts.
        """
        metadata = write_metadata("", source_topic.lineage)
        for partition, offset in positions.items():
            recorded = write_position(RecordedPosition(source_topic.source_id, offset))
            self.write(source_topic.changelog, POSITION_KEY, recorded, partition=partition)
        offsets = [TopicPartition(source, partition, offset, metadata) for partition, offset in positions.items()]
        if offsets:
            self.send_offsets(offsets, group_metadata(group, _NOBODY))
