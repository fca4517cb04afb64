"""The commands of the documents, typed in a checkout where no group of developers' packages is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.center import databases
from support.wheels import ROOT, uv

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.center import Databases

__all__ = ["databases"]

pytestmark = [pytest.mark.consumers, pytest.mark.timeout(300)]


def test_the_tables_are_created_in_postgresql_as_the_documents_say(
    databases: Databases, disk_folder: Callable[[], Path]
) -> None:
    given = {
        "UV_PROJECT_ENVIRONMENT": str(disk_folder() / "environment"),
        "CENTER_DATABASE_URL": str(databases.empty_url("postgresql")),
        "WEBHOOKS_DATABASE_URL": str(databases.empty_url("postgresql")),
    }
    for service in ("center", "webhooks"):
        said = uv("run", "--quiet", "taskbridge", service, "--migrate", checkout=ROOT, **given)
        assert said.startswith("The database is at revision ")
