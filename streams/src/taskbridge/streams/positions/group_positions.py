"""What a consumer group has committed, and who its members are, told by the broker that coordinates it.

Positions are asked for by consumers. Asked by an admin client, librdkafka ends the process where the broker answers
that it does not coordinate the group (confluent-kafka-python issue 1982), and a coordinator may move at any moment.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from faust.types import TP

from taskbridge.runtime.kafka import COORDINATOR_RETRY_S, LIBRDKAFKA, is_coordinator_moving
from taskbridge.streams.positions.mark import read_metadata

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Mapping

    from taskbridge.runtime.kafka import Admin
    from taskbridge.streams.positions.mark import Mark

_ANSWER_S = 10.0
_STABLE_S = 0.5
"""How long a position may take to be stable; to be told one takes no more than a round trip."""


class Committed(NamedTuple):
    """A position that a group has committed."""

    offset: int
    """Negative where there is none."""
    owner: str | None
    """Who committed it, as the offset's metadata says."""
    is_stable: bool
    """No transaction is open that would commit another one."""
    mark: Mark | None = None
    """What its owner stood upon; None where an earlier program committed it, or another one."""


def committed(config: Mapping[str, object], group: str, partitions: Collection[TP]) -> dict[TP, Committed]:
    """The positions of a group. Where one is not stable, it is the one before the transaction that is open.

    ``config`` is what any client needs to reach the brokers.

    Raises:
        KafkaException: Kafka refuses, or does not answer.
    """
    if not partitions:
        return {}
    # The unstable ones first: what is stable afterwards is then what is told.
    with _consumer(config, group, "read_uncommitted") as consumer:
        last = _told(consumer, partitions, _ANSWER_S)
    with _consumer(config, group, "read_committed") as consumer:
        stable = _stable(consumer, partitions)
    found: dict[TP, Committed] = {}
    for tp in partitions:
        known = stable.get(tp, last[tp])
        owner, mark = read_metadata(known.metadata)
        found[tp] = Committed(known.offset, owner, tp in stable, mark)
    return found


def described_group(admin: Admin, group: str) -> Any:
    """A group and its members, by the broker that coordinates it.

    Raises:
        KafkaException: Kafka refuses, or cannot be reached.
        TimeoutError: it does not answer.
    """
    answer = admin.describe_groups([group], _ANSWER_S).get(group)
    if answer is None:
        raise TimeoutError(f"no coordinator answers for the group {group}")
    return answer.result()


@contextmanager
def _consumer(config: Mapping[str, object], group: str, isolation: str) -> Generator[Consumer]:
    """A new one, which subscribes to nothing and so is no member: an earlier one's coordinator may be over."""
    own = {**config, "group.id": group, "isolation.level": isolation, "enable.auto.commit": False}
    consumer = Consumer(cast("dict[str, Any]", own), logger=LIBRDKAFKA)
    try:
        yield consumer
    finally:
        consumer.close()


def _stable(consumer: Consumer, partitions: Collection[TP]) -> dict[TP, TopicPartition]:
    """Those that no transaction is open for. The client itself waits for the others, for as long as it may."""
    if (told := _told_in_time(consumer, partitions)) is not None:
        return told

    def alone(tp: TP) -> dict[TP, TopicPartition] | None:
        return _told_in_time(consumer, [tp])

    with ThreadPoolExecutor(len(partitions)) as threads:
        return {tp: at for told in threads.map(alone, partitions) for tp, at in (told or {}).items()}


def _told(consumer: Consumer, partitions: Collection[TP], timeout_s: float) -> dict[TP, TopicPartition]:
    told: dict[TP, TopicPartition] = {}
    deadline = time.monotonic() + _ANSWER_S
    while wanted := [TopicPartition(tp.topic, tp.partition) for tp in partitions if tp not in told]:
        for each in _committed(consumer, wanted, timeout_s):
            if each.error is not None:
                raise KafkaException(each.error)
            try:
                _ = each.metadata
            except UnicodeDecodeError:
                # What lies behind it (see ``write_metadata``) is no text; another time it is.
                if time.monotonic() > deadline:
                    raise
            else:
                told[TP(each.topic, each.partition)] = each
    return told


def _told_in_time(consumer: Consumer, partitions: Collection[TP]) -> dict[TP, TopicPartition] | None:
    try:
        return _told(consumer, partitions, _STABLE_S)
    except KafkaException as raised:
        if raised.args[0].code() != KafkaError._TIMED_OUT:  # noqa: SLF001 - how the library names its codes
            raise
        return None


def _committed(consumer: Consumer, wanted: list[TopicPartition], timeout_s: float) -> list[TopicPartition]:
    """Asked for again while the group's coordinator moves, or is only just made."""
    deadline = time.monotonic() + _ANSWER_S
    while True:
        try:
            return consumer.committed(wanted, timeout_s)
        except KafkaException as raised:
            if not is_coordinator_moving(raised) or time.monotonic() > deadline:
                raise
            time.sleep(COORDINATOR_RETRY_S)
