"""The data platform's example: its questions are answered right for a simulated month, and again after replays."""

from __future__ import annotations

import json
import random
import re
import shlex
import shutil
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import duckdb
import msgspec
import pytest
from confluent_kafka import Producer

from running_workers import Worker
from stream_lives import caught_up, start_anew
from taskbridge.cli.demo.simulation import SimulatedApp, Simulation
from taskbridge.edge.callbacks import event_of, locate
from taskbridge.runtime.kafka import producer_config
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas import topics
from taskbridge.schemas.codec import task_event_codec
from taskbridge.schemas.topics import TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from taskbridge.cli.connection import Connection
    from taskbridge.cli.demo.simulation import Posting
    from taskbridge.schemas.events import TaskEvent

pytestmark = [pytest.mark.integration, pytest.mark.consumers, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
CALLBACKS = 3_000
BEGIN_MS, DAY_MS = 1_767_225_600_000, 86_400_000
END_MS = BEGIN_MS + 31 * DAY_MS
APPS = [SimulatedApp("APP_1", "corp", "T"), SimulatedApp("APP_2", "corp", "T")]

QUESTIONS = ("time_to_decide", "open_tasks", "load", "results", "cancelled")
UNDECODABLE = (b"", b"{}", b"\x00\x7f\xff\xff\xffof no schema", None)

Answers = dict[str, list[tuple[Any, ...]]]


def month() -> list[Posting]:
    simulation = Simulation(APPS, seed=5, chaos=0.1)
    return [simulation.next(BEGIN_MS + number * 31 * DAY_MS // CALLBACKS) for number in range(CALLBACKS)]


@dataclass
class Task:
    instance_id: str
    app: str
    process: str
    created_ms: int
    assignees: set[str] = field(default_factory=set[str])
    decision: str | None = None
    decided_ms: int = 0
    actor: str = ""


def expected(postings: Iterable[Posting]) -> Answers:
    """From the callbacks' own parameters, by nothing of ours."""
    tasks: dict[str, Task] = {}
    ended: dict[str, tuple[str, str, str]] = {}
    gone: set[str] = set()
    in_order = sorted(postings, key=lambda each: (int(each.parameters["dateTime"]), each.action == "delete"))
    for each in in_order:
        said, at = each.parameters, int(each.parameters["dateTime"])
        if each.action == "create":
            told = json.loads(said["task"])
            if "taskId" in told:
                key = told["taskId"]
                task = tasks.setdefault(
                    key, Task(told["formInstanceId"], told["appType"], told["processName"], told["createTime"])
                )
                task.created_ms = min(task.created_ms, told["createTime"])
                named = told["actionerId"]
                task.assignees.update([named] if isinstance(named, str) else named)
            if "finishTime" in told:
                result = told["processApprovedResult"] or told["processInstanceStatus"]
                ended[told["formInstanceId"]] = (told["appType"], told["processName"], result)
        elif each.action in ("complete", "cancel"):
            task = tasks[said["taskId"]]
            task.decision, task.decided_ms, task.actor = each.action, at, said["actualWorkId"]
        elif each.action == "delete":
            gone.add(said["formInstId"])
    there = [each for each in tasks.values() if each.instance_id not in gone]
    completed = [each for each in there if each.decision == "complete"]
    took: defaultdict[tuple[str, Any], list[float]] = defaultdict(list)
    for each in completed:
        day = datetime.fromtimestamp(each.decided_ms / 1000, UTC).date()
        took[each.app, day - timedelta(days=day.weekday())].append((each.decided_ms - each.created_ms) / 1000)
    open_tasks = [each for each in there if each.decision is None]
    pending = Counter(person for each in open_tasks for person in each.assignees)
    decided = Counter(each.actor for each in completed)
    return {
        "time_to_decide": [
            (*key, len(found), pytest.approx(statistics.median(found)), pytest.approx(percentile_90(found)))
            for key, found in sorted(took.items())
        ],
        "open_tasks": counted((each.app, (END_MS - each.created_ms) // DAY_MS) for each in open_tasks),
        "load": [(each, pending[each], decided[each]) for each in sorted(pending | decided)],
        "results": counted(found for instance_id, found in ended.items() if instance_id not in gone),
        "cancelled": counted((each.app, each.process) for each in there if each.decision == "cancel"),
    }


def percentile_90(values: list[float]) -> float:
    """Between the two nearest, as far as it is from each."""
    ordered = sorted(values)
    whole, part = divmod(0.9 * (len(ordered) - 1), 1)
    at = int(whole)
    return ordered[at] + part * (ordered[min(at + 1, len(ordered) - 1)] - ordered[at])


def counted(found: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [(*key, count) for key, count in sorted(Counter(found).items())]


def event(posting: Posting) -> TaskEvent:
    said = posting.parameters
    return event_of(locate(posting.action, said), said, received_at=int(said["dateTime"]) + 400)


def distinct(postings: Iterable[Posting]) -> list[tuple[Any, ...]]:
    said = {(each.action, json.dumps(each.parameters, sort_keys=True)): event(each).action for each in postings}
    return counted((action,) for action in said.values())


def produce(connection: Connection, postings: Iterable[Posting]) -> None:
    producer = Producer(cast("dict[str, Any]", producer_config(connection.bootstrap_servers)))
    codec = task_event_codec(connection.registry)
    for each in map(event, postings):
        producer.produce(TASK_EVENTS.name, key=each.instance_id.encode(), value=codec.encode(each))
    assert producer.flush(30) == 0


def write_what_is_none(connection: Connection, posting: Posting) -> None:
    """What cannot be decoded, and an event that is taken back."""
    config = producer_config(connection.bootstrap_servers, {"transactional.id": "takes-back"})
    producer = Producer(cast("dict[str, Any]", config))
    producer.init_transactions(30)
    producer.begin_transaction()
    for value in UNDECODABLE:
        producer.produce(TASK_EVENTS.name, key=b"damaged", value=value)
    producer.commit_transaction(30)
    producer.begin_transaction()
    taken_back = msgspec.structs.replace(event(posting), event_id="taken back")
    producer.produce(TASK_EVENTS.name, key=b"I", value=task_event_codec(connection.registry).encode(taken_back))
    assert producer.flush(30) == 0
    producer.abort_transaction(30)


@pytest.fixture
def bridge(own_kafka: Connection) -> Connection:
    start_anew(own_kafka)
    apply_topics(own_kafka.admin(), topics.ALL, partitions=3)
    return own_kafka


@pytest.fixture
def worker(bridge: Connection, tmp_path: Path) -> Generator[Worker]:
    worker = Worker(tmp_path, bridge, STREAMS_TASK_CENTER="false")
    yield worker
    worker.kill_if_running()


PAGE = (ROOT / "docs" / "consumers" / "data-platform.md").read_text("utf-8")


class Platform:
    """The example as its page says to run it."""

    def __init__(self, bridge: Connection, folder: Path) -> None:
        (command,) = re.findall(r"^uv run python (examples/.*)$", PAGE, re.MULTILINE)
        script, _, _, self._folder_on_the_page = shlex.split(command)
        self.folder = folder
        self._argv = [sys.executable, script, bridge.bootstrap_servers, bridge.registry_url, str(folder)]

    def land(self) -> tuple[dict[str, int], str]:
        """How many records landed, by table, and what was complained of."""
        said = subprocess.run(self._argv, cwd=ROOT, check=True, capture_output=True, text=True)
        landed = re.findall(r"^(\w+): (\d+) records landed$", said.stdout, re.MULTILINE)
        return {name: int(count) for name, count in landed}, said.stderr

    def is_killed_while_it_lands(self, eventually: Callable[..., Any]) -> None:
        with subprocess.Popen(self._argv, cwd=ROOT, stdout=subprocess.DEVNULL) as job:
            eventually(lambda: any(self.folder.rglob("*.parquet")), what="the first file")
            job.kill()

    def answers(self) -> Answers:
        """To the page's questions, and what there is of events."""
        with duckdb.connect() as asked:
            asked.execute("SET VARIABLE folder = $1", [str(self.folder)])
            asked.execute("SET VARIABLE now_ms = $1", [END_MS])
            asked.execute((ROOT / "examples" / "data-platform" / "questions.sql").read_text("utf-8"))
            events = asked.execute("SELECT action, count(*) FROM task_events GROUP BY ALL ORDER BY ALL").fetchall()
            return {name: asked.execute(f"FROM {name}").fetchall() for name in QUESTIONS} | {"events": events}

    def shows(self) -> str:
        """What the program on the page prints."""
        (program,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
        assert self._folder_on_the_page in program
        program = program.replace(self._folder_on_the_page, str(self.folder))
        return subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout


def test_the_questions_of_a_month_are_answered_right_and_again_after_every_kind_of_replay(
    bridge: Connection, worker: Worker, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    postings = month()
    right = expected(postings)
    assert all(len(found) >= 3 for found in right.values())
    assert any(each.action == "delete" for each in postings)
    events = distinct(postings)
    assert sum(count for _, count in events) < len(postings), "some came twice"
    right["events"] = events
    platform = Platform(bridge, tmp_path / "landed")
    half = len(postings) // 2
    produce(bridge, postings[:half])
    worker.start()
    eventually(lambda: worker.is_ready() and caught_up(bridge), what="the first half is folded")
    landed, _ = platform.land()
    assert landed["task_events"] == half
    produce(bridge, postings[half:])
    eventually(lambda: caught_up(bridge), what="the month is folded")
    landed, complaints = platform.land()
    assert (landed["task_events"], complaints) == (len(postings) - half, "")
    assert platform.answers() == right
    assert platform.land() == ({"task_events": 0, "task_states": 0}, "")

    again = postings.copy()
    random.Random(1).shuffle(again)
    produce(bridge, again)
    eventually(lambda: caught_up(bridge), what="all of it once more, in another order")
    landed, _ = platform.land()
    assert landed["task_events"] == len(again)
    assert platform.answers() == right

    write_what_is_none(bridge, postings[0])
    landed, complaints = platform.land()
    assert landed["task_events"] == 0
    assert complaints.count("passed over taskbridge.task-events.v1 ") == len(UNDECODABLE)
    assert platform.land() == ({"task_events": 0, "task_states": 0}, ""), "each is told once"
    assert platform.answers() == right

    shutil.rmtree(platform.folder)
    platform.is_killed_while_it_lands(eventually)
    platform.land()
    assert platform.answers() == right
    assert "median_s" in platform.shows()
