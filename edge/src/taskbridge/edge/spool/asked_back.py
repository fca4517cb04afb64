"""What was set aside is tried once more where an operator asks for it, in the running edge too.

The wish is a file beside the spool's own. Whoever owns that one lets go of it, and whoever opens it next takes back
what is set aside in it: so no other process ever writes to a file that is in use.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import structlog

from taskbridge.edge.spool.errors import SpoolFull
from taskbridge.edge.spool.recovery.recovery import open_or_recover

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from taskbridge.edge.spool.recovery.recovery import Opened
    from taskbridge.schemas.registry import SchemaRef

_log = structlog.stdlib.get_logger(__name__)


def ask_back(path: Path) -> None:
    """Have what Kafka refused of the spool file at ``path`` tried once more."""
    _wish(path).touch()


def is_asked_back(path: Path) -> bool:
    return _wish(path).exists()


def open_and_take_back(path: Path, schemas: Sequence[SchemaRef]) -> Opened:
    """As ``open_or_recover``, with what was asked back at its place among those that wait; later, where no room is.

    Raises:
        SpoolFull, SpoolBusy: it cannot be opened now.
        SpoolBroken: the disk fails; the next attempt replaces the file.
    """
    opened = open_or_recover(path, schemas)
    if is_asked_back(path):
        try:
            with contextlib.suppress(SpoolFull):
                _log.info("spool_records_requeued", file=str(path), records=opened.store.take_back())
                _wish(path).unlink(missing_ok=True)
        except BaseException:
            opened.store.abandon()
            raise
    return opened


def _wish(path: Path) -> Path:
    return path.with_suffix(".take-back")
