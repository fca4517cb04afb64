"""``taskbridge bench capacity``: how many callbacks a second all services on this machine take together."""

from __future__ import annotations

import json
import os
import tempfile
import time
import uuid
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.bench.capacity.pages import Pages
from tests.bench.capacity.report import Window, write_report
from tests.bench.center.installations import DATABASES, SQLITE, Center
from tests.bench.command import NotCounted, at_least, flags_of, progress, run_benchmark
from tests.bench.edge.loads import run_open_loop
from tests.bench.edge.servers import build_go
from tests.bench.machine import before, cpu_seconds
from tests.bench.services import start_bridge
from tests.bench.streams.records import read_all
from tests.bench.streams.setup import start
from tests.bench.webhooks.installations import Webhooks
from tests.bench.webhooks.receiver import Receiver

from taskbridge.edge.sender import encode_callback, signed
from taskbridge.local.host import require_space
from taskbridge.local.stack import JvmStack
from taskbridge.local.supervisor import Supervisor
from taskbridge.schemas.codec import task_notification_codec
from taskbridge.schemas.topics import TASK_NOTIFICATIONS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping
    from collections.abc import Set as AbstractSet

    from tests.bench.streams.setup import Setup

_DISK_MB = 8000
_RATES = (50, 250, 500, 1000, 1500, 2000, 3000, 4000)
_APP, _TOKEN = "APP_CAPACITY", "CAPACITYTOKEN0123456789"
_SHOWN, _DELIVERED = "shown", "delivered"
"""The corp whose people have open pages, and the one with an endpoint of webhooks."""
_DELIVERED_ONE_IN = 10
_PEOPLE = 1000
"""Assignees of the callbacks, in turns."""
_SETTLED_S = 60.0
_WARM_UP_PER_S = 500
_AT_REST_S = 20
_NS_PER_MS = 1_000_000


class Services:
    """Edge, streams, a center with open pages and webhooks, on one Kafka; and a load from outside."""

    def __init__(self, stack: ExitStack, setup: Setup, program: Path, arguments: argparse.Namespace) -> None:
        self._setup, self._program = setup, program
        credentials = setup.folder / "credentials.toml"
        app = f'[[apps]]\napp_type = "{_APP}"\nsystem_tokens = ["{_TOKEN}"]\n'
        credentials.write_text("".join(f'{app}corp_id = "{each}"\n' for each in (_SHOWN, _DELIVERED)))
        bridge = start_bridge(stack, setup, credentials)
        self._address = urlsplit(bridge.edge).netloc
        center = stack.enter_context(Center(setup, arguments.database, stack))
        center.until_ready()
        self._receiver = Receiver(stack, setup.folder)
        webhooks = stack.enter_context(Webhooks(setup, arguments.database, self._receiver, [_DELIVERED], 10))
        self.pids = {**bridge.pids, "center": center.pid, "webhooks": webhooks.pid}
        self._people = [_person(each) for each in range(_PEOPLE) if _corp(each) == _SHOWN][: arguments.pages]
        self._pages = Pages(stack, center.url, _SHOWN, self._people)

    def load(self, rate: int, seconds: int) -> Window:
        """Load the edge at a rate, and wait until all has arrived.

        Raises:
            NotCounted: A callback is refused, or a notification does not arrive.
        """
        run, numbers = uuid.uuid4().hex[:8], range(rate * seconds)
        bodies = self._setup.folder / "bodies"
        bodies.write_bytes(b"".join(_callback(run, each) + b"\n" for each in numbers))
        arguments = [f"-address={self._address}", "-path=/yida/tasks/create", f"-bodies={bodies}"]
        arguments.append("-content-type=application/x-www-form-urlencoded")
        used, began = self._cpu(), time.monotonic()
        sent = run_open_loop(self._program, arguments, rate=rate, seconds=seconds, who=f"{rate}/s")
        took = time.monotonic() - began
        cores = {name: (now - used[name]) / took for name, now in self._cpu().items()}
        due = {f"{run}-{each}": sent["began_ns"] + each * 10**9 // rate for each in numbers}
        shown = {f"{run}-{each}" for each in numbers if _corp(each) == _SHOWN and _person(each) in self._people}
        delivered = {f"{run}-{each}" for each in numbers if _corp(each) == _DELIVERED}
        return Window(
            rate,
            (sent["p50_us"] / 1000, sent["p99_us"] / 1000),
            _latencies(due, _arrived(self._pages.take, shown, "open pages")),
            _latencies(due, _arrived(self._take_deliveries, delivered, "the receiver")),
            cores,
        )

    def at_rest(self, seconds: int) -> dict[str, float]:
        """CPU seconds of each service for each second without a callback."""
        used = self._cpu()
        time.sleep(seconds)
        return {name: (now - used[name]) / seconds for name, now in self._cpu().items()}

    def _take_deliveries(self) -> dict[str, int]:
        """Deliveries by task. The receiver has the ids of notifications; the topic says of which tasks they are."""
        # Both clocks are read at once: the receiver's begins with the machine.
        offset_ns = time.time_ns() - time.monotonic_ns()
        arrivals = {each.id: each.at_ns + offset_ns for each in self._receiver.take()[_DELIVERED]}
        codec = task_notification_codec(self._setup.registry)
        found = dict[str, int]()
        for record in read_all(self._setup, TASK_NOTIFICATIONS.name) if arrivals else ():
            assert record.value is not None
            notification = codec.decode(record.value)
            if (at_ns := arrivals.get(notification.notification_id)) and notification.task_id:
                found.setdefault(notification.task_id, at_ns)
        return found

    def _cpu(self) -> dict[str, float]:
        return {name: cpu_seconds(pid) for name, pid in self.pids.items()}


def _arrived(take: Callable[[], Mapping[str, int]], expected: AbstractSet[str], where: str) -> dict[str, int]:
    """When the first notification of each task arrived. ``take`` returns what came since its last call."""
    found, deadline = dict[str, int](), time.monotonic() + _SETTLED_S
    while expected - found.keys():
        if time.monotonic() > deadline:
            missing = len(expected - found.keys())
            raise NotCounted(f"{missing} of {len(expected)} did not arrive at {where} within {_SETTLED_S:.0f} s")
        time.sleep(1)
        found = {**take(), **found}
    return {task: found[task] for task in expected}


def _latencies(due: Mapping[str, int], arrived: Mapping[str, int]) -> tuple[float, float]:
    found = sorted((at_ns - due[task]) / _NS_PER_MS for task, at_ns in arrived.items())
    return found[len(found) // 2], found[len(found) * 99 // 100]


def _person(number: int) -> str:
    return f"person{number % _PEOPLE:04}"


def _corp(number: int) -> str:
    return _DELIVERED if number % _DELIVERED_ONE_IN == 0 else _SHOWN


def _callback(run: str, number: int) -> bytes:
    task = {
        "appType": _APP,
        "formInstanceId": str(uuid.uuid4()),
        "originatorCorpId": _corp(number),
        "originatorId": "employee01",
        "title": f"访客申请 {number}",
        "taskId": f"{run}-{number}",
        "actionerId": _person(number),
        "dataMap": {"textField_l4s57vmc": f"visitor {number}", "numberField_li9yr6gs": str(number)},
    }
    parameters = {"dateTime": str(time.time_ns() // _NS_PER_MS), "task": json.dumps(task, ensure_ascii=False)}
    return encode_callback(signed(parameters, system_token=_TOKEN), "form").body


def _measure(arguments: argparse.Namespace) -> Path:
    earlier, windows, ended = before(), list[Window](), "The highest rate was reached."
    program = build_go(progress) / "openloop"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taskbridge-bench-")))
        require_space(folder, needed_mb=_DISK_MB, remedy="free some, or set TMPDIR to another disk")
        supervisor = stack.enter_context(Supervisor(on_event=progress))
        # As `taskbridge up` runs it: the second compiler of Kafka's JVM would take a core for the first minutes.
        setup = start(
            supervisor,
            folder,
            partitions=arguments.partitions,
            environ=os.environ,
            progress=progress,
            stack=JvmStack,
        )
        setup.create_topics()
        services = Services(stack, setup, program, arguments)
        services.pids["Kafka"] = supervisor.pid("kafka") or 0
        services.load(_WARM_UP_PER_S, arguments.warm_up)
        rest = services.at_rest(_AT_REST_S)
        for rate in arguments.rates:
            try:
                window = max(
                    (services.load(rate, arguments.seconds) for _ in range(arguments.rounds)),
                    key=lambda each: each.slowest_ms,
                )
            except NotCounted as error:
                if not windows:
                    raise
                ended = f"{rate:,}/s: {error}."
                break
            windows.append(window)
            progress(window)
            if not window.holds:
                ended = f"{rate:,}/s is too much."
                break
    about = (
        f"Times are p50 / p99 in ms since the callback was due, of the slowest of {arguments.rounds} windows of"
        f" {arguments.seconds} s. Creates of {_PEOPLE:,} people's tasks arrive at one edge; one worker folds them; one"
        f" center, with {arguments.pages} open pages, and webhooks, which deliver one in {_DELIVERED_ONE_IN} callbacks,"
        f" are on {arguments.database}. Kafka and the load share the cores. At rest all of them take"
        f" {sum(rest.values()):.1%} of a core: {', '.join(f'{name} {each:.1%}' for name, each in rest.items())}."
    )
    return write_report(arguments.out, windows, about, ended, command=_command(arguments), earlier=earlier)


def _command(arguments: argparse.Namespace) -> str:
    counts = " ".join(f"--{name} {getattr(arguments, name)}" for name in ("seconds", "rounds", "pages", "database"))
    return f"taskbridge bench capacity --rates {' '.join(map(str, arguments.rates))} {counts}"


def _arguments() -> argparse.Namespace:
    parser = flags_of(
        "capacity",
        "Find the highest rate of callbacks that edge, streams, center and webhooks on this machine take. Needs Go.",
    )
    number = at_least(1)
    parser.add_argument("--rates", nargs="+", type=number, default=_RATES, help="callbacks a second, ascending")
    parser.add_argument("--seconds", type=number, default=10, help="how long each rate lasts")
    parser.add_argument("--rounds", type=number, default=2, help="windows of each rate: the slowest counts")
    parser.add_argument("--warm-up", type=number, default=30, help="seconds before the first window")
    parser.add_argument("--pages", type=number, default=50, help="people with an open page")
    parser.add_argument("--database", choices=DATABASES, default=SQLITE, help="of center and webhooks")
    parser.add_argument("--partitions", type=number, default=12, help="of every topic")
    return parser.parse_args()


if __name__ == "__main__":
    run_benchmark("capacity", partial(_measure, _arguments()))
