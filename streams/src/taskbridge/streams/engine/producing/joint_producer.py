"""A transactional producer whose transactions cost a broker a few requests, over however many partitions they go.

It takes the place of ``BulkProducer`` where transactions are many. Why: ``transaction_client``.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import KafkaError, KafkaException
from faust.transport.drivers.aiokafka import (
    credentials_to_aiokafka_auth,  # pyright: ignore[reportUnknownVariableType]
)

from taskbridge.runtime.producer import DeliveryFailed
from taskbridge.streams.engine.producing.record_batches import RecordBatches, codec_of
from taskbridge.streams.engine.producing.transaction_client import TransactionClient
from taskbridge.streams.engine.producing.transaction_requests import AGAIN
from taskbridge.streams.transactions.bulk_producer import (
    ABORT_S,
    CLAIM_S,
    COMMIT_S,
    OFFSETS_S,
    TRANSACTION_TIMEOUT_MS,
    OffsetsNotTaken,
    Sent,
    claiming,
    not_committed,
)
from taskbridge.streams.transactions.group_metadata import read_group_metadata

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from confluent_kafka import TopicPartition
    from faust.types.auth import CredentialsT

    from taskbridge.streams.engine.producing.transaction_client import Batches
    from taskbridge.streams.records import RecordWithHeaders


class JointProducer:
    """As ``BulkProducer``: one transaction at a time, every method blocks, one thread after the other."""

    def __init__(
        self, config: Mapping[str, object], transactional_id: str, *, credentials: CredentialsT | None = None
    ) -> None:
        """Of librdkafka's properties, servers and compression count; connections go by ``credentials``.

        Raises:
            ConfigurationError: the compression is none that Kafka has.
        """
        self._id = transactional_id
        self._servers = str(config["bootstrap.servers"])
        self._codec = codec_of(config)
        self._auth = cast("Mapping[str, Any]", credentials_to_aiokafka_auth(credentials))
        self._loop = asyncio.new_event_loop()
        self._client: TransactionClient | None = None
        self._records: RecordBatches | None = None

    def claim(self) -> None:
        """Take the transactional id over, as ``BulkProducer.claim`` does.

        Raises:
            NotAllowed, KafkaException: as there.
        """
        with claiming(self._id):
            self._run(self._claim(time.monotonic() + CLAIM_S))

    def begin(self) -> None:
        """What is sent from now on is visible when it is committed, or never."""
        self._claimed[1].take()

    def send(self, topic: str, records: Sequence[RecordWithHeaders], *, partition: int = -1) -> Sent:
        """Take records on; they go out with the commit.

        Raises:
            DeliveryFailed: Kafka does not know the topic.
        """
        client, batches = self._claimed
        partitions = client.partitions.get(topic)
        if partitions is None:
            try:
                partitions = cast("int", self._run(client.follow(topic)))
            except KafkaException as raised:
                raise DeliveryFailed(raised.args[0].str(), raised.args[0]) from raised
        return batches.add(topic, records, partition=partition, partitions=partitions)

    def commit(self, offsets: Sequence[TopicPartition] = (), group: bytes | None = None) -> None:
        """Return once all that was sent is on all in-sync replicas, and the group's offsets with it: all or nothing.

        Raises:
            Fenced, OffsetsNotTaken, DeliveryFailed: as ``BulkProducer.commit``.
        """
        try:
            self._run(self._commit(self._claimed[1].take(), offsets, group))
        except KafkaException as raised:
            error: KafkaError = raised.args[0]
            raise not_committed(self._id, error, error.str()) from raised

    def abort(self) -> None:
        """Undo what is open, as far as Kafka answers soon: whoever claims the id next does it as well.

        Raises:
            KafkaException: it could not be undone.
        """
        self._run(self._claimed[0].end(time.monotonic() + ABORT_S, commit=False))

    def close(self) -> None:
        """Give the connections back. What is open is undone when the id is claimed, or its time is over."""
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
                if raised.args[0].code() in AGAIN:
                    raise OffsetsNotTaken("the group's coordinator rejects offsets", raised.args[0]) from raised
                raise
        await client.end(deadline, commit=True)
