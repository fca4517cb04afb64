"""The program ``taskbridge``: every command and its help. Each command is implemented in its own module."""

from __future__ import annotations

import os
import sys
from itertools import chain, takewhile
from typing import Annotated

import typer

from taskbridge.cli.bench import bench_app
from taskbridge.cli.callbacks.commands import SEND_EXAMPLES, SIGN_EXAMPLES, send, sign
from taskbridge.cli.contract.commands import schemas_app, topics_app
from taskbridge.cli.dlq.commands import dlq_app
from taskbridge.cli.doctor.commands import DOCTOR_EXAMPLES, doctor
from taskbridge.cli.imports.commands import forms_app, people_app
from taskbridge.cli.local_stack import DEMO_EXAMPLES, SIMULATE_EXAMPLES, UP_EXAMPLES, demo, simulate, up
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
    bool, typer.Option("--rebuild", help="Rebuild all states from the events while workers run, then switch over.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="With --rebuild: report what would change; change nothing.")]
ForgetOld = Annotated[
    bool, typer.Option("--forget-old", help="Delete from Kafka the states that earlier rebuilds replaced.")
]
Partitions = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="With --rebuild: move all topics to N partitions (increase only)."),
]
Republish = Annotated[
    bool,
    typer.Option("--republish", help="Publish every present list entry again, from the states; rebuild the inboxes."),
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
    """Bridge Yida's approval-task callbacks to Kafka: verify them, fold them into states, publish notifications."""


@app.command(
    epilog=_example(
        "EDGE_CREDENTIALS_FILE=credentials.toml EDGE_KAFKA_BOOTSTRAP_SERVERS=kafka:9092 \\",
        "EDGE_SCHEMA_REGISTRY_URL=http://registry:8081 taskbridge edge",
    )
)
def edge() -> None:
    """Run the edge with an existing Kafka and registry, configured by EDGE_* in the environment."""
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
    """Run the streams service with an existing Kafka and registry, configured by STREAMS_* in the environment.

    --rebuild recomputes states while workers run; --republish needs them stopped, which they do by themselves.
    """
    if dry_run and not rebuild:
        raise typer.BadParameter("needs --rebuild", param_hint="--dry-run")
    if partitions is not None and (dry_run or not rebuild):
        raise typer.BadParameter("needs --rebuild, and excludes --dry-run", param_hint="--partitions")
    if rebuild + forget_old + republish > 1:
        raise typer.BadParameter("use one of them at a time", param_hint="--rebuild, --republish, --forget-old")
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
    topic: Annotated[str, typer.Argument(help="The full name of the topic.")],
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Start with the oldest record.")] = False,  # noqa: FBT002
    maximum: Annotated[int | None, typer.Option("--max", min=1, metavar="N", help="Stop after N records.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line: the only format.")] = True,  # noqa: ARG001, FBT002
) -> None:
    """Print the decoded records of a topic as they arrive, one JSON object per line, until Ctrl-C."""
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
