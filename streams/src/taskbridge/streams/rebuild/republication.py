"""``taskbridge streams --republish``: have workers publish every state, and every present list entry, again.

The changelog is the source, so earlier states and notifications may be gone. It gets what is pending for each instance;
workers are stopped meanwhile, as for the switch of a rebuild, because each of them expects to be its only writer.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas.topics import TASK_NOTIFICATIONS, TASK_STATES
from taskbridge.streams.contract.live_version import announce
from taskbridge.streams.fold.stored_instance import StoreUnreadable
from taskbridge.streams.instances.pending_notifications import (
    FIRST_INSTANCE,
    Pending,
    pending_key,
    read_pending,
    write_pending,
)
from taskbridge.streams.rebuild.operation import CannotRun, operation, write_all
from taskbridge.streams.table_versions import instances_changelog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from taskbridge.streams.rebuild.copies import TopicCopy
    from taskbridge.streams.records import RecordWithHeaders


def republish(environment: Mapping[str, str], *, report: Callable[[str], None]) -> dict[str, Any]:
    """Have workers publish every state and every present list entry again; returns counts by name.

    Raises:
        ConfigurationError: a setting is wrong; nothing was started.
        OperatorError: workers may publish a part; it is safe to run it again.
    """
    started = time.monotonic()
    with operation(environment, report) as run, run.alone("republish") as (writer, versions, folder):
        there, changelog = run.topics(), instances_changelog(versions.live).name
        if changelog not in there:
            raise CannotRun(f"Kafka has no topic {changelog}: run taskbridge streams --rebuild first")
        partitions = there[changelog]
        apply_topics(run.admin, [TASK_STATES, TASK_NOTIFICATIONS], partitions=partitions)
        with closing(run.copy_of(changelog, folder / "states")) as states:
            # Copy most of it while workers still run.
            states.catch_up(partitions, run.ticker("states"))
            with run.workers_stopped(writer, versions, versions.live):
                states.catch_up(partitions, run.ticker("states"))
                pending = _pending(states, run.number())
                instances = write_all(writer, changelog, pending, run.ticker("instances"))
                with writer.transaction():
                    announce(writer, versions)
    return {"instances": instances, "seconds": round(time.monotonic() - started, 1)}


def _pending(states: TopicCopy, number: int) -> Iterator[tuple[RecordWithHeaders, int]]:
    for key, stored in states.items(FIRST_INSTANCE):
        earlier = states.get(pending_key(key))
        try:
            before = None if earlier is None else read_pending(earlier.value).before
        except StoreUnreadable:
            before = None
        pending = Pending(number, is_published=False, everything=True, before=before)
        yield (pending_key(key), write_pending(pending), []), stored.partition
