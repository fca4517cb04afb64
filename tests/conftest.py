"""What all tests share: one real Kafka and registry, started when the first test asks for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import HealthCheck, settings

from deploy.local.ports import free_ports
from deploy.local.stack import choose_stack
from deploy.local.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Generator

    from _pytest.capture import CaptureManager

    from deploy.local.endpoints import Endpoints

# A setting that many containers have: with it, each service that a test starts compiles all of its libraries anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Two cores that a broker may share with the tests say nothing about an example's speed.
settings.register_profile("taskbridge", deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile("taskbridge")


_TOGETHER = {
    "browser": "browser",
    "chaos": "chaos",
    "integration/test_bridge": "bridge",
    "integration/test_disasters": "bridge",
    "integration/test_rebuild": "bridge",
    "integration/test_retelling": "bridge",
    "integration/test_edge": "edge",
    "integration/test_quarantine": "edge",
    "integration/test_stack": "edge",
    "integration": "streams",
}
"""Start of a test's path → the group of tests that run one after the other, on one Kafka. Unit tests run wherever."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tell xdist which tests must not run side by side."""
    for item in items:
        path = item.path.relative_to(Path(__file__).parent).as_posix()
        group = next((group for start, group in _TOGETHER.items() if path.startswith(start)), None)
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def stack(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Generator[Endpoints]:
    """Kafka and a registry, shared by all tests of a run: use names of your own for topics and subjects."""

    def say(line: object) -> None:
        sys.stderr.write(f"\n[stack] {line}")
        sys.stderr.flush()

    kafka_port, registry_port = free_ports(2)
    capture = cast("CaptureManager", pytestconfig.pluginmanager.getplugin("capturemanager"))
    with Supervisor(on_event=say) as supervisor:
        chosen = choose_stack(
            os.environ,
            data_dir=tmp_path_factory.mktemp("stack"),
            kafka_port=kafka_port,
            registry_port=registry_port,
            supervisor=supervisor,
            progress=say,
            keep_data=False,
        )
        try:
            # Shown, not captured: the first run fetches 210 MB.
            with capture.global_and_fixture_disabled():
                endpoints = chosen.start()
            yield endpoints
        finally:
            chosen.stop()
