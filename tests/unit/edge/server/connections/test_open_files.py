"""The edge never takes more connections than it may open files, and asks for as many as it is allowed."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from taskbridge.edge.server.connections.gate import OWN_FILES, with_open_files

if TYPE_CHECKING:
    from taskbridge.edge.settings import EdgeSettings

ENDLESS = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("limits", "asked", "connections"),
    [
        ((256, 4096), 1000 + OWN_FILES, 1000),
        ((256, ENDLESS), 1000 + OWN_FILES, 1000),
        ((256, 512), 512, 512 - OWN_FILES),
        ((64, 64), 64, 1),
        ((4096, 4096), None, 1000),
        ((ENDLESS, ENDLESS), None, 1000),
    ],
)
def test_connections_fit_into_what_may_be_open(
    settings: EdgeSettings,
    monkeypatch: pytest.MonkeyPatch,
    limits: tuple[int, int],
    asked: int | None,
    connections: int,
) -> None:
    set_to: list[tuple[int, int]] = []

    def get(_which: int) -> tuple[int, int]:
        return limits

    def change(_which: int, changed: tuple[int, int]) -> None:
        set_to.append(changed)

    monkeypatch.setattr(resource, "getrlimit", get)
    monkeypatch.setattr(resource, "setrlimit", change)
    with capture_logs() as lines:
        assert with_open_files(settings).max_connections == connections
    assert set_to == ([] if asked is None else [(asked, limits[1])])
    assert bool(lines) is (connections < 1000)
