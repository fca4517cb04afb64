"""The parts of a run: the contenders of each, their turns, and progress lines."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.bench.command import NotCounted
from tests.bench.streams.comparisons import LATENCY, RECOVERY, THROUGHPUT, Results, watched
from tests.bench.streams.contenders import (
    KAFKA_STREAMS,
    KAFKA_STREAMS_EXACTLY_ONCE,
    PEERS,
    TASKBRIDGE,
    prepare,
)
from tests.bench.streams.latency import KAFKA_WARM_UP_S, measure_latency
from tests.bench.streams.records import preload
from tests.bench.streams.recovery import measure_recovery
from tests.bench.streams.scaling import measure_scaling
from tests.bench.streams.throughput import WARM_UP, measure
from tests.bench.streams.workload import EVENTS_PER_INSTANCE

from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.topics import TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from tests.bench.rounds import Rounds
    from tests.bench.streams.checker import Reference
    from tests.bench.streams.comparisons import Figures
    from tests.bench.streams.contenders import Contender
    from tests.bench.streams.setup import Setup

PARTS = ("throughput", "recovery", "latency", "scaling")

_THROUGHPUT = (TASKBRIDGE, *PEERS)
_RECOVERING = (TASKBRIDGE, KAFKA_STREAMS)
_TIMED = (TASKBRIDGE, KAFKA_STREAMS, KAFKA_STREAMS_EXACTLY_ONCE)


class Run:
    """Contenders that are ready to be started, and their results so far."""

    def __init__(self, setup: Setup, peers: Sequence[str]) -> None:
        self._setup = setup
        self.results = Results()
        self.left_out: dict[str, str] = {}
        self.job: list[str] = []
        self.ended: dict[str, str] = {}
        """By part, how many rounds there were."""
        self._out: set[str] = set()
        self.contenders: list[Contender] = []
        for name in [TASKBRIDGE, *peers]:
            try:
                self.contenders.append(prepare(name, setup))
            except OperatorError as error:
                self._leave_out(name, error)

    def throughput(self, rounds: Rounds, *, events: int) -> None:
        whole = preload(self._setup, TASK_EVENTS.name, events)
        self._describe(whole)
        found = self.results.windows
        for number, contender in self._turns("throughput", rounds, found, THROUGHPUT, _THROUGHPUT):
            with self._counting(contender, "throughput", found):
                window = measure(contender, self._setup, TASK_EVENTS.name, whole, f"rate-{number}")
                found.setdefault(contender.name, []).append(window)
                self._say(
                    f"round {number}  {contender.name:42}{window.per_second:8,.0f} events/s"
                    f" {window.per_cpu_second:8,.0f} per CPU s {window.peak_mb:6,.0f} MiB"
                )
        self._setup.kafka.delete([TASK_EVENTS.name])

    def recovery(self, rounds: Rounds, *, states: int) -> None:
        for number, contender in self._turns("recovery", rounds, self.results.restored, RECOVERY, _RECOVERING):
            with self._counting(contender, "recovery", self.results.restored):
                found = measure_recovery(contender, self._setup, states, f"recovery-{number}")
                self.results.restored.setdefault(contender.name, []).append(found)
                self._say(
                    f"recovery {number}  {contender.name:42}{found.states:,} states in {found.seconds:.1f} s,"
                    f" {found.cpu_us:.1f} µs CPU each"
                )

    def latency(self, rounds: Rounds, *, seconds: int) -> None:
        for contender in self._of(_TIMED):
            with self._counting(contender, "latency", {}):
                measure_latency(contender, self._setup, seconds=KAFKA_WARM_UP_S, label="latency-0")
                self._say(f"latency    {contender.name:42}has warmed Kafka up")
        for number, contender in self._turns("latency", rounds, self.results.latencies, LATENCY, _TIMED):
            with self._counting(contender, "latency", self.results.latencies):
                found = measure_latency(contender, self._setup, seconds=seconds, label=f"latency-{number}")
                self.results.latencies.setdefault(contender.name, []).append(found)
                times = f"p50 {found.p50_ms:.1f} ms  p99 {found.p99_ms:.1f} ms"
                self._say(f"latency {number}  {contender.name:42}{times}")

    def scaling(self, *, events: int, instances: Sequence[int]) -> None:
        contender = self.contenders[0]
        for many in instances:
            found = measure_scaling(contender, self._setup, instances=many, events=events, label=f"scaling-{many}")
            self.results.scaled.setdefault(many, []).append(found)
            self._say(f"scaling  {many:,} instances  {found.cpu_us:.0f} µs CPU/event  {found.memory_mb:.0f} MiB")

    def _turns(
        self, part: str, rounds: Rounds, found: dict[str, Any], figures: Figures, names: Sequence[str]
    ) -> Generator[tuple[int, Contender]]:
        for number in rounds.numbers(lambda: watched(found, figures)):
            for contender in self._of(names):
                yield number, contender
        self._out.clear()
        self.ended[part] = rounds.ended
        self._say(f"{part}: {rounds.ended}")

    def _of(self, names: Sequence[str]) -> Generator[Contender]:
        for contender in self.contenders:
            if contender.name in names and contender.name not in self._out:
                yield contender

    @contextmanager
    def _counting(self, contender: Contender, part: str, found: dict[str, Any]) -> Generator[None]:
        """A peer whose work does not count is left out of this part, and the page says why; ours ends the run."""
        try:
            yield
        except NotCounted as error:
            if contender.name == TASKBRIDGE:
                raise
            self._leave_out(contender.name, f"{part}: {error}")
            self._out.add(contender.name)
            # Its other rounds too: ratios are within one round.
            found.pop(contender.name, None)

    def _leave_out(self, name: str, reason: object) -> None:
        self.left_out[name] = str(reason)
        self._say(f"LEFT OUT: {name}: {reason}")

    def _describe(self, whole: Reference) -> None:
        instances = whole.events // EVENTS_PER_INSTANCE
        partitions = self._setup.partitions
        self.job = [
            f"The reference job: {whole.events:,} task events of some 900 bytes of Avro, ten for each of {instances:,}",
            f"instances, on {partitions} partitions, which come to {whole.notified[-1]:,} notifications.",
            "Instances are merged at random, each in its own order; a few events come twice or out of order.",
            "For each event: decode, read the instance, fold, write it to store and changelog, publish its state and",
            "notifications; acks=all, uncompressed.",
            f"{TASKBRIDGE} and {KAFKA_STREAMS_EXACTLY_ONCE} do so exactly once, the others at least once.",
            "",
            "The events are on the topic before a contender starts. The clock runs from the moment at which",
            f"{WARM_UP:.0%} of its notifications are on Kafka (what comes before warms it up) until its last",
            "output is, both by the broker's time; CPU time is the process's, all threads, between the same moments.",
            "Contenders take turns, alone with Kafka; a figure is the median of the rounds, its range in brackets.",
            "",
            "A round counts only if the last states, the views that all notifications come to, and the set of their",
            "ids are those of the project's own fold.",
        ]

    def _say(self, line: str) -> None:
        self._setup.progress(line)
