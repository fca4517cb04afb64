"""Commands find the bridge that runs in a data folder, and no other; a killed bridge does not count as running."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskbridge.cli.connection import find_connection
from taskbridge.cli.data_folder import DataFolder, Running, data_folder, edge_folder
from taskbridge.cli.options import service_url
from taskbridge.schemas.errors import ConfigurationError

RUNNING = Running(
    bootstrap_servers="127.0.0.1:19092",
    registry_url="http://127.0.0.1:18081/apis/ccompat/v7",
    edge_url="http://127.0.0.1:18400",
    streams_url="http://127.0.0.1:18510",
    center_url="http://127.0.0.1:18500",
    credentials="/etc/taskbridge/credentials.toml",
)


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    """A data folder of ``up``."""
    (tmp_path / "edge").mkdir()
    return data_folder(tmp_path)


def found(*, flag: str | None = None, data_dir: Path | None = None, **environment: str) -> tuple[str, str]:
    connection = find_connection(flag, None, environment, data_dir=data_dir)
    return connection.bootstrap_servers, connection.registry_url


def test_a_bridge_is_found_in_its_folder_until_it_stops(folder: DataFolder) -> None:
    assert folder.running() is None
    with folder.occupy():
        assert folder.running() is None, "it is still starting"
        folder.announce(RUNNING)
        assert folder.running() == RUNNING
        assert str(folder.credentials) == RUNNING.credentials
        folder.forget()
        assert folder.running() is None
    assert folder.credentials == folder.path / "credentials.toml"


def test_a_killed_bridge_does_not_count_as_running(folder: DataFolder) -> None:
    with folder.occupy():
        folder.announce(RUNNING)
    assert folder.running() is None


def test_a_folder_belongs_to_one_bridge_and_checks_do_not_block_it(folder: DataFolder) -> None:
    with folder.occupy(), pytest.raises(ConfigurationError, match="another process uses --data-dir="):
        folder.occupy()
    assert folder.running() is None
    folder.occupy().close()


def test_commands_use_the_running_bridge(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = (RUNNING.bootstrap_servers, RUNNING.registry_url)
    with folder.occupy():
        folder.announce(RUNNING)
        assert found(data_dir=folder.path) == ours
        assert found(TASKBRIDGE_DATA_DIR=str(folder.path)) == ours
        assert found(data_dir=folder.path, flag="flag:1")[0] == "flag:1"
        assert found(data_dir=folder.path, TASKBRIDGE_KAFKA_BOOTSTRAP_SERVERS="other:1") == ours, "the flag is nearer"
        assert found(TASKBRIDGE_DATA_DIR=str(folder.path), EDGE_KAFKA_BOOTSTRAP_SERVERS="other:1")[0] == "other:1"
        assert service_url("edge", None, folder.path) == RUNNING.edge_url
        assert service_url("edge", "http://other", folder.path) == "http://other"
        monkeypatch.chdir(folder.path.parent)
        Path("taskbridge-data").symlink_to(folder.path)
        assert found() == ours, "where 'up' was started without flags, nothing need be said"


def test_the_folder_of_the_edge_is_in_that_of_up_or_the_named_one(
    folder: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert edge_folder(folder.path, {}) == folder.path / "edge"
    assert edge_folder(folder.path, {"EDGE_DATA_DIR": "/elsewhere"}) == folder.path / "edge"
    assert edge_folder(folder.path / "edge", {}) == folder.path / "edge"
    assert edge_folder(None, {"EDGE_DATA_DIR": "/elsewhere"}) == Path("/elsewhere")
    assert edge_folder(None, {"TASKBRIDGE_DATA_DIR": str(tmp_path)}) == tmp_path / "edge"
    assert edge_folder(None, {}) == Path("edge-data")
