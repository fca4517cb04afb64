"""``taskbridge bench``: run the benchmarks of this checkout. The harness in ``tests/bench`` defines the options."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taskbridge.cli.options import example
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

_CHECKOUT = Path(__file__).parents[4]
_HANDS_ON = {"ignore_unknown_options": True}


bench_app = typer.Typer(help="Run benchmarks, from a checkout.", no_args_is_help=True)

Flags = Annotated[
    list[str] | None, typer.Argument(metavar="[FLAG]...", help="Options of the harness; `-- --help` lists them.")
]


def _benchmark(part: str, options: str, text: str) -> Callable[..., None]:
    """Add the command of a part; its second example has these options."""
    name = f"taskbridge bench {part}"
    examples = example(name, f"{name} {options}")

    @bench_app.command(part, context_settings=_HANDS_ON, help=text, epilog=examples)
    def command(flags: Flags = None) -> None:
        _run(part, flags)

    return command


edge = _benchmark(
    "edge",
    "--most-rounds 3 --peers go bare-asgi",
    "Benchmark the edge against a bare ASGI app, Go and Spring Boot, in one run of about 20 minutes.",
)
streams = _benchmark(
    "streams",
    "--most-rounds 1 --events 20000 --only throughput",
    "Benchmark streams against Kafka Streams, Quix Streams, stock Faust and a plain loop, in about 40 minutes.",
)
center = _benchmark(
    "center",
    "--instances 20000 --most-rounds 1",
    "Benchmark the task center on SQLite and PostgreSQL, next to an earlier release, in about 40 minutes.",
)
webhooks = _benchmark(
    "webhooks",
    "--deliveries 2000 --silent 10000 --most-rounds 1",
    "Benchmark webhooks on SQLite and PostgreSQL in about eight minutes.",
)
sizing = _benchmark(
    "sizing",
    "--instances 10000 100000 --rebuilt 10000",
    "Measure what determines the size of machines and disks, in about 20 minutes, with 15 GB of disk.",
)


def _run(part: str, flags: list[str] | None) -> None:
    """Run the harness of the part; it writes its pages into the working folder."""
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
