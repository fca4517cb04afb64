"""What the harness gives a peer, by environment: ``PEER_*``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tests.bench.streams.peers.job import Job


@dataclass(frozen=True, slots=True)
class Given:
    bootstrap_servers: str
    events_topic: str
    states_topic: str
    notifications_topic: str
    changelog_topic: str
    group: str
    state_dir: Path
    ready_file: Path
    partitions: int
    linger_ms: int
    job: Job

    @staticmethod
    def read() -> Given:
        def setting(name: str) -> str:
            return os.environ[f"PEER_{name}"]

        return Given(
            bootstrap_servers=setting("BOOTSTRAP_SERVERS"),
            events_topic=setting("EVENTS_TOPIC"),
            states_topic=setting("STATES_TOPIC"),
            notifications_topic=setting("NOTIFICATIONS_TOPIC"),
            changelog_topic=setting("CHANGELOG_TOPIC"),
            group=setting("GROUP"),
            state_dir=Path(setting("STATE_DIR")),
            ready_file=Path(setting("READY_FILE")),
            partitions=int(setting("PARTITIONS")),
            linger_ms=int(setting("LINGER_MS")),
            job=Job(
                state_schema_id=int(setting("STATE_SCHEMA_ID")),
                notification_schema_id=int(setting("NOTIFICATION_SCHEMA_ID")),
            ),
        )

    def report_ready(self) -> None:
        """All states are restored, and events are being processed from now on."""
        self.ready_file.touch()
