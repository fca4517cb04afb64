from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.wheels import built

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Part → its wheel."""
    folder = tmp_path_factory.mktemp("wheels")
    return {
        part: built(part, folder)
        for part in ("schemas", "client", "runtime", "edge", "streams", "center", "reconcile", "cli", "local")
    }
