"""Targets of both kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.center import databases, dialect
from support.landing import Source, new_target

if TYPE_CHECKING:
    from collections.abc import Generator

    from support.center import Databases
    from taskbridge.runtime.database import Database

__all__ = ["databases", "dialect"]


@pytest.fixture
def target(databases: Databases, dialect: str) -> Generator[Database]:
    found = new_target(databases, dialect)
    yield found
    found.close()


@pytest.fixture
def source() -> Source:
    return Source()
