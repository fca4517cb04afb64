"""The settings of webhooks, all from the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import SettingsConfigDict

from taskbridge.runtime.settings import DatabaseSettings, Networks, Port


class WebhooksSettings(DatabaseSettings):
    """Each field is the environment variable ``WEBHOOKS_`` and its name in capitals; the reference has its text."""

    model_config = SettingsConfigDict(env_prefix="WEBHOOKS_")

    endpoints_file: Path
    """TOML file with the endpoints. Changes are loaded without a restart."""
    port: Port = 8700
    """Port on which they are served. `0` chooses a free port."""
    data_dir: Path = Path("taskbridge-webhooks")
    api_tokens_file: Path | None = None
    """File with the tokens of operators, in the form of `CENTER_API_TOKENS_FILE`, each for all corps (`["*"]`). Without
    one, the operators' API is open on loopback and closed on other addresses. Changes are loaded without a restart."""
    allowed_networks: Networks = ()
    """Networks (CIDR, comma-separated) that endpoints may be in although they are not public, such as
    `10.20.0.0/16`."""
