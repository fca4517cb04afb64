"""Before a worker starts: permissions, topics and schemas are as required, no topic is lost, a version is live.

If the group has positions, the events before them are folded and will not be read again: their results must still be
there. With an empty changelog next to such positions, workers would publish shells over good states.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import structlog
from confluent_kafka import KafkaException
from faust.types import TP

from taskbridge.runtime.kafka import Acl, Admin, NotAllowed, missing_acls, not_allowed
from taskbridge.runtime.topic_admin import TopicsUnavailable, apply_topics
from taskbridge.schemas import topics
from taskbridge.schemas.errors import ConfigurationError, OperatorError
from taskbridge.schemas.topics import TASK_EVENTS, TASK_NOTIFICATIONS, TASK_STATES
from taskbridge.streams.contract.live_version import REBUILD_ID, LiveVersion, SwitchUnderWay
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.table_versions import (
    FIRST_VERSION,
    REBUILD,
    REBUILD_HINT,
    VERSION_TOPIC,
    Versions,
    instances_changelog,
)
from taskbridge.streams.transactions.offsets import Offsets, readers_of
from taskbridge.streams.transactions.positions import Lineage, SourceTopic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from taskbridge.schemas.registry import Registry
    from taskbridge.streams.monitoring.progress import Health

log = structlog.get_logger(__name__)

INTERNAL = f"{APP_ID}-"

WORK = (
    Acl("Read", "topic", topics.TASK_EVENTS.name, "reads the events"),
    Acl("Write", "topic", topics.TASK_STATES.name, "the states"),
    Acl("Write", "topic", topics.TASK_NOTIFICATIONS.name, "the notifications"),
    Acl("Write", "topic", topics.TASK_EVENTS_DLQ.name, "stores events that cannot be processed"),
    Acl("Create", "topic", INTERNAL, "creates the changelogs", prefixed=True),
    Acl("Read", "topic", INTERNAL, "restores tables from changelogs", prefixed=True),
    Acl("Write", "topic", INTERNAL, "writes each change of a table to its changelog", prefixed=True),
    Acl("Read", "group", APP_ID, "shares partitions and commits positions"),
    Acl("Describe", "group", REBUILD_ID, "waits while a rebuild switches the live version"),
    Acl(
        "Write",
        "transactional-id",
        INTERNAL,
        "commits states, notifications and position of a chunk in one transaction",
        prefixed=True,
    ),
)

EXTRAS = (
    Acl("Write", "topic", topics.TASK_EVENTS.name, "forwards events after an increase of partitions"),
    Acl("DescribeConfigs", "topic", "taskbridge.", "reports changed topic settings", prefixed=True),
    Acl("DescribeConfigs", "topic", INTERNAL, "reports changed topic settings", prefixed=True),
)
"""Optional: a worker reports which of these it lacks."""


_CONTRACT = (topics.TASK_EVENTS, topics.TASK_STATES, topics.TASK_NOTIFICATIONS, topics.TASK_EVENTS_DLQ)
_FIRST_RETRY_S = 0.5
_RETRY_MAX_S = 10.0
_SWITCH_POLL_S = 1.0
_REACHED_S = 5.0


class StartRefused(ConfigurationError):
    """A topic that workers depend on is lost or does not fit: a worker would publish wrong states."""


class Prepared(NamedTuple):
    partitions: int
    version: int
    source_topic: SourceTopic
    """What positions in the events refer to."""
    drift: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Contract:
    admin: Admin
    registry: Registry
    partitions: int
    live_version: LiveVersion
    offsets: Offsets

    def apply(self) -> Prepared:
        """Return once everything is there. Blocks. OperatorError: try again; StartRefused: a topic is lost."""
        try:
            return self._apply()
        except (KafkaException, TimeoutError) as error:
            raise TopicsUnavailable(f"Kafka is still starting or does not answer; retrying: {error}") from error

    def check(self, prepared: Prepared) -> None:
        """Return if a worker with this preparation may still work; else AnotherVersion or StartRefused. Blocks."""
        self.live_version.check(prepared.version)
        with suppress(KeyError):
            if source_topic(self.offsets, prepared.partitions, prepared.version) == prepared.source_topic:
                return
        raise StartRefused("A topic that this worker depends on was deleted or recreated; restart it for details")

    def _apply(self) -> Prepared:
        # First: without Kafka, each other request would wait for its whole timeout, and delay a stop.
        self.admin.list_topics(timeout=_REACHED_S)
        lacks = self._check_permissions()
        self._check_members()
        self._check_internal_topics()
        self.live_version.prepare()
        version = self.live_version.settled()
        reports = apply_topics(self.admin, [topics.TASK_EVENTS], partitions=self.partitions)
        found = reports[0].partitions
        # The same number of partitions as the events, so that each state is on the partition of its events.
        reports += apply_topics(self.admin, [*_CONTRACT[1:], instances_changelog(version)], partitions=found)
        if not self.registry.knows(_CONTRACT):
            self.registry.register(_CONTRACT)
        for line in lacks:
            log.warning("not_allowed", problem=line)
        for report in reports:
            for line in report.drift:
                log.warning("topic_differs", topic=report.name, difference=line)
            if report.unchecked is not None:
                log.warning("topic_not_checked", topic=report.name, problem=report.unchecked)
        try:
            source = source_topic(self.offsets, found, version)
        except KeyError as error:
            # Just created, and not known to every broker yet.
            raise TopicsUnavailable(f"topic {error.args[0]} does not exist yet; retrying") from error
        drift = [*lacks, *(f"{report.name}: {line}" for report in reports for line in report.drift)]
        return Prepared(found, version, source, drift)

    def _check_members(self) -> None:
        """Wait for the end of workers that also have an inbox table: one assignment cannot cover both kinds."""
        if older := readers_of(self.admin, APP_ID, TASK_NOTIFICATIONS.name):
            raise OperatorError(
                f"workers of an older release are running: {', '.join(older)}. Stop them; this worker starts then"
            )

    def _check_permissions(self) -> list[str]:
        """The optional permissions that are missing, a line each; raises NotAllowed if a required one is missing."""
        internal = (instances_changelog(FIRST_VERSION), VERSION_TOPIC)
        lacks = missing_acls(self.admin, [*WORK, *EXTRAS], topics=[topic.name for topic in (*topics.ALL, *internal)])
        if missing := [acl for acl in lacks if acl in WORK]:
            raise NotAllowed(not_allowed(*missing))
        return [not_allowed(acl) for acl in lacks]

    def _check_internal_topics(self) -> None:
        """Before anything is created, so that a lost topic is noticed: StartRefused.

        TopicsUnavailable, if it only seems so, because topics were created or moved meanwhile.
        """
        is_there = VERSION_TOPIC.name in self.offsets.topics([VERSION_TOPIC.name])
        versions = self.live_version.read() if is_there else self.live_version.by_positions()
        if versions.next is not None:
            # Topics are being created and moved: check them after that.
            versions = Versions(self.live_version.settled())
        changelog = instances_changelog(versions.live).name
        found = self.offsets.topics([TASK_EVENTS.name, VERSION_TOPIC.name])
        partitions = found[TASK_EVENTS.name].partitions if TASK_EVENTS.name in found else 0
        committed = self.offsets.committed(APP_ID, [TP(TASK_EVENTS.name, each) for each in range(partitions)])
        lineages = [at.lineage for at in committed.values() if at.offset >= 0]
        found |= self.offsets.topics([TASK_STATES.name, TASK_NOTIFICATIONS.name, changelog])
        firsts = {
            name: max(self.offsets.begins(name, range(found[name].partitions)).values())
            for name in (changelog, VERSION_TOPIC.name)
            if name in found
        }
        situation = Situation(
            {name: Found(*each, first=firsts.get(name, 0)) for name, each in found.items()},
            lineages,
            versions,
            self.live_version.is_recorded,
            self.live_version.unreadable,
        )
        refused = problem(situation)
        if refused is None:
            return
        if is_there and self.live_version.has_more():
            raise TopicsUnavailable("topics were created or moved during the check; retrying")
        raise StartRefused(refused)


def source_topic(offsets: Offsets, partitions: int, version: int) -> SourceTopic:
    """What positions in the events refer to; raises KeyError if a topic does not exist. Blocks."""
    changelog = instances_changelog(version).name
    there = offsets.topics([TASK_EVENTS.name, changelog, VERSION_TOPIC.name])
    lineage = Lineage(version, partitions, there[changelog].topic_id, there[VERSION_TOPIC.name].topic_id)
    return SourceTopic(there[TASK_EVENTS.name].topic_id, changelog, lineage)


def notification_bytes(offsets: Offsets) -> int:
    with suppress(TimeoutError):
        found = offsets.largest_record(TASK_NOTIFICATIONS.name)
        if found is not None:
            return min(found, topics.USUAL_MESSAGE_BYTES)
    return topics.USUAL_MESSAGE_BYTES


async def until_connected(contract: Contract, health: Health, stop: asyncio.Event) -> Prepared | None:
    """Wait for Kafka and the registry, and for the end of a switch, without a limit; None when stopped."""
    delay = _FIRST_RETRY_S
    while not stop.is_set():
        try:
            prepared = await asyncio.to_thread(contract.apply)
        except OperatorError as error:
            health.waits(str(error))
            log.warning("startup_waiting", problem=str(error))
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), delay)
            delay = _SWITCH_POLL_S if isinstance(error, SwitchUnderWay) else min(delay * 2, _RETRY_MAX_S)
        else:
            health.connected(prepared.drift)
            return prepared
    return None


# What is wrong with the internal topics, decided from what Kafka has and what positions name. Pure.


class Found(NamedTuple):
    topic_id: str
    partitions: int
    first: int = 0
    """The greatest first offset of its partitions. A topic that is only compacted has 0, unless it was truncated."""


class Situation(NamedTuple):
    topics: Mapping[str, Found]
    lineages: Sequence[Lineage | None]
    """Of each position that the group has in the events; None if an older release wrote the position."""
    versions: Versions
    """From the version topic; if that has no record, the newest version that a position names."""
    is_recorded: bool = True
    unreadable: str | None = None


def problem(found: Situation) -> str | None:
    """Why no worker may start now, and which command fixes it; None if there is no problem."""
    return next(_problems(found), None)


def _problems(found: Situation) -> Iterator[str]:
    live, there = found.versions.live, found.topics
    lineages = [lineage for lineage in found.lineages if lineage is not None]
    set_again = f"Set the live version of the states again: {REBUILD}"
    if found.unreadable is not None:
        yield f"{found.unreadable}. {set_again}"
    # Not of earlier versions: a later rebuild has set it again.
    lost = _lost(there, VERSION_TOPIC.name, {each.version_topic_id for each in lineages if each.version >= live})
    if found.lineages and lost is not None:
        yield f"{lost}. {set_again}"
    # Without a record, the group has only had the first version.
    named = live if found.is_recorded else FIRST_VERSION
    newest = max((lineage.version for lineage in lineages), default=named)
    topic = there.get(VERSION_TOPIC.name)
    if topic is not None and (newest > named or (topic.first > 0 and not found.is_recorded)):
        yield (
            f"{VERSION_TOPIC.name} has lost records: it names live version {named}, and there are states of version"
            f" {newest}. {set_again}"
        )
    changelog = instances_changelog(live).name
    # The lineage of an earlier version names another changelog: a rebuild by an older release has come since.
    of_live = [lineage for lineage in lineages if lineage.version == live]
    together = (TASK_EVENTS.name, TASK_STATES.name, TASK_NOTIFICATIONS.name, changelog)
    numbers = [(f"{name} has", there[name].partitions) for name in together if name in there]
    numbers += [("states were built with", lineage.partitions) for lineage in of_live[:1]]
    if len({number for _, number in numbers}) > 1:
        listed = ", ".join(f"{subject} {number}" for subject, number in numbers)
        yield (
            f"topics have different numbers of partitions, so events would not find their states: {listed}."
            f" Move all to one number: {REBUILD} --partitions N"
        )
    lost = _lost(there, changelog, {lineage.changelog_id for lineage in of_live})
    if found.lineages and lost is not None:
        yield f"{lost}, but the group has processed events into it. {REBUILD_HINT}"


def _lost(there: Mapping[str, Found], name: str, known: set[str]) -> str | None:
    topic = there.get(name)
    if topic is None:
        return f"{name} is missing"
    if known - {topic.topic_id}:
        return f"{name} was deleted and recreated"
    if topic.first > 0 and name != VERSION_TOPIC.name:
        return f"{name} was truncated: it begins at offset {topic.first}"
    return None
