"""The settings of land, all from the environment."""

from __future__ import annotations

from pydantic import SecretStr  # noqa: TC002 - pydantic resolves the annotation
from pydantic_settings import SettingsConfigDict

from taskbridge.runtime.settings import Port, ServiceSettings


class LandSettings(ServiceSettings):
    """Each field is the environment variable ``LAND_`` and its name in capitals; the reference has its text."""

    model_config = SettingsConfigDict(env_prefix="LAND_")

    to: SecretStr
    """The target: `postgresql://user:password@host/database`, `sqlite:///FILE`, or `parquet:FOLDER` with `--once`.
    `--to` sets it too."""
    port: Port = 8720
    """Port on which they are served. `0` chooses a free port."""
