"""Write the events and the states as Parquet files, for DuckDB and others: a job to copy and change.

    python land.py BOOTSTRAP_SERVERS REGISTRY_URL FOLDER

Each run writes the new records of the topics and ends: start it by a timer. File names have the offsets at which the
next run begins, also after a run that died. Two runs at once write some records twice, which ``questions.sql`` counts
once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb
import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from taskbridge.schemas.codec import Undecodable, task_event_head_codec, task_state_codec
from taskbridge.schemas.registry import Registry
from taskbridge.schemas.topics import TASK_EVENTS, TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from confluent_kafka import Message

    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.topics import Topic

TOGETHER = 50_000
"""Records of a partition in one file."""

_PERSON = "STRUCT(user_id VARCHAR, name VARCHAR)"
_TASK = (
    "STRUCT(task_id VARCHAR, status VARCHAR, assignee_ids VARCHAR[], actor_id VARCHAR, url VARCHAR, created_at BIGINT, "
    "decided_at BIGINT, outcome VARCHAR, remark VARCHAR, step_name VARCHAR, step_id VARCHAR, decided_by VARCHAR, "
    "due_at BIGINT)"
)
_PLACE = {"partition": "INTEGER", "offset": "BIGINT"}


def _texts(names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), "VARCHAR")


class Table(NamedTuple):
    """A topic, and which fields of its records become columns. Times stay milliseconds."""

    topic: Topic
    codec: Callable[[Registry], Codec[Any]]
    columns: Mapping[str, str]


TABLES = {
    "task_events": Table(
        TASK_EVENTS,
        task_event_head_codec,  # without form_data and raw_parameters: the largest part by far
        _PLACE
        | _texts("event_id source action corp_id app_type instance_id task_id actor_id title process_name")
        | _texts("outcome recovered_by step_name step_id decided_by")
        | {"recipient_ids": "VARCHAR[]", "originator": _PERSON, "occurred_at": "BIGINT", "received_at": "BIGINT"}
        | {"due_at": "BIGINT"},
    ),
    "task_states": Table(
        TASK_STATES,
        task_state_codec,
        _PLACE
        | _texts("instance_id source corp_id app_type lifecycle title process_code process_name form_uuid serial_no")
        | _texts("instance_status approved_result result")
        | {"originator": _PERSON, "tasks": f"{_TASK}[]", "copied": 'STRUCT(user_id VARCHAR, "at" BIGINT)[]'}
        | {"finished_at": "BIGINT", "updated_at": "BIGINT", "revision": "BIGINT", "form_data": "MAP(VARCHAR, VARCHAR)"}
        | {"began_at": "BIGINT", "assignee_ids": "VARCHAR[]"},
    ),
}


def land(bootstrap_servers: str, registry_url: str, folder: Path) -> None:
    """Write the new records of both topics."""
    registry = Registry(registry_url)
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "none",  # the library asks for one; nothing is committed
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",  # where what comes next is no longer kept
            "fetch.wait.max.ms": 20,  # the end of each partition is waited for
            "enable.partition.eof": True,
            "enable.auto.commit": False,
        }
    )
    try:
        for name, table in TABLES.items():
            codec, topic = table.codec(registry), consumer.list_topics(table.topic.name, 10).topics[table.topic.name]
            if topic.error is not None:
                raise KafkaException(topic.error)
            landed = sum(
                write(folder / name / f"partition={partition}", messages, codec, table.columns)
                for partition in sorted(topic.partitions)
                for messages in unread(consumer, table.topic.name, partition, folder / name / f"partition={partition}")
            )
            print(f"{name}: {landed} records landed")
    finally:
        consumer.close()
        registry.close()


def unread(consumer: Consumer, topic: str, partition: int, folder: Path) -> Iterator[list[Message]]:
    """Records that are not in the folder, up to the partition's current end, in pieces of one file each."""
    begin = max((int(each.stem.split("-")[1]) + 1 for each in folder.glob("*.parquet")), default=0)
    _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), 10)
    if begin > end:
        raise SystemExit(f"{topic} was recreated: move {folder.parent} away, and start again")
    consumer.assign([TopicPartition(topic, partition, begin)])
    read: list[Message] = []
    at_end = False
    while not at_end:
        for message in consumer.consume(1000, 0.1):
            if (error := message.error()) is None:
                read.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - how the library names its codes
                at_end = True
            else:
                raise KafkaException(error)
        if read and (at_end or len(read) >= TOGETHER):
            yield read
            read = []


def write(folder: Path, messages: list[Message], codec: Codec[Any], columns: Mapping[str, str]) -> int:
    """Write one file, named by the first and the last offset, atomically.

    A record that cannot be decoded is reported and skipped: a retry would not help.
    """
    rows: list[bytes] = []
    for each in messages:
        try:
            rows.append(msgspec.json.encode(row(each, codec)))
        except Undecodable as error:
            print(f"passed over {each.topic()} {each.partition()} {each.offset()}: {error}", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as temporary:
        lines, made = Path(temporary, "rows.json"), Path(temporary, "made")
        lines.write_bytes(b"\n".join(rows))
        duckdb.execute(
            "COPY (FROM read_json($lines, format = 'newline_delimited', columns = $columns)) TO $made (FORMAT parquet)",
            {"lines": str(lines), "columns": dict(columns), "made": str(made)},
        )
        with made.open("rb") as file:
            os.fsync(file.fileno())
        made.rename(folder / f"{messages[0].offset():020}-{messages[-1].offset():020}.parquet")
    return len(rows)


def row(message: Message, codec: Codec[Any]) -> dict[str, Any]:
    """A tombstone has only its instance's id."""
    place = {"partition": message.partition(), "offset": message.offset()}
    key, value = message.key(), message.value()
    if value is None and isinstance(key, bytes) and message.topic() == TASK_STATES.name:
        return {**place, "instance_id": key.decode(errors="replace")}
    return {**place, **msgspec.to_builtins(codec.decode(value))}


if __name__ == "__main__":
    land(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
