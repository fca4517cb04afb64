"""Kafka and the Apicurio registry as files: downloaded once by Maven, verified, cached per user.

``artifacts.sha256`` lists what pom.xml resolves to. After a change of pom.xml, write it with ``tools/jar_sums.py`` and
review the difference; ``bootstrap.checkpoint`` belongs to Kafka's release too, and tests/integration/test_stack.py
compares it with what that release writes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from taskbridge.cli.terminal import Heartbeat, Progress
from taskbridge.local.child import Child
from taskbridge.local.host import locked, readable_os_errors, require_space
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

POM = Path(__file__).with_name("pom.xml")
ALTERNATIVES = "set TASKBRIDGE_KAFKA_BOOTSTRAP_SERVERS and TASKBRIDGE_SCHEMA_REGISTRY_URL to running services"
SUMS_PATH = Path(__file__).with_name("artifacts.sha256")

_WORK_PREFIX = "fetching-"
_NEEDED_MB = 700  # Maven's own copies, ours, and the registry unpacked
_REMEDY = f"free {_NEEDED_MB} MB there, or choose another folder with TASKBRIDGE_CACHE_DIR"


@dataclass(frozen=True)
class Artifacts:
    kafka_jars: Path
    registry_home: Path

    @staticmethod
    def of(home: Path) -> Artifacts:
        return Artifacts(kafka_jars=home / "kafka", registry_home=home / "registry")


def cache_folder(environ: Mapping[str, str]) -> Path:
    if chosen := environ.get("TASKBRIDGE_CACHE_DIR"):
        return Path(chosen).absolute()
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "taskbridge"


def copy_dependencies(
    into: Path, *, log_path: Path, progress: Progress, environ: Mapping[str, str] = os.environ
) -> None:
    """Download every file of pom.xml with Maven, checksums verified, into the folder ``into``.

    Raises ConfigurationError if Maven is missing or failed; the message says what to do.
    """
    maven = shutil.which("mvn", path=environ.get("PATH"))
    if maven is None:
        raise ConfigurationError(
            f"Maven (mvn) is needed once to download Kafka and the schema registry: install it, or {ALTERNATIVES}"
        )
    argv = [maven, "-B", "--strict-checksums", "-f", str(POM), f"-DoutputDirectory={into}"]
    argv.append("org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies")
    progress("downloading Kafka and the schema registry with Maven, once (about 235 MB)")
    heartbeat = Heartbeat(progress)
    log_path.unlink(missing_ok=True)
    child = Child(argv, env=environ, cwd=None, log_path=log_path, orphan_signal=signal.SIGKILL)
    try:
        while not child.has_ended():
            time.sleep(0.1)
            heartbeat.beat(f"downloading: {log_path.read_bytes().count(b'Downloaded from')} files so far")
    finally:
        status = child.end(signal.SIGKILL, timeout_s=0)
    if status != 0:
        raise ConfigurationError(_maven_failure(log_path))


def _maven_failure(log_path: Path) -> str:
    lines = log_path.read_text(errors="replace").splitlines()
    reason = next((line.removeprefix("[ERROR]").strip() for line in lines if line.startswith("[ERROR]")), "")
    if any("No space left on device" in line for line in lines):
        reason = "no space left on device"
    return (
        f"Maven could not download Kafka and the schema registry ({reason[:300] or 'no reason given'}); see"
        f" {log_path}, fix the cause and try again, or {ALTERNATIVES}"
    )


def ensure_artifacts(
    cache: Path, *, progress: Progress, sums_path: Path = SUMS_PATH, fetch: Callable[..., None] = copy_dependencies
) -> Artifacts:
    """Return artifacts that match ``sums_path`` to the byte, fetching them when the cache has none.

    A fetch becomes visible by one rename, after verification; two processes that start at the same time make one
    fetch.

    Raises ConfigurationError without Maven, network or disk space, or if a checksum is wrong.
    """
    # One folder per list of files: an upgrade never uses the files of an earlier version.
    home = cache / f"stack-{hashlib.sha256(sums_path.read_bytes()).hexdigest()[:16]}"
    if home.exists():
        return Artifacts.of(home)
    with readable_os_errors(cache, remedy=_REMEDY):
        cache.mkdir(parents=True, exist_ok=True)
        with locked(cache / "fetch.lock", progress=progress, waiting_for="waiting for another taskbridge to download"):
            if not home.exists():
                require_space(cache, needed_mb=_NEEDED_MB, remedy=_REMEDY)
                _fetch(cache, home, sums=read_sums(sums_path), progress=progress, fetch=fetch)
    return Artifacts.of(home)


def read_sums(sums_path: Path) -> dict[str, str]:
    """Return file name → SHA-256 in hex, as ``sha256sum`` writes them; lines with # are comments."""
    lines = [line.split() for line in sums_path.read_text().splitlines() if line and not line.startswith("#")]
    return {name: digest for digest, name in lines}


def verify(folder: Path, sums: Mapping[str, str]) -> None:
    """Check that ``folder`` holds exactly the files of ``sums``.

    Raises ConfigurationError if a file is missing, is not listed, or differs.
    """
    actual = sums_of(folder)
    for name in sorted(sums.keys() | actual.keys()):
        if actual.get(name) == sums.get(name):
            continue
        differs = f"has the SHA-256 {actual.get(name)} instead of the listed one"
        problem = "is missing" if name not in actual else "is not listed" if name not in sums else differs
        raise ConfigurationError(
            f"download rejected: {name} {problem} (in {SUMS_PATH.name}); delete it in ~/.m2/repository, then retry"
        )


def sums_of(folder: Path) -> dict[str, str]:
    sums: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as stream:
            sums[path.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return sums


def _fetch(cache: Path, home: Path, *, sums: Mapping[str, str], progress: Progress, fetch: Callable[..., None]) -> None:
    for leftover in cache.glob(f"{_WORK_PREFIX}*"):  # of a killed download: we hold the lock
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=_WORK_PREFIX, dir=cache) as work:
        downloads, made = Path(work, "downloads"), Path(work, "home")
        downloads.mkdir()
        fetch(downloads, log_path=cache / "maven.log", progress=progress)
        progress("verifying and unpacking")
        verify(downloads, sums)
        _arrange(downloads, Artifacts.of(made))
        made.rename(home)


def _arrange(downloads: Path, made: Artifacts) -> None:
    made.kafka_jars.mkdir(parents=True)
    for jar in downloads.glob("*.jar"):
        jar.rename(made.kafka_jars / jar.name)
    for archive in downloads.glob("*.tar.gz"):
        with tarfile.open(archive) as tar:
            tar.extractall(made.registry_home, filter="data")
