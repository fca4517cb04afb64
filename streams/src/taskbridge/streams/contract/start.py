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

from taskbridge.runtime.kafka import Acl, NotAllowed, missing_acls, not_allowed
from taskbridge.runtime.topic_admin import TopicsUnavailable, apply_topics
from taskbridge.schemas import topics
from taskbridge.schemas.errors import ConfigurationError, OperatorError
from taskbridge.schemas.topics import TASK_EVENTS, TASK_NOTIFICATIONS, TASK_STATES
from taskbridge.streams.contract.live_version import REBUILD_ID, SwitchUnderWay
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.positions import Lineage, SourceTopic
from taskbridge.streams.table_versions import (
    FIRST_VERSION,
    INBOX_CHANGELOG,
    REBUILD,
    VERSION_TOPIC,
    Versions,
    instances_changelog,
    rebuild_hint,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from taskbridge.runtime.kafka import Admin
    from taskbridge.schemas.registry import Registry
    from taskbridge.streams.contract.live_version import LiveVersion
    from taskbridge.streams.monitoring.progress import Health
    from taskbridge.streams.offsets import Offsets

log = structlog.get_logger(__name__)

INTERNAL = f"{APP_ID}-"
"""Prefix of all names that are the worker's own: changelogs, the live version, transactional ids."""

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
"""Required by every worker."""

TASK_CENTER = (Acl("Read", "topic", topics.TASK_NOTIFICATIONS.name, "builds inboxes from notifications"),)
"""Required unless ``STREAMS_TASK_CENTER`` is switched off."""

EXTRAS = (
    Acl("Write", "topic", topics.TASK_EVENTS.name, "forwards events after an increase of partitions"),
    Acl("Read", "topic", topics.PEOPLE.name, "shows people by name"),
    Acl("Read", "topic", topics.FORMS.name, "shows form fields by label"),
    Acl("Read", "topic", topics.TASK_EVENTS_DLQ.name, "shows dead letters on the operator page"),
    Acl("Read", "topic", topics.CALLBACKS_QUARANTINE.name, "shows rejected callbacks on the operator page"),
    Acl("DescribeConfigs", "topic", "taskbridge.", "reports changed topic settings", prefixed=True),
    Acl("DescribeConfigs", "topic", INTERNAL, "reports changed topic settings", prefixed=True),
)
"""Optional: a worker reports which of these it lacks."""


def required_acls(*, task_center: bool) -> tuple[Acl, ...]:
    return (*WORK, *(TASK_CENTER if task_center else ()))


def optional_acls(*, task_center: bool) -> tuple[Acl, ...]:
    """Those that only the task center reads are left out without it."""
    return tuple(acl for acl in EXTRAS if task_center or acl.operation == "Write")


_CONTRACT = (topics.TASK_EVENTS, topics.TASK_STATES, topics.TASK_NOTIFICATIONS, topics.TASK_EVENTS_DLQ)
_FIRST_RETRY_S = 0.5
_RETRY_MAX_S = 10.0
_SWITCH_POLL_S = 1.0
_REACHED_S = 5.0


class StartRefused(ConfigurationError):
    """A topic that workers depend on is lost or does not fit: a worker would publish wrong states."""


class Prepared(NamedTuple):
    """What a worker is built from."""

    partitions: int
    """Of the events."""
    version: int
    """The live version of the instances."""
    source_topics: Mapping[str, SourceTopic]
    """What positions in each topic refer to, by the topic that is read."""
    known: frozenset[str]
    """The changelogs that a position names: local stores of other changelogs are out of date."""
    republished_to: Mapping[int, int]
    """By partition, the offset after the last republished notification. Inboxes below it are incomplete."""
    drift: Sequence[str] = ()
    """Differences of the topics from the contract, a line each."""


@dataclass(frozen=True, slots=True)
class Contract:
    """Creates and checks topics and schemas."""

    admin: Admin
    registry: Registry
    partitions: int
    live_version: LiveVersion
    offsets: Offsets
    task_center: bool

    def apply(self) -> Prepared:
        """Return once everything is there. Blocks.

        Raises:
            OperatorError: try again; it says what is missing, or that a switch is under way.
            StartRefused: an internal topic is lost, or does not fit.
        """
        try:
            return self._apply()
        except (KafkaException, TimeoutError) as error:
            raise TopicsUnavailable(f"Kafka is still starting or does not answer; retrying: {error}") from error

    def check(self, prepared: Prepared) -> None:
        """Return if a worker with this preparation may still work. Blocks.

        Raises:
            AnotherVersion: another version is live, or about to be.
            StartRefused: a topic that it depends on was deleted or recreated.
            KafkaException, TimeoutError: Kafka refuses, or does not answer.
        """
        self.live_version.check(prepared.version)
        with suppress(KeyError):
            if self._grounds(prepared.partitions, prepared.version) == prepared.source_topics:
                return
        raise StartRefused("A topic that this worker depends on was deleted or recreated; restart it for details")

    def _apply(self) -> Prepared:
        # First: without Kafka, each other request would wait for its whole timeout, and delay a stop.
        self.admin.list_topics(timeout=_REACHED_S)
        lacks = self._check_permissions()
        lineages = self._check_internal_topics()
        self.live_version.prepare()
        version = self.live_version.settled()
        reports = apply_topics(self.admin, [topics.TASK_EVENTS], partitions=self.partitions)
        found = reports[0].partitions
        # The same number of partitions as the events, so that each state is on the partition of its events.
        changelogs = [instances_changelog(version), *([INBOX_CHANGELOG] if self.task_center else [])]
        reports += apply_topics(self.admin, [*_CONTRACT[1:], *changelogs], partitions=found)
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
            source_topics = self._grounds(found, version)
        except KeyError as error:
            # Just created, and not known to every broker yet.
            raise TopicsUnavailable(f"topic {error.args[0]} does not exist yet; retrying") from error
        named = {lineage.changelog_id for each in lineages.values() for lineage in each if lineage}
        known = frozenset(each.changelog for each in source_topics.values() if each.lineage.changelog_id in named)
        drift = [*lacks, *(f"{report.name}: {line}" for report in reports for line in report.drift)]
        return Prepared(found, version, source_topics, known, self._republished_to(source_topics), drift)

    def _check_permissions(self) -> list[str]:
        """The optional permissions that are missing, a line each.

        Raises:
            NotAllowed: a required one is missing.
        """
        required = required_acls(task_center=self.task_center)
        optional = optional_acls(task_center=self.task_center)
        internal = [instances_changelog(FIRST_VERSION), VERSION_TOPIC, *([INBOX_CHANGELOG] if self.task_center else [])]
        lacks = missing_acls(
            self.admin, [*required, *optional], topics=[topic.name for topic in (*topics.ALL, *internal)]
        )
        if missing := [acl for acl in lacks if acl in required]:
            raise NotAllowed(not_allowed(*missing))
        return [not_allowed(acl) for acl in lacks]

    def _republished_to(self, source_topics: Mapping[str, SourceTopic]) -> dict[int, int]:
        name, republished = TASK_NOTIFICATIONS.name, self.live_version.republished
        if republished is None or name not in source_topics or source_topics[name].source_id != republished.topic_id:
            return {}
        # At most the end of the topic: workers would wait for ever for truncated notifications.
        ends = self.offsets.ends(name, republished.ends)
        return {partition: min(end, ends[partition]) for partition, end in republished.ends.items()}

    def _check_internal_topics(self) -> Mapping[str, Sequence[Lineage | None]]:
        """The lineages of the group's positions, by topic; before anything is created, so that a lost topic is noticed.

        Raises:
            StartRefused: a topic is lost, or does not fit.
            TopicsUnavailable: it only seems so, because topics were created or moved meanwhile.
        """
        is_there = VERSION_TOPIC.name in self.offsets.topics([VERSION_TOPIC.name])
        versions = self.live_version.read() if is_there else self.live_version.by_positions()
        if versions.next is not None:
            # Topics are being created and moved: check them after that.
            versions = Versions(self.live_version.settled())
        sources = [TASK_EVENTS.name, TASK_NOTIFICATIONS.name]
        described = self.offsets.topics([*sources, VERSION_TOPIC.name])
        tps = [TP(name, each) for name in sources if name in described for each in range(described[name].partitions)]
        committed = self.offsets.committed(APP_ID, tps)
        lineages = {
            name: [at.lineage for tp, at in committed.items() if tp.topic == name and at.offset >= 0]
            for name in sources
        }
        internal = [instances_changelog(versions.live).name, INBOX_CHANGELOG.name]
        there = {**described, **self.offsets.topics([TASK_STATES.name, *internal])}
        firsts = {
            name: max(self.offsets.begins(name, range(there[name].partitions)).values())
            for name in [*internal, VERSION_TOPIC.name]
            if name in there
        }
        situation = Situation(
            {name: Found(*found, first=firsts.get(name, 0)) for name, found in there.items()},
            lineages,
            versions,
            self.live_version.is_recorded,
            self.live_version.unreadable,
        )
        refused = problem(situation, task_center=self.task_center)
        if refused is None:
            return lineages
        if is_there and self.live_version.has_more():
            raise TopicsUnavailable("topics were created or moved during the check; retrying")
        raise StartRefused(refused)

    def _grounds(self, partitions: int, version: int) -> dict[str, SourceTopic]:
        """By the topic that is read; raises KeyError if a topic does not exist."""
        changelogs = {TASK_EVENTS.name: instances_changelog(version).name}
        if self.task_center:
            changelogs[TASK_NOTIFICATIONS.name] = INBOX_CHANGELOG.name
        there = self.offsets.topics([*changelogs, *changelogs.values(), VERSION_TOPIC.name])
        version_topic_id = there[VERSION_TOPIC.name].topic_id
        return {
            source: SourceTopic(
                there[source].topic_id,
                changelog,
                Lineage(version, partitions, there[changelog].topic_id, version_topic_id),
            )
            for source, changelog in changelogs.items()
        }


def notification_bytes(offsets: Offsets) -> int:
    """The broker's limit for a notification, if it answers; at most what an inbox can store. Blocks."""
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
    """A topic that exists."""

    topic_id: str
    partitions: int
    first: int = 0
    """The greatest first offset of its partitions. A topic that is only compacted has 0, unless it was truncated."""


class Situation(NamedTuple):
    """What a worker finds at its start."""

    topics: Mapping[str, Found]
    lineages: Mapping[str, Sequence[Lineage | None]]
    """By topic, of each position that the group has in it; None if an older release wrote the position."""
    versions: Versions
    """From the version topic; if that has no record, the newest version that a position names."""
    is_recorded: bool = True
    unreadable: str | None = None
    """Why the record with the live version cannot be read."""


def partitions_problem(counts: Mapping[str, int]) -> str | None:
    """The problem if topics that belong together have different numbers of partitions; ``counts`` by name."""
    if len(set(counts.values())) <= 1:
        return None
    listed = ", ".join(f"{name} has {number}" for name, number in counts.items())
    return (
        f"topics have different numbers of partitions, so events are not in the partitions of their states: {listed}."
        f" Move all to one number: {REBUILD} --partitions N"
    )


def problem(found: Situation, *, task_center: bool) -> str | None:
    """Why no worker may start now, and which command fixes it; None if there is no problem."""
    return next(_problems(found, task_center=task_center), None)


def _problems(found: Situation, *, task_center: bool) -> Iterator[str]:
    live = found.versions.live
    yield from _version_problems(found)
    inbox = [INBOX_CHANGELOG] if task_center else []
    alike = [TASK_EVENTS, TASK_STATES, TASK_NOTIFICATIONS, instances_changelog(live), *inbox]
    together = [topic.name for topic in alike]
    differing = partitions_problem({name: found.topics[name].partitions for name in together if name in found.topics})
    if differing is not None:
        yield differing
    yield from _moved_problems(found, together)
    events = found.lineages.get(TASK_EVENTS.name, ())
    # The lineage of an earlier version names another changelog: a rebuild by an older release has come since.
    of_live = [lineage for lineage in events if lineage is not None and lineage.version == live]
    lost = _lost(found, instances_changelog(live).name, {lineage.changelog_id for lineage in of_live})
    if events and lost is not None:
        yield f"{lost}, but the group has processed events into it. {rebuild_hint(instances_changelog(live).name)}"
    notifications = found.lineages.get(TASK_NOTIFICATIONS.name, ()) if task_center else ()
    lost = _lost(
        found, INBOX_CHANGELOG.name, {lineage.changelog_id for lineage in notifications if lineage is not None}
    )
    if notifications and lost is not None:
        yield f"{lost}, but the group has applied notifications to it. {rebuild_hint(INBOX_CHANGELOG.name)}"


def _version_problems(found: Situation) -> Iterator[str]:
    set_again = f"Set the live version of the states again: {REBUILD}"
    if found.unreadable is not None:
        yield f"{found.unreadable}. {set_again}"
    lineages = [lineage for each in found.lineages.values() for lineage in each if lineage is not None]
    # Not of earlier versions: a later rebuild has set it again.
    of_live = [lineage for lineage in lineages if lineage.version >= found.versions.live]
    lost = _lost(found, VERSION_TOPIC.name, {lineage.version_topic_id for lineage in of_live}, is_state=False)
    if any(found.lineages.values()) and lost is not None:
        yield f"{lost}. {set_again}"
    topic = found.topics.get(VERSION_TOPIC.name)
    # It is empty as long as the group has only had the first version.
    if topic is not None and not found.is_recorded and (topic.first > 0 or found.versions.live > FIRST_VERSION):
        yield f"{VERSION_TOPIC.name} was truncated and names no version. {set_again}"
    if any(lineage.version > found.versions.live for lineage in lineages):
        yield (
            f"{VERSION_TOPIC.name} has lost records: it names live version {found.versions.live}, but there are"
            f" states of version {max(lineage.version for lineage in lineages)}. {set_again}"
        )


def _moved_problems(found: Situation, together: Sequence[str]) -> Iterator[str]:
    live = found.versions.live
    recorded = {
        lineage.partitions
        for each in found.lineages.values()
        for lineage in each
        if lineage and lineage.version == live
    }
    for name in together:
        if name in found.topics and recorded and recorded != {found.topics[name].partitions}:
            yield (
                f"{name} has {found.topics[name].partitions} partitions, but its states were built with"
                f" {', '.join(map(str, sorted(recorded)))}. Events would not find their states."
                f" Move the states to the number that you want: {REBUILD} --partitions N"
            )


def _lost(found: Situation, name: str, known: set[str], *, is_state: bool = True) -> str | None:
    topic = found.topics.get(name)
    if topic is None:
        return f"{name} is missing"
    if known - {topic.topic_id}:
        return f"{name} was deleted and recreated"
    if is_state and topic.first > 0:
        return f"{name} was truncated: it begins at offset {topic.first}"
    return None
