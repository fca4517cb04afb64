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
        def told(name: str) -> str:
            return os.environ[f"PEER_{name}"]

        return Given(
            bootstrap_servers=told("BOOTSTRAP_SERVERS"),
            events_topic=told("EVENTS_TOPIC"),
            states_topic=told("STATES_TOPIC"),
            notifications_topic=told("NOTIFICATIONS_TOPIC"),
            changelog_topic=told("CHANGELOG_TOPIC"),
            group=told("GROUP"),
            state_dir=Path(told("STATE_DIR")),
            ready_file=Path(told("READY_FILE")),
            partitions=int(told("PARTITIONS")),
            linger_ms=int(told("LINGER_MS")),
            job=Job(
                state_schema_id=int(told("STATE_SCHEMA_ID")),
                notification_schema_id=int(told("NOTIFICATION_SCHEMA_ID")),
            ),
        )

    def tell_ready(self) -> None:
        """All states are restored, and events are being processed from now on."""
        self.ready_file.touch()
