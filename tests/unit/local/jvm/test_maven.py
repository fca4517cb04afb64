"""What people read when Maven is missing or fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from taskbridge.local.errors import StackError
from taskbridge.local.jvm.maven import copy_dependencies

if TYPE_CHECKING:
    from pathlib import Path


def fake_maven(folder: Path, script: str) -> dict[str, str]:
    program = folder / "mvn"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def test_without_maven_one_line_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StackError) as caught:
        copy_dependencies(tmp_path, log_path=tmp_path / "log", progress=print, environ={"PATH": str(tmp_path)})

    message = str(caught.value)
    assert "\n" not in message
    assert "install it" in message
    assert "Docker" in message
    assert "TASKBRIDGE_KAFKA_BOOTSTRAP_SERVERS and TASKBRIDGE_SCHEMA_REGISTRY_URL" in message


def test_a_failure_gives_mavens_own_reason_and_where_the_rest_is(tmp_path: Path) -> None:
    environ = fake_maven(
        tmp_path, "echo '[INFO] scanning'; echo '[ERROR] Could not resolve'; echo '[ERROR] more'; exit 1"
    )

    with pytest.raises(StackError, match=rf"\(Could not resolve\); see {tmp_path}/log") as caught:
        copy_dependencies(tmp_path, log_path=tmp_path / "log", progress=print, environ=environ)

    assert "\n" not in str(caught.value)


def test_a_full_disk_is_named_as_such(tmp_path: Path) -> None:
    environ = fake_maven(tmp_path, "echo '[ERROR] Failed'; echo 'java.io.IOException: No space left on device'; exit 1")

    with pytest.raises(StackError, match="no space left on device"):
        copy_dependencies(tmp_path, log_path=tmp_path / "log", progress=print, environ=environ)


def test_a_slow_fetch_reports_how_far_it_is(tmp_path: Path) -> None:
    environ = fake_maven(tmp_path, "echo 'Downloaded from a'; echo 'Downloaded from b'; sleep 2.4")
    lines: list[str] = []

    copy_dependencies(tmp_path, log_path=tmp_path / "log", progress=lines.append, environ=environ)

    assert lines[1] == "downloading: 2 files so far, 2 s"
