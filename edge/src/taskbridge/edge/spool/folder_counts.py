"""What waits in a spool folder, of all processes that share it; nothing before it is prepared."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskbridge.edge.spool.files import SpoolFolder


class FolderCounts:
    """Reads the folder's occupancy, which every process keeps up for its own files."""

    def __init__(self, folder: SpoolFolder) -> None:
        self.folder = folder

    @property
    def waiting(self) -> int:
        """Undelivered records."""
        return self.folder.occupancy.total_count() if self.folder.is_prepared else 0

    @property
    def size(self) -> int:
        return self.folder.occupancy.total_bytes() if self.folder.is_prepared else 0

    @property
    def oldest_age_s(self) -> float:
        slots = self.folder.occupancy.slots().values() if self.folder.is_prepared else ()
        oldest = [each.oldest for each in slots if each.oldest]
        return max(0.0, time.time() - min(oldest) / 1e9) if oldest else 0.0

    @property
    def moving(self) -> int:
        """Those of them that can be delivered now, as far as is known."""
        return self.folder.occupancy.total_moving() if self.folder.is_prepared else 0

    def anything_moves(self) -> bool:
        return self.folder.is_prepared and self.folder.occupancy.anything_moves()
