"""systemd accepts the units, and the edge receives callbacks on the socket that systemd passes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support import needs
from support.callbacks import post_callback
from support.edge.fakes import SYSTEM_TOKEN, parameters_of
from support.edge.process import RunningEdge, wait_until

if TYPE_CHECKING:
    from collections.abc import Generator

UNITS = Path(__file__).parents[3] / "deploy" / "systemd"
INSTALLED = "/opt/taskbridge/.venv/bin/taskbridge"


def verified(folder: Path, *, mistake: str = "") -> str:
    """What systemd has to say about the units, with a program that is on this machine."""
    needs.program("systemd")
    copies: list[str] = []
    for unit in sorted(UNITS.iterdir()):
        copy = folder / unit.name
        copy.write_text(unit.read_text().replace(INSTALLED, sys.executable) + mistake)
        copies.append(str(copy))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *copies], capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout + done.stderr + ("" if done.returncode == 0 else f"exit code {done.returncode}")


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    for service in ("edge", "streams", "center", "webhooks", "dingtalk-approvals"):
        assert f"ExecStart={INSTALLED} {service}\n" in (UNITS / f"taskbridge-{service}.service").read_text()
    assert verified(tmp_path) == ""
    assert "Nowhere" in verified(tmp_path, mistake="\nNowhere=1\n"), "or it would find nothing wrong with anything"


@pytest.fixture
def edge(tmp_path: Path) -> Generator[RunningEdge]:
    edge = RunningEdge(tmp_path, bootstrap_servers="127.0.0.1:1", registry_url="http://127.0.0.1:1")
    yield edge
    if edge.process is not None:
        edge.kill()


def test_a_socket_that_is_activated_takes_the_callback_which_started_the_edge(edge: RunningEdge) -> None:
    needs.program("systemd")
    given = [f"--setenv={name}={value}" for name, value in edge.environment.items() if name.startswith("EDGE_")]
    port = edge.port
    given.append(f"--setenv=EDGE_PORT={port % 2000 + 1024}")  # a wrong one: the socket's is what counts
    edge.start("systemd-socket-activate", f"--listen=127.0.0.1:{port}", "--fdname=callbacks", *given)
    wait_until(lambda: "Listening on" in edge.log_path.read_text(), what="systemd listens")
    answer = post_callback(
        edge.url, "create", parameters_of("create", instance_id="first"), system_token=SYSTEM_TOKEN, encoding="json"
    )
    assert (answer.status, answer.body["durability"]) == (200, "spool")
    assert edge.process is not None
    os.kill(edge.process.pid, signal.SIGTERM)
    assert edge.process.wait(60) == 0
