"""One record names the live version; the first version has the names from before there were versions."""

from __future__ import annotations

import pytest

from taskbridge.streams.table_versions import (
    FIRST_VERSION,
    Republished,
    Versions,
    VersionUnreadable,
    instances_changelog,
    instances_table_name,
    read_republished,
    read_versions,
    write_republished,
    write_versions,
)


@pytest.mark.parametrize("versions", [Versions(), Versions(3), Versions(3, 4), Versions(3, 4, 24)])
def test_versions_are_read_as_written(versions: Versions) -> None:
    assert read_versions(write_versions(versions)) == versions


def test_versions_of_an_earlier_program_are_read() -> None:
    assert read_versions(b'{"live": 2, "next": null}') == Versions(2)


def test_the_end_of_a_republication_is_read_and_else_nothing_waits() -> None:
    republished = Republished("topic", {0: 7, 11: 0})
    assert read_republished(write_republished(republished)) == republished
    assert [read_republished(each) for each in (None, b"", b"7", b"{}", b'{"topic_id": "t", "ends": [1]}')] == [
        None
    ] * 5


def test_without_a_record_the_first_version_is_live() -> None:
    assert read_versions(None) == Versions(FIRST_VERSION)


@pytest.mark.parametrize("written", [b"", b"2", b"{}", b'{"live": "x", "next": null}', b"\xff"])
def test_an_unknown_record_is_an_error(written: bytes) -> None:
    with pytest.raises(VersionUnreadable):
        read_versions(written)


def test_each_version_has_a_changelog_of_its_own() -> None:
    assert instances_changelog(1).name == "taskbridge-streams-instances-changelog"
    assert instances_changelog(12).name == "taskbridge-streams-instances-v12-changelog"
    assert instances_table_name(12) == "instances-v12"
