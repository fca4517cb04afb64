"""Whether a worker may start upon the topics that there are: decided of what Kafka has and positions say. Pure.

Where the group has positions, the events before them are folded and will not come again: what they came to must be
there. A changelog made anew beside such positions would have shells published over good states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from taskbridge.schemas.errors import ConfigurationError
from taskbridge.schemas.topics import TASK_EVENTS, TASK_NOTIFICATIONS, TASK_STATES
from taskbridge.streams.positions.changelog_topic import INBOX_CHANGELOG, REBUILD, instances_changelog, mend
from taskbridge.streams.positions.version import FIRST_VERSION, VERSION_TOPIC

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from taskbridge.streams.positions.mark import Mark
    from taskbridge.streams.positions.version import Versions


class StartRefused(ConfigurationError):
    """What the workers stand upon is lost or does not fit: a worker would publish what is wrong."""


class Found(NamedTuple):
    """A topic that is there."""

    topic_id: str
    partitions: int
    first: int = 0
    """The latest beginning of its partitions. That of a topic which is only compacted is 0, unless it was cut."""


class Situation(NamedTuple):
    """What a worker finds at its start."""

    topics: Mapping[str, Found]
    marks: Mapping[str, Sequence[Mark | None]]
    """By topic, of each position that the group has in it; None where an earlier program wrote it."""
    versions: Versions
    """What the topic says; if it says nothing, the newest version that a position names."""
    is_said: bool = True
    unreadable: str | None = None
    """Why the record with the live version cannot be read."""


def partitions_problem(counts: Mapping[str, int]) -> str | None:
    """What is wrong where topics that belong together have different numbers of partitions; ``counts`` by name."""
    if len(set(counts.values())) <= 1:
        return None
    told = ", ".join(f"{name} has {number}" for name, number in counts.items())
    return (
        f"topics have different numbers of partitions, so events are not in the partitions of their states: {told}."
        f" Move all to one number: {REBUILD} --partitions N"
    )


def problem(found: Situation, *, task_center: bool) -> str | None:
    """Why no worker may start now, and which command fixes it; None if there is no problem."""
    return next(_problems(found, task_center=task_center), None)


def _problems(found: Situation, *, task_center: bool) -> Iterator[str]:
    live = found.versions.live
    yield from _of_version(found)
    inbox = [INBOX_CHANGELOG] if task_center else []
    alike = [TASK_EVENTS, TASK_STATES, TASK_NOTIFICATIONS, instances_changelog(live), *inbox]
    together = [topic.name for topic in alike]
    differing = partitions_problem({name: found.topics[name].partitions for name in together if name in found.topics})
    if differing is not None:
        yield differing
    yield from _of_numbers(found, together)
    events = found.marks.get(TASK_EVENTS.name, ())
    # Those of an earlier version tell of another changelog: an earlier program's rebuild has come since.
    of_live = [mark for mark in events if mark is not None and mark.version == live]
    lost = _lost(found, instances_changelog(live).name, {mark.changelog_id for mark in of_live})
    if events and lost is not None:
        yield f"{lost}, but the group has processed events into it. {mend(instances_changelog(live).name)}"
    told = found.marks.get(TASK_NOTIFICATIONS.name, ()) if task_center else ()
    lost = _lost(found, INBOX_CHANGELOG.name, {mark.changelog_id for mark in told if mark is not None})
    if told and lost is not None:
        yield f"{lost}, but the group has applied notifications to it. {mend(INBOX_CHANGELOG.name)}"


def _of_version(found: Situation) -> Iterator[str]:
    set_again = f"Set the live version of the states again: {REBUILD}"
    if found.unreadable is not None:
        yield f"{found.unreadable}. {set_again}"
    marks = [mark for each in found.marks.values() for mark in each if mark is not None]
    # A later rebuild has set it again.
    of_live = [mark for mark in marks if mark.version >= found.versions.live]
    lost = _lost(found, VERSION_TOPIC.name, {mark.version_topic_id for mark in of_live}, is_state=False)
    if any(found.marks.values()) and lost is not None:
        yield f"{lost}. {set_again}"
    topic = found.topics.get(VERSION_TOPIC.name)
    # An empty one is that of a group which has never had another version than the first.
    if topic is not None and not found.is_said and (topic.first > 0 or found.versions.live > FIRST_VERSION):
        yield f"{VERSION_TOPIC.name} was truncated and names no version. {set_again}"
    if any(mark.version > found.versions.live for mark in marks):
        yield (
            f"{VERSION_TOPIC.name} has lost records: it names live version {found.versions.live}, but there are"
            f" states of version {max(mark.version for mark in marks)}. {set_again}"
        )


def _of_numbers(found: Situation, together: Sequence[str]) -> Iterator[str]:
    live = found.versions.live
    recorded = {mark.partitions for each in found.marks.values() for mark in each if mark and mark.version == live}
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
