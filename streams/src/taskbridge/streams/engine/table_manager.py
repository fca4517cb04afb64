"""What Faust asks for its tables: its own manager, with somebody else's recovery in place of its own.

Found by Faust as the setting ``TableManager``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

from faust.tables import TableManager

if TYPE_CHECKING:
    import asyncio

    from faust.types import TP


class Recovers(Protocol):
    """What the manager asks of a recovery: ``streams.tables.recovery``, a service of Faust's."""

    completed: asyncio.Event

    @property
    def started(self) -> bool: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def on_partitions_revoked(self, revoked: set[TP]) -> None: ...
    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None: ...


class Tables(TableManager):
    """Faust's tables, recovered by whoever ``recover_by`` names."""

    @property
    def changelogs(self) -> dict[str, Any]:
        """The tables by the name of their changelog topic."""
        return dict(self._changelogs)

    def recover_by(self, recovery: Recovers) -> None:
        """Before the app is started: there is none otherwise."""
        self._recovery = cast("Any", recovery)

    @property
    def recovery(self) -> Any:
        assert self._recovery is not None, "recover_by comes before the app is started"
        return self._recovery

    async def on_start(self) -> None:
        # Without the second that Faust waits here for agents that are not declared yet: ours all are.
        await self._update_channels()
        await self.recovery.start()
