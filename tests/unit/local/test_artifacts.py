"""A download is used only when it is complete and every file has the listed checksum; errors of Maven are readable."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from taskbridge.local.artifacts import SUMS_PATH, cache_folder, ensure_artifacts, read_sums
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

JAR = b"the broker"


def registry_archive(member: str = "quarkus-run.jar") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        entry = tarfile.TarInfo(member)
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"run"))
    return buffer.getvalue()


class FakeMaven:
    """Delivers two small files, and counts how often it is asked."""

    def __init__(self) -> None:
        self.files = {"kafka.jar": JAR, "registry-all.tar.gz": registry_archive()}
        self.calls = 0

    def __call__(self, into: Path, **_: Any) -> None:
        self.calls += 1
        for name, content in self.files.items():
            (into / name).write_bytes(content)

    def write_sums(self, path: Path) -> Path:
        lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in self.files.items()]
        path.write_text("# a comment\n" + "".join(lines))
        return path


def silent(_: str) -> None:
    pass


@pytest.fixture
def maven() -> FakeMaven:
    return FakeMaven()


@pytest.fixture
def sums_path(maven: FakeMaven, tmp_path: Path) -> Path:
    return maven.write_sums(tmp_path / "sums")


def test_a_fetch_is_unpacked_once_and_found_again(maven: FakeMaven, sums_path: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    first = ensure_artifacts(cache, progress=silent, sums_path=sums_path, fetch=maven)
    second = ensure_artifacts(cache, progress=silent, sums_path=sums_path, fetch=maven)

    assert first == second
    assert maven.calls == 1
    assert (first.kafka_jars / "kafka.jar").read_bytes() == JAR
    assert (first.registry_home / "quarkus-run.jar").read_bytes() == b"run"


def test_a_tampered_jar_is_refused_and_leaves_nothing(maven: FakeMaven, sums_path: Path, tmp_path: Path) -> None:
    maven.files["kafka.jar"] = b"the brokeR"

    with pytest.raises(ConfigurationError, match=r"rejected: kafka\.jar has the SHA-256"):
        ensure_artifacts(tmp_path / "cache", progress=silent, sums_path=sums_path, fetch=maven)

    assert not list((tmp_path / "cache").glob("*/"))


@pytest.mark.parametrize(("change", "line"), [("missing", "is missing"), ("extra", "is not listed")])
def test_a_missing_or_an_extra_file_is_refused(
    change: str, line: str, maven: FakeMaven, sums_path: Path, tmp_path: Path
) -> None:
    if change == "missing":
        del maven.files["kafka.jar"]
    else:
        maven.files["more.jar"] = b"more"

    with pytest.raises(ConfigurationError, match=line):
        ensure_artifacts(tmp_path / "cache", progress=silent, sums_path=sums_path, fetch=maven)


def test_two_concurrent_first_runs_fetch_once(maven: FakeMaven, sums_path: Path, tmp_path: Path) -> None:
    def slowly(into: Path, **options: Any) -> None:
        time.sleep(0.3)
        maven(into, **options)

    def run() -> None:
        ensure_artifacts(tmp_path / "cache", progress=silent, sums_path=sums_path, fetch=slowly)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert maven.calls == 1


def test_an_archive_that_leaves_its_folder_is_refused(tmp_path: Path) -> None:
    maven = FakeMaven()
    maven.files["registry-all.tar.gz"] = registry_archive("../../escaped")
    sums_path = maven.write_sums(tmp_path / "sums")

    with pytest.raises(tarfile.OutsideDestinationError):
        ensure_artifacts(tmp_path / "cache", progress=silent, sums_path=sums_path, fetch=maven)

    assert not list(tmp_path.rglob("escaped"))


def test_the_cache_folder_is_chosen_by_the_environment(tmp_path: Path) -> None:
    assert cache_folder({"TASKBRIDGE_CACHE_DIR": f"{tmp_path}/c", "XDG_CACHE_HOME": "/x"}) == tmp_path / "c"
    assert str(cache_folder({"XDG_CACHE_HOME": "/x"})) == "/x/taskbridge"
    assert cache_folder({}).parts[-2:] == (".cache", "taskbridge")


def test_the_listed_files_are_those_that_the_stack_runs() -> None:
    sums = read_sums(SUMS_PATH)

    assert {"kafka_2.13-4.3.1.jar", "kafka-tools-4.3.1.jar", "apicurio-registry-app-3.3.3-all.tar.gz"} <= sums.keys()
    assert all(len(digest) == 64 for digest in sums.values())
