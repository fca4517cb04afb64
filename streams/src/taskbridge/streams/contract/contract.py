"""Before a worker is put together: topics and schemas are as the contract says, and a version is live."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import structlog
from confluent_kafka import KafkaException
from faust.types import TP

from taskbridge.runtime.acls import NotAllowed, lacking, not_allowed
from taskbridge.runtime.topic_admin import TopicsUnavailable, apply_topics
from taskbridge.schemas import topics
from taskbridge.schemas.errors import OperatorError
from taskbridge.streams.contract.acls import needed, wished
from taskbridge.streams.contract.internal_topics import Found, Situation, StartRefused, problem
from taskbridge.streams.contract.live_version import SwitchUnderWay
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.positions.changelog_topic import INBOX_CHANGELOG, instances_changelog
from taskbridge.streams.positions.mark import Ground, Mark
from taskbridge.streams.positions.version import FIRST_VERSION, VERSION_TOPIC, Versions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taskbridge.runtime.kafka import Admin
    from taskbridge.schemas.registry import Registry
    from taskbridge.streams.contract.live_version import LiveVersion
    from taskbridge.streams.monitoring.health import Health
    from taskbridge.streams.positions.offsets import Offsets

log = structlog.get_logger(__name__)

_CONTRACT = (topics.TASK_EVENTS, topics.TASK_STATES, topics.TASK_NOTIFICATIONS, topics.TASK_EVENTS_DLQ)
_FIRST_RETRY_S = 0.5
_RETRY_MAX_S = 10.0
_SWITCH_POLL_S = 1.0
_REACHED_S = 5.0


class Prepared(NamedTuple):
    """What was found."""

    partitions: int
    """That the events have."""
    version: int
    """Of the instances, the one that is live."""
    grounds: Mapping[str, Ground]
    """What this worker stands upon, by the topic that it reads."""
    known: frozenset[str]
    """Those changelogs that a position names: what is kept of another one is out of date."""
    told: Mapping[int, int]
    """By partition, up to where notifications must be in the inboxes, or these lack what was told anew."""
    drift: Sequence[str] = ()
    """How topics differ from the contract, a line each."""


@dataclass(frozen=True, slots=True)
class Contract:
    """Brings topics and schemas to the contract."""

    admin: Admin
    registry: Registry
    partitions: int
    live_version: LiveVersion
    offsets: Offsets
    task_center: bool

    def apply(self) -> Prepared:
        """Return once all is there. Blocks.

        Raises:
            OperatorError: it is worth trying again; it says what is missing, or that a switch is under way.
            StartRefused: what was there is lost, or does not fit.
        """
        try:
            return self._apply()
        except (KafkaException, TimeoutError) as error:
            raise TopicsUnavailable(f"Kafka is still starting or does not answer; retrying: {error}") from error

    def check(self, prepared: Prepared) -> None:
        """Return if a worker that was prepared so may still work. Blocks.

        Raises:
            AnotherVersion: another one is live, or about to be.
            StartRefused: a topic that it depends on was deleted or recreated.
            KafkaException, TimeoutError: Kafka refuses, or does not answer.
        """
        self.live_version.check(prepared.version)
        with suppress(KeyError):
            if self._grounds(prepared.partitions, prepared.version) == prepared.grounds:
                return
        raise StartRefused("A topic that this worker depends on was deleted or recreated; restart it for details")

    def _apply(self) -> Prepared:
        # First: without Kafka each of the other questions waits its whole time, and whoever ends the worker too.
        self.admin.list_topics(timeout=_REACHED_S)
        goes_without = self._ask_permissions()
        marks = self._look()
        self.live_version.prepare()
        version = self.live_version.settled()
        reports = apply_topics(self.admin, [topics.TASK_EVENTS], partitions=self.partitions)
        found = reports[0].partitions
        # With as many partitions as the events, or no state would be where its events are.
        changelogs = [instances_changelog(version), *([INBOX_CHANGELOG] if self.task_center else [])]
        reports += apply_topics(self.admin, [*_CONTRACT[1:], *changelogs], partitions=found)
        if not self.registry.knows(_CONTRACT):
            self.registry.register(_CONTRACT)
        for line in goes_without:
            log.warning("not_allowed", problem=line)
        for report in reports:
            for line in report.drift:
                log.warning("topic_differs", topic=report.name, difference=line)
            if report.unchecked is not None:
                log.warning("topic_not_checked", topic=report.name, problem=report.unchecked)
        try:
            grounds = self._grounds(found, version)
        except KeyError as error:
            # Made a moment ago, and not known everywhere yet.
            raise TopicsUnavailable(f"topic {error.args[0]} does not exist yet; retrying") from error
        said = {mark.changelog_id for each in marks.values() for mark in each if mark}
        known = frozenset(each.changelog for each in grounds.values() if each.mark.changelog_id in said)
        drift = [*goes_without, *(f"{report.name}: {line}" for report in reports for line in report.drift)]
        return Prepared(found, version, grounds, known, self._told(grounds), drift)

    def _ask_permissions(self) -> list[str]:
        """What the worker goes without, a line each.

        Raises:
            NotAllowed: it could not work.
        """
        essential, extras = needed(task_center=self.task_center), wished(task_center=self.task_center)
        internal = [instances_changelog(FIRST_VERSION), VERSION_TOPIC, *([INBOX_CHANGELOG] if self.task_center else [])]
        lacks = lacking(self.admin, [*essential, *extras], topics=[topic.name for topic in (*topics.ALL, *internal)])
        if missing := [acl for acl in lacks if acl in essential]:
            raise NotAllowed(not_allowed(*missing))
        return [not_allowed(acl) for acl in lacks]

    def _told(self, grounds: Mapping[str, Ground]) -> dict[int, int]:
        name, told = topics.TASK_NOTIFICATIONS.name, self.live_version.told
        if told is None or name not in grounds or grounds[name].source_id != told.topic_id:
            return {}
        # No further than there is anything, or what was cut off would be waited for.
        ends = self.offsets.ends(name, told.ends)
        return {partition: min(end, ends[partition]) for partition, end in told.ends.items()}

    def _look(self) -> Mapping[str, Sequence[Mark | None]]:
        """What the group's positions say; before anything is made, so that nothing that is lost looks as if new.

        Raises:
            StartRefused: there is something wrong.
            TopicsUnavailable: or it only seems so, for topics were made or moved meanwhile.
        """
        is_there = VERSION_TOPIC.name in self.offsets.topics([VERSION_TOPIC.name])
        versions = self.live_version.read() if is_there else self.live_version.by_positions()
        if versions.next is not None:
            # Topics are being made and moved: what that comes to is looked at when it is over.
            versions = Versions(self.live_version.settled())
        sources = [topics.TASK_EVENTS.name, topics.TASK_NOTIFICATIONS.name]
        described = self.offsets.topics([*sources, VERSION_TOPIC.name])
        tps = [TP(name, each) for name in sources if name in described for each in range(described[name].partitions)]
        committed = self.offsets.committed(APP_ID, tps)
        marks = {
            name: [at.mark for tp, at in committed.items() if tp.topic == name and at.offset >= 0] for name in sources
        }
        internal = [instances_changelog(versions.live).name, INBOX_CHANGELOG.name]
        there = {**described, **self.offsets.topics([topics.TASK_STATES.name, *internal])}
        firsts = {
            name: max(self.offsets.begins(name, range(there[name].partitions)).values())
            for name in [*internal, VERSION_TOPIC.name]
            if name in there
        }
        situation = Situation(
            {name: Found(*found, first=firsts.get(name, 0)) for name, found in there.items()},
            marks,
            versions,
            self.live_version.is_said,
            self.live_version.unreadable,
        )
        refused = problem(situation, task_center=self.task_center)
        if refused is None:
            return marks
        if is_there and self.live_version.has_more():
            raise TopicsUnavailable("topics were created or moved during the check; retrying")
        raise StartRefused(refused)

    def _grounds(self, partitions: int, version: int) -> dict[str, Ground]:
        """By the topic that is read.

        Raises:
            KeyError: a topic is not there.
        """
        changelogs = {topics.TASK_EVENTS.name: instances_changelog(version).name}
        if self.task_center:
            changelogs[topics.TASK_NOTIFICATIONS.name] = INBOX_CHANGELOG.name
        there = self.offsets.topics([*changelogs, *changelogs.values(), VERSION_TOPIC.name])
        version_topic_id = there[VERSION_TOPIC.name].topic_id
        return {
            source: Ground(
                there[source].topic_id,
                changelog,
                Mark(version, partitions, there[changelog].topic_id, version_topic_id),
            )
            for source, changelog in changelogs.items()
        }


def notification_bytes(offsets: Offsets) -> int:
    """What the broker really takes of one, or nearly always does; never more than an inbox can keep. Blocks."""
    with suppress(TimeoutError):
        found = offsets.largest_record(topics.TASK_NOTIFICATIONS.name)
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
