"""What Faust asks for its tables: its own manager, with ``streams.tables.recovery`` in place of its recovery.

Found by Faust as the setting ``TableManager``; where the app is built, it is told what recovery needs to know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

from faust.tables import TableManager

from taskbridge.streams.tables.recovery import Recovery

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskbridge.streams.transactions.takeover import Takeover


class ReaderSettings(NamedTuple):
    """How changelogs are read."""

    consumer: Mapping[str, object]
    batch_bytes: int


class Tables(TableManager):
    """Faust's tables, recovered by ``Recovery``."""

    reader_settings: ReaderSettings | None = None
    admit: Callable[[], None] | None = None
    """Raises where this worker may not work although it is in the group. Blocks; comes before all else."""
    known: frozenset[str] = frozenset()
    """The changelogs that the group's positions name: a store of another one is out of date."""
    on_emptied: Callable[[], None] | None = None
    """Notified when a damaged store is emptied."""
    takeover: Takeover | None = None
    """Makes this worker the only one that can write for its partitions, before they are restored."""
    _ours: Recovery | None = None

    @property
    def changelogs(self) -> dict[str, Any]:
        """The tables by the name of their changelog topic."""
        return dict(self._changelogs)

    @property
    def recovery(self) -> Any:
        if self._ours is None:
            self._ours = Recovery(cast("Any", self.app), self, beacon=self.beacon, loop=self.loop)
            self._recovery = cast("Any", self._ours)
        return self._ours

    async def on_start(self) -> None:
        # Without the second that Faust waits here for agents that are not declared yet: ours all are.
        await self._update_channels()
        await self.recovery.start()
