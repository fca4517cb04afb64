from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from taskbridge.local import host
from taskbridge.local.host import check_free, free_port, free_ports
from taskbridge.schemas.errors import ConfigurationError


def test_free_ports_are_different_free_and_not_the_excluded_ones() -> None:
    first = free_ports(20)
    second = free_ports(20, excluding=first)

    assert len({*first, *second}) == 40
    for port in first:
        check_free(port, "--kafka-port")


def test_an_assigned_port_is_reserved_and_its_service_may_listen_repeatedly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port()
    monkeypatch.setattr(host, "_CANDIDATES", range(port, port + 1))
    with pytest.raises(ConfigurationError, match="are free: stop a program that uses them"):
        free_port()
    for _ in range(2):
        with socket.create_server(("127.0.0.1", port)):
            with pytest.raises(ConfigurationError, match=f"port {port} cannot be used"):
                check_free(port, "--kafka-port")
            with socket.create_connection(("127.0.0.1", port), timeout=60):
                pass
    elsewhere = "from taskbridge.local import host; host._CANDIDATES = range({0}, {0} + 1); host.free_port()"
    found = subprocess.run([sys.executable, "-c", elsewhere.format(port)], capture_output=True, text=True, check=False)
    assert "stop a program" in found.stderr
