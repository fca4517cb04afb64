"""The command ``taskbridge simulate``: flags, help and what is printed."""

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
    rate: Annotated[float, typer.Option(min=0.01, help="Callbacks a second.")] = 5.0,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0, help="Stop after so long.")] = None,
    chaos: Annotated[float, typer.Option(min=0, max=1, help="Share that comes twice, or out of order.")] = 0.05,
    drop: Annotated[float, typer.Option(min=0, max=0.9, help="Share that is never posted, though it happened.")] = 0.0,
    dingtalk_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Serve a DingTalk that knows all that happened; 0 is a free port."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed is the same company life. Default: a new one.")
    ] = None,
    app: Annotated[
        list[str] | None, typer.Option(help="An app type that posts; may be repeated. Default: all.")
    ] = None,
    corp: Annotated[str | None, typer.Option(help="The organisation, where the credentials name none.")] = None,
    token: Annotated[
        str | None,
        typer.Option(help="The apps' system token, instead of a credentials file.", envvar="TASKBRIDGE_SYSTEM_TOKEN"),
    ] = None,
    credentials: Credentials = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Be a company at work: some dozen people file, approve, cancel and copy, until Ctrl-C.

    Every callback is signed and posted as Yida does it, and never a second time, whatever the answer. Without --url
    its people and forms are called by their names. Exit code 0, on Ctrl-C too; 1 when not even the first was accepted.
    """
    if token is not None and not (app and token.strip()):
        raise typer.BadParameter("needs --app, and must not be blank", param_hint="--token")
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
            progress(f"people and forms will have no names: {error}")
        page, name = page_of(running.streams_url, apps[0].corp_id, busiest().user_id), busiest().name
        progress(f"open {page} for the tasks of {name}; 'taskbridge people list' has the other people's ids")
    url = edge_url(url, data_dir)
    chosen = secrets.randbelow(1 << 32) if seed is None else seed
    progress(f"{len(apps)} apps post {rate:g} callbacks a second to {url}, seed {chosen}; Ctrl-C ends it")
    truth, tally = Truth(apps, is_asked=dingtalk_port is not None), Tally()
    simulation = Simulation(apps, seed=chosen, chaos=chaos, drop=drop, happened=truth.happened)
    with stop_signal() as stop, truth.served(dingtalk_port) as dingtalk, stop.interrupting():  # an answer may take long
        if dingtalk is not None:
            corps = ", ".join(sorted({each.corp_id for each in apps}))
            known = f"{truth.dingtalk.app_key}, {truth.dingtalk.user_id} of {corps}"
            progress(f"what happened is known at {dingtalk}, to {known}")
        post(url, simulation, tally=tally, rate=rate, stop=stop, progress=progress, count=count, seconds=seconds)
    if as_json:
        say(json_line({**tally.as_json(), "instances": dict(simulation.started), "seed": chosen}))
        return
    say(tally.line())
    say("instances: " + ", ".join(f"{name} {started}" for name, started in simulation.started.most_common()))
    if tally.problem is not None:
        say(f"the last that was not accepted: {tally.problem}")
