"""The program ``taskbridge``: every command and its help. Each command is implemented in its own module."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from taskbridge.cli import bench, callbacks, doctor, erasure, local_stack, reconcile, services, status, tokens, topics
from taskbridge.cli.dlq import dlq_app
from taskbridge.cli.imports import forms_app, people_app
from taskbridge.cli.quarantine import quarantine_app
from taskbridge.cli.schemas import schemas_app
from taskbridge.cli.spool import spool_app
from taskbridge.cli.terminal import say
from taskbridge.cli.webhooks import webhooks_app
from taskbridge.schemas.errors import TaskbridgeError

# Commands import what they need when they run: `taskbridge --help` must not load Kafka, FastAPI and Faust first.

app = typer.Typer(
    name="taskbridge",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _module in (reconcile, local_stack, doctor, status, services, callbacks, topics, tokens, bench):
    app.add_typer(_module.commands)
people_app.add_typer(erasure.commands)
for _name, _group in {
    "topics": topics.topics_app,
    "schemas": schemas_app,
    "quarantine": quarantine_app,
    "spool": spool_app,
    "dlq": dlq_app,
    "people": people_app,
    "forms": forms_app,
    "token": tokens.token_app,
    "reconcile": reconcile.reconcile_app,
    "apps": reconcile.apps_app,
    "webhooks": webhooks_app,
}.items():
    app.add_typer(_group, name=_name)


def _print_version(requested: bool) -> None:  # noqa: FBT001 - typer's callback
    if requested:
        from importlib.metadata import version

        say(f"taskbridge {version('taskbridge-cli')}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")]


@app.callback()
def program(
    version: Version = False,  # noqa: FBT002
) -> None:
    """Bridge Yida's approval-task callbacks to Kafka: verify them, fold them into states, publish notifications."""


def main() -> None:
    """Run the program; exit code 0, 1 for an error in one line, or 2 for wrong usage."""
    try:
        app()
    except TaskbridgeError as error:
        sys.exit(f"taskbridge: {error}")
    except BrokenPipeError:
        # The reader of the output has closed it (`taskbridge tail … | head`): Python must print no error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
