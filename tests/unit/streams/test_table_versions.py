"""Which version is live is said in one record; the first one has the names that there were before versions."""

from __future__ import annotations

import pytest

from taskbridge.streams.table_versions import (
    FIRST_VERSION,
    Republished,
    Versions,
    VersionUnreadable,
    instances_changelog,
    instances_table_name,
    read_told,
    read_versions,
    write_told,
    write_versions,
)


@pytest.mark.parametrize("versions", [Versions(), Versions(3), Versions(3, 4), Versions(3, 4, 24)])
def test_what_is_said_is_understood(versions: Versions) -> None:
    assert read_versions(write_versions(versions)) == versions


def test_what_an_earlier_program_said_is_understood() -> None:
    assert read_versions(b'{"live": 2, "next": null}') == Versions(2)


def test_how_far_everybody_was_told_is_understood_and_else_nobody_waits() -> None:
    told = Republished("topic", {0: 7, 11: 0})
    assert read_told(write_told(told)) == told
    assert [read_told(each) for each in (None, b"", b"7", b"{}", b'{"topic_id": "t", "ends": [1]}')] == [None] * 5


def test_where_nothing_is_said_the_first_is_live() -> None:
    assert read_versions(None) == Versions(FIRST_VERSION)


@pytest.mark.parametrize("written", [b"", b"2", b"{}", b'{"live": "x", "next": null}', b"\xff"])
def test_what_nobody_here_said_is_not_guessed_at(written: bytes) -> None:
    with pytest.raises(VersionUnreadable):
        read_versions(written)


def test_each_version_has_a_changelog_of_its_own() -> None:
    assert instances_changelog(1).name == "taskbridge-streams-instances-changelog"
    assert instances_changelog(12).name == "taskbridge-streams-instances-v12-changelog"
    assert instances_table_name(12) == "instances-v12"
