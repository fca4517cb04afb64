"""The cost of each compression codec in the producers of both services and in a consumer.

``PYTHONPATH=tests uv run python tests/bench/codecs.py`` starts a Kafka of its own and prints a table. Every
figure is a ratio to ``none`` of the same round, or bytes a record; rounds take turns, and the median is printed.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from support.edge.fakes import parameters_of
from support.edge.process import OwnStack
from taskbridge.edge.callbacks import event_of, locate
from taskbridge.runtime.kafka import consumer_config, producer_config
from taskbridge.runtime.producer import AsyncProducer
from taskbridge.schemas.codec import framed, task_event_codec
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.streams.engine.joint_producer import JointProducer

if TYPE_CHECKING:
    from collections.abc import Callable

CODECS: dict[str, dict[str, object]] = {
    "none": {"compression.type": "none"},
    "gzip-1": {"compression.type": "gzip", "compression.level": 1},
    "gzip-6": {"compression.type": "gzip", "compression.level": 6},
    "lz4": {"compression.type": "lz4", "compression.level": -1},
    "zstd": {"compression.type": "zstd", "compression.level": -1},
}
EVENTS, ROUNDS, AT_ONCE, CHUNK = 10_000, 3, 500, 5_000


def values() -> list[tuple[bytes, bytes]]:
    """Events as the edge writes them: ids, names and texts that are all different, as people's are."""
    chance, codec = random.Random(1), task_event_codec(FakeRegistry())
    made: list[tuple[bytes, bytes]] = []
    for number in range(EVENTS):
        instance = f"{chance.getrandbits(128):032x}"
        wire_action = chance.choice(("create", "complete", "cc"))
        parameters = parameters_of(wire_action, instance_id=instance, task_id=str(chance.getrandbits(40)))
        parameters["sign"] = f"{chance.getrandbits(128):032x}"
        if "task" in parameters:
            task = json.loads(parameters["task"])
            task["dataMap"] = {f"textField_{each}": f"{chance.getrandbits(64):x}" for each in range(8)}
            parameters["task"] = json.dumps(task, ensure_ascii=False)
        event = event_of(locate(wire_action, parameters), parameters, received_at=1_700_000_000_000 + number)
        made.append((instance.encode(), framed(1, codec.encode_body(event))))
    return made


async def by_edge(config: dict[str, object], topic: str, made: list[tuple[bytes, bytes]]) -> None:
    producer = AsyncProducer(config)
    for start in range(0, len(made), AT_ONCE):
        part = made[start : start + AT_ONCE]
        await asyncio.gather(*(producer.produce(topic, key=key, value=value) for key, value in part))
    await producer.close()


def by_streams(config: dict[str, object], topic: str, made: list[tuple[bytes, bytes]]) -> None:
    with closing(JointProducer(config, f"codecs-{topic}")) as producer:
        producer.claim()
        for start in range(0, len(made), CHUNK):
            with producer.transaction():
                producer.send(topic, [(key, value, []) for key, value in made[start : start + CHUNK]])


def consume(servers: str, topic: str, count: int) -> None:
    config: dict[str, Any] = consumer_config(servers, "codecs")
    consumer = Consumer(config)
    consumer.assign([TopicPartition(topic, number, 0) for number in range(12)])
    while count > 0:
        count -= len(consumer.consume(500, 1))
    consumer.close()


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and seconds of CPU of all threads of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def stored(folder: Path, topic: str) -> int:
    return sum(each.stat().st_size for each in folder.rglob("*.log") if each.parent.name.startswith(f"{topic}-"))


def main() -> None:
    made = values()
    found: dict[str, list[list[float]]] = {name: [] for name in CODECS}
    with tempfile.TemporaryDirectory() as folder:
        stack = OwnStack(Path(folder))
        try:
            servers = stack.endpoints.bootstrap_servers
            admin = AdminClient({"bootstrap.servers": servers})
            for turn in range(ROUNDS + 1):
                for name, codec in CODECS.items():
                    config = producer_config(servers) | codec
                    topics = [f"{kind}.{name}.{turn}" for kind in ("edge", "streams")]
                    new = cast("dict[str, Any]", admin.create_topics([NewTopic(each, 12, 1) for each in topics]))
                    for each in new.values():
                        each.result()
                    edge = timed(lambda: asyncio.run(by_edge(config, topics[0], made)))  # noqa: B023
                    streams = timed(lambda: by_streams(config, topics[1], made))  # noqa: B023
                    reading = timed(lambda: consume(servers, topics[1], len(made)))  # noqa: B023
                    sizes = [stored(Path(folder), each) / len(made) for each in topics]
                    if turn:  # the first warms up
                        found[name].append([*edge, *streams, *reading, *sizes])
        finally:
            stack.stop()
    heads = ("edge time", "edge CPU", "streams time", "streams CPU", "read time", "read CPU", "edge B", "streams B")
    sys.stdout.write(f"{'codec':8}" + "".join(f"{each:>14}" for each in heads) + "\n")
    for name, rounds in found.items():
        ratios = [
            [each / base for each, base in zip(row[:6], none[:6], strict=True)]
            for row, none in zip(rounds, found["none"], strict=True)
        ]
        cells = [f"{statistics.median(column):14.2f}" for column in zip(*ratios, strict=True)]
        cells += [f"{statistics.median(row[at] for row in rounds):14.0f}" for at in (6, 7)]
        sys.stdout.write(f"{name:8}{''.join(cells)}\n")
    base = [statistics.median(row[at] for row in found["none"]) / EVENTS * 1e6 for at in range(6)]
    sys.stdout.write(f"{'none, us':8}{''.join(f'{each:14.1f}' for each in base)}\n")


if __name__ == "__main__":
    main()
