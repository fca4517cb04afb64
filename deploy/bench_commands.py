"""``taskbridge bench``: measures this checkout. The harness stands in ``tests/bench``, which is in no wheel."""

from __future__ import annotations

import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from schemas.errors import ConfigurationError

_CHECKOUT = Path(__file__).parents[1]

bench_app = typer.Typer(help="Measurements; they run from a checkout.", no_args_is_help=True)


class Peer(StrEnum):
    """A server that the edge is measured beside."""

    BARE_ASGI = "bare-asgi"
    GO = "go"
    SPRING_BOOT = "spring-boot"
    EDGE_2_WORKERS = "edge-2-workers"
    EDGE_SPOOL = "edge-spool"


@bench_app.command(
    epilog="Example:\n\ntaskbridge bench edge\n\ntaskbridge bench edge --rounds 3 --peers go --peers bare-asgi"
)
def edge(
    rounds: Annotated[int, typer.Option(min=1, help="How often the servers take turns.")] = 5,
    seconds: Annotated[int, typer.Option(min=1, help="How long each is loaded at a time.")] = 4,
    peers: Annotated[list[Peer] | None, typer.Option(help="May be repeated. Default: all.")] = None,
    out: Annotated[Path, typer.Option(help="Where the page and its plots are written.")] = Path("docs/benchmarks"),
) -> None:
    """Measure the edge beside a bare ASGI app, Go and Spring Boot, in one run of some eight minutes.

    Needs wrk (apt-get install wrk); a peer whose toolchain (go, mvn) is missing is left out, and the page says so.
    """
    _require_checkout("tests/bench/edge/__main__.py")
    argv = [sys.executable, "-m", "tests.bench.edge", f"--rounds={rounds}", f"--seconds={seconds}"]
    argv += [f"--out={out.resolve()}", "--peers", *(peers or Peer)]
    try:
        status = subprocess.run(argv, cwd=_CHECKOUT, check=False).returncode
    except KeyboardInterrupt:
        status = 1  # it got the same Ctrl-C, and has stopped its servers
    raise typer.Exit(status)


def _require_checkout(harness: str) -> None:
    if not (_CHECKOUT / harness).is_file():
        raise ConfigurationError(f"{harness} is not there: benchmarks run from a checkout of taskbridge, not a wheel")
