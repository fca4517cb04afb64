"""Workers that answer queries, without Kafka."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from api_context import QueryDesk
from taskbridge.streams.api.access import Access

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path


@pytest.fixture
def make_desk(tmp_path: Path) -> Generator[Callable[[Access], QueryDesk]]:
    made: list[QueryDesk] = []

    def make(access: Access) -> QueryDesk:
        context = QueryDesk(tmp_path / f"worker-{len(made)}", access)
        made.append(context)
        return context

    yield make
    for context in made:
        context.close()


@pytest.fixture
def context(make_desk: Callable[[Access], QueryDesk]) -> QueryDesk:
    """One that is open to its machine."""
    return make_desk(Access(tokens=None))
