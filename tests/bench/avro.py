"""What each of the three ways to Avro costs where it is used: fastavro, compiled Python, and the native core.

``uv run python -m tests.bench.avro`` prints microseconds a record, the median of several rounds, and the ratio to
compiled Python within the rounds, which take turns. Processor time of this process; the native core's Avro is not to
be had alone, so that whole chunks are folded, each once: as a worker does, and with fastavro in the codecs' place.
"""

from __future__ import annotations

import io
import statistics
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import fastavro
import msgspec
from aiokafka.structs import ConsumerRecord
from tests.bench.streams.workload import workload

from support.edge.fakes import parameters_of
from taskbridge.edge.callbacks import event_of, locate
from taskbridge.schemas.codec import task_event_codec, task_event_head_codec, task_notification_codec, task_state_codec
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.schemas.topics import ALL, TASK_EVENTS
from taskbridge.streams.cores.native import NativeCore
from taskbridge.streams.cores.python import PythonCore

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.schemas.codec import Codec
    from taskbridge.streams.cores.core import Core
    from taskbridge.streams.records import Chunk

ROUNDS, EVENTS, CHUNK, CACHED_INSTANCES = 9, 4000, 500, 100_000
REGISTRY = FakeRegistry()
REGISTRY.register(ALL)


def by_fastavro(codec: Codec[Any]) -> Codec[Any]:
    """The same codec, with fastavro between bytes and dicts, and msgspec between dicts and structs."""
    private: Any = codec
    schema, record = fastavro.parse_schema(private._own), private._record

    def read(value: bytes, position: int) -> Any:
        body = io.BytesIO(value)
        body.seek(position)
        return msgspec.convert(fastavro.schemaless_reader(body, schema, None), record)

    def write(each: Any) -> bytes:
        body = io.BytesIO()
        fastavro.schemaless_writer(body, schema, msgspec.to_builtins(each, builtin_types=[bytes]))
        return body.getvalue()

    private._read_own, private._write = read, write
    return codec


def head_by_fastavro() -> Codec[Any]:
    codec: Any = task_event_head_codec(REGISTRY)
    names = [field["name"] for field in codec._own["fields"]]
    codec._own = {**codec._own, "fields": codec._own["fields"][: names.index("form_data")]}
    head = by_fastavro(codec)
    # The registry is searched for the whole schema.
    cast("Any", head)._own = cast("Any", task_event_codec(REGISTRY))._own
    return head


def records() -> Chunk:
    codec = task_event_codec(REGISTRY)
    made = [
        ConsumerRecord(TASK_EVENTS.name, 0, at, 0, 0, key, codec.encode(event), None, 0, 0, ())
        for at, (key, event) in enumerate(workload(EVENTS))
    ]
    return cast("Chunk", made)


def fold(kind: type[Core], codecs: tuple[Codec[Any], ...], given: Chunk) -> list[bytes]:
    """The values of all notifications."""
    events, states, notifications = codecs
    folding = kind(events=events, states=states, notifications=notifications, cached_instances=CACHED_INSTANCES)
    stored: dict[bytes, bytes] = {}
    published: list[bytes] = []
    for begin in range(0, len(given), CHUNK):
        folded = folding.fold(given[begin : begin + CHUNK], lambda keys: [*map(stored.get, keys)], generation=1)
        folding.cache(folded, generation=1)
        published += [cast("bytes", value) for _, value, _ in folded.notifications]
    return published


def each(call: Callable[[Any], object], values: list[Any]) -> None:
    for value in values:
        call(value)


def main() -> None:
    given = records()
    ways = {
        "compiled": [make(REGISTRY) for make in (task_event_head_codec, task_state_codec, task_notification_codec)],
        "fastavro": [
            head_by_fastavro(),
            *map(by_fastavro, (task_state_codec(REGISTRY), task_notification_codec(REGISTRY))),
        ],
    }
    compiled, other = tuple(ways["compiled"]), tuple(ways["fastavro"])
    published = fold(PythonCore, compiled, given)
    assert published == fold(PythonCore, other, given) == fold(NativeCore, compiled, given)
    events, events_other = task_event_codec(REGISTRY), by_fastavro(task_event_codec(REGISTRY))
    uses: dict[str, dict[str, tuple[Callable[[], object], int]]] = {}
    for action in ("create", "complete"):
        event = event_of(
            locate(action, parameters_of(action, instance_id="I-1")),
            parameters_of(action, instance_id="I-1"),
            received_at=1_700_000_000_000,
        )
        many = [event] * EVENTS
        assert events.encode_body(event) == events_other.encode_body(event)
        uses[f"the edge writes a {action}"] = {
            "compiled": (partial(each, events.encode_body, many), EVENTS),
            "fastavro": (partial(each, events_other.encode_body, many), EVENTS),
        }
    uses["a consumer reads a notification"] = {
        "compiled": (partial(each, compiled[2].decode, published), len(published)),
        "fastavro": (partial(each, other[2].decode, published), len(published)),
    }
    uses["an event is folded"] = {
        "compiled": (partial(fold, PythonCore, compiled, given), EVENTS),
        "fastavro": (partial(fold, PythonCore, other, given), EVENTS),
        "native": (partial(fold, NativeCore, compiled, given), EVENTS),
    }
    for use, calls in uses.items():
        times: dict[str, list[float]] = {codec: [] for codec in calls}
        for _ in range(ROUNDS):
            for codec, (call, count) in calls.items():
                begun = time.process_time()
                call()
                times[codec].append((time.process_time() - begun) / count * 1e6)
        for codec, found in times.items():
            ratios = [mine / base for mine, base in zip(found, times["compiled"], strict=True)]
            ratio, lowest, highest = statistics.median(ratios), min(ratios), max(ratios)
            sys.stdout.write(
                f"{use:32}{codec:10}{statistics.median(found):8.2f} us  {ratio:5.2f} ({lowest:.2f} to {highest:.2f})\n"
            )


if __name__ == "__main__":
    main()
