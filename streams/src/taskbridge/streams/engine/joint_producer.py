"""A transactional producer that needs few requests per broker, however many partitions a transaction has.

It replaces ``BulkProducer`` where transactions are frequent. librdkafka sends one produce request per partition (its
issue 1700). A broker answers the requests of a connection one after the other, and asks the transaction's coordinator
about each: with 36 partitions, most of a transaction's time. Here each broker gets one produce request. Connections,
TLS and SASL are aiokafka's, as for the consumer.

The steps of a transaction run one after the other. A broker has one request about a transaction at its coordinator at a
time, and the coordinator refuses others while it writes: parallel steps would have to be repeated.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

import structlog
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import BrokerResponseError
from aiokafka.errors import KafkaError as ClientError
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
)
from aiokafka.structs import TopicPartition as Partition
from confluent_kafka import KafkaError, KafkaException
from faust.transport.drivers.aiokafka import (
    credentials_to_aiokafka_auth,  # pyright: ignore[reportUnknownVariableType]
)

from taskbridge.runtime.kafka import is_denied, not_allowed
from taskbridge.runtime.producer import DeliveryFailed
from taskbridge.streams.engine.transaction_requests import (
    MOVED,
    RETRIABLE,
    TOO_LARGE,
    TRANSPORT,
    Identity,
    Produce,
    RecordBatches,
    TxnOffsetCommit,
    by_topic,
    codec_of,
    error_code_of,
    missing_permissions,
    partition_results,
)
from taskbridge.streams.transactions.bulk_producer import (
    ABORT_S,
    CLAIM_S,
    COMMIT_S,
    OFFSETS_S,
    TRANSACTION_TIMEOUT_MS,
    OffsetsNotAccepted,
    Sent,
    commit_failure,
    naming_missing_permission,
    read_group_metadata,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

    from confluent_kafka import TopicPartition
    from faust.types.auth import CredentialsT

    from taskbridge.streams.engine.transaction_requests import RecordBatch
    from taskbridge.streams.records import RecordWithHeaders
    from taskbridge.streams.transactions.bulk_producer import Membership

log = structlog.get_logger(__name__)

ANSWER_MS = 10_000
"""How long one request may take. Afterwards its connection is closed, and it is sent again."""
_REQUEST_BYTES = 32 << 20
"""Maximum size of the records in one request. A broker closes a connection above ``socket.request.max.bytes``."""
_PAUSE_S, _MOST_PAUSE_S = 0.002, 0.25
_STUCK_S = 5.0
"""After so long, the log says what Kafka refuses repeatedly."""

Batches = dict[tuple[str, int], list["RecordBatch"]]
"""By topic and partition, in order."""
_Answer = tuple[tuple[str, int], int, int]
"""A partition, its error code, and the offset of the batch."""


class TransactionClient:
    """The requests of one transactional id, in one event loop, retried until an answer is final.

    Every method except ``close`` raises KafkaException if it fails.
    """

    def __init__(self, servers: str, transactional_id: str, auth: Mapping[str, Any]) -> None:
        """Must be called in the loop."""
        self._id = transactional_id
        self._client: Any = AIOKafkaClient(
            bootstrap_servers=servers, client_id=transactional_id, request_timeout_ms=ANSWER_MS, **auth
        )
        self._coordinators: dict[tuple[CoordinationType, str], int] = {}
        self.partitions: dict[str, int] = {}
        """Number of partitions of each topic in ``load_topic``."""
        self._identity = Identity(transactional_id, -1, -1)

    async def claim(self, timeout_ms: int, deadline: float) -> Identity:
        """Fence other producers of the transactional id, and abort their transaction."""
        attempts = _Attempts(self._id, "bootstrap", deadline)
        while True:
            try:
                await self._client.bootstrap()
                break
            except ClientError as raised:
                error = _error(raised)
                if time.monotonic() > deadline:
                    raise error from raised
                await attempts.wait(error.args[0])
        # The controller lists no broker with late heartbeats: the client would then have no node to send to, and fail.
        unknown = KafkaError(KafkaError.BROKER_NOT_AVAILABLE, "no broker is known")
        while self._client.get_random_node() is None:
            attempts.check(unknown)
            await attempts.wait(unknown)
            await self._client.force_metadata_update()
        found = await self._coordinated(InitProducerIdRequest(self._id, timeout_ms), deadline)
        self._identity = Identity(self._id, found.producer_id, found.producer_epoch)
        return self._identity

    async def load_topic(self, topic: str) -> int:
        """Load the topic's leaders, and keep them current; the number of its partitions."""
        try:
            await self._client.add_topic(topic)
            found = await self._client._wait_on_metadata(topic)  # noqa: SLF001 - as aiokafka's producer does it
        except BrokerResponseError as raised:
            raise KafkaException(KafkaError(raised.errno, _why(topic, raised.errno))) from raised
        except ClientError as raised:
            raise _error(raised) from raised
        self.partitions[topic] = len(found)
        return len(found)

    async def add(self, partitions: Iterable[tuple[str, int]], group: str | None, deadline: float) -> None:
        """Add these partitions, and the offsets of a group, to the transaction."""
        requests: list[Any] = []
        if topics := by_topic(partitions):
            requests.append(AddPartitionsToTxnRequest(*self._identity, topics))
        if group is not None:
            requests.append(AddOffsetsToTxnRequest(*self._identity, group))
        # Sent together; the coordinator answers one after the other.
        sending = (self._coordinated(each, deadline) for each in requests)
        for answer in await asyncio.gather(*sending, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer

    async def produce(
        self, batches: Batches, deadline: float, *, smaller: Callable[[str, RecordBatch], list[RecordBatch]]
    ) -> None:
        """Return once all batches are on all in-sync replicas; one per partition at a time. After ``add``.

        ``smaller``: the batches that replace one that is too large for its topic; none if it is a single record.
        """
        attempts = _Attempts(self._id, "produce", deadline)
        while batches:
            sending = (self._put(node, of) for node, of in self._by_leader(batches).items())
            answers = await asyncio.gather(*sending)
            refused, moved = None, False
            for at, code, offset in (each for answer in answers for each in answer):
                if not code:
                    batches[at].pop(0).written(offset)
                    if not batches[at]:
                        del batches[at]
                    attempts.pause_s = _PAUSE_S
                elif code in TOO_LARGE and (instead := smaller(at[0], batches[at][0])):
                    batches[at][:1] = instead
                else:
                    refused = KafkaError(code, _why(at[0], code))
                    attempts.check(refused)
                    moved |= code in MOVED
            if moved:
                await self._client.force_metadata_update()
            if refused is not None:
                await attempts.wait(refused)

    async def send_offsets(
        self, offsets: Sequence[TopicPartition], group: str, member: Membership, deadline: float
    ) -> None:
        """After ``add``. The group's coordinator refuses offsets of a member whose generation is over."""
        commit = TxnOffsetCommit(self._identity, group, member, offsets)
        await self._request(CoordinationType.GROUP, group, commit, deadline)

    async def end(self, deadline: float, *, commit: bool) -> None:
        """Commit or abort all that was written."""
        await self._coordinated(EndTxnRequest(*self._identity, commit), deadline)

    async def close(self) -> None:
        await self._client.close()

    async def _coordinated(self, request: Any, deadline: float) -> Any:
        return await self._request(CoordinationType.TRANSACTION, self._id, request, deadline)

    async def _request(self, kind: CoordinationType, key: str, request: Any, deadline: float) -> Any:
        """The coordinator's final answer."""
        attempts = _Attempts(self._id, type(request).__name__, deadline)
        while True:
            answer = None
            try:
                node = self._coordinators.get((kind, key))
                if node is None:
                    node = self._coordinators[kind, key] = await self._client.coordinator_lookup(kind, key)
                answer = await self._client.send(node, request, group=ConnectionGroup.COORDINATION)
                code, why = error_code_of(answer), missing_permissions(answer)
            except (ClientError, OSError, TimeoutError) as raised:
                [error] = _error(raised).args
                code, why = error.code(), error.str()
            if not code:
                return answer
            attempts.check(refused := KafkaError(code, why))
            if code in MOVED:
                self._coordinators.pop((kind, key), None)
            await attempts.wait(refused)

    def _by_leader(self, batches: Batches) -> dict[int | None, dict[tuple[str, int], bytearray]]:
        """The next requests; a batch beyond the maximum size waits for the one after."""
        found: dict[int | None, dict[tuple[str, int], bytearray]] = {}
        sizes = Counter[int | None]()
        for at, [first, *_] in batches.items():
            node = self._client.cluster.leader_for_partition(Partition(*at))
            if not sizes[node] or sizes[node] + len(first.data) <= _REQUEST_BYTES:
                found.setdefault(node, {})[at] = first.data
                sizes[node] += len(first.data)
        return found

    async def _put(self, node: int | None, batches: Mapping[tuple[str, int], bytearray]) -> list[_Answer]:
        if node is None or node < 0:
            return [(at, KafkaError.LEADER_NOT_AVAILABLE, -1) for at in batches]
        topics = {topic: [(each, batches[topic, each]) for each in found] for topic, found in by_topic(batches)}
        try:
            answer = await self._client.send(node, Produce(self._id, ANSWER_MS // 2, list(topics.items())))
        except (ClientError, OSError, TimeoutError) as raised:
            return [(at, _error(raised).args[0].code(), -1) for at in batches]
        return [((topic, partition), code, offset) for topic, partition, code, offset in partition_results(answer)]


class _Attempts:
    """The attempts of one request, with growing pauses. The log says once that it takes long."""

    def __init__(self, transactional_id: str, request: str, deadline: float) -> None:
        self._id, self._request, self._deadline = transactional_id, request, deadline
        self._long_from = time.monotonic() + _STUCK_S
        self.pause_s = _PAUSE_S

    def check(self, refused: KafkaError) -> None:
        """Raise KafkaException if a retry is useless, or too late."""
        if refused.code() not in RETRIABLE or time.monotonic() > self._deadline:
            raise KafkaException(refused)

    async def wait(self, refused: KafkaError) -> None:
        if time.monotonic() > self._long_from:
            self._long_from = math.inf
            log.warning("transaction_stuck", transactional_id=self._id, request=self._request, problem=refused.str())
        await asyncio.sleep(self.pause_s)
        self.pause_s = min(2 * self.pause_s, _MOST_PAUSE_S)


def _why(topic: str, code: int) -> str:
    error = KafkaError(code)
    return not_allowed(f"Write on topic {topic}") if is_denied(error) else f"{topic}: {error.str()}"


def _error(raised: Exception) -> KafkaException:
    """Aiokafka's error as the error of all other clients."""
    code = raised.errno if isinstance(raised, BrokerResponseError) else TRANSPORT
    return KafkaException(KafkaError(code, str(raised) or type(raised).__name__))


class JointProducer:
    """A producer with ``BulkProducer``'s guarantees: one transaction at a time, every method blocks."""

    def __init__(
        self, config: Mapping[str, object], transactional_id: str, *, credentials: CredentialsT | None = None
    ) -> None:
        """Servers and compression are read from librdkafka's properties; ``credentials`` secure the connections.

        Raises:
            ConfigurationError: Kafka has no such compression.
        """
        self._id = transactional_id
        self._servers = str(config["bootstrap.servers"])
        self._codec = codec_of(config)
        self._auth = cast("Mapping[str, Any]", credentials_to_aiokafka_auth(credentials))
        self._loop = asyncio.new_event_loop()
        self._client: TransactionClient | None = None
        self._records: RecordBatches | None = None

    def claim(self) -> None:
        """As ``BulkProducer.claim``."""
        with naming_missing_permission(self._id):
            self._run(self._claim(time.monotonic() + CLAIM_S))

    def begin(self) -> None:
        """Begin a transaction: what is sent becomes visible with its commit, or never."""
        self._claimed[1].drain()

    def send(self, topic: str, records: Sequence[RecordWithHeaders], *, partition: int = -1) -> Sent:
        """Add records, which the commit sends.

        Raises:
            DeliveryFailed: Kafka does not know the topic.
        """
        client, batches = self._claimed
        partitions = client.partitions.get(topic)
        if partitions is None:
            try:
                partitions = cast("int", self._run(client.load_topic(topic)))
            except KafkaException as raised:
                raise DeliveryFailed(raised.args[0].str(), raised.args[0]) from raised
        return batches.add(topic, records, partition=partition, partitions=partitions)

    def commit(self, offsets: Sequence[TopicPartition] = (), group: bytes | None = None) -> None:
        """As ``BulkProducer.commit``."""
        try:
            self._run(self._commit(self._claimed[1].drain(), offsets, group))
        except KafkaException as raised:
            error: KafkaError = raised.args[0]
            raise commit_failure(self._id, error, error.str()) from raised

    def abort(self) -> None:
        """As ``BulkProducer.abort``."""
        self._run(self._claimed[0].end(time.monotonic() + ABORT_S, commit=False))

    def close(self) -> None:
        """Close the connections. The next claim of the id, or its timeout, aborts an open transaction."""
        if not self._loop.is_closed():
            if self._client is not None:
                self._run(self._client.close())
            self._loop.close()

    @property
    def _claimed(self) -> tuple[TransactionClient, RecordBatches]:
        assert self._client is not None, "claimed"
        assert self._records is not None, "claimed"
        return self._client, self._records

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(work)

    async def _claim(self, deadline: float) -> None:
        self._client = TransactionClient(self._servers, self._id, self._auth)
        self._records = RecordBatches(await self._client.claim(TRANSACTION_TIMEOUT_MS, deadline), self._codec)

    async def _commit(self, batches: Batches, offsets: Sequence[TopicPartition], group: bytes | None) -> None:
        if not batches and not offsets:
            return
        client, records = self._claimed
        deadline = time.monotonic() + COMMIT_S
        name, member = (None, None) if group is None or not offsets else read_group_metadata(group)
        await client.add(batches, name, deadline)
        await client.produce(batches, deadline, smaller=records.smaller)
        if name is not None and member is not None:
            try:
                await client.send_offsets(offsets, name, member, time.monotonic() + OFFSETS_S)
            except KafkaException as raised:
                if raised.args[0].code() in RETRIABLE:
                    raise OffsetsNotAccepted("the group's coordinator rejects offsets", raised.args[0]) from raised
                raise
        await client.end(deadline, commit=True)
