"""The program ``taskbridge``: every command and its help. What a command does stands in its own module."""

from __future__ import annotations

import os
import sys
from itertools import chain, takewhile
from typing import Annotated

import typer

from taskbridge.cli.bench import bench_app
from taskbridge.cli.bridge.commands import DEMO_EXAMPLES, UP_EXAMPLES, demo, up
from taskbridge.cli.callbacks.commands import SEND_EXAMPLES, SIGN_EXAMPLES, send, sign
from taskbridge.cli.contract.commands import schemas_app, topics_app
from taskbridge.cli.demo.commands import SIMULATE_EXAMPLES, simulate
from taskbridge.cli.dlq.commands import dlq_app
from taskbridge.cli.doctor.commands import DOCTOR_EXAMPLES, doctor
from taskbridge.cli.imports.commands import forms_app, people_app
from taskbridge.cli.options import BootstrapServers, DataDir, Json, RegistryUrl, operator_connection
from taskbridge.cli.options import example as _example
from taskbridge.cli.quarantine.commands import quarantine_app
from taskbridge.cli.reconcile.commands import BACKFILL_EXAMPLES, backfill, reconcile_app
from taskbridge.cli.spool.commands import spool_app
from taskbridge.cli.status.commands import STATUS_EXAMPLES, status
from taskbridge.cli.terminal import json_line, say, stop_signal
from taskbridge.cli.tokens import TOKENS_EXAMPLES, token_app, tokens
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

Rebuild = Annotated[
    bool, typer.Option("--rebuild", help="Make all states anew from the events, beside the workers, and switch.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="With --rebuild: only tell what would come out another.")]
ForgetOld = Annotated[
    bool, typer.Option("--forget-old", help="Delete what is left on Kafka of the states before the last rebuild.")
]
Partitions = Annotated[
    int | None, typer.Option(min=1, help="With --rebuild: have all topics moved to so many, which may be more only.")
]
Republish = Annotated[
    bool, typer.Option("--republish", help="Tell everybody again what they see, from the states; makes inboxes anew.")
]


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer's callback
    if wanted:
        from importlib.metadata import version

        say(f"taskbridge {version('taskbridge-cli')}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")]


@app.callback()
def program(
    version: Version = False,  # noqa: FBT002
) -> None:
    """Yida's approval-task callbacks, on Kafka: verified, folded into states, and out as notifications."""


@app.command(
    epilog=_example(
        "EDGE_CREDENTIALS_FILE=credentials.toml EDGE_KAFKA_BOOTSTRAP_SERVERS=kafka:9092 \\",
        "EDGE_SCHEMA_REGISTRY_URL=http://registry:8081 taskbridge edge",
    )
)
def edge() -> None:
    """Run the edge against an existing Kafka and registry, configured by EDGE_* in the environment."""
    from taskbridge.edge.app import run

    run()


@app.command(
    epilog=_example(
        "STREAMS_KAFKA_BOOTSTRAP_SERVERS=kafka:9092 \\",
        "STREAMS_SCHEMA_REGISTRY_URL=http://registry:8081 taskbridge streams",
        "taskbridge streams --rebuild --dry-run",
        "taskbridge streams --rebuild --partitions 24",
        "taskbridge streams --republish",
    )
)
def streams(
    rebuild: Rebuild = False,  # noqa: FBT002
    dry_run: DryRun = False,  # noqa: FBT002
    partitions: Partitions = None,
    forget_old: ForgetOld = False,  # noqa: FBT002
    republish: Republish = False,  # noqa: FBT002
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Run the streams service against an existing Kafka and registry, configured by STREAMS_* in the environment.

    With --rebuild it is no worker: it makes the states anew while workers go on, and ends when the new ones are live.
    With --republish neither: workers stop until everybody is told.
    """
    if dry_run and not rebuild:
        raise typer.BadParameter("goes with --rebuild", param_hint="--dry-run")
    if partitions is not None and (dry_run or not rebuild):
        raise typer.BadParameter("goes with --rebuild, and not with --dry-run", param_hint="--partitions")
    if rebuild + forget_old + republish > 1:
        raise typer.BadParameter("one at a time", param_hint="--rebuild, --republish, --forget-old")
    if rebuild or forget_old or republish:
        from taskbridge.cli.rebuild import forget, rebuild_states, republish_entries

        if rebuild:
            rebuild_states(dry_run=dry_run, partitions=partitions, as_json=as_json)
        elif republish:
            republish_entries(as_json=as_json)
        else:
            forget(as_json=as_json)
        return
    from taskbridge.streams.app import run

    run()


app.command(epilog=SEND_EXAMPLES)(send)
app.command(epilog=SIGN_EXAMPLES)(sign)


@app.command(epilog=_example("taskbridge tail taskbridge.task-notifications.v1 --from-beginning --max 5"))
def tail(
    topic: Annotated[str, typer.Argument(help="The topic's whole name.")],
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Start with the oldest record.")] = False,  # noqa: FBT002
    maximum: Annotated[int | None, typer.Option("--max", min=1, help="Stop after so many records.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The only format there is: one JSON object a line.")] = True,  # noqa: ARG001, FBT002
) -> None:
    """Print a topic's records, decoded, as they come: one JSON object a line, until Ctrl-C."""
    with stop_signal() as stop:
        from taskbridge.cli.topics.tail import Decoder, follow

        with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
            decode = Decoder(connection.registry)
            batches = takewhile(lambda _: not stop.is_set(), follow(connection, topic, from_beginning=from_beginning))
            for count, message in enumerate(chain.from_iterable(batches), 1):
                say(json_line(decode(message)))
                if count == maximum:
                    break


app.command(epilog=TOKENS_EXAMPLES)(tokens)


def main() -> None:
    """Run the program: exit code 0, 1 with one readable line, or 2 for usage."""
    try:
        app()
    except TaskbridgeError as error:
        sys.exit(f"taskbridge: {error}")
    except BrokenPipeError:
        # The reader of our output has gone (`taskbridge tail … | head`); the interpreter must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
