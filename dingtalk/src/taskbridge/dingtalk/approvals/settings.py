"""The settings of the service for DingTalk's own approvals, from the environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from taskbridge.runtime.settings import NotBlank, Port, ProcessSettings, Url
from taskbridge.runtime.standard_webhooks import key_of


def _is_key(secret: SecretStr) -> SecretStr:
    key_of(secret.get_secret_value())
    return secret


class ApprovalsSettings(ProcessSettings):
    """Each field is read from ``APPROVALS_`` plus its name in capitals. The reference quotes its text."""

    model_config = SettingsConfigDict(env_prefix="APPROVALS_")

    app_key: NotBlank
    """Client ID of the DingTalk application that subscribes to the events."""
    app_secret: Annotated[SecretStr, Field(min_length=1)]
    """Its Client Secret."""
    edge_url: Url
    """URL of the edge to which events are posted."""
    source: NotBlank = "dingtalk"
    """Name of the source in the edge's credentials file."""
    source_secret: Annotated[SecretStr, AfterValidator(_is_key)]
    """The `whsec_…` secret of that source."""
    remarks: bool = False
    """Whether events and states contain the remarks that people leave with a decision."""
    calls_per_day: Annotated[int, Field(ge=1)] = 80
    """Calls of DingTalk's API on a day in China, after which this process does not look for what it missed."""
    port: Port = 8610
    """Port on which health and metrics are served."""
    api_url: Url = "https://api.dingtalk.com"
    """URL of DingTalk's API."""
