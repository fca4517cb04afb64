"""The transactional producer of streams: few requests per broker, however many partitions a transaction has.

librdkafka sends one produce request per partition (its issue 1700). A broker answers the requests of a connection one
after the other, and asks the transaction's coordinator about each: with 36 partitions, most of a transaction's time.
Here each broker gets one produce request. aiokafka's own producer commits offsets without the member's generation, so
that Kafka would not refuse them from a former member. Connections, TLS and SASL are aiokafka's, as for the consumer.

The steps of a transaction run one after the other. A broker has one request about a transaction at its coordinator at a
time, and the coordinator refuses others while it writes: parallel steps would have to be repeated.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import structlog
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import BrokerResponseError
from aiokafka.errors import KafkaError as ClientError
from aiokafka.protocol.produce import ProduceRequest
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

from taskbridge.runtime.kafka import NotAllowed, is_denied, not_allowed
from taskbridge.runtime.producer import DeliveryFailed
from taskbridge.schemas.errors import OperatorError
from taskbridge.streams.engine.credentials import broker_credentials
from taskbridge.streams.engine.transaction_requests import (
    MOVED,
    RETRIABLE,
    TOO_LARGE,
    TRANSPORT,
    Identity,
    RecordBatches,
    TxnOffsetCommit,
    by_topic,
    codec_of,
    error_code_of,
    missing_permissions,
    partition_results,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator, Mapping, Sequence

    from confluent_kafka import TopicPartition

    from taskbridge.streams.engine.transaction_requests import Membership, RecordBatch, Sent
    from taskbridge.streams.records import RecordWithHeaders

log = structlog.get_logger(__name__)

TRANSACTION_TIMEOUT_MS = 30_000
"""Kafka aborts a transaction that is open for longer; readers wait as long, unless the id is claimed before."""
CLAIM_S = 30
_COMMIT_S = 60
_ABORT_S = 5
_ANSWER_MS = 10_000
"""How long one request may take. Afterwards its connection is closed, and it is sent again."""
_ALL_IN_SYNC = -1
_REQUEST_BYTES = 32 << 20
"""Maximum size of the records in one request. A broker closes a connection above ``socket.request.max.bytes``."""
_PAUSE_S, _MOST_PAUSE_S = 0.002, 0.25
_STUCK_S = 5.0
"""After so long, the log says what Kafka refuses repeatedly."""
_FENCED = (
    # Another producer has the transactional id, or the transaction timed out.
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_ID_MAPPING,
    # The group has rebalanced without this worker.
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.FENCED_INSTANCE_ID,
)

_Batches = dict[tuple[str, int], list["RecordBatch"]]
_Answer = tuple[tuple[str, int], int, int]


class Fenced(OperatorError):
    """Others have the transactional id or the partitions, and nothing was written.

    The worker was away too long, or its transaction was open for longer than its timeout.
    """


class JointProducer:
    """The only producer with its transactional id, from ``claim`` until another one claims it.

    One transaction at a time. Every method blocks, and must not be called in a thread with a running event loop.
    """

    def __init__(self, config: Mapping[str, Any], transactional_id: str) -> None:
        """Of librdkafka's properties, servers, TLS, SASL and compression are used.

        Raises:
            ConfigurationError: aiokafka does not support a property, or Kafka has no such compression.
        """
        self._id = transactional_id
        self._servers = str(config["bootstrap.servers"])
        self._codec = codec_of(config)
        self._auth = cast("Mapping[str, Any]", credentials_to_aiokafka_auth(broker_credentials(config)))
        self._loop = asyncio.new_event_loop()
        self._client: Any = None
        self._coordinators: dict[tuple[CoordinationType, str], int] = {}
        self._partitions: dict[str, int] = {}
        self._identity = Identity(transactional_id, -1, -1)
        self._records = RecordBatches(self._identity, self._codec)
        self._offsets: Sequence[TopicPartition] = ()
        self._member: Membership | None = None

    def claim(self) -> None:
        """Fence the former producers of the transactional id, and abort their transaction. Before all else.

        Again after topics were recreated or got partitions, which this producer does not notice.

        Raises:
            NotAllowed: this Kafka user may not use the transactional id.
            KafkaException: Kafka does not answer, or refuses.
        """
        try:
            self._run(self._claim(time.monotonic() + CLAIM_S))
        except KafkaException as raised:
            if is_denied(raised.args[0]):
                raise NotAllowed(not_allowed(f"Write on transactional-id {self._id}")) from raised
            raise

    @contextmanager
    def transaction(self) -> Generator[None]:
        """All that is sent within is on all in-sync replicas at its end, with the group's offsets, or nothing is.

        Raises:
            Fenced: others have the transactional id, or the group; nothing was written.
            DeliveryFailed: the commit failed. If Kafka did not answer, the transaction may be committed all the same.
        """
        self._records.drain()
        self._offsets, self._member = (), None
        try:
            yield
            self._run(self._commit(self._records.drain(), time.monotonic() + _COMMIT_S))
        except BaseException as raised:
            # So that readers need not wait for its timeout. The next claim of the id aborts it otherwise.
            with suppress(KafkaException):
                self._run(self._end(time.monotonic() + _ABORT_S, commits=False))
            if not isinstance(raised, KafkaException):
                raise
            error: KafkaError = raised.args[0]
            if error.code() in _FENCED:
                raise Fenced(f"{self._id}: {error.str()}") from raised
            raise DeliveryFailed(f"{self._id}: could not commit: {error.str()}", error) from raised

    def send(self, topic: str, records: Sequence[RecordWithHeaders], *, partition: int = -1) -> Sent:
        """Add records, which the commit sends; partition -1 is that of each record's key.

        Raises:
            DeliveryFailed: Kafka does not know the topic.
        """
        if topic not in self._partitions:
            known = self._client._wait_on_metadata(topic)  # noqa: SLF001 - as aiokafka's producer does it
            try:
                self._partitions[topic] = len(self._run(known))
            except ClientError as raised:
                [error] = _error(raised, topic).args
                raise DeliveryFailed(error.str(), error) from raised
        return self._records.add(topic, records, partition=partition, partitions=self._partitions[topic])

    def add_offsets(self, offsets: Sequence[TopicPartition], member: Membership) -> None:
        """Commit these offsets of the member's group with the transaction, in place of others that were added."""
        self._offsets, self._member = offsets, member

    def close(self) -> None:
        """Close the connections. The next claim of the id, or its timeout, aborts an open transaction."""
        if not self._loop.is_closed():
            if self._client is not None:
                self._run(self._client.close())
            self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(work)

    async def _claim(self, deadline: float) -> None:
        if self._client is not None:
            await self._client.close()
        self._coordinators.clear()
        self._partitions.clear()
        self._client = client = cast(
            "Any",
            AIOKafkaClient(
                bootstrap_servers=self._servers,
                client_id=self._id,
                request_timeout_ms=_ANSWER_MS,
                **self._auth,
            ),
        )
        attempts = _Attempts(self._id, "bootstrap", deadline)
        while True:
            try:
                await client.bootstrap()
                break
            except ClientError as raised:
                error = _error(raised)
                if time.monotonic() > deadline:
                    raise error from raised
                await attempts.wait(error.args[0])
        # The controller lists no broker with late heartbeats: the client would then have no node to send to, and fail.
        unknown = KafkaError(KafkaError.BROKER_NOT_AVAILABLE, "no broker is known")
        while client.get_random_node() is None:
            attempts.check(unknown)
            await attempts.wait(unknown)
            await client.force_metadata_update()
        found = await self._coordinated(InitProducerIdRequest(self._id, TRANSACTION_TIMEOUT_MS), deadline)
        self._identity = Identity(self._id, found.producer_id, found.producer_epoch)
        self._records = RecordBatches(self._identity, self._codec)

    async def _commit(self, batches: _Batches, deadline: float) -> None:
        offsets, member = self._offsets, self._member
        requests: list[Any] = []
        if batches:
            requests.append(AddPartitionsToTxnRequest(*self._identity, by_topic(batches)))
        if offsets and member is not None:
            requests.append(AddOffsetsToTxnRequest(*self._identity, member.group))
        if not requests:
            return
        # Sent together; the coordinator answers one after the other.
        sending = (self._coordinated(each, deadline) for each in requests)
        for answer in await asyncio.gather(*sending, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer
        await self._produce(batches, deadline)
        if offsets and member is not None:
            # The group's coordinator refuses offsets of a member whose generation is over.
            commit = TxnOffsetCommit(self._identity, member, offsets)
            await self._request(CoordinationType.GROUP, member.group, commit, deadline)
        await self._end(deadline, commits=True)

    async def _end(self, deadline: float, *, commits: bool) -> None:
        await self._coordinated(EndTxnRequest(*self._identity, commits), deadline)

    async def _produce(self, batches: _Batches, deadline: float) -> None:
        """Return once all batches are on all in-sync replicas; one per partition at a time."""
        attempts = _Attempts(self._id, "produce", deadline)
        while batches:
            sending = (self._put(node, of) for node, of in self._by_leader(batches).items())
            answers = await asyncio.gather(*sending)
            refused, moved = None, False
            for at, code, offset in (each for answer in answers for each in answer):
                if not code:
                    self._records.written(at, batches[at].pop(0), offset)
                    if not batches[at]:
                        del batches[at]
                    attempts.pause_s = _PAUSE_S
                elif code in TOO_LARGE and (smaller := self._records.smaller(at[0], batches[at][0])):
                    batches[at][:1] = smaller
                else:
                    refused = KafkaError(code, _why(at[0], code))
                    attempts.check(refused)
                    moved |= code in MOVED
            if moved:
                await self._client.force_metadata_update()
            if refused is not None:
                await attempts.wait(refused)

    async def _coordinated(self, request: Any, deadline: float) -> Any:
        return await self._request(CoordinationType.TRANSACTION, self._id, request, deadline)

    async def _request(self, kind: CoordinationType, key: str, request: Any, deadline: float) -> Any:
        """The coordinator's final answer; raises KafkaException if it refuses, or is not there in time."""
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

    def _by_leader(self, batches: _Batches) -> dict[int | None, dict[tuple[str, int], bytearray]]:
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
        topics: Any = [(topic, [(each, batches[topic, each]) for each in found]) for topic, found in by_topic(batches)]
        try:
            answer = await self._client.send(node, ProduceRequest(self._id, _ALL_IN_SYNC, _ANSWER_MS // 2, topics))
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


def _error(raised: Exception, topic: str | None = None) -> KafkaException:
    if isinstance(raised, BrokerResponseError) and topic is not None:
        return KafkaException(KafkaError(raised.errno, _why(topic, raised.errno)))
    code = raised.errno if isinstance(raised, BrokerResponseError) else TRANSPORT
    return KafkaException(KafkaError(code, str(raised) or type(raised).__name__))
