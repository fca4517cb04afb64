"""The choice of a source of Kafka and registry, and the errors of each."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from taskbridge.local.host import free_ports
from taskbridge.local.jvm import Endpoints
from taskbridge.local.stack import ExternalStack, JvmStack, Stack, choose_stack
from taskbridge.local.supervisor import Supervisor
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

ADDRESSES = {
    "TASKBRIDGE_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "TASKBRIDGE_SCHEMA_REGISTRY_URL": "http://127.0.0.1:1/apis/ccompat/v7",
}


def choose(environ: dict[str, str], data_dir: Path, *, kafka_port: int = 0) -> Stack:
    ports = free_ports(2)
    return choose_stack(
        {"TASKBRIDGE_CACHE_DIR": str(data_dir / "cache"), **environ},
        data_dir=data_dir,
        kafka_port=kafka_port or ports[0],
        registry_port=ports[1],
        supervisor=Supervisor(on_event=lambda _: None),
        progress=lambda _: None,
    )


def test_given_addresses_come_first(tmp_path: Path) -> None:
    stack = choose(ADDRESSES, tmp_path)

    assert isinstance(stack, ExternalStack)
    assert stack.endpoints == Endpoints("127.0.0.1:1", "http://127.0.0.1:1/apis/ccompat/v7")


def test_without_addresses_both_run_on_the_jvm(tmp_path: Path) -> None:
    assert isinstance(choose({}, tmp_path), JvmStack)


def test_an_address_that_does_not_answer_is_one_line_that_names_the_variable() -> None:
    stack = ExternalStack(Endpoints("127.0.0.1:1", "http://127.0.0.1:1"), print, timeout_s=0.3)

    with pytest.raises(
        ConfigurationError, match=r"^Kafka at 127\.0\.0\.1:1 does not answer: .*_KAFKA_BOOTSTRAP_SERVERS$"
    ):
        stack.start()


def test_a_port_in_use_is_reported_before_anything_is_fetched(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        stack = choose({}, tmp_path, kafka_port=port)

        with pytest.raises(ConfigurationError, match=rf"^port {port} cannot be used .* --kafka-port$"):
            stack.start()

    assert not (tmp_path / "cache").exists()
    stack.stop()  # after a start that failed it does nothing
