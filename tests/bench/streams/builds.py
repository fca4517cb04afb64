"""Builds what peers need in addition to this environment: Java, a venv for Quix Streams, and the Rust loop."""

from __future__ import annotations

import json
import os
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.streams.peers.job import MARKS_SCHEMA, without_logical_types
from tests.bench.toolchains import CHECKOUT, SCHEMAS, ToolMissing, built, need

from taskbridge.runtime.kafka import consumer_config, producer_config
from taskbridge.schemas.events import ID_NAMESPACE
from taskbridge.schemas.topics import TASK_EVENTS, TASK_NOTIFICATIONS, TASK_STATES
from taskbridge.streams.cores.core import MAX_PUBLISHED_BYTES
from taskbridge.streams.cores.native import HEADERS, RULES
from taskbridge.streams.engine.joint_producer import TRANSACTION_TIMEOUT_MS

if TYPE_CHECKING:
    from tests.bench.streams.setup import Setup

    from taskbridge.cli.terminal import Progress
    from taskbridge.schemas.topics import Topic


_HERE = Path(__file__).parent
_JAVA = _HERE / "kafka_streams"
_RECORDS = ("TaskEvent", "TaskState", "TaskNotification")


def build_kafka_streams(progress: Progress) -> Path:
    """The folder with ``job.jar`` and ``lib``.

    Raises:
        ToolMissing: no Maven.
        OperatorError: it does not build.
    """
    maven = need("mvn", "apt-get install maven")
    schemas = [SCHEMAS / f"{record}.avsc" for record in _RECORDS]
    argv = [maven, "-B", "-q", "-DskipTests", "-Dbuild.folder={into}", "package"]
    return built("kafka-streams", [_JAVA, *schemas], argv, _JAVA, progress, prepare=_write_schemas)


def build_quix(progress: Progress) -> Path:
    """The Python of an environment that has Quix Streams.

    Raises:
        ToolMissing: no uv.
        OperatorError: it cannot be installed.
    """
    # In the checkout's own .uv it is not on the PATH, but sets UV to its own path.
    uv = os.environ.get("UV") or need("uv", "see https://docs.astral.sh/uv")
    requirements = _HERE / "peers" / "quix-requirements.txt"
    # From a folder outside the checkout: within, uv would hold the peer to the project's own versions.
    script = f"cd {{into}} && {uv} venv -q venv && {uv} pip install -q -p venv -r {requirements}"
    argv = ["sh", "-c", script]
    return built("quix", [requirements], argv, _HERE, progress) / "venv" / "bin" / "python"


def _write_schemas(into: Path) -> None:
    folder = into / "avro"
    folder.mkdir()
    for record in _RECORDS:
        schema = json.loads((SCHEMAS / f"{record}.avsc").read_text("utf-8"))
        (folder / f"{record}.avsc").write_text(json.dumps(without_logical_types(schema)), "utf-8")
    (folder / MARKS_SCHEMA.name).write_bytes(MARKS_SCHEMA.read_bytes())


CRATE = Path(__file__).parent / "rust_loop"
CORE = CHECKOUT / "native"

_LIBCLANG = (
    "/usr/lib/llvm*/lib/libclang[-.][0-9s]*",
    "/usr/lib/*/libclang[-.][0-9s]*",
    "/usr/lib*/libclang[-.][0-9s]*",
    "/Library/Developer/CommandLineTools/usr/lib/libclang.dylib",
)
"""Where the crate that reads RocksDB's header looks for it, and LIBCLANG_PATH."""


def build_rust_loop(progress: Progress) -> Path:
    """The program. Compiling librdkafka and RocksDB, once, takes a quarter of an hour on two cores.

    Raises:
        ToolMissing: no cargo, C++ compiler, make or libclang.
        OperatorError: it does not build.
    """
    cargo = need("cargo", "see https://rustup.rs")
    for program in ("g++", "make"):
        need(program, "apt-get install build-essential")
    if "LIBCLANG_PATH" not in os.environ and not any(map(glob, _LIBCLANG)):
        raise ToolMissing("libclang is not installed: apt-get install libclang-dev, or say where in LIBCLANG_PATH")
    # Outside the stored build: after a change of the sources, only they are compiled, in seconds.
    target = "{into}/../rust-loop-target"
    script = f"{cargo} build --release --locked --target-dir {target} && cp {target}/release/rust-loop {{into}}"
    sources = [CRATE / "Cargo.toml", CRATE / "Cargo.lock", CRATE / "src", CORE / "Cargo.toml", CORE / "src"]
    return built("rust-loop", sources, ["sh", "-c", script], CRATE, progress) / "rust-loop"


def given(setup: Setup) -> str:
    """What the loop shares with the service: its producers' settings, the rules of its fold, its records' headers."""
    servers = setup.bootstrap_servers

    def frame(topic: Topic) -> list[int]:
        return [0, *setup.schema_id(topic).to_bytes(4, "big")]

    found: dict[str, Any] = {
        # As `streams.worker` has it: what waits goes at once.
        "producer": {
            **producer_config(servers),
            "linger.ms": 0,
            "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
        },
        "consumer": {**consumer_config(servers, "its own"), "isolation.level": "read_committed"},
        **RULES,
        "id_namespace": list(ID_NAMESPACE),
        "max_published_bytes": MAX_PUBLISHED_BYTES,
        "event_frame": frame(TASK_EVENTS),
        "state_frame": frame(TASK_STATES),
        "notification_frame": frame(TASK_NOTIFICATIONS),
        **HEADERS,
    }
    return json.dumps(found, default=bytes.decode)
