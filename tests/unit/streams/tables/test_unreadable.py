"""Bytes that nobody can read are told with the changelog that they are of, and the command that makes it anew."""

from __future__ import annotations

import struct

import msgspec
import pytest

from taskbridge.streams.fold.stored_instance import StoreUnreadable
from taskbridge.streams.positions.changelog_topic import INBOX_CHANGELOG, REBUILD, REPUBLISH, instances_changelog
from taskbridge.streams.positions.kept_position import PositionUnreadable
from taskbridge.streams.tables.store import PartitionNotHeld
from taskbridge.streams.tables.unreadable import TableUnreadable, naming


@pytest.mark.parametrize(
    ("changelog", "command"), [(instances_changelog(2).name, REBUILD), (INBOX_CHANGELOG.name, REPUBLISH)]
)
@pytest.mark.parametrize(
    "error", [StoreUnreadable("why"), PositionUnreadable("why"), struct.error("why"), msgspec.DecodeError("why")]
)
def test_it_is_said_where_it_is_and_what_mends_it(changelog: str, command: str, error: Exception) -> None:
    with pytest.raises(TableUnreadable) as told, naming(changelog, 3):
        raise error
    assert str(told.value).startswith(f"{changelog}, partition 3: why. ")
    assert str(told.value).endswith(command)


def test_whatever_else_goes_wrong_stays_what_it_is() -> None:
    with pytest.raises(PartitionNotHeld), naming(INBOX_CHANGELOG.name, 3):
        raise PartitionNotHeld("elsewhere")
