"""The topics that a worker depends on are checked; a lost one is named, with the command that fixes it."""

from __future__ import annotations

import pytest
from faust.types import TP

from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.topics import TASK_EVENTS, TASK_NOTIFICATIONS, TASK_STATES
from taskbridge.streams.contract.start import Found, Situation, problem
from taskbridge.streams.table_versions import REBUILD, VERSION_TOPIC, Versions, instances_changelog
from taskbridge.streams.transactions.positions import (
    RECREATED,
    Bounds,
    Committed,
    Lineage,
    PositionUnreadable,
    RecordedPosition,
    ResumePosition,
    SourceTopic,
    is_after_loss,
    read_metadata,
    read_position,
    resume_position,
    write_metadata,
    write_position,
)

EVENTS, NOTIFICATIONS, INSTANCES, VERSION = (
    each.name for each in (TASK_EVENTS, TASK_NOTIFICATIONS, instances_changelog(2), VERSION_TOPIC)
)
TOPICS = {
    **{name: Found(f"id of {name}", 12) for name in (EVENTS, NOTIFICATIONS, TASK_STATES.name, INSTANCES)},
    VERSION: Found("id of the version", 1),
}
LINEAGE = Lineage(2, 12, f"id of {INSTANCES}", "id of the version")
GOOD = Situation(TOPICS, [LINEAGE, LINEAGE], Versions(2))


def but(situation: Situation = GOOD, **changed: Found | None) -> Situation:
    """The situation with other topics, or without them, by the name of a constant here."""
    named = {globals()[name]: found for name, found in changed.items()}
    left = {name: found for name, found in {**situation.topics, **named}.items() if found is not None}
    return situation._replace(topics=left)


@pytest.mark.parametrize(
    ("situation", "text", "command"),
    [
        (but(INSTANCES=None), f"{INSTANCES} is missing", REBUILD),
        (but(INSTANCES=Found("another", 12)), f"{INSTANCES} was deleted and recreated", REBUILD),
        (but(INSTANCES=TOPICS[INSTANCES]._replace(first=1)), f"{INSTANCES} was truncated", REBUILD),
        (but(VERSION=None), f"{VERSION} is missing", REBUILD),
        (but(VERSION=Found("another", 1)), f"{VERSION} was deleted and recreated", REBUILD),
        (GOOD._replace(is_recorded=False), f"{VERSION} has lost records", REBUILD),
        (GOOD._replace(unreadable="it says nonsense"), "it says nonsense", REBUILD),
        (but(GOOD._replace(versions=Versions(1))), "states of version 2", REBUILD),
        (but(EVENTS=Found("id", 24)), f"{EVENTS} has 24", f"{REBUILD} --partitions"),
        (but(NOTIFICATIONS=Found("id", 6)), f"{NOTIFICATIONS} has 6", f"{REBUILD} --partitions"),
        (
            GOOD._replace(topics={name: found._replace(partitions=24) for name, found in TOPICS.items()}),
            "built with 12",
            f"{REBUILD} --partitions",
        ),
    ],
)
def test_a_lost_topic_is_named_with_the_command_that_fixes_it(situation: Situation, text: str, command: str) -> None:
    found = problem(situation)
    assert found is not None
    assert text in found
    assert command in found


@pytest.mark.parametrize("name", ["INSTANCES", "VERSION"])
def test_positions_of_an_older_release_show_that_a_topic_existed(name: str) -> None:
    """They do not name it, so another topic in its place is accepted."""
    earlier = GOOD._replace(lineages=[None])
    assert problem(earlier) is None
    assert problem(but(earlier, **{name: None})) is not None
    assert problem(but(earlier, **{name: TOPICS[globals()[name]]._replace(topic_id="x")})) is None


def test_a_later_rebuild_by_an_older_release_is_recognised() -> None:
    lineages = [LINEAGE._replace(version=1, partitions=6, changelog_id="old", version_topic_id="old")]
    assert problem(GOOD._replace(lineages=lineages)) is None


def test_metadata_has_the_owner_and_the_mark() -> None:
    lineage = Lineage(2, 12, "Yg7-x_Q", "aB3dE")
    assert read_metadata(write_metadata("worker-1", lineage)) == ("worker-1", lineage)
    assert read_metadata(write_metadata("worker-1", None)) == ("worker-1", None)
    for foreign in (None, ""):
        assert read_metadata(foreign) == (None, None)
    assert read_metadata("somebody a b c d") == ("somebody", None)


def test_a_stored_position_is_read_as_it_was_written_and_never_guessed() -> None:
    recorded = RecordedPosition("id", 7)
    for each in (recorded, recorded._replace(after_loss=True)):
        assert read_position(write_position(each)) == each
    assert read_position(b'{"topic_id": "id", "offset": 7}') == recorded, "of an older release"
    assert read_position(None) is None
    for foreign in (b"", b"{}", b"7", b'{"topic_id": "id", "offset": "x"}'):
        with pytest.raises(PositionUnreadable):
            read_position(foreign)


SOURCE = TP(EVENTS, 3)
SOURCE_TOPIC = SourceTopic("id of the events", INSTANCES, LINEAGE)


def resumed(offset: int, recorded: RecordedPosition | None, *, lineage: Lineage | None = LINEAGE) -> ResumePosition:
    return resume_position(
        SOURCE,
        Committed(offset, "worker", is_stable=True, lineage=lineage),
        recorded,
        source_topic=SOURCE_TOPIC,
        bounds=Bounds(4, 10),
    )


@pytest.mark.parametrize(
    ("offset", "recorded", "goes_on_from", "reason"),
    [
        (7, 7, 7, None),
        (7, 9, 7, None),
        (10, 10, 10, None),
        (-1, None, 4, None),
        (-1, 7, 7, "expired"),
        (-1, 3, 4, "out-of-range"),
        (3, 3, 4, "out-of-range"),
        (11, 11, 4, "out-of-range"),
    ],
    ids=[
        "agrees",
        "moved-back-by-hand",
        "at-the-end",
        "new",
        "forgotten",
        "forgotten-long-ago",
        "deleted-unread",
        "cut",
    ],
)
def test_a_partition_resumes_where_nothing_is_missed(
    offset: int, recorded: int | None, goes_on_from: int, reason: str | None
) -> None:
    found = resumed(offset, None if recorded is None else RecordedPosition(SOURCE_TOPIC.source_id, recorded))
    assert (found.offset, found.reason) == (goes_on_from, reason)


def test_a_recreated_topic_is_read_from_its_start() -> None:
    assert resumed(-1, RecordedPosition("another", 7))[:2] == (4, RECREATED)


@pytest.mark.parametrize(
    ("recorded", "lost"),
    [
        (None, False),
        (RecordedPosition(SOURCE_TOPIC.source_id, 10), False),
        (RecordedPosition(SOURCE_TOPIC.source_id, 11), True),
        (RecordedPosition("another", 7), True),
        (RecordedPosition(SOURCE_TOPIC.source_id, 7, after_loss=True), True),
    ],
    ids=["new", "at-the-end", "the-end-is-lost", "recreated", "lost-before"],
)
def test_results_of_lost_records_are_marked_from_then_on(recorded: RecordedPosition | None, *, lost: bool) -> None:
    assert is_after_loss(recorded, source_id=SOURCE_TOPIC.source_id, end=10) is lost


@pytest.mark.parametrize(
    "recorded", [None, RecordedPosition(SOURCE_TOPIC.source_id, 6), RecordedPosition("another", 7)]
)
def test_a_changelog_that_is_behind_the_group_has_lost_its_end(recorded: RecordedPosition | None) -> None:
    with pytest.raises(OperatorError, match=f"{INSTANCES}, partition 3.*{REBUILD}"):
        resumed(7, recorded)
    assert resumed(7, recorded, lineage=LINEAGE._replace(changelog_id="before a rebuild")).offset == 7
    assert resumed(7, recorded, lineage=None).offset == 7, "of an older release, or moved by hand"
