"""The commands ``taskbridge up``, ``demo`` and ``simulate``. The image leaves ``taskbridge-local`` out."""

from __future__ import annotations

import os
import shlex
import tempfile
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskbridge.cli.options import Credentials, DataDir, EdgeUrl, Json, example, operator_connection, service_url
from taskbridge.cli.terminal import Stopped, counted, json_line, progress, say, stop_signal
from taskbridge.schemas.errors import ConfigurationError, OperatorError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from taskbridge.cli.connection import Connection
    from taskbridge.local.bridge import Bridge


commands = typer.Typer()

EdgePort = Annotated[int, typer.Option(min=1, max=65535, help="Port on which the edge receives callbacks.")]
CenterPort = Annotated[int, typer.Option(min=1, max=65535, help="Port of the task center and its API.")]
StreamsPort = Annotated[int, typer.Option(min=1, max=65535, help="Port of the health and metrics of streams.")]
KafkaPort = Annotated[int, typer.Option(min=1, max=65535, help="Port of Kafka, where this starts Kafka.")]
RegistryPort = Annotated[int, typer.Option(min=1, max=65535, help="Port of the registry, where this starts it.")]
Webhooks = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Endpoints file: start webhooks, too, on WEBHOOKS_PORT.")
]
Edges = Annotated[
    int, typer.Option(min=1, max=64, help="Number of edges that share the port, for more callbacks per second.")
]
FreePort = Annotated[int | None, typer.Option(min=1, max=65535, help="Default: a free port.")]

_INTERRUPTED = 130
"""Exit code of a command that Ctrl-C interrupted, as in shells."""


@commands.command(
    epilog=example(
        "taskbridge up",
        "taskbridge up --data-dir /var/lib/taskbridge --credentials credentials.toml",
        "taskbridge up --webhooks endpoints.toml",
        "taskbridge up --edges 2",
    )
)
def up(  # one flag each: the contract's list
    data_dir: Annotated[Path, typer.Option(help="Folder for all data.", envvar="TASKBRIDGE_DATA_DIR")] = Path(
        "taskbridge-data"
    ),
    edge_port: EdgePort = 8400,
    center_port: CenterPort = 8500,
    streams_port: StreamsPort = 8510,
    kafka_port: KafkaPort = 9092,
    registry_port: RegistryPort = 8081,
    credentials: Annotated[
        Path | None, typer.Option(help="Credentials file. Default: one in the data folder, created with an example.")
    ] = None,
    webhooks: Webhooks = None,
    edges: Edges = 1,
) -> None:
    """Start Kafka, registry, edge, streams and task center in the foreground, until Ctrl-C or SIGTERM."""
    flags = locals()
    with stop_signal() as stop, _bridge("up", os.environ, **flags) as bridge:
        with stop.interrupting():
            connection = bridge.start()
        _print_addresses(bridge, connection, webhooks)
        say("try it       taskbridge simulate")
        say("ready; press Ctrl-C to stop everything")
        stop.wait()
        progress("stopping")


@commands.command(epilog=example("taskbridge demo", "taskbridge demo --keep"))
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Keep it running until Ctrl-C.")] = False,  # noqa: FBT002
    data_dir: Annotated[Path | None, typer.Option(help="Default: a temporary folder, removed at the end.")] = None,
    edge_port: FreePort = None,
    center_port: FreePort = None,
    streams_port: FreePort = None,
    kafka_port: FreePort = None,
    registry_port: FreePort = None,
    credentials: Annotated[
        Path | None, typer.Option(help="File to which the demo writes its app and token. Default: in the data folder.")
    ] = None,
    webhooks: Webhooks = None,
    edges: Edges = 1,
) -> None:
    """Start everything, post three requests as signed callbacks, and show the resulting notifications."""
    _check_installed("demo")
    from rich.console import Console

    from taskbridge.local.demo import person_of_assistant, person_pages, play, trickle, write_credentials
    from taskbridge.local.host import free_ports, readable_os_errors

    with stop_signal() as stop, tempfile.TemporaryDirectory(prefix="taskbridge-demo-") as temporary:
        folder = data_dir or Path(temporary)
        given = {"edge_port": edge_port, "center_port": center_port, "streams_port": streams_port}
        given |= {"kafka_port": kafka_port, "registry_port": registry_port}
        free = iter(free_ports(len(given) + 1, excluding=[port for port in given.values() if port is not None]))
        ports = {name: next(free) if port is None else port for name, port in given.items()}
        credentials = credentials or folder / "credentials.toml"
        with readable_os_errors(credentials.parent, remedy="choose another --data-dir or --credentials"):
            token = write_credentials(credentials)
        options = {"data_dir": folder, **ports, "credentials": credentials, "webhooks": webhooks, "edges": edges}
        environment = {"WEBHOOKS_PORT": str(next(free)), "CENTER_MCP": "on", **os.environ}
        with _bridge("demo", environment, **options) as bridge:
            with stop.interrupting():
                connection = bridge.start()
                play(connection, bridge.edge_url, token, Console())
            if keep:
                _print_addresses(bridge, connection, webhooks)
                for name, page in person_pages(bridge.center_url).items():
                    say(f"  {name:28} {page}")
                corp, user = person_of_assistant()
                say(f"for an assistant (MCP)         {bridge.center_url}/mcp")
                say(f"  tell it corp_id {corp} and user_id {user}, as no sign-in is set up here")
                say("a simulated company keeps the pages changing; press Ctrl-C to stop everything")
                trickle(bridge.edge_url, bridge.credentials, stop)
            progress("stopping")
        return
    raise typer.Exit(_INTERRUPTED)


@commands.command(
    epilog=example(
        "taskbridge simulate --rate 5",
        "taskbridge simulate --rate 50 --seconds 60 --chaos 0.1 --seed 7",
        "taskbridge simulate --drop 0.01 --dingtalk-port 8790",
        "taskbridge simulate --url http://127.0.0.1:8400 --app APP_1 --token SECRET --count 100 --json",
    )
)
def simulate(
    url: EdgeUrl = None,
    rate: Annotated[float, typer.Option(min=0.01, help="Callbacks per second.")] = 5.0,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after this many callbacks.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0, help="Stop after this many seconds.")] = None,
    chaos: Annotated[float, typer.Option(min=0, max=1, help="Share of callbacks posted twice or out of order.")] = 0.05,
    drop: Annotated[float, typer.Option(min=0, max=0.9, help="Share of callbacks never posted.")] = 0.0,
    dingtalk_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Serve a fake DingTalk that has all events, also dropped ones; 0 is a free port."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the random events; the same seed repeats them. Default: random.")
    ] = None,
    app: Annotated[list[str] | None, typer.Option(help="App type that posts; may be repeated. Default: all.")] = None,
    corp: Annotated[str | None, typer.Option(help="Corp of apps without one in the credentials.")] = None,
    token: Annotated[
        str | None,
        typer.Option(help="System token of the apps, instead of a credentials file.", envvar="TASKBRIDGE_SYSTEM_TOKEN"),
    ] = None,
    credentials: Credentials = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Simulate a company at work, until Ctrl-C: some dozen people file, approve, cancel and copy.

    Every callback is signed and posted once, as Yida does, with any response. Without --url, the names of people and
    labels of forms are imported. Exit code 0, also on Ctrl-C; 1 if not even the first callback was accepted.
    """
    if token is not None and not (app and token.strip()):
        raise typer.BadParameter("needs --app, and must not be empty", param_hint="--token")
    _check_installed("simulate")
    import secrets
    from dataclasses import replace

    from taskbridge.cli.data_folder import data_folder
    from taskbridge.local import simulation
    from taskbridge.local.company import CORP, busiest
    from taskbridge.local.host import check_free

    if dingtalk_port:
        check_free(dingtalk_port, "--dingtalk-port")
    if token is not None:
        apps = [simulation.SimulatedApp(each, corp or CORP, token) for each in app or ()]
    else:
        apps = simulation.apps_of(credentials or data_folder(data_dir).credentials, app or ())
        apps = [replace(each, corp_id=corp) for each in apps] if corp else apps
    running = data_folder(data_dir).running() if url is None else None
    if running is not None:
        try:
            with operator_connection(None, None, data_dir) as connection:
                simulation.introduce(connection, {each.corp_id for each in apps}, progress)
        except OperatorError as error:
            progress(f"names of people and forms were not imported: {error}")
        page = simulation.page_of(running.center_url, apps[0].corp_id, busiest().user_id)
        progress(f"open {page} for the tasks of {busiest().name}")
    url = service_url("edge", url, data_dir)
    seed = secrets.randbelow(1 << 32) if seed is None else seed
    posted = f"{counted(len(apps), 'app posts', 'apps post')} {rate:g} callbacks per second"
    progress(f"{posted} to {url}, seed {seed}; press Ctrl-C to stop")
    dingtalk = None if dingtalk_port is None else simulation.SimulatedDingTalk(apps)
    company = simulation.Simulation(
        apps, seed=seed, chaos=chaos, drop=drop, happened=None if dingtalk is None else dingtalk.happened
    )
    if dingtalk is not None:
        dingtalk.fake.on_change = company.decided
    tally = simulation.Tally()
    with (
        stop_signal() as stop,
        nullcontext() if dingtalk is None else dingtalk.served(dingtalk_port or 0) as dingtalk_url,
        stop.interrupting(),  # a response may take long
    ):
        if dingtalk is not None:
            corps = ", ".join(sorted({each.corp_id for each in apps}))
            account = f"app_key {dingtalk.fake.app_key}, user_id {dingtalk.fake.user_id}, corp {corps}"
            account += f", corp_token {dingtalk.fake.organisation.corp_token}"
            progress(f"Fake DingTalk at {dingtalk_url}; {account}")
        simulation.simulate(
            url, company, tally=tally, rate=rate, stop=stop, progress=progress, count=count, seconds=seconds
        )
    if as_json:
        say(json_line({**tally.as_json(), "instances": dict(company.started), "seed": seed}))
        return
    say(tally.line())
    say("instances: " + ", ".join(f"{name} {started}" for name, started in company.started.most_common()))
    if tally.problem is not None:
        say(f"last rejected callback: {tally.problem}")


def _check_installed(command: str) -> None:
    """Check that ``taskbridge-local`` is there, as it is wherever pip installed the program.

    Raises:
        ConfigurationError: It is not.
    """
    if find_spec("taskbridge.local") is None:
        raise ConfigurationError(f"'taskbridge {command}' needs taskbridge-local: pip install taskbridge-local")


@contextmanager
def _bridge(command: str, environment: Mapping[str, str], **options: Any) -> Generator[Bridge]:
    _check_installed(command)
    from taskbridge.local.bridge import Bridge, BridgeOptions

    bridge = Bridge(BridgeOptions(**options), progress=progress, environment=environment)
    try:
        yield bridge
    except Stopped:
        progress("stopping")
        raise
    finally:
        bridge.stop()


def _print_addresses(bridge: Bridge, connection: Connection, webhooks: Path | None) -> None:
    say(f"edge         {bridge.edge_url}/yida/tasks/{{create|complete|cancel|delete|cc}}")
    if len(bridge.operator_urls) > 1:
        say(f"  operators  {' '.join(bridge.operator_urls.values())}")
    say(f"streams      {bridge.streams_url}")
    say(f"task center  {bridge.center_url}/")
    say(f"operations   {bridge.center_url}/ops")
    if webhooks is not None:
        say(f"webhooks     {bridge.webhooks_url}")
    say(f"Kafka        {connection.bootstrap_servers}")
    say(f"registry     {connection.registry_url}")
    say(f"credentials  {bridge.credentials}")
    say("to use commands in another terminal:")
    say(f"  export TASKBRIDGE_DATA_DIR={shlex.quote(str(bridge.data_dir))}")
