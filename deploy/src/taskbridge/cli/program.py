"""The program ``taskbridge``: every command and its help. Each command is implemented in its own module."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from taskbridge.cli.bench import bench_app
from taskbridge.cli.callbacks import SEND_EXAMPLES, SIGN_EXAMPLES, send, sign
from taskbridge.cli.dlq import dlq_app
from taskbridge.cli.doctor import DOCTOR_EXAMPLES, doctor
from taskbridge.cli.imports import forms_app, people_app
from taskbridge.cli.local_stack import DEMO_EXAMPLES, SIMULATE_EXAMPLES, UP_EXAMPLES, demo, simulate, up
from taskbridge.cli.quarantine import quarantine_app
from taskbridge.cli.reconcile import BACKFILL_EXAMPLES, backfill, reconcile_app
from taskbridge.cli.schemas import schemas_app
from taskbridge.cli.services import CENTER_EXAMPLES, EDGE_EXAMPLES, STREAMS_EXAMPLES, center, edge, streams
from taskbridge.cli.spool import spool_app
from taskbridge.cli.status import STATUS_EXAMPLES, status
from taskbridge.cli.terminal import say
from taskbridge.cli.tokens import TOKENS_EXAMPLES, token_app, tokens
from taskbridge.cli.topics import TAIL_EXAMPLES, tail, topics_app
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
app.add_typer(topics_app, name="topics")
app.add_typer(schemas_app, name="schemas")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(spool_app, name="spool")
app.add_typer(dlq_app, name="dlq")
app.add_typer(people_app, name="people")
app.add_typer(forms_app, name="forms")
app.add_typer(token_app, name="token")
app.add_typer(bench_app, name="bench")
app.add_typer(reconcile_app, name="reconcile")
app.command(epilog=BACKFILL_EXAMPLES)(backfill)
app.command(epilog=SIMULATE_EXAMPLES)(simulate)
app.command(epilog=UP_EXAMPLES)(up)
app.command(epilog=DEMO_EXAMPLES)(demo)
app.command(epilog=DOCTOR_EXAMPLES)(doctor)
app.command(epilog=STATUS_EXAMPLES)(status)
app.command(epilog=EDGE_EXAMPLES)(edge)
app.command(epilog=STREAMS_EXAMPLES)(streams)
app.command(epilog=CENTER_EXAMPLES)(center)
app.command(epilog=SEND_EXAMPLES)(send)
app.command(epilog=SIGN_EXAMPLES)(sign)
app.command(epilog=TAIL_EXAMPLES)(tail)
app.command(epilog=TOKENS_EXAMPLES)(tokens)


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
