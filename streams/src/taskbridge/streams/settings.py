"""The settings of the streams service, all from the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from taskbridge.runtime.settings import Port, ServiceSettings
from taskbridge.schemas.topics import REPLAYED_DAYS


class StreamsSettings(ServiceSettings):
    """Each field is the environment variable ``STREAMS_`` and its name in capitals; the reference has its text."""

    model_config = SettingsConfigDict(env_prefix="STREAMS_")

    port: Port = 8510
    """Port of health and metrics. `0` chooses a free port."""
    data_dir: Path = Path("taskbridge-streams")
    """Folder with the worker's local state. Each worker needs its own: a second worker in it does not start."""
    retention_days: int = Field(0, ge=0)
    """Days that an instance without open tasks is stored after its last event. `0`: for ever. Otherwise at least 30, so
    that replayed dead letters do not make it pending again. Deleted instances are stored for 30 days."""
    state_form_fields: str = ""
    """Form fields whose values states contain, for the data platform: names, comma-separated, or `*` for all. At most 8
    KiB per instance. Everyone who may read states can read them. Set the same value on all workers. `--rebuild` adds
    them to existing states."""
    standbys: int = Field(1, ge=0)
    """Number of other workers that hold a standby copy of each partition's states."""
    session_timeout_s: float = Field(6.0, gt=0, le=60)
    """Seconds after which a worker that sends no heartbeat loses its partitions."""

    @field_validator("retention_days")
    @classmethod
    def _outlives_replays(cls, days: int) -> int:
        if 0 < days < REPLAYED_DAYS:
            raise ValueError(
                f"must be 0 (for ever) or at least {REPLAYED_DAYS}: an event can be replayed for {REPLAYED_DAYS} days, "
                "and would make its task pending again"
            )
        return days

    @property
    def form_fields(self) -> frozenset[str]:
        return frozenset(each.strip() for each in self.state_form_fields.split(",")) - {""}
