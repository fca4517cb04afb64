from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from taskbridge.center.live.hub import Hub

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture(autouse=True)
def closed_hubs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """At a test's end no hub still reads from its database, which is closed after this."""
    for name in {"database", "sqlite_database", "databases"} & set(request.fixturenames):
        request.getfixturevalue(name)
    hubs: list[Hub] = []
    whole = Hub.__post_init__

    def remember(self: Hub, *given: Any) -> None:
        hubs.append(self)
        whole(self, *given)

    monkeypatch.setattr(Hub, "__post_init__", remember)
    yield
    for each in hubs:
        each.reader.close()
