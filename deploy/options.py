"""Flags that several commands share, and the connection that they name."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from deploy.connection import Connection

BootstrapServers = Annotated[
    str | None, typer.Option(help="Kafka's address; else from the environment, else the local stack's.")
]
RegistryUrl = Annotated[
    str | None, typer.Option(help="The registry's Confluent API; else from the environment, else the local stack's.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]


@contextmanager
def operator_connection(bootstrap_servers: str | None, registry_url: str | None) -> Generator[Connection]:
    """Where a command that prints finds Kafka and the registry; libraries' warnings go to standard error."""
    from deploy.connection import find_connection
    from service.logs import configure_logs

    configure_logs("text", "ERROR")
    connection = find_connection(bootstrap_servers, registry_url)
    try:
        yield connection
    finally:
        connection.close()


def example(*lines: str) -> str:
    """The end of a command's help."""
    return "\n\n".join(["Example:", *lines])


def reasons_there(reasons: Iterable[str | None]) -> str:
    """For somebody whose ``--reason`` matched nothing: those that would have."""
    counted = Counter(reason or "-" for reason in reasons)
    return ", ".join(f"{reason} ({count})" for reason, count in counted.most_common())
