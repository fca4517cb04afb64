from __future__ import annotations

import socket

import pytest

from taskbridge.local.errors import StackError
from taskbridge.local.ports import check_distinct, check_free, free_ports


def test_free_ports_are_different_free_and_not_the_excluded_ones() -> None:
    first = free_ports(20)
    second = free_ports(20, excluding=first)

    assert len({*first, *second}) == 40
    for port in first:
        check_free(port, "--kafka-port")


def test_free_ports_stay_clear_of_the_kernels_own_range() -> None:
    # A client that retries a port of that range while the service restarts can end up connected to itself.
    assert max(free_ports(50)) < 32_768


def test_a_port_in_use_is_one_line_with_the_port_and_the_flag() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(StackError, match=rf"^port {port} cannot be used .*choose another with --kafka-port$"):
            check_free(port, "--kafka-port")


def test_a_number_that_is_no_port_is_one_line_too() -> None:
    with pytest.raises(StackError, match=r"port 70000 cannot be used .*--kafka-port"):
        check_free(70_000, "--kafka-port")


def test_a_port_chosen_twice_is_one_line_with_both_flags() -> None:
    check_distinct({"--edge-port": 8400, "--streams-port": 8500, "--kafka-port": 9092})
    with pytest.raises(StackError, match=r"^--edge-port and --kafka-port are both 9092: each needs a port of its own$"):
        check_distinct({"--edge-port": 9092, "--streams-port": 8500, "--kafka-port": 9092})
