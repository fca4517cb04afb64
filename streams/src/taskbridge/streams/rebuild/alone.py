"""There is one rebuild at a time, and workers see whether it is alive: it is the only member of a group of its own."""

from __future__ import annotations

import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from confluent_kafka import Consumer

from taskbridge.runtime.kafka import LIBRDKAFKA
from taskbridge.schemas.errors import OperatorError
from taskbridge.streams.contract.live_version import REBUILD_ID
from taskbridge.streams.positions.version import VERSION_TOPIC
from taskbridge.streams.rebuild.workers import named

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from taskbridge.streams.positions.offsets import Offsets

_SESSION_MS = 6_000
"""No broker allows less by default."""
_WAIT_S = 10.0
_LOOK_S = 0.5


class AnotherRebuild(OperatorError):
    """A rebuild is running already; there can be one at a time."""


@contextmanager
def alone(offsets: Offsets, consumer: Mapping[str, object]) -> Generator[None]:
    """Be the one rebuild that there is.

    That two begin at the same moment is not excluded here: the first one to claim the transactional id loses it, and
    fails at its next write.

    Raises:
        AnotherRebuild: somebody else is.
    """
    deadline = time.monotonic() + _WAIT_S
    while found := offsets.members(REBUILD_ID):
        # One that was killed counts as there until its session is over.
        if time.monotonic() > deadline:
            raise AnotherRebuild(f"a rebuild is running already: {named(found)}")
        time.sleep(_LOOK_S)
    stop = threading.Event()
    thread = threading.Thread(target=_be_there, args=(consumer, stop), name="rebuild-membership", daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + _WAIT_S
        while not offsets.members(REBUILD_ID):
            if time.monotonic() > deadline:
                raise OperatorError(f"Kafka does not let this rebuild into the group {REBUILD_ID}")
            time.sleep(_LOOK_S)
        yield
    finally:
        stop.set()
        thread.join()


def _be_there(consumer: Mapping[str, object], stop: threading.Event) -> None:
    with closing(
        Consumer({**consumer, "client.id": REBUILD_ID, "session.timeout.ms": _SESSION_MS}, logger=LIBRDKAFKA)
    ) as member:
        member.subscribe([VERSION_TOPIC.name])
        while not stop.is_set():
            member.poll(_LOOK_S)
