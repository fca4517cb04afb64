"""``taskbridge bench``: measures this checkout. The harness stands in ``tests/bench``, which is in no wheel."""

from __future__ import annotations

import signal
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from taskbridge.schemas.errors import ConfigurationError

_CHECKOUT = Path(__file__).parents[4]

bench_app = typer.Typer(help="Measurements; they run from a checkout.", no_args_is_help=True)


class StreamsPeer(StrEnum):
    """A program that the streams service is measured beside."""

    KAFKA_STREAMS = "kafka-streams"
    KAFKA_STREAMS_CACHE = "kafka-streams-cache"
    KAFKA_STREAMS_EXACTLY_ONCE = "kafka-streams-exactly-once"
    PLAIN_LOOP = "plain-loop"
    QUIX = "quix"
    STOCK_FAUST = "stock-faust"


Part = Literal["throughput", "recovery", "latency", "scaling"]
"""Of what is measured of the streams service."""


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
    earlier: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Another checkout, whose edge takes part.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the page and its plots are written.")] = Path("docs/benchmarks"),
) -> None:
    """Measure the edge beside a bare ASGI app, Go and Spring Boot, in one run of some eight minutes.

    Needs wrk (apt-get install wrk); a peer whose toolchain (go, mvn) is missing is left out, and the page says so.
    """
    peers = peers or list(Peer)
    _run("edge", **locals())


@bench_app.command(
    epilog="Example:\n\ntaskbridge bench streams\n\ntaskbridge bench streams --events 20000 --only throughput"
)
def streams(
    rounds: Annotated[int, typer.Option(min=1, help="How often the contenders take turns.")] = 3,
    events: Annotated[int, typer.Option(min=1000, help="Events of the reference job.")] = 200_000,
    states: Annotated[int, typer.Option(min=1000, help="States to rebuild after a lost disk.")] = 1_000_000,
    seconds: Annotated[int, typer.Option(min=1, help="How long latencies are measured.")] = 15,
    partitions: Annotated[int, typer.Option(min=1, help="Of every topic.")] = 8,
    peers: Annotated[list[StreamsPeer] | None, typer.Option(help="May be repeated. Default: all.")] = None,
    only: Annotated[Part | None, typer.Option(help="One part, on a page of its own. Default: all but scaling.")] = None,
    scaling: Annotated[bool, typer.Option(help="Also with ten thousand to a million instances.")] = False,  # noqa: FBT002
    instances: Annotated[
        list[int] | None, typer.Option(min=1, help="Of scaling; may be repeated. Default: 10000, 100000, 1000000.")
    ] = None,
    one_core: Annotated[bool, typer.Option(help="Hold each contender to one core.")] = False,  # noqa: FBT002
    out: Annotated[Path, typer.Option(help="Where the page and its plots are written.")] = Path("docs/benchmarks"),
) -> None:
    """Measure the streams service beside Kafka Streams, Quix Streams, stock Faust and a plain loop, in some 20 minutes.

    What each of them writes is compared with the project's own fold before a figure counts. Kafka Streams needs mvn
    (apt-get install maven) and Quix Streams uv; a peer whose tool is missing is left out, and the page says so.
    """
    _run("streams", **locals())


@bench_app.command(
    epilog="Example:\n\ntaskbridge bench query\n\ntaskbridge bench query --users 100 --busy-tasks 10000 --rounds 1"
)
def query(
    rounds: Annotated[int, typer.Option(min=1, help="How often the queries take turns.")] = 3,
    seconds: Annotated[int, typer.Option(min=1, help="How long each kind is asked at a time.")] = 5,
    users: Annotated[int, typer.Option(min=1, help="People with an inbox.")] = 1_000,
    tasks: Annotated[int, typer.Option(min=2, help="Tasks of each.")] = 200,
    busy_tasks: Annotated[int, typer.Option(min=250, help="Handled tasks of one person who has very many.")] = 100_000,
    events_per_second: Annotated[int, typer.Option(min=1, help="Of the stream that is processed meanwhile.")] = 500,
    partitions: Annotated[int, typer.Option(min=1, help="Of every topic.")] = 12,
    out: Annotated[Path, typer.Option(help="Where the page is written.")] = Path("docs/benchmarks"),
) -> None:
    """Measure the task center's queries beside a FastAPI handler that returns a constant, in some ten minutes.

    Needs wrk (apt-get install wrk).
    """
    _run("query", **locals())


@bench_app.command(epilog="Example:\n\ntaskbridge bench live\n\ntaskbridge bench live --callbacks 50 --streams 1000")
def live(
    callbacks: Annotated[int, typer.Option(min=1, help="Posted one after the other, at rest and under events.")] = 300,
    events_per_second: Annotated[int, typer.Option(min=1, help="Of the stream that is processed meanwhile.")] = 200,
    streams: Annotated[int, typer.Option(min=10, help="Event streams that are open at once.")] = 10_000,
    partitions: Annotated[int, typer.Option(min=1, help="Of every topic.")] = 12,
    out: Annotated[Path, typer.Option(help="Where the page is written.")] = Path("docs/benchmarks"),
) -> None:
    """Measure the way from a callback to an open event stream, and what many open ones take, in some three minutes."""
    _run("live", **locals())


def _run(part: str, **flags: Any) -> None:
    """Have the part measured by its harness, which takes the command's own flags."""
    harness = f"tests/bench/{part}/__main__.py"
    if not (_CHECKOUT / harness).is_file():
        raise ConfigurationError(f"{harness} is not there: benchmarks run from a checkout of taskbridge, not a wheel")
    argv = [sys.executable, "-m", f"tests.bench.{part}"]
    for name, value in flags.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, list):
            argv += [flag, *map(str, cast("list[Any]", value))]
        elif value is True:
            argv.append(flag)
        elif value is not None and value is not False:
            argv.append(f"{flag}={value.resolve() if isinstance(value, Path) else value}")
    with subprocess.Popen(argv, cwd=_CHECKOUT) as process:
        # Ctrl-C reaches it from the terminal too: it stops its servers, and we wait for that.
        signal.signal(signal.SIGINT, lambda _signal, _frame: None)
        signal.signal(signal.SIGTERM, lambda _signal, _frame: process.send_signal(signal.SIGINT))
    raise typer.Exit(process.returncode if process.returncode >= 0 else 1)
