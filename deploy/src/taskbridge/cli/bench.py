"""``taskbridge bench``: measures this checkout. The harness in ``tests/bench``, which is in no wheel, has the flags."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from taskbridge.cli.options import example
from taskbridge.local.processes.child import tethered
from taskbridge.schemas.errors import ConfigurationError

_CHECKOUT = Path(__file__).parents[4]
_HANDS_ON = {"ignore_unknown_options": True}


class _Measured(TyperCommand):
    """Its help has the flags of its harness too, where there is one."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        if ctx.info_name is not None and (_CHECKOUT / _harness(ctx.info_name)).is_file():
            done = subprocess.run([*_argv(ctx.info_name), "--help"], env=_env(), capture_output=True, check=False)
            typer.echo(done.stdout)


bench_app = typer.Typer(help="Measurements; they run from a checkout.", no_args_is_help=True)

Flags = Annotated[
    list[str] | None, typer.Argument(metavar="[FLAG]...", help="The harness's own, which `--help` lists too.")
]


@bench_app.command(
    cls=_Measured,
    context_settings=_HANDS_ON,
    epilog=example("taskbridge bench edge", "taskbridge bench edge --most-rounds 3 --peers go bare-asgi"),
)
def edge(flags: Flags = None) -> None:
    """Measure the edge beside a bare ASGI app, Go and Spring Boot, in one run of some 20 minutes.

    Needs wrk (apt-get install wrk); a peer whose toolchain (go, mvn) is missing is left out, and the page says so.
    """
    _run("edge", flags)


@bench_app.command(
    cls=_Measured,
    context_settings=_HANDS_ON,
    epilog=example(
        "taskbridge bench streams", "taskbridge bench streams --most-rounds 1 --events 20000 --only throughput"
    ),
)
def streams(flags: Flags = None) -> None:
    """Measure the streams service beside Kafka Streams, Quix Streams, stock Faust and a plain loop, in some 40 minutes.

    What each of them writes is compared with the project's own fold before a figure counts. Kafka Streams needs mvn
    (apt-get install maven) and Quix Streams uv; a peer whose tool is missing is left out, and the page says so.
    """
    _run("streams", flags)


@bench_app.command(
    cls=_Measured,
    context_settings=_HANDS_ON,
    epilog=example("taskbridge bench query", "taskbridge bench query --users 100 --busy-tasks 10000 --most-rounds 1"),
)
def query(flags: Flags = None) -> None:
    """Measure the task center's queries beside a FastAPI handler that returns a constant, in some ten minutes.

    Needs wrk (apt-get install wrk).
    """
    _run("query", flags)


@bench_app.command(
    cls=_Measured,
    context_settings=_HANDS_ON,
    epilog=example("taskbridge bench live", "taskbridge bench live --most-rounds 1 --streams 1000"),
)
def live(flags: Flags = None) -> None:
    """Measure the way from a callback to an open event stream, and what many open ones take, in some six minutes."""
    _run("live", flags)


@bench_app.command(
    cls=_Measured,
    context_settings=_HANDS_ON,
    epilog=example("taskbridge bench sizing", "taskbridge bench sizing --instances 10000 100000 --rebuilt 10000"),
)
def sizing(flags: Flags = None) -> None:
    """Measure what sizes of machines and disks follow from: rates of callbacks, instances kept, rebuilds.

    Some 20 minutes and 15 GB of disk; writes docs/how-to/size-it.md.
    """
    _run("sizing", flags)


def _run(part: str, flags: list[str] | None) -> None:
    """Have the part measured by its harness, whose pages are written where the command is run."""
    harness = _harness(part)
    if not (_CHECKOUT / harness).is_file():
        raise ConfigurationError(f"{harness} is not there: benchmarks run from a checkout of taskbridge, not a wheel")
    # It stops its servers on Ctrl-C, and so it does when this process is killed.
    argv = tethered([*_argv(part), *(flags or ())], orphan_signal=signal.SIGINT)
    with subprocess.Popen(argv, env=_env()) as process:
        # Ctrl-C reaches it from the terminal too: it stops its servers, and we wait for that.
        signal.signal(signal.SIGINT, lambda _signal, _frame: None)
        signal.signal(signal.SIGTERM, lambda _signal, _frame: process.send_signal(signal.SIGINT))
    raise typer.Exit(process.returncode if process.returncode >= 0 else 1)


def _harness(part: str) -> str:
    return f"tests/bench/{part}/__main__.py"


def _argv(part: str) -> list[str]:
    return [sys.executable, "-P", "-m", f"tests.bench.{part}"]


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(_CHECKOUT)}
