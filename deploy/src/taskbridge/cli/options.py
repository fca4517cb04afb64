"""Flags that several commands share, and the connection that they name."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Generator

    from taskbridge.cli.connection import Connection

DataDir = Annotated[
    Path | None,
    typer.Option(
        help="The data folder of 'taskbridge up', or of an edge that runs without it. "
        "Default: TASKBRIDGE_DATA_DIR, else taskbridge-data."
    ),
]
BootstrapServers = Annotated[
    str | None, typer.Option(help="Kafka's address; else from the environment, else that of what runs in --data-dir.")
]
RegistryUrl = Annotated[
    str | None,
    typer.Option(help="The registry's Confluent API; else from the environment, else that of what runs in --data-dir."),
]
Credentials = Annotated[
    Path | None,
    typer.Option(help="The edge's credentials file. Default: that of --data-dir.", envvar="EDGE_CREDENTIALS_FILE"),
]
EdgeUrl = Annotated[
    str | None, typer.Option(help="The edge's base address. Default: the edge of what runs in --data-dir.")
]
WhichOne = Annotated[str, typer.Argument(metavar="ID", help="Which one, as `list` shows it.")]
WhichOnes = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Which ones, as `list` shows them.")]
Everything = Annotated[bool, typer.Option("--all", help="All there are.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]


@contextmanager
def operator_connection(
    bootstrap_servers: str | None, registry_url: str | None, data_dir: Path | None
) -> Generator[Connection]:
    """Where a command finds Kafka and the registry. Errors that are logged go to standard error, but librdkafka's.

    What librdkafka says last is in the command's own one line.

    Raises:
        OperatorError: nobody said where they are, and nothing runs here.
    """
    from taskbridge.cli.connection import check_something_runs, find_connection
    from taskbridge.runtime.kafka import LIBRDKAFKA
    from taskbridge.runtime.logs import configure_logs

    configure_logs("text", "ERROR")
    LIBRDKAFKA.propagate = False
    connection = find_connection(bootstrap_servers, registry_url, data_dir=data_dir)
    try:
        check_something_runs(connection)
        yield connection
    finally:
        LIBRDKAFKA.propagate = True
        connection.close()


def edge_url(given: str | None, data_dir: Path | None) -> str:
    """Where to post: the flag's address, else the edge of the bridge that runs, else the default's.

    Raises:
        OperatorError: nothing listens there.
    """
    return given or _service_url("edge", 8400, data_dir, flag="--url")


def streams_url(given: str | None, data_dir: Path | None) -> str:
    """Whom to ask, found likewise, and raises likewise."""
    return given or _service_url("streams", 8500, data_dir, flag="--streams-url")


def _service_url(service: str, port: int, data_dir: Path | None, *, flag: str) -> str:
    from taskbridge.cli.data_folder import data_folder
    from taskbridge.local import ports
    from taskbridge.schemas.errors import OperatorError

    folder = data_folder(data_dir)
    if (running := folder.running()) is not None:
        return running.edge_url if service == "edge" else running.streams_url
    if (folder.is_named and folder.is_bridges) or not ports.is_listened_on(port):
        raise OperatorError(f"{folder.nothing_runs()}, or name another {service} with {flag}")
    return f"http://{ports.LOOPBACK}:{port}"


def example(*lines: str) -> str:
    """The end of a command's help."""
    return "\n\n".join(["Example:", *lines])
