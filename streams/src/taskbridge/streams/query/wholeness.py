"""Inboxes that are being made anew are not answered from until they hold all that was told for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faust.types import TP

from taskbridge.schemas.topics import TASK_NOTIFICATIONS
from taskbridge.streams.api.refusals import NotNow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskbridge.streams.engine.transport import Position

_LATER_S = 2.0


class Wholeness:
    """Of the inboxes of each partition."""

    def __init__(self, positions: Callable[[], Mapping[TP, Position]], told: Mapping[int, int]) -> None:
        """``positions``: how far each partition is applied. ``told``: how far it must be; the others are whole."""
        self._positions = positions
        self._missing = {partition: end for partition, end in told.items() if end > 0}

    def check(self, partition: int) -> None:
        """Return if the partition's inboxes are whole. Once they are, they stay so.

        Raises:
            NotNow: they are not yet.
        """
        if partition not in self._missing:
            return
        at = self._positions().get(TP(TASK_NOTIFICATIONS.name, partition))
        if at is None or at.offset < self._missing[partition]:
            raise NotNow("these lists are being made anew", retry_after_s=_LATER_S)
        del self._missing[partition]
