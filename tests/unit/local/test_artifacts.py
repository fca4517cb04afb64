"""A download is used only when it is complete and every file has the listed checksum; errors of Maven are readable."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from taskbridge.local.artifacts import SUMS_PATH, cache_folder, copy_dependencies, ensure_artifacts, read_sums
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


def test_leftovers_of_a_killed_fetch_are_removed(maven: FakeMaven, sums_path: Path, tmp_path: Path) -> None:
    leftover = tmp_path / "cache" / "fetching-abc" / "downloads"
    leftover.mkdir(parents=True)

    ensure_artifacts(tmp_path / "cache", progress=silent, sums_path=sums_path, fetch=maven)

    assert not leftover.parent.exists()


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


def test_a_cache_that_cannot_be_created_is_one_readable_line(maven: FakeMaven, sums_path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(
        ConfigurationError, match=r"^cannot write to .*file.* \(Not a directory\): .*TASKBRIDGE_CACHE_DIR$"
    ):
        ensure_artifacts(tmp_path / "file" / "cache", progress=silent, sums_path=sums_path, fetch=maven)


def test_a_disk_that_fills_up_is_one_readable_line(sums_path: Path, tmp_path: Path) -> None:
    def fill(into: Path, **_: Any) -> None:
        raise OSError(28, "No space left on device", str(into))

    with pytest.raises(ConfigurationError, match=r"No space left on device\): free \d+ MB there"):
        ensure_artifacts(tmp_path, progress=silent, sums_path=sums_path, fetch=fill)


def test_the_cache_folder_is_chosen_by_the_environment(tmp_path: Path) -> None:
    assert cache_folder({"TASKBRIDGE_CACHE_DIR": f"{tmp_path}/c", "XDG_CACHE_HOME": "/x"}) == tmp_path / "c"
    assert str(cache_folder({"XDG_CACHE_HOME": "/x"})) == "/x/taskbridge"
    assert cache_folder({}).parts[-2:] == (".cache", "taskbridge")


def test_the_listed_files_are_those_that_the_stack_runs() -> None:
    sums = read_sums(SUMS_PATH)

    assert {"kafka_2.13-4.3.1.jar", "kafka-tools-4.3.1.jar", "apicurio-registry-app-3.3.3-all.tar.gz"} <= sums.keys()
    assert all(len(digest) == 64 for digest in sums.values())


def fake_maven(folder: Path, script: str) -> dict[str, str]:
    program = folder / "mvn"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def test_without_maven_one_line_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        copy_dependencies(tmp_path, log_path=tmp_path / "log", progress=print, environ={"PATH": str(tmp_path)})

    message = str(caught.value)
    assert "\n" not in message
    assert "install it" in message
    assert "TASKBRIDGE_KAFKA_BOOTSTRAP_SERVERS and TASKBRIDGE_SCHEMA_REGISTRY_URL" in message


def test_a_failure_gives_mavens_own_reason_and_where_the_rest_is(tmp_path: Path) -> None:
    environ = fake_maven(
        tmp_path, "echo '[INFO] scanning'; echo '[ERROR] Could not resolve'; echo '[ERROR] more'; exit 1"
    )

    with pytest.raises(ConfigurationError, match=rf"\(Could not resolve\); see {tmp_path}/log") as caught:
        copy_dependencies(tmp_path, log_path=tmp_path / "log", progress=print, environ=environ)

    assert "\n" not in str(caught.value)


def test_a_full_disk_is_named_as_such(tmp_path: Path) -> None:
    environ = fake_maven(tmp_path, "echo '[ERROR] Failed'; echo 'java.io.IOException: No space left on device'; exit 1")

    with pytest.raises(ConfigurationError, match="no space left on device"):
        copy_dependencies(tmp_path, log_path=tmp_path / "log", progress=print, environ=environ)


def test_a_slow_fetch_reports_its_progress(tmp_path: Path) -> None:
    environ = fake_maven(tmp_path, "echo 'Downloaded from a'; echo 'Downloaded from b'; sleep 2.4")
    lines: list[str] = []

    copy_dependencies(tmp_path, log_path=tmp_path / "log", progress=lines.append, environ=environ)

    assert lines[1] == "downloading: 2 files so far, 2 s"
