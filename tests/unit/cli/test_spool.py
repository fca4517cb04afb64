"""Operators see what the spool holds and whether it is sound, while an edge runs and without one."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from support.edge.spool import open_spool, record
from taskbridge.cli import spool_files
from taskbridge.cli.program import app
from taskbridge.edge.spool.folder import SpoolFolder

if TYPE_CHECKING:
    from pathlib import Path


async def filled(folder: Path, count: int = 3) -> None:
    async with open_spool(folder) as spool:
        await asyncio.gather(*(spool.put(record(number)) for number in range(count)))


def run(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    return result.exit_code, [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]


def test_status_and_verify_with_a_running_edge_and_without_one(tmp_path: Path) -> None:
    folder = tmp_path / "edge" / "spool"

    async def scenario() -> None:
        async with open_spool(folder) as spool:
            await asyncio.gather(*(spool.put(record(number)) for number in range(3)))
            code, (found,) = await asyncio.to_thread(run, "spool", "status", "--data-dir", str(tmp_path))
            assert (code, found["file"], found["records"], found["problem"]) == (0, "0.db", 3, None)
            assert found["owner"]
            assert found["bytes"] > 0
            code, (found,) = await asyncio.to_thread(run, "spool", "verify", "--data-dir", str(tmp_path))
            assert (code, found["records"], found["damaged_positions"], found["problem"]) == (0, 3, [], None)

    asyncio.run(scenario())
    code, (found,) = run("spool", "status", "--data-dir", str(tmp_path / "edge"))
    assert (code, found["owner"], found["records"]) == (0, None, 3)


def test_verify_names_damaged_records_and_exits_with_1(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    asyncio.run(filled(folder))
    with sqlite3.connect(folder / "0.db") as connection:
        connection.execute("UPDATE records SET key = 'x' WHERE position = 2")
    connection.close()
    code, (found,) = run("spool", "verify", "--data-dir", str(tmp_path))
    assert (code, found["damaged_positions"]) == (1, [2])
    (folder / "0.db").write_bytes(b"nonsense")
    code, (found,) = run("spool", "verify", "--data-dir", str(tmp_path))
    assert code == 1
    assert found["problem"]
    code, (found,) = run("spool", "status", "--data-dir", str(tmp_path))
    assert code == 0
    assert "cannot be read" in found["problem"]


@pytest.mark.parametrize(
    "given", [("--all",), ("--credentials", "apps.toml"), ("--delete-extra-keys", "a"), ("--outcome", "waiting")]
)
def test_replay_refuses_options_that_are_not_for_the_spool(given: tuple[str, ...], tmp_path: Path) -> None:
    asyncio.run(filled(tmp_path / "spool"))
    result = CliRunner().invoke(app, ["set-aside", "replay", "spool", "--data-dir", str(tmp_path), *given])
    assert (result.exit_code, given[0] in result.output) == (2, True)


def test_replay_waits_for_an_edge_that_restarts_and_repairs_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "spool"
    asyncio.run(filled(folder))
    malformed = "cannot be read: malformed"
    looks = iter([
        *[(None, 3, None), (None, 3, None), (4711, 3, None), (None, 3, None)],
        *[(4712, 0, malformed), (None, 0, malformed), (4712, 0, None)],
    ])  # fmt: skip

    def status(_: object, __: int) -> dict[str, Any]:
        owner, records, problem = next(looks)
        found = {"file": "0.db", "owner": owner, "records": records, "bytes": 0, "oldest_age_s": 0.0}
        return {**found, "set_aside": {}, "problem": problem}

    monkeypatch.setattr(spool_files, "_status_of", status)
    monkeypatch.setattr(spool_files, "_POLL_S", 0.0)
    assert run("set-aside", "replay", "spool", "--data-dir", str(tmp_path)) == (0, [{"left": 0}])
    assert next(looks, None) is None


def test_replay_sees_an_edge_that_could_not_write_its_number_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_files, "_RESTART_S", 0.0)
    folder = tmp_path / "spool"

    async def scenario() -> None:
        async with open_spool(folder) as spool:
            await spool.put(record(1))
            (folder / "0.lock").write_text("")
            stops = iter([False, False, True])
            files = SpoolFolder(folder)
            assert spool_files.replay(files, progress=lambda _: None, stopped=lambda: next(stops)) == 1
            assert "process ?" in CliRunner().invoke(app, ["spool", "status", "--data-dir", str(tmp_path)]).output

    asyncio.run(scenario())


def test_a_replay_that_is_stopped_calls_no_spool_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "1.db").write_bytes(b"nonsense")

    def interrupted(_: Path) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return False

    monkeypatch.setattr(spool_files, "is_requeue_requested", interrupted)
    result = CliRunner().invoke(app, ["set-aside", "replay", "spool", "--data-dir", str(tmp_path)])
    assert (result.exit_code, result.output) == (1, "0 records left\n")


def test_replay_needs_an_edge_and_loses_nothing_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_files, "_RESTART_S", 0.0)
    asyncio.run(filled(tmp_path / "spool"))
    result = CliRunner().invoke(app, ["spool", "replay", "--data-dir", str(tmp_path)])
    assert f"no edge runs on {tmp_path / 'spool'}" in str(result.exception)
    _, (found,) = run("spool", "status", "--data-dir", str(tmp_path))
    assert found["records"] == 3


def test_a_spool_with_a_file_that_cannot_be_read_is_not_called_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_files, "_RESTART_S", 0.0)
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "1.db").write_bytes(b"nonsense")
    result = CliRunner().invoke(app, ["spool", "replay", "--data-dir", str(tmp_path)])
    assert f"no edge runs on {folder}" in str(result.exception)

    async def scenario() -> None:
        async with open_spool(folder):
            found = CliRunner().invoke(app, ["spool", "replay", "--data-dir", str(tmp_path)])
            assert re.search(r"cannot be read: 1\.db .*not a database", str(found.exception))

    asyncio.run(scenario())


def test_verify_and_status_continue_after_an_unreadable_file(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    asyncio.run(filled(folder))
    (folder / "0.db").rename(folder / "1.db")
    (folder / "0.db").mkdir()
    for command in ("verify", "status"):
        _, found = run("spool", command, "--data-dir", str(tmp_path))
        assert [bool(each["problem"]) for each in found] == [True, False]
        assert found[1]["records"] == 3
