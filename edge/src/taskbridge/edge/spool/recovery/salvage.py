"""What a damaged spool file still holds, put together from wherever a row can be read."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from taskbridge.edge.kafka.record import RowDamaged, record_of, row_of
from taskbridge.edge.spool.store import DAMAGED
from taskbridge.schemas.registry import SchemaRef

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskbridge.edge.kafka.record import Row, SpooledRecord

_RECORD_COLUMNS, _SET_ASIDE_COLUMNS, _SCHEMA_COLUMNS = 8, 9, 3
KEYED_BY_ROW_ID = (_RECORD_COLUMNS, _SET_ASIDE_COLUMNS)


@dataclass(slots=True)
class Salvage:
    """Rows of all tables, told apart by their columns; of each record the intact versions count."""

    schemas: set[SchemaRef] = field(default_factory=set[SchemaRef])
    _records: dict[tuple[int, int], SpooledRecord] = field(default_factory=dict[tuple[int, int], "SpooledRecord"])
    """By position and time: a position may have been used twice."""
    _set_aside: dict[int, Sequence[Any]] = field(default_factory=dict[int, "Sequence[Any]"])
    _damaged: dict[int, Sequence[Any]] = field(default_factory=dict[int, "Sequence[Any]"])

    def add(self, row: Sequence[Any], *, newest: bool) -> None:
        """Keep a row if it is intact; if it is not, and no older version of a page, keep it aside."""
        if len(row) == _SCHEMA_COLUMNS and all(isinstance(each, str) for each in row):
            schema = SchemaRef(row[1], row[2])
            with contextlib.suppress(ValueError):
                if schema.key == row[0]:
                    self.schemas.add(schema)
        elif len(row) == _SET_ASIDE_COLUMNS:
            self._set_aside[row[0]] = row
        elif len(row) == _RECORD_COLUMNS:
            try:
                record = record_of(row)
                self._records[record.position, record.created_at] = record
            except (RowDamaged, ValueError, TypeError):
                if newest:
                    self._damaged[row[0]] = row

    @property
    def records(self) -> list[Row]:
        """The intact ones, in order, each at a position of its own."""
        found: list[Row] = []
        for (position, created_at), record in sorted(self._records.items(), key=itemgetter(0)):
            found.append(
                row_of(record, position=max(position, found[-1][0] + 1 if found else 0), created_at=created_at)
            )
        return found

    @property
    def damaged(self) -> dict[int, Sequence[Any]]:
        """Those of which no version is intact."""
        intact = {position for position, _ in self._records}
        return {position: row for position, row in self._damaged.items() if position not in intact}

    @property
    def set_aside(self) -> list[Sequence[Any]]:
        """Set aside before, or damaged, with the reason; text that is none as bytes."""
        aside = {position: (*row, DAMAGED) for position, row in self.damaged.items()} | self._set_aside
        return [[_storable(each) for each in row] for row in aside.values()]


def _storable(value: Any) -> Any:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) and not value.isascii() else value
