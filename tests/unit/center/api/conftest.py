"""A replica that answers queries from rows, on both databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

from support.center_rows import AnsweringCenter
from taskbridge.center.access.access import Access

if TYPE_CHECKING:
    from collections.abc import Generator

    from taskbridge.runtime.database import Database


@pytest.fixture
def center(database: Database) -> Generator[AnsweringCenter]:
    found = AnsweringCenter(database, Access(tokens=None, rate_per_s=1e6))
    yield found
    found.close()


@pytest.fixture
def client(center: AnsweringCenter) -> Generator[TestClient]:
    with TestClient(center.http()) as client:
        yield client
