"""The command ``taskbridge land``: form data and tasks as tables in the customer's database."""

from __future__ import annotations

from typing import Annotated

import typer

from taskbridge.cli.options import BootstrapServers, DataDir, RegistryUrl, example

commands = typer.Typer()

To = Annotated[
    str | None,
    typer.Option(metavar="URL", help="postgresql://user:password@host/database or sqlite:///FILE. Default: LAND_TO."),
]
Once = Annotated[bool, typer.Option("--once", help="End when the records that the topics have now have landed.")]


@commands.command(
    epilog=example(
        "taskbridge land --to sqlite:///forms.db --once",
        "LAND_TO=postgresql://land:secret@db/warehouse taskbridge land",
    )
)
def land(
    to: To = None,
    once: Once = False,  # noqa: FBT002
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Follow form data and tasks into tables of your own database, each record exactly once.

    Creates a table for each form and each of its sub-forms, views with labels as names, and the tables instances,
    tasks, decisions and people: in the schema taskbridge of PostgreSQL. Put a password into LAND_TO, not into --to,
    which other users of the machine can read. Each target needs a process of its own; several may share one target.
    """
    from taskbridge.cli.connection import service_environment
    from taskbridge.landing import app

    environment = service_environment("LAND", bootstrap_servers, registry_url, data_dir)
    app.run(environment if to is None else {**environment, "LAND_TO": to}, once=once)
