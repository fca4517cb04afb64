from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.live import new_database

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from taskbridge.center.database import Database


@pytest.fixture
def database(tmp_path: Path) -> Generator[Database]:
    found = new_database(tmp_path / "center")
    yield found
    found.close()
