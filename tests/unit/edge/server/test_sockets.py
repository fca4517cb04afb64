"""Passed sockets are accepted once; edges of one data folder share a port; queues of a port add up."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from taskbridge.edge.server.sockets import (
    listen,
    listen_with_peers,
    passed_sockets,
)
from taskbridge.local.host import free_port
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


# Runs in a process of its own, because the passed descriptors have fixed numbers.
RECEIVER = """
import os, sys
given = eval(sys.argv[1])
for at, fd in enumerate(given):
    os.dup2(fd, 3 + at)
environment = {"LISTEN_PID": str(os.getpid() + int(sys.argv[2])), "LISTEN_FDS": str(len(given)), **eval(sys.argv[3])}
from taskbridge.edge.server.sockets import passed_sockets
found = passed_sockets(environment)
print([each.getsockname()[1] for each in found.callbacks], [each.getsockname()[1] for each in found.operator])
print(environment, [each.get_inheritable() for each in found.callbacks])
"""


def pass_on(*sockets: socket.socket, wrong_pid: int = 0, **names: str) -> list[str]:
    # Free numbers, above those that the receiver gives them: a number that is in use is another thread's.
    high = [fcntl.fcntl(each.fileno(), fcntl.F_DUPFD, 10) for each in sockets]
    try:
        ended = subprocess.run(
            [sys.executable, "-c", RECEIVER, str(high), str(wrong_pid), str(names)],
            pass_fds=high,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        for each in high:
            os.close(each)
    return ended.stdout.splitlines() or [ended.stderr.splitlines()[-1]]


@pytest.fixture
def two() -> Generator[list[socket.socket]]:
    (first,), (second,) = listen("127.0.0.1", free_port()), listen("127.0.0.1", free_port())
    with first, second:
        yield [first, second]


def test_passed_sockets_are_accepted_once(two: list[socket.socket]) -> None:
    first, second = (each.getsockname()[1] for each in two)
    assert pass_on(*two) == [f"[{first}, {second}] []", "{} [False, False]"]
    assert pass_on(*two, LISTEN_FDNAMES="edge.socket:operator")[0] == f"[{first}] [{second}]"


def test_sockets_for_another_process_are_left_alone(two: list[socket.socket]) -> None:
    assert pass_on(*two, wrong_pid=1) == ["[] []", "{} []"]
    assert passed_sockets({}).callbacks == []


def test_a_descriptor_that_does_not_listen_is_refused() -> None:
    with socket.socket() as sock, socket.socket(socket.AF_UNIX) as local:
        assert "LISTEN_FDS: descriptor 3 is not a listening TCP socket" in pass_on(sock)[0]
        assert "LISTEN_FDS: descriptor 3 is not a listening TCP socket" in pass_on(local)[0]


def test_a_used_or_impossible_address_is_one_line() -> None:
    port = free_port()
    (first,) = listen("127.0.0.1", port)
    with (
        first,
        pytest.raises(ConfigurationError, match=rf"^cannot listen on 127\.0\.0\.1:{port}: Address already in use$"),
    ):
        listen("127.0.0.1", port)
    with pytest.raises(ConfigurationError, match=r"^cannot listen on 192\.0\.2\.1:\d+: Cannot assign"):
        listen("192.0.2.1", port)


def test_edges_of_one_data_folder_may_share_a_port_and_other_programs_may_not(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.mkdir()
    other.mkdir()
    port = free_port()
    sockets = listen_with_peers("127.0.0.1", port, data_dir=mine)
    sockets += listen_with_peers("127.0.0.1", port, data_dir=mine)
    with pytest.raises(ConfigurationError, match="Address already in use"):
        listen_with_peers("127.0.0.1", port, data_dir=other)
    with pytest.raises(ConfigurationError, match="Address already in use"):
        listen("127.0.0.1", port)
    for each in sockets:
        each.close()


def accepted(sock: socket.socket) -> int:
    sock.settimeout(0)
    count = 0
    with suppress(BlockingIOError):
        while True:
            sock.accept()[0].close()
            count += 1
    return count
