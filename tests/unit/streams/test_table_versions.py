"""One record names the live version; the first version has the names from before there were versions."""

from __future__ import annotations

import pytest

from taskbridge.streams.table_versions import (
    Versions,
    VersionUnreadable,
    instances_changelog,
    instances_table_name,
    read_versions,
    write_versions,
)


@pytest.mark.parametrize("versions", [Versions(), Versions(3), Versions(3, 4), Versions(3, 4, 24)])
def test_versions_are_read_as_written(versions: Versions) -> None:
    assert read_versions(write_versions(versions)) == versions


def test_versions_of_an_earlier_program_are_read() -> None:
    assert read_versions(b'{"live": 2, "next": null}') == Versions(2)


@pytest.mark.parametrize("written", [b"", b"2", b'{"live": "x", "next": null}', b"\xff"])
def test_an_unknown_record_is_an_error(written: bytes) -> None:
    with pytest.raises(VersionUnreadable):
        read_versions(written)


def test_each_version_has_a_changelog_of_its_own() -> None:
    assert instances_changelog(1).name == "taskbridge-streams-instances-changelog"
    assert instances_changelog(12).name == "taskbridge-streams-instances-v12-changelog"
    assert instances_table_name(12) == "instances-v12"
