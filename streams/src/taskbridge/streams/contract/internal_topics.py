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
    """What a worker finds that would start."""

    topics: Mapping[str, Found]
    marks: Mapping[str, Sequence[Mark | None]]
    """By topic, of each position that the group has in it; None where an earlier program wrote it."""
    versions: Versions
    """What is said; where nothing is said, the newest version that a position names."""
    is_said: bool = True
    unreadable: str | None = None
    """Why the record that says which version is live says none."""


def partitions_problem(counts: Mapping[str, int]) -> str | None:
    """What is wrong where topics that belong together have different numbers of partitions; ``counts`` by name."""
    if len(set(counts.values())) <= 1:
        return None
    told = ", ".join(f"{name} has {number}" for name, number in counts.items())
    return (
        f"the topics differ in their number of partitions, so that events are not where their states are: {told}."
        f" Bring all to one number: {REBUILD} --partitions N"
    )


def problem(found: Situation, *, task_center: bool) -> str | None:
    """Why no worker may start now, and which command mends it; None where all is well."""
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
        yield f"{lost}, while events are folded upon it. {mend(instances_changelog(live).name)}"
    told = found.marks.get(TASK_NOTIFICATIONS.name, ()) if task_center else ()
    lost = _lost(found, INBOX_CHANGELOG.name, {mark.changelog_id for mark in told if mark is not None})
    if told and lost is not None:
        yield f"{lost}, while notifications are in people's inboxes. {mend(INBOX_CHANGELOG.name)}"


def _of_version(found: Situation) -> Iterator[str]:
    say_anew = f"Which version of the states is live must be said anew: {REBUILD}"
    if found.unreadable is not None:
        yield f"{found.unreadable}. {say_anew}"
    marks = [mark for each in found.marks.values() for mark in each if mark is not None]
    # A rebuild since then has said it anew.
    of_live = [mark for mark in marks if mark.version >= found.versions.live]
    lost = _lost(found, VERSION_TOPIC.name, {mark.version_topic_id for mark in of_live}, is_state=False)
    if any(found.marks.values()) and lost is not None:
        yield f"{lost}. {say_anew}"
    topic = found.topics.get(VERSION_TOPIC.name)
    # An empty one is that of a group which has never had another version than the first.
    if topic is not None and not found.is_said and (topic.first > 0 or found.versions.live > FIRST_VERSION):
        yield f"{VERSION_TOPIC.name} was cut: it names no version. {say_anew}"
    if any(mark.version > found.versions.live for mark in marks):
        yield (
            f"{VERSION_TOPIC.name} has lost records: it says that version {found.versions.live} is live, and there are"
            f" states of version {max(mark.version for mark in marks)}. {say_anew}"
        )


def _of_numbers(found: Situation, together: Sequence[str]) -> Iterator[str]:
    live = found.versions.live
    recorded = {mark.partitions for each in found.marks.values() for mark in each if mark and mark.version == live}
    for name in together:
        if name in found.topics and recorded and recorded != {found.topics[name].partitions}:
            yield (
                f"{name} has {found.topics[name].partitions} partitions, and its events were folded in"
                f" {', '.join(map(str, sorted(recorded)))}: half of them would not find their states."
                f" Move the states to the number that is wanted: {REBUILD} --partitions N"
            )


def _lost(found: Situation, name: str, known: set[str], *, is_state: bool = True) -> str | None:
    topic = found.topics.get(name)
    if topic is None:
        return f"{name} is lost"
    if known - {topic.topic_id}:
        return f"{name} was deleted and made anew"
    if is_state and topic.first > 0:
        return f"{name} was cut: it begins at offset {topic.first}"
    return None
