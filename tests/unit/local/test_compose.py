"""deploy/compose/compose.yaml has the settings of the local stack, and only settings that the services know."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from taskbridge.center.settings import settings_class
from taskbridge.dingtalk.approvals.settings import ApprovalsSettings
from taskbridge.edge.settings import EdgeSettings
from taskbridge.landing.settings import LandSettings
from taskbridge.local.jvm import BROKER_PROPERTIES, H2_OPTIONS
from taskbridge.reconcile.settings import ReconcileSettings
from taskbridge.streams.settings import StreamsSettings
from taskbridge.webhooks.settings import WebhooksSettings

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings

ROOT = Path(__file__).parents[3]


def environment_of(service: str) -> dict[str, str]:
    composed: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text())["services"][service]
    return composed["environment"]


def test_kafka_and_the_registry_have_the_settings_of_the_local_stack() -> None:
    properties = {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in BROKER_PROPERTIES.items()}
    assert properties.items() <= environment_of("kafka").items()
    assert environment_of("registry")["APICURIO_DATASOURCE_URL"].endswith(H2_OPTIONS)


@pytest.mark.parametrize(
    ("service", "settings"),
    [
        ("edge", EdgeSettings),
        ("streams", StreamsSettings),
        ("center", settings_class()),
        ("reconcile", ReconcileSettings),
        ("webhooks", WebhooksSettings),
        ("approvals", ApprovalsSettings),
        ("land", LandSettings),
    ],
)
def test_every_variable_of_ours_is_a_setting_and_every_file_is_mounted(
    service: str, settings: type[BaseSettings]
) -> None:
    file = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text())
    composed, prefix = file["services"][service], f"{service.upper()}_"
    given: dict[str, str] = composed["environment"]
    assert given.keys() <= {prefix + name.upper() for name in settings.model_fields}
    # Those that need files of their own are profiles.
    profiles = {"reconcile", "webhooks", "approvals", "land"}
    assert composed.get("profiles") == ([service] if service in profiles else None)
    if service in ("approvals", "land"):
        assert not {"volumes", "ports"} & composed.keys(), "it stores nothing here, and nobody connects to it"
        return
    assert composed["volumes"][0] == f"{service}:/var/lib/taskbridge"
    assert service in file["volumes"]
    files = [value for name, value in given.items() if name.endswith("_FILE")]
    assert len(composed["volumes"]) == 1 + bool(files)
    for mounted in composed["volumes"][1:]:
        assert mounted["source"] == f"./{service}"
        assert all(value.startswith(f"{mounted['target']}/") for value in files)


def test_the_tables_are_made_in_the_database_of_the_task_center() -> None:
    services = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text())["services"]
    center, tables = (services[name]["environment"] for name in ("center", "tables"))
    assert tables.items() <= center.items()
    assert center["CENTER_DATABASE_URL"].startswith("postgresql://taskbridge:")
    assert services["postgres"]["environment"]["POSTGRES_PASSWORD"] in center["CENTER_DATABASE_URL"]
    assert "ports" not in services["postgres"]
