"""States as in a changelog: any number, made of a few hundred real ones with ids of their own."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

from msgspec.structs import replace
from tests.bench.streams import kafka_streams_format
from tests.bench.streams.contenders import TASKBRIDGE
from tests.bench.streams.workload import EVENTS_PER_INSTANCE, Life

from taskbridge.schemas.codec import task_state_codec
from taskbridge.schemas.events import Lifecycle
from taskbridge.streams.fold.instance import fold
from taskbridge.streams.fold.stored_instance import pack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.bench.streams.setup import Setup

    from taskbridge.streams.fold.instance import Instance

_TEMPLATES = 500


class Seeds:
    """Instance number n has an id of its own and the content of template n mod 500."""

    templates = _TEMPLATES

    def __init__(self, name: str, setup: Setup) -> None:
        """``name`` is the contender in whose format the states are stored."""
        stored = _format(name, setup)
        self._templates = [folded(number) for number in range(_TEMPLATES)]
        self._stored = [stored(each) for each in self._templates]

    def records(self, count: int) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of the changelog."""
        old = [each.state.instance_id.encode() for each in self._templates]
        for number in range(count):
            key = instance_id(number).encode()
            template = number % _TEMPLATES
            # Of the same length, so no length before it changes.
            yield key, self._stored[template].replace(old[template], key)

    def instance(self, number: int) -> Instance:
        """What the fold makes of that record."""
        found = self._templates[number % _TEMPLATES]
        state, new = found.state, instance_id(number)

        def renamed(url: str | None) -> str | None:
            return None if url is None else url.replace(state.instance_id, new)

        tasks = tuple(replace(task, url=renamed(task.url)) for task in state.tasks)
        return replace(found, state=replace(state, instance_id=new, url=renamed(state.url), tasks=tasks))


def instance_id(number: int) -> str:
    text = hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def folded(number: int) -> Instance:
    life, instance = Life(number), None
    for position in range(EVENTS_PER_INSTANCE):
        instance = fold(instance, life.event(position))
    assert instance is not None
    # A deleted one would hide what an event after the restart adds.
    return replace(instance, state=replace(instance.state, lifecycle=Lifecycle.ACTIVE))


def _format(name: str, setup: Setup) -> Callable[[Instance], bytes]:
    codec = task_state_codec(setup.registry)
    if name == TASKBRIDGE:
        now_ms = time.time_ns() // 1_000_000
        return lambda instance: pack(codec.encode(instance.state), instance, now_ms=now_ms)
    return lambda instance: kafka_streams_format.pack(codec.encode(instance.state), instance)
