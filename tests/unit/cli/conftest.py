"""Fixtures of all tests of commands."""

from __future__ import annotations

from unittest.mock import Mock

import pytest


@pytest.fixture(autouse=True)
def _something_listens(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    """Where a bridge without flags would, as far as commands ask; what they read there is a test's own."""
    monkeypatch.setattr("taskbridge.cli.data_folder.is_listened_on", Mock(return_value=True))
