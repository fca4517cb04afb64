"""The commands ``taskbridge up`` and ``demo``: run everything on this machine, and print its addresses."""

from __future__ import annotations

import shlex
import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskbridge.cli.options import example
from taskbridge.cli.terminal import Stopped, progress, say, stop_signal

if TYPE_CHECKING:
    from collections.abc import Generator

    from taskbridge.cli.bridge.bridge import Bridge
    from taskbridge.cli.connection import Connection

# Commands import what they need when they run, as in program.py.

UP_EXAMPLES = example("taskbridge up", "taskbridge up --data-dir /var/lib/taskbridge --credentials credentials.toml")
DEMO_EXAMPLES = example("taskbridge demo", "taskbridge demo --keep")

EdgePort = Annotated[int, typer.Option(min=1, max=65535, help="Port on which the edge receives callbacks.")]
StreamsPort = Annotated[int, typer.Option(min=1, max=65535, help="Port of the task center and its API.")]
KafkaPort = Annotated[int, typer.Option(min=1, max=65535, help="Port of Kafka, where this starts Kafka.")]
RegistryPort = Annotated[int, typer.Option(min=1, max=65535, help="Port of the registry, where this starts it.")]
FreePort = Annotated[int | None, typer.Option(min=1, max=65535, help="Default: a free port.")]

_INTERRUPTED = 130
"""Exit code of a command that Ctrl-C interrupted, as in shells."""


def up(  # one flag each: the contract's list
    data_dir: Annotated[Path, typer.Option(help="Folder for all data.", envvar="TASKBRIDGE_DATA_DIR")] = Path(
        "taskbridge-data"
    ),
    edge_port: EdgePort = 8400,
    streams_port: StreamsPort = 8500,
    kafka_port: KafkaPort = 9092,
    registry_port: RegistryPort = 8081,
    credentials: Annotated[
        Path | None, typer.Option(help="Credentials file. Default: one in the data folder, created with an example.")
    ] = None,
) -> None:
    """Start Kafka, registry, edge and streams in the foreground, until Ctrl-C or SIGTERM.

    SIGUSR2 replaces the edge: the new one accepts callbacks before the old one ends.
    """
    flags = locals()
    with stop_signal() as stop, _bridge(**flags) as bridge:
        signal.signal(signal.SIGUSR2, bridge.replace_edge)
        with stop.interrupting():
            connection = bridge.start()
        _print_addresses(bridge, connection)
        say("try it       taskbridge simulate")
        say("ready; press Ctrl-C to stop everything")
        stop.wait()
        progress("stopping")


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Keep it running until Ctrl-C.")] = False,  # noqa: FBT002
    data_dir: Annotated[Path | None, typer.Option(help="Default: a temporary folder, removed at the end.")] = None,
    edge_port: FreePort = None,
    streams_port: FreePort = None,
    kafka_port: FreePort = None,
    registry_port: FreePort = None,
    credentials: Annotated[
        Path | None, typer.Option(help="File to which the demo writes its app and token. Default: in the data folder.")
    ] = None,
) -> None:
    """Start everything, post three requests as signed callbacks, and show the resulting notifications."""
    from rich.console import Console

    from taskbridge.cli.demo.demo import person_pages, play, trickle, write_credentials
    from taskbridge.local.disk import readable_os_errors
    from taskbridge.local.ports import free_ports

    with stop_signal() as stop, tempfile.TemporaryDirectory(prefix="taskbridge-demo-") as temporary:
        folder = data_dir or Path(temporary)
        given = {"edge_port": edge_port, "streams_port": streams_port}
        given |= {"kafka_port": kafka_port, "registry_port": registry_port}
        free = iter(free_ports(len(given), excluding=[port for port in given.values() if port is not None]))
        ports = {name: next(free) if port is None else port for name, port in given.items()}
        credentials = credentials or folder / "credentials.toml"
        with readable_os_errors(credentials.parent, remedy="choose another --data-dir or --credentials"):
            token = write_credentials(credentials)
        with _bridge(data_dir=folder, **ports, credentials=credentials, keep_data=data_dir is not None) as bridge:
            with stop.interrupting():
                connection = bridge.start()
                play(connection, bridge.edge_url, token, Console())
            if keep:
                _print_addresses(bridge, connection)
                for name, page in person_pages(bridge.streams_url).items():
                    say(f"  {name:28} {page}")
                say("a simulated company keeps the pages changing; press Ctrl-C to stop everything")
                trickle(bridge.edge_url, bridge.credentials, stop)
            progress("stopping")
        return
    raise typer.Exit(_INTERRUPTED)


@contextmanager
def _bridge(*, keep_data: bool = True, **options: Any) -> Generator[Bridge]:
    from taskbridge.cli.bridge.bridge import Bridge, BridgeOptions

    bridge = Bridge(BridgeOptions(**options), progress=progress, keep_data=keep_data)
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
    say("to use commands in another terminal:")
    say(f"  export TASKBRIDGE_DATA_DIR={shlex.quote(str(bridge.data_dir))}")
