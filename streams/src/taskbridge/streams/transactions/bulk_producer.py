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
from taskbridge.streams.positions import POSITION_KEY, KeptPosition, write_metadata, write_position

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from confluent_kafka import Message

    from taskbridge.streams.positions import Ground
    from taskbridge.streams.records import RecordWithHeaders

CLAIM_S = 30
OFFSETS_S = 8
_LATE_S = 1
COMMIT_S = 60
ABORT_S = 5

TRANSACTION_TIMEOUT_MS = 30_000
"""What is open for longer is undone by Kafka itself. Only where nobody comes who claims it: readers wait until then."""

FENCED = (
    # The transactional id is another producer's by now, or its time was over.
    KafkaError._FENCED,  # noqa: SLF001 - how the library names its codes
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_ID_MAPPING,
    # The group has gone on without this worker.
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.FENCED_INSTANCE_ID,
)


class Fenced(OperatorError):
    """The transactional id or the partitions are somebody else's by now, and nothing was written.

    A worker was away too long; or a transaction was open for longer than Kafka was told to wait.
    """


class OffsetsNotTaken(DeliveryFailed):
    """The group's coordinator took no offsets, so nothing is committed: fresh producers can do all of it again."""


class Sent:
    """Records that were handed over together."""

    def __init__(self) -> None:
        self.last_offset = -1
        """Of the last of them, in one partition, once they are committed; -1 where there was none."""
        self.error: KafkaError | None = None
        """Why the last of them was not delivered."""

    def reported(self, error: KafkaError | None, message: Message) -> None:
        """Take the report on the last of them. What was not delivered is the commit's to tell."""
        self.error = error
        if error is None:
            self.last_offset = max(self.last_offset, message.offset() or 0)


@contextmanager
def claiming(transactional_id: str) -> Generator[None]:
    """Say what this Kafka user lacks where it may not write in this name.

    Raises:
        NotAllowed: that.
    """
    try:
        yield
    except KafkaException as raised:
        if is_denied(raised.args[0]):
            raise NotAllowed(not_allowed(f"Write on transactional-id {transactional_id}")) from raised
        raise


def not_committed(transactional_id: str, error: KafkaError, why: str) -> Fenced | DeliveryFailed:
    """What a transaction that Kafka refuses for good fails with."""
    if error.code() in FENCED:
        return Fenced(f"{transactional_id}: {error.str()}")
    return DeliveryFailed(f"{transactional_id}: could not commit: {why}", error)


class BulkProducer:
    """One transaction at a time. Every method blocks; all belong to one thread."""

    def __init__(
        self, config: Mapping[str, object], transactional_id: str, *, timeout_ms: int = TRANSACTION_TIMEOUT_MS
    ) -> None:
        """``timeout_ms``: after this long Kafka undoes a transaction whose writer does not end it."""
        self._id = transactional_id
        self._sent: list[tuple[str, Sent]] = []
        """In the transaction that is open, with the topic."""
        self._producer = make_producer(
            {
                **config,
                "transactional.id": transactional_id,
                "transaction.timeout.ms": timeout_ms,
            }
        )

    def claim(self) -> None:
        """Take the transactional id over from whoever had it; what they had open is undone. Once, before all else.

        Raises:
            NotAllowed: this Kafka user may not write in this name.
            KafkaException: Kafka does not answer, or refuses.
        """
        with claiming(self._id):
            self._producer.init_transactions(CLAIM_S)

    def begin(self) -> None:
        """What is sent from now on is visible when it is committed, or never."""
        self._sent.clear()
        self._producer.begin_transaction()

    def send(self, topic: str, records: Sequence[RecordWithHeaders], *, partition: int = -1) -> Sent:
        """Hand over records. A full queue is waited for.

        Raises:
            DeliveryFailed: one of them cannot be sent, e.g. it is larger than a record may be.
        """
        sent, last = Sent(), len(records) - 1
        self._sent.append((topic, sent))
        produce = self._producer.produce
        for at, (key, value, headers) in enumerate(records):
            report = sent.reported if at == last else None
            while True:
                try:
                    # By place: the library looks each name up anew, a quarter of the call.
                    produce(topic, value, key, partition, report, None, 0, headers)
                except BufferError:
                    self._producer.flush()
                except KafkaException as error:
                    raise DeliveryFailed(f"{topic}: {error}", error.args[0]) from error
                else:
                    break
        return sent

    def commit(self, offsets: Sequence[TopicPartition] = (), group: bytes | None = None) -> None:
        """Return once all that was sent is on all in-sync replicas, and the group's offsets with it: all or nothing.

        ``group`` is the group's metadata; without it, no offsets go along.

        Raises:
            Fenced: the transactional id, or the group, has gone to others; nothing was written.
            OffsetsNotTaken: it did not come to that, because the group's coordinator was not reached.
            DeliveryFailed: it did not come to that. Where Kafka did not answer, it may have been written all the same.
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
                raise not_committed(self._id, error, self._why(error)) from raised
            else:
                return

    def _why(self, error: KafkaError) -> str:
        refused = [topic for topic, sent in self._sent if sent.error is not None and is_denied(sent.error)]
        return not_allowed(*(f"Write on topic {topic}" for topic in refused)) if refused else error.str()

    def abort(self) -> None:
        """Undo what is open, as far as Kafka answers soon: whoever claims the id next does it as well.

        Raises:
            KafkaException: it could not be undone.
        """
        self._producer.abort_transaction(ABORT_S)

    def close(self) -> None:
        """Nothing: its end is librdkafka's, and may take long."""

    def send_offsets(self, offsets: list[TopicPartition], group: bytes) -> None:
        """Add the group's offsets to the transaction.

        Raises:
            Fenced, OffsetsNotTaken, DeliveryFailed: as ``commit`` does.
        """
        deadline = time.monotonic() + OFFSETS_S
        while True:
            try:
                _in_time(lambda: self._producer.send_offsets_to_transaction(offsets, group, OFFSETS_S))
            except TimeoutError as late:
                raise OffsetsNotTaken("the group's coordinator does not answer") from late
            except KafkaException as raised:
                error: KafkaError = raised.args[0]
                if error.code() in FENCED or not error.retriable():
                    raise not_committed(self._id, error, error.str()) from raised
                if time.monotonic() >= deadline:
                    raise OffsetsNotTaken(f"{self._id}: offsets not committed: {error.str()}", error) from raised
            else:
                return


def _in_time(call: Callable[[], object]) -> None:
    """Call in a thread that is left behind when it takes too long: the library's own time limit does not always hold.

    A producer whose group coordinator left the metadata may never ask who it is now: librdkafka's issue 5511.

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


_MAGIC = b"CGMDv2:"


class Membership(NamedTuple):
    """What the group's coordinator knows a member by. It refuses offsets of any but the present generation."""

    generation: int
    member_id: str
    instance_id: str | None


def group_metadata(group: str, membership: Membership) -> bytes:
    """For ``Producer.send_offsets_to_transaction``.

    Raises:
        UnicodeEncodeError: a name is not ASCII; librdkafka takes no other.
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
    """The group and the member: the other way round."""
    [generation] = struct.unpack_from("=i", metadata, len(_MAGIC))
    group, member_id, instance_id = metadata[len(_MAGIC) + 4 :].split(b"\0", 2)
    # What comes before an instance's id tells whether there is one.
    named = None if instance_id == b"\x01" else instance_id.strip(b"\0").decode("ascii")
    return group.decode("ascii"), Membership(generation, member_id.decode("ascii"), named)


def _text(name: str) -> bytes:
    return name.encode("ascii") + b"\0"


_NOBODY = Membership(-1, "", None)


class TransactionalWriter(BulkProducer):
    """The only one who can write under its transactional id, from ``claim`` until somebody else claims it."""

    @contextmanager
    def transaction(self) -> Generator[None]:
        """All that is sent within is written, or nothing is; after a lost answer to the commit it may be all."""
        self.begin()
        try:
            yield
            self.commit()
        except BaseException:
            # So that no reader waits for its end. Whoever claims the id next does it as well.
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
        """Add a record to the transaction; -1 is the partition of its key. A full queue is waited for."""
        self.send(topic, [(key, value, list(headers))], partition=partition)

    def hand_over(self, group: str, source: str, ground: Ground, positions: Mapping[int, int]) -> None:
        """Add where a group, of which nobody is at work, goes on in ``source``, to its positions and to the changelog.

        The positions name the ground: what is lost of that before anybody is at work again is missed.
        """
        metadata = write_metadata("", ground.mark)
        for partition, offset in positions.items():
            kept = write_position(KeptPosition(ground.source_id, offset))
            self.write(ground.changelog, POSITION_KEY, kept, partition=partition)
        offsets = [TopicPartition(source, partition, offset, metadata) for partition, offset in positions.items()]
        if offsets:
            self.send_offsets(offsets, group_metadata(group, _NOBODY))
