from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from taskbridge.local.errors import StackError
from taskbridge.local.progress import Heartbeat, Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

POM = Path(__file__).with_name("pom.xml")
ALTERNATIVES = (
    "start Docker, or set TASKBRIDGE_KAFKA_BOOTSTRAP_SERVERS and TASKBRIDGE_SCHEMA_REGISTRY_URL to running services"
)


def copy_dependencies(
    into: Path, *, log_path: Path, progress: Progress, environ: Mapping[str, str] = os.environ
) -> None:
    """Download every file of pom.xml with Maven, checksums verified, into the folder ``into``.

    Raises:
        StackError: Maven is missing or failed; the message says what to do.
    """
    maven = shutil.which("mvn", path=environ.get("PATH"))
    if maven is None:
        raise StackError(
            f"Maven (mvn) is needed once to download Kafka and the schema registry: install it, or {ALTERNATIVES}"
        )
    argv = [maven, "-B", "--strict-checksums", "-f", str(POM), f"-DoutputDirectory={into}"]
    argv.append("org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies")
    progress("downloading Kafka and the schema registry with Maven, once (about 235 MB)")
    heartbeat = Heartbeat(progress)
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(environ),
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                time.sleep(0.1)
                heartbeat.beat(f"downloading: {_downloads(log_path)} files so far")
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)  # mvn is a script: kill its children too
                process.wait()
    if process.returncode != 0:
        raise StackError(_explain(log_path))


def _downloads(log_path: Path) -> int:
    return log_path.read_bytes().count(b"Downloaded from")


def _explain(log_path: Path) -> str:
    lines = log_path.read_text(errors="replace").splitlines()
    reason = next((line.removeprefix("[ERROR]").strip() for line in lines if line.startswith("[ERROR]")), "")
    if any("No space left on device" in line for line in lines):
        reason = "no space left on device"
    return (
        f"Maven could not download Kafka and the schema registry ({reason[:300] or 'no reason given'}); see"
        f" {log_path}, fix the cause and try again, or {ALTERNATIVES}"
    )
