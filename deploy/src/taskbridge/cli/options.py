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
    """Where a command that prints finds Kafka and the registry; libraries' warnings go to standard error."""
    from taskbridge.cli.connection import find_connection
    from taskbridge.runtime.logs import configure_logs

    configure_logs("text", "ERROR")
    connection = find_connection(bootstrap_servers, registry_url, data_dir=data_dir)
    try:
        yield connection
    finally:
        connection.close()


def edge_url(given: str | None, data_dir: Path | None) -> str:
    """Where to post: the flag's address, else the edge of the bridge that runs, else the default's."""
    from taskbridge.cli.data_folder import data_folder

    running = None if given else data_folder(data_dir).running()
    return given or (running.edge_url if running else "http://127.0.0.1:8400")


def example(*lines: str) -> str:
    """The end of a command's help."""
    return "\n\n".join(["Example:", *lines])
