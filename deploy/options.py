"""Flags that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

BootstrapServers = Annotated[
    str | None, typer.Option(help="Kafka's address; else from the environment, else the local stack's.")
]
RegistryUrl = Annotated[
    str | None, typer.Option(help="The registry's Confluent API; else from the environment, else the local stack's.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]


def example(*lines: str) -> str:
    """The end of a command's help."""
    return "\n\n".join(["Example:", *lines])
