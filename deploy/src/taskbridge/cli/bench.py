"""``taskbridge bench``: run the benchmarks of this checkout. The harness in ``tests/bench`` defines the options."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from taskbridge.cli.options import example
from taskbridge.schemas.errors import ConfigurationError

_CHECKOUT = Path(__file__).parents[4]

commands = typer.Typer()


@commands.command(
    context_settings={"ignore_unknown_options": True},
    epilog=example("taskbridge bench edge --most-rounds 3 --peers go bare-asgi", "taskbridge bench capacity -- --help"),
)
def bench(
    part: Annotated[Literal["edge", "streams", "center", "webhooks", "capacity"], typer.Argument(help="What to run.")],
    flags: Annotated[
        list[str] | None, typer.Argument(metavar="FLAG", help="Options of the harness; `-- --help` lists them.")
    ] = None,
) -> None:
    """Run a benchmark from a checkout, for 8 to 40 minutes; it writes its pages into the working folder.

    `edge`, `streams`, `center` and `webhooks` run next to their peers; `capacity` finds what all of them together take.
    """
    harness = f"tests/bench/{part}/__main__.py"
    if not (_CHECKOUT / harness).is_file():
        raise ConfigurationError(
            f"{harness} is missing: benchmarks run from a checkout of taskbridge, not from a wheel"
        )
    from taskbridge.local.child import tethered

    argv = [sys.executable, "-P", "-m", f"tests.bench.{part}", *(flags or ())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_CHECKOUT), str(_CHECKOUT / "tests")])}
    # The harness stops its servers on Ctrl-C, and also when this process is killed.
    with subprocess.Popen(tethered(argv, orphan_signal=signal.SIGINT), env=environment) as process:
        # The terminal sends Ctrl-C to the harness too: wait until it has stopped its servers.
        signal.signal(signal.SIGINT, lambda _signal, _frame: None)
        signal.signal(signal.SIGTERM, lambda _signal, _frame: process.send_signal(signal.SIGINT))
    raise typer.Exit(process.returncode if process.returncode >= 0 else 1)
