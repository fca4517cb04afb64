"""What a table holds and nobody can read ends the worker, in one line: which changelog it is of, and what mends it."""

from __future__ import annotations

import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from taskbridge.schemas.errors import OperatorError
from taskbridge.streams.fold.stored_instance import StoreUnreadable
from taskbridge.streams.positions.changelog_topic import mend
from taskbridge.streams.positions.kept_position import PositionUnreadable

if TYPE_CHECKING:
    from collections.abc import Generator

_UNREADABLE = (StoreUnreadable, PositionUnreadable, struct.error, msgspec.DecodeError)


class TableUnreadable(OperatorError):
    """A record of a changelog, and so of the stores that follow it, is not what a worker wrote."""


@contextmanager
def naming(changelog: str, partition: int) -> Generator[None]:
    """Around whatever reads the values of that table, and reads nothing else.

    Raises:
        TableUnreadable: in place of what says only that bytes are wrong.
    """
    try:
        yield
    except _UNREADABLE as error:
        raise TableUnreadable(f"{changelog}, partition {partition}: {error}. {mend(changelog)}") from error
