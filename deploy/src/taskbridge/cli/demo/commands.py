"""The command ``taskbridge simulate``: options, help and output."""

from __future__ import annotations

from typing import Annotated

import typer

from taskbridge.cli.options import Credentials, DataDir, EdgeUrl, Json, edge_url, example, operator_connection
from taskbridge.cli.terminal import json_line, progress, say, stop_signal
from taskbridge.schemas.errors import OperatorError

# Commands import what they need when they run, as in program.py.

SIMULATE_EXAMPLES = example(
    "taskbridge simulate --rate 5",
    "taskbridge simulate --rate 50 --seconds 60 --chaos 0.1 --seed 7",
    "taskbridge simulate --drop 0.01 --dingtalk-port 8700",
    "taskbridge simulate --url http://127.0.0.1:8400 --app APP_1 --token SECRET --count 100 --json",
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
    import secrets
    from dataclasses import replace

    from taskbridge.cli.data_folder import data_folder
    from taskbridge.cli.demo.company import busiest
    from taskbridge.cli.demo.simulate import SIMULATED_CORP, Tally, apps_of, introduce, page_of
    from taskbridge.cli.demo.simulate import simulate as post
    from taskbridge.cli.demo.simulation import SimulatedApp, Simulation
    from taskbridge.cli.demo.truth import Truth

    if token is not None:
        apps = [SimulatedApp(each, corp or SIMULATED_CORP, token) for each in app or ()]
    else:
        apps = apps_of(credentials or data_folder(data_dir).credentials, app or ())
        apps = [replace(each, corp_id=corp) for each in apps] if corp else apps
    running = data_folder(data_dir).running() if url is None else None
    if running is not None:
        try:
            with operator_connection(None, None, data_dir) as connection:
                introduce(connection, {each.corp_id for each in apps}, progress)
        except OperatorError as error:
            progress(f"names of people and forms were not imported: {error}")
        page, name = page_of(running.streams_url, apps[0].corp_id, busiest().user_id), busiest().name
        progress(f"open {page} for the tasks of {name}; list other people with 'taskbridge people list'")
    url = edge_url(url, data_dir)
    chosen = secrets.randbelow(1 << 32) if seed is None else seed
    progress(f"{len(apps)} apps post {rate:g} callbacks per second to {url}, seed {chosen}; press Ctrl-C to stop")
    truth, tally = Truth(apps, is_served=dingtalk_port is not None), Tally()
    simulation = Simulation(apps, seed=chosen, chaos=chaos, drop=drop, happened=truth.happened)
    with (
        stop_signal() as stop,
        truth.served(dingtalk_port) as dingtalk,
        stop.interrupting(),
    ):  # a response may take long
        if dingtalk is not None:
            corps = ", ".join(sorted({each.corp_id for each in apps}))
            account = f"app_key {truth.dingtalk.app_key}, user_id {truth.dingtalk.user_id}, corp {corps}"
            progress(f"Fake DingTalk at {dingtalk}; {account}")
        post(url, simulation, tally=tally, rate=rate, stop=stop, progress=progress, count=count, seconds=seconds)
    if as_json:
        say(json_line({**tally.as_json(), "instances": dict(simulation.started), "seed": chosen}))
        return
    say(tally.line())
    say("instances: " + ", ".join(f"{name} {started}" for name, started in simulation.started.most_common()))
    if tally.problem is not None:
        say(f"last rejected callback: {tally.problem}")
