"""The program ``taskbridge``: every command, its flags and its help. What a command does stands in its own module."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from taskbridge.cli.bench_commands import bench_app
from taskbridge.cli.dlq_commands import dlq_app
from taskbridge.cli.options import BootstrapServers, Credentials, DataDir, EdgeUrl, Json, RegistryUrl, edge_url
from taskbridge.cli.options import example as _example
from taskbridge.cli.quarantine_commands import quarantine_app
from taskbridge.cli.simulate_commands import SIMULATE_EXAMPLES, simulate
from taskbridge.cli.spool_commands import spool_app
from taskbridge.cli.terminal import Stopped, progress, say, stop_signal
from taskbridge.cli.token_commands import token_app
from taskbridge.schemas.errors import TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import Generator

    from taskbridge.cli.bridge import Bridge, BridgeOptions
    from taskbridge.cli.connection import Connection
    from taskbridge.cli.terminal import StopSignal

# Commands import what they need when they run: `taskbridge --help` must not load Kafka, FastAPI and Faust first.

app = typer.Typer(
    name="taskbridge",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
topics_app = typer.Typer(help="The topics of the contract.", no_args_is_help=True)
schemas_app = typer.Typer(help="The Avro schemas of the contract.", no_args_is_help=True)
app.add_typer(topics_app, name="topics")
app.add_typer(schemas_app, name="schemas")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(spool_app, name="spool")
app.add_typer(dlq_app, name="dlq")
app.add_typer(token_app, name="token")
app.add_typer(bench_app, name="bench")
app.command(epilog=SIMULATE_EXAMPLES)(simulate)

Token = Annotated[
    str,
    typer.Option(
        help="The app's system token. The environment variable keeps it out of the shell's history.",
        envvar="TASKBRIDGE_SYSTEM_TOKEN",
    ),
]
Parameters = Annotated[
    list[str] | None, typer.Option("-p", "--parameter", metavar="KEY=VALUE", help="May be repeated.")
]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Where it is served on this machine.")]
FreePort = Annotated[int | None, typer.Option(min=1, max=65535, help="Default: a free port.")]
Rebuild = Annotated[
    bool, typer.Option("--rebuild", help="Make all states anew from the events, beside the workers, and switch.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="With --rebuild: only tell what would come out another.")]
_INTERRUPTED = 130
"""Exit code of what Ctrl-C ended before it was done, as shells have it."""

ForgetOld = Annotated[
    bool, typer.Option("--forget-old", help="Delete what is left on Kafka of the states before the last rebuild.")
]
Partitions = Annotated[
    int | None, typer.Option(min=1, help="With --rebuild: have all topics moved to so many, which may be more only.")
]
Retell = Annotated[
    bool, typer.Option("--retell", help="Tell everybody again what they see, from the states; makes inboxes anew.")
]
Encoding = Annotated[
    Literal["json", "form", "multipart", "query"],
    typer.Option(help="How the parameters are sent: Yida offers all of them."),
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
    epilog=_example("taskbridge up", "taskbridge up --data-dir /var/lib/taskbridge --credentials credentials.toml")
)
def up(  # one flag each: the contract's list
    data_dir: Annotated[Path, typer.Option(help="Where everything is kept.", envvar="TASKBRIDGE_DATA_DIR")] = Path(
        "taskbridge-data"
    ),
    edge_port: Port = 8400,
    streams_port: Port = 8500,
    kafka_port: Port = 9092,
    registry_port: Port = 8081,
    credentials: Annotated[
        Path | None, typer.Option(help="Credentials file; an example is made in the data folder where none is given.")
    ] = None,
) -> None:
    """Start Kafka, registry, edge and streams in the foreground, until Ctrl-C or SIGTERM.

    SIGUSR2 replaces the edge: the new one takes callbacks before the old one ends.
    """
    with stop_signal() as stop:
        options = _options(data_dir, edge_port, streams_port, kafka_port, registry_port, credentials)
        _up(options, stop)


def _up(options: BridgeOptions, stop: StopSignal) -> None:
    with _bridge(options, keep_data=True) as bridge:
        signal.signal(signal.SIGUSR2, bridge.replace_edge)
        with stop.interrupting():
            connection = bridge.start()
        _print_addresses(bridge, connection)
        say("try it       taskbridge simulate")
        say("ready; Ctrl-C stops everything")
        stop.wait()
        progress("stopping")


@app.command(epilog=_example("taskbridge demo", "taskbridge demo --keep"))
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running afterwards, until Ctrl-C.")] = False,  # noqa: FBT002
    data_dir: Annotated[Path | None, typer.Option(help="Default: a temporary folder, removed at the end.")] = None,
    edge_port: FreePort = None,
    streams_port: FreePort = None,
    kafka_port: FreePort = None,
    registry_port: FreePort = None,
    credentials: Annotated[
        Path | None, typer.Option(help="Where the demo's app and token are written. Default: in the data folder.")
    ] = None,
) -> None:
    """Start everything, post the life of three requests as signed callbacks, and show the notifications they become."""
    from taskbridge.cli.demo import person_pages, play, trickle, write_credentials
    from taskbridge.local.disk import readable_os_errors
    from taskbridge.local.ports import free_ports

    with stop_signal() as stop, tempfile.TemporaryDirectory(prefix="taskbridge-demo-") as temporary:
        folder = data_dir or Path(temporary)
        given = (edge_port, streams_port, kafka_port, registry_port)
        free = iter(free_ports(len(given), excluding=[port for port in given if port is not None]))
        edge_port, streams_port, kafka_port, registry_port = (next(free) if port is None else port for port in given)
        credentials = credentials or folder / "credentials.toml"
        with readable_os_errors(credentials.parent, remedy="choose another --data-dir or --credentials"):
            token = write_credentials(credentials)
        options = _options(folder, edge_port, streams_port, kafka_port, registry_port, credentials)
        with _bridge(options, keep_data=data_dir is not None) as bridge:
            with stop.interrupting():
                connection = bridge.start()
                play(connection, bridge.edge_url, token, Console())
            if keep:
                _print_addresses(bridge, connection)
                for name, page in person_pages(bridge.streams_url).items():
                    say(f"  {name:28} {page}")
                say("a simulated company is at work, so the pages change by themselves; Ctrl-C stops everything")
                trickle(bridge.edge_url, bridge.credentials, stop)
            progress("stopping")
        return
    raise typer.Exit(_INTERRUPTED)


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
        "taskbridge streams --retell",
    )
)
def streams(
    rebuild: Rebuild = False,  # noqa: FBT002
    dry_run: DryRun = False,  # noqa: FBT002
    partitions: Partitions = None,
    forget_old: ForgetOld = False,  # noqa: FBT002
    retell: Retell = False,  # noqa: FBT002
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Run the streams service against an existing Kafka and registry, configured by STREAMS_* in the environment.

    With --rebuild it is no worker: it makes the states anew while workers go on, and ends when the new ones are live.
    With --retell neither: workers stop until everybody is told.
    """
    if dry_run and not rebuild:
        raise typer.BadParameter("goes with --rebuild", param_hint="--dry-run")
    if partitions is not None and (dry_run or not rebuild):
        raise typer.BadParameter("goes with --rebuild, and not with --dry-run", param_hint="--partitions")
    if rebuild + forget_old + retell > 1:
        raise typer.BadParameter("one at a time", param_hint="--rebuild, --retell, --forget-old")
    if rebuild or forget_old or retell:
        from taskbridge.cli.rebuild_command import forget, remake, tell_again

        if rebuild:
            remake(dry_run=dry_run, partitions=partitions, as_json=as_json)
        elif retell:
            tell_again(as_json=as_json)
        else:
            forget(as_json=as_json)
        return
    from taskbridge.streams.app import run

    run()


@topics_app.command("apply", epilog=_example("taskbridge topics apply --bootstrap-servers kafka:9092"))
def topics_apply(
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, help="For topics that are created. Default: TASKBRIDGE_PARTITIONS, else 12.")
    ] = None,
    replication: Annotated[int, typer.Option(help="Replicas of created topics; -1 is the broker's default.")] = -1,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Create the missing topics and report how the others differ from the contract; exit code 1 if they do or may."""
    from taskbridge.runtime.settings import partitions_setting
    from taskbridge.runtime.topic_admin import apply_topics
    from taskbridge.schemas import topics

    connection = _connection(bootstrap_servers, registry_url, data_dir)
    wanted = partitions or partitions_setting(os.environ)
    reports = apply_topics(connection.admin(), topics.ALL, partitions=wanted, replication=replication)
    for report in reports:
        found: dict[str, Any] = {"topic": report.name, "state": report.state, "partitions": report.partitions}
        found |= {"drift": report.drift, "unchecked": report.unchecked}
        lines = [
            f"{report.state:10}{report.name} ({report.partitions} partitions)",
            *(f"          {each}" for each in report.remarks),
        ]
        say(json.dumps(found) if as_json else "\n".join(lines))
    if any(report.remarks for report in reports):
        raise typer.Exit(1)


@schemas_app.command("register", epilog=_example("taskbridge schemas register --registry-url http://registry:8081"))
def schemas_register(
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Register the schemas and set their compatibility to FULL_TRANSITIVE. Safe to repeat."""
    from taskbridge.schemas import topics

    for subject, schema_id in _connection(None, registry_url, data_dir).registry.register(topics.ALL).items():
        say(json.dumps({"subject": subject, "id": schema_id}) if as_json else f"{schema_id:>6}  {subject}")


@schemas_app.command("check", epilog=_example("taskbridge schemas check"))
def schemas_check(as_json: Json = False) -> None:  # noqa: FBT002
    """Prove that each schema is fully compatible with every version published before; needs no registry."""
    from taskbridge.cli.schema_versions import check

    reports = check()
    for report in reports:
        found: dict[str, Any] = {"record": report.record, "version": report.version, "problems": report.problems}
        lines = [f"{'broken' if report.problems else 'ok':8}{report.record} against version {report.version}"]
        lines += [f"        {each}" for each in report.problems]
        say(json.dumps(found) if as_json else "\n".join(lines))
    if any(report.problems for report in reports):
        raise typer.Exit(1)


@app.command(
    epilog=_example(
        "taskbridge send complete --url http://127.0.0.1:8400 --token SECRET -p appType=APP_1 \\",
        "-p corpId=ding1 -p formInstId=I-1 -p taskId=T-1 -p actualWorkId=user1",
    )
)
def send(
    action: Annotated[Literal["create", "complete", "cancel", "delete", "cc"], typer.Argument(help="What happened.")],
    token: Token,
    url: EdgeUrl = None,
    parameter: Parameters = None,
    task_file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A file whose text is the 'task' parameter.")
    ] = None,
    encoding: Encoding = "form",
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Sign and post one callback as Yida would. Adds dateTime where it is not given."""
    from taskbridge.cli.sending import post_callback

    parameters = _parameters(parameter, task_file)
    answer = post_callback(edge_url(url, data_dir), action, parameters, system_token=_token(token), encoding=encoding)
    found = {"status": answer.status, "body": answer.body}
    say(
        json.dumps(found, ensure_ascii=False)
        if as_json
        else f"{answer.status} {json.dumps(answer.body, ensure_ascii=False)}"
    )
    if not answer.accepted:
        raise typer.Exit(1)


@app.command(epilog=_example("taskbridge sign --token SECRET -p appType=APP_1 -p corpId=ding1 -p formInstId=I-1"))
def sign(
    token: Token,
    parameter: Parameters = None,
    task_file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A file whose text is the 'task' parameter.")
    ] = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Print the signature of these parameters and the text that is signed, with the token masked."""
    from taskbridge.edge.verification import signature

    parameters = _parameters(parameter, task_file)
    found: dict[str, Any] = {
        "sign": signature.sign(parameters, system_token=_token(token)),
        "canonical": signature.canonical_string(parameters) + "***",
        "key_order": signature.canonical_order(parameters),
    }
    if as_json:
        say(json.dumps(found, ensure_ascii=False))
    else:
        say(f"sign       {found['sign']}\nkey order  {' '.join(found['key_order'])}\ncanonical  {found['canonical']}")


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
        from taskbridge.cli.tail import Decoder, follow

        connection = _connection(bootstrap_servers, registry_url, data_dir)
        decode = Decoder(connection.registry)
        records = follow(connection, topic, from_beginning=from_beginning, stopped=stop.is_set)
        for count, message in enumerate(records, 1):
            say(json.dumps(decode(message), ensure_ascii=False))
            if count == maximum:
                break


@app.command(epilog=_example("taskbridge tokens", "taskbridge tokens --data-dir /var/lib/taskbridge --json"))
def tokens(
    credentials: Credentials = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Tell for each token when it was last used, so that an old one can be retired. Tokens are named, never shown."""
    from taskbridge.cli.data_folder import data_folder, edge_folder
    from taskbridge.cli.tokens import report_tokens

    path = credentials or data_folder(data_dir).credentials
    reports = report_tokens(path, edge_folder(data_dir))
    for report in reports:
        say(json.dumps(report.as_json(), ensure_ascii=False) if as_json else report.line())
    if not reports:
        progress(f"{path} has no token")


def main() -> None:
    """Run the program: exit code 0, 1 with one readable line, or 2 for usage."""
    try:
        app()
    except TaskbridgeError as error:
        sys.exit(f"taskbridge: {error}")
    except BrokenPipeError:
        # The reader of our output has gone (`taskbridge tail … | head`); the interpreter must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _connection(bootstrap_servers: str | None, registry_url: str | None, data_dir: Path | None) -> Connection:
    from taskbridge.cli.connection import find_connection

    return find_connection(bootstrap_servers, registry_url, data_dir=data_dir)


def _options(  # in the order of the flags
    data_dir: Path, edge_port: int, streams_port: int, kafka_port: int, registry_port: int, credentials: Path | None
) -> BridgeOptions:
    from taskbridge.cli.bridge import BridgeOptions

    return BridgeOptions(
        data_dir=data_dir,
        edge_port=edge_port,
        streams_port=streams_port,
        kafka_port=kafka_port,
        registry_port=registry_port,
        credentials=credentials,
    )


def _token(token: str) -> str:
    if not token.strip():
        raise typer.BadParameter("a blank token signs nothing", param_hint="--token")
    return token


def _parameters(given: list[str] | None, task_file: Path | None) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for each in given or []:
        key, separator, value = each.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"'{each}' is not KEY=VALUE", param_hint="-p")
        if key in parameters:
            raise typer.BadParameter(f"'{key}' is given twice", param_hint="-p")
        parameters[key] = value
    if task_file is not None:
        try:
            parameters["task"] = task_file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise typer.BadParameter(f"{task_file} is no text in UTF-8: {error}", param_hint="--task-file") from error
    return parameters


@contextmanager
def _bridge(options: BridgeOptions, *, keep_data: bool) -> Generator[Bridge]:
    from taskbridge.cli.bridge import Bridge

    bridge = Bridge(options, progress=progress, keep_data=keep_data)
    try:
        yield bridge
    except Stopped:
        progress("stopping")
        raise
    finally:
        bridge.stop()


def _print_addresses(bridge: Bridge, connection: Connection) -> None:
    say(f"edge         {bridge.edge_url}/yida/tasks/{{create|complete|cancel|delete|cc}}")
    say(f"streams      {bridge.streams_url}")
    say(f"task center  {bridge.streams_url}/")
    say(f"operations   {bridge.streams_url}/ops")
    say(f"Kafka        {connection.bootstrap_servers}")
    say(f"registry     {connection.registry_url}")
    say(f"credentials  {bridge.credentials}")
    say("for commands in other terminals, so that they find all this:")
    say(f"  export TASKBRIDGE_DATA_DIR={shlex.quote(str(bridge.data_dir))}")


if __name__ == "__main__":
    main()
