"""Checks of the task center's settings before anything starts, for ``up`` and ``doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.center.access.access import build_access
from taskbridge.center.access.oidc import provider_of
from taskbridge.center.actions.systems import systems_of
from taskbridge.center.assistants.rules import RulesFile
from taskbridge.center.reminders.file import RemindersFile
from taskbridge.center.web.routes import origins_of
from taskbridge.runtime.database import open_database

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskbridge.center.settings import CenterSettings


def check_settings(settings: CenterSettings) -> None:
    """Check settings that must fit together, and the files that they name, without Kafka and the database.

    Raises ConfigurationError as the service does at its start.
    """
    provider_of(settings, _nobody)
    origins_of(settings.allowed_origins)
    if settings.database_url is not None:
        # It connects at the first query only.
        open_database(settings.database_url.get_secret_value(), settings.data_dir, service="center").close()
    build_access(settings)
    systems_of(settings)
    if settings.reminders_file is not None:
        RemindersFile(settings.reminders_file)
    if settings.mcp_rules_file is not None:
        RulesFile(settings.mcp_rules_file)


async def _nobody(_corp_id: str, _kind: str | None, _value: str) -> Sequence[str]:
    return ()
