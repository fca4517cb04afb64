"""A rebuild that changes every instance: its cost, and the cost of publishing the changes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.errors import NotCounted
from tests.bench.services import wait_until
from tests.bench.sizing.disk import topic_bytes
from tests.bench.sizing.holding import Worker
from tests.bench.sizing.wrong_states import make_wrong_states

from taskbridge.schemas.topics import TASK_NOTIFICATIONS, TASK_STATES
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.rebuild.command import rebuild
from taskbridge.streams.table_versions import INBOX_CHANGELOG, instances_changelog

if TYPE_CHECKING:
    from tests.bench.streams.setup import Setup


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """Of so many instances, each of which came out another."""

    instances: int
    notifications: int
    seconds: float
    cpu_s: float
    standstill_s: float
    """From the request that workers stop until the new version is live; no worker runs meanwhile."""
    publishing_s: float
    publishing_cpu_s: float
    changelog_bytes: int


def measure_rebuild(setup: Setup, instances: int) -> Rebuilt:
    """Raises NotCounted where not all of it is published."""
    kafka, partitions = setup.kafka, setup.partitions
    kafka.forget(APP_ID)
    kafka.delete([name for name in kafka.names() if name.startswith("taskbridge-streams-")])
    kafka.create(INBOX_CHANGELOG.name, partitions, INBOX_CHANGELOG.settings)
    setup.progress(f"{instances:,} instances, each of which was folded wrongly")
    make_wrong_states(setup, instances)
    folder = setup.folder / f"rebuild-{instances}"
    environment = {
        "STREAMS_KAFKA_BOOTSTRAP_SERVERS": setup.bootstrap_servers,
        "STREAMS_SCHEMA_REGISTRY_URL": setup.registry_url,
        "STREAMS_DATA_DIR": str(folder),
    }
    began, cpu_before = time.monotonic(), time.process_time()
    steps: dict[str, float] = {}

    def print_line(line: str) -> None:
        setup.progress(line)
        steps[line[:7]] = time.monotonic()

    found = rebuild(environment, dry_run=False, report=print_line)
    ended, cpu_s = time.monotonic(), time.process_time() - cpu_before
    if (found["states"], found["instances"]) != (instances, instances):
        raise NotCounted(f"of {instances} instances {found['states']} came out another: {found}")
    changelog_bytes = topic_bytes(setup, instances_changelog(2).name)
    before = sum(kafka.ends(TASK_STATES.name, partitions))
    with Worker(setup, f"telling-{instances}") as worker:
        worker.until_ready(active=partitions)
        ready_cpu_s, ready = worker.cpu_s, time.monotonic()
        wait_until(lambda: worker.logged("rebuilt_instances_published") == partitions, "all is published")
        publishing_s, publishing_cpu_s = time.monotonic() - ready, worker.cpu_s - ready_cpu_s
        if sum(kafka.ends(TASK_STATES.name, partitions)) - before < instances:
            raise NotCounted("not every state is published")
    if sum(kafka.ends(TASK_NOTIFICATIONS.name, partitions)) < found["notifications"]:
        raise NotCounted("not every notification is published")
    return Rebuilt(
        instances,
        found["notifications"],
        ended - began,
        cpu_s,
        steps["version"] - steps["workers"],
        publishing_s,
        publishing_cpu_s,
        changelog_bytes,
    )
