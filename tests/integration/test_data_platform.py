"""The data platform's examples: their questions are answered right for a simulated month, and again after replays."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import duckdb
import msgspec
import pytest
from confluent_kafka import Producer

from support import toolchains
from support.streams.lives import caught_up, delete_all_topics, read_topic
from support.streams.processes import Worker
from support.wheels import uv
from taskbridge.edge.decision.callbacks import event_of, locate
from taskbridge.local.simulation import SimulatedApp, Simulation
from taskbridge.runtime.kafka import producer_config
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas import topics
from taskbridge.schemas.codec import task_event_codec
from taskbridge.schemas.topics import TASK_EVENTS, TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from taskbridge.cli.connection import Connection
    from taskbridge.local.simulation import Posting
    from taskbridge.schemas.events import TaskEvent

pytestmark = [pytest.mark.integration, pytest.mark.consumers, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
CALLBACKS = 1_000
BEGIN_MS, DAY_MS = 1_767_225_600_000, 86_400_000
END_MS = BEGIN_MS + 31 * DAY_MS
APPS = [SimulatedApp("APP_1", "corp", "T"), SimulatedApp("APP_2", "corp", "T")]

QUESTIONS = (
    *("time_to_decide", "time_per_step", "bottlenecks", "deciders"),
    *("open_tasks", "load", "results", "cancelled"),
)
COLUMNS: dict[str, tuple[Callable[[str], Any], ...]] = {
    "time_to_decide": (str, date.fromisoformat, int, float, float),
    "time_per_step": (str, str, str, int, float, float, float),
    "bottlenecks": (str, str, str, float),
    "deciders": (str, str, int, int, int, float),
    "open_since": (str, date.fromisoformat, int),
    "load": (str, int, int),
    "results": (str, str, str, int),
    "cancelled": (str, str, int),
    "events": (str, int),
}
"""Of what Flink's example answers, which is text."""
UNDECODABLE = (b"", b"{}", b"\x00\x7f\xff\xff\xffof no schema", None)

Answers = dict[str, list[tuple[Any, ...]]]


def month() -> list[Posting]:
    simulation = Simulation(APPS, seed=2, chaos=0.1)
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
    step: str = ""
    decider: str = ""


def expected(postings: Iterable[Posting]) -> Answers:
    """From the callbacks' own parameters, without our code."""
    tasks: dict[str, Task] = {}
    ended: dict[str, tuple[str, str, str]] = {}
    gone: set[str] = set()
    in_order = sorted(postings, key=lambda each: (int(each.parameters["dateTime"]), each.action == "delete"))
    for each in in_order:
        parameters, at = each.parameters, int(each.parameters["dateTime"])
        if each.action == "create":
            fields = json.loads(parameters["task"])
            if "taskId" in fields:
                key = fields["taskId"]
                task = tasks.setdefault(
                    key, Task(fields["formInstanceId"], fields["appType"], fields["processName"], fields["createTime"])
                )
                task.created_ms = min(task.created_ms, fields["createTime"])
                task.step = fields["showName"]
                named = fields["actionerId"]
                task.assignees.update([named] if isinstance(named, str) else named)
            if "finishTime" in fields:
                result = fields["processApprovedResult"] or fields["processInstanceStatus"]
                ended[fields["formInstanceId"]] = (fields["appType"], fields["processName"], result)
        elif each.action in ("complete", "cancel"):
            task = tasks[parameters["taskId"]]
            task.decision, task.decided_ms, task.actor = each.action, at, parameters["actualWorkId"]
            by_person = "delegate" if "operatorAgentIdList" in parameters else "person"
            task.decider = by_person if parameters.get("taskExecuteType") == "NORMAL" else "automatic"
        elif each.action == "delete":
            gone.add(parameters["formInstId"])
    there = [each for each in tasks.values() if each.instance_id not in gone]
    completed = [each for each in there if each.decision == "complete"]
    took: defaultdict[tuple[str, Any], list[float]] = defaultdict(list)
    for each in completed:
        day = day_of(each.decided_ms)
        took[each.app, day - timedelta(days=day.weekday())].append((each.decided_ms - each.created_ms) / 1000)
    at_steps: defaultdict[tuple[str, str, str], list[float]] = defaultdict(list)
    deciders: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for each in completed:
        at_steps[each.app, each.process, each.step].append((each.decided_ms - each.created_ms) / 1000)
        deciders[each.app, each.process][each.decider] += 1
    longest: dict[tuple[str, str], tuple[float, str]] = {}
    for (app, process, step), found in at_steps.items():
        longest[app, process] = max(longest.get((app, process), (0.0, "")), (sum(found), step))
    open_tasks = [each for each in there if each.decision is None]
    pending = Counter(person for each in open_tasks for person in each.assignees)
    decided = Counter(each.actor for each in completed)
    return {
        "time_to_decide": [
            (*key, len(found), pytest.approx(statistics.median(found)), pytest.approx(percentile_90(found)))
            for key, found in sorted(took.items())
        ],
        "time_per_step": [
            (*key, len(found), *map(pytest.approx, (statistics.median(found), percentile_90(found), sum(found))))
            for key, found in sorted(at_steps.items())
        ],
        "bottlenecks": [(*key, step, pytest.approx(total)) for key, (total, step) in sorted(longest.items())],
        "deciders": [
            (*key, n := found.total(), found["automatic"], found["delegate"], pytest.approx(found["automatic"] / n))
            for key, found in sorted(deciders.items())
        ],
        "open_tasks": counted((each.app, (END_MS - each.created_ms) // DAY_MS) for each in open_tasks),
        "open_since": counted((each.app, day_of(each.created_ms)) for each in open_tasks),
        "load": [(each, pending[each], decided[each]) for each in sorted(pending | decided)],
        "results": counted(found for instance_id, found in ended.items() if instance_id not in gone),
        "cancelled": counted((each.app, each.process) for each in there if each.decision == "cancel"),
    }


def day_of(at_ms: int) -> date:
    return datetime.fromtimestamp(at_ms / 1000, UTC).date()


def percentile_90(values: list[float]) -> float:
    """Between the two nearest, as far as it is from each."""
    ordered = sorted(values)
    whole, part = divmod(0.9 * (len(ordered) - 1), 1)
    at = int(whole)
    return ordered[at] + part * (ordered[min(at + 1, len(ordered) - 1)] - ordered[at])


def counted(found: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [(*key, count) for key, count in sorted(Counter(found).items())]


def event(posting: Posting) -> TaskEvent:
    parameters = posting.parameters
    return event_of(locate(posting.action, parameters), parameters, received_at=int(parameters["dateTime"]) + 400)


def distinct(postings: Iterable[Posting]) -> list[tuple[Any, ...]]:
    actions = {(each.action, json.dumps(each.parameters, sort_keys=True)): event(each).action for each in postings}
    return counted((action,) for action in actions.values())


def produce(connection: Connection, postings: Iterable[Posting]) -> None:
    producer = Producer(cast("dict[str, Any]", producer_config(connection.bootstrap_servers)))
    codec = task_event_codec(connection.registry)
    for each in map(event, postings):
        producer.produce(TASK_EVENTS.name, key=each.instance_id.encode(), value=codec.encode(each))
    assert producer.flush(30) == 0


def abort(connection: Connection, posting: Posting) -> None:
    """An event of a transaction that is not committed."""
    producer = in_transactions(connection)
    producer.begin_transaction()
    aborted = msgspec.structs.replace(event(posting), event_id="aborted")
    producer.produce(TASK_EVENTS.name, key=b"I", value=task_event_codec(connection.registry).encode(aborted))
    assert producer.flush(30) == 0
    producer.abort_transaction(30)


def write_what_cannot_be_decoded(connection: Connection) -> None:
    producer = in_transactions(connection)
    producer.begin_transaction()
    for value in UNDECODABLE:
        producer.produce(TASK_EVENTS.name, key=b"damaged", value=value)
    producer.commit_transaction(30)


def in_transactions(connection: Connection) -> Producer:
    config = producer_config(connection.bootstrap_servers, {"transactional.id": "aborts"})
    producer = Producer(cast("dict[str, Any]", config))
    producer.init_transactions(30)
    return producer


@pytest.fixture
def bridge(own_kafka: Connection) -> Connection:
    delete_all_topics(own_kafka)
    apply_topics(own_kafka.admin(), topics.ALL, partitions=3)
    return own_kafka


@pytest.fixture
def worker(bridge: Connection, tmp_path: Path) -> Generator[Worker]:
    with Worker(tmp_path, bridge) as worker:
        yield worker


PAGE = (ROOT / "docs" / "consumers" / "data-platform.md").read_text("utf-8")


class Platform:
    """The example, run as its page says."""

    def __init__(self, bridge: Connection, folder: Path) -> None:
        (command,) = re.findall(r"^uv run --with duckdb python (examples/.*)$", PAGE, re.MULTILINE)
        script, _, _, self._folder_on_the_page = shlex.split(command)
        self.folder = folder
        self._argv = [sys.executable, script, bridge.bootstrap_servers, bridge.registry_url, str(folder)]

    def land(self) -> tuple[dict[str, int], str]:
        """How many records landed, by table, and what was complained of."""
        done = subprocess.run(self._argv, cwd=ROOT, check=True, capture_output=True, text=True)
        landed = re.findall(r"^(\w+): (\d+) records landed$", done.stdout, re.MULTILINE)
        return {name: int(count) for name, count in landed}, done.stderr

    def is_killed_while_it_lands(self, eventually: Callable[..., Any]) -> None:
        with subprocess.Popen(self._argv, cwd=ROOT, stdout=subprocess.DEVNULL) as job:
            eventually(lambda: any(self.folder.rglob("*.parquet")), what="the first file")
            job.kill()

    def answers(self) -> Answers:
        """To the page's questions, and what there is of events."""
        with duckdb.connect() as database:
            database.execute("SET VARIABLE folder = $1", [str(self.folder)])
            database.execute("SET VARIABLE now_ms = $1", [END_MS])
            database.execute((ROOT / "examples" / "data-platform" / "questions.sql").read_text("utf-8"))
            events = database.execute("SELECT action, count(*) FROM task_events GROUP BY ALL ORDER BY ALL").fetchall()
            return {name: database.execute(f"FROM {name}").fetchall() for name in QUESTIONS} | {"events": events}

    def shows(self) -> str:
        """What the program on the page prints."""
        (program,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
        assert self._folder_on_the_page in program
        program = program.replace(self._folder_on_the_page, str(self.folder))
        return subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout


class Flink:
    """The example, built and queried as its page says."""

    def __init__(self, bridge: Connection, folder: Path) -> None:
        self._folder = folder
        self._environment = {**os.environ, **toolchains.JAVA_QUICKLY}
        (block,) = re.findall(r"^```sh\n(cd examples/flink\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
        place, build, self._command = block.splitlines()
        self._place = ROOT / place.removeprefix("cd ")
        self._building = subprocess.Popen(shlex.split(build), cwd=self._place, env=self._environment)
        self._addresses = {
            "'127.0.0.1:9092'": f"'{bridge.bootstrap_servers}'",
            "'http://127.0.0.1:8081/apis/ccompat/v7'": f"'{bridge.registry_url}'",
        }

    def answers(self) -> Answers:
        """To the questions on its page."""
        assert self._building.wait(300) == 0
        *program, tables, questions = shlex.split(self._command)
        text = (self._place / tables).read_text("utf-8")
        for documented, here in self._addresses.items():
            assert text.count(documented) == 2
            text = text.replace(documented, here)
        self._folder.mkdir(exist_ok=True)
        with_addresses = self._folder / tables
        with_addresses.write_text(text, "utf-8")
        output = subprocess.run(
            [*program, str(with_addresses), questions],
            cwd=self._place,
            env=self._environment,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
        found: Answers = {}
        for block in output.split("SELECT * FROM ")[1:]:
            question, *lines = block.splitlines()
            name = question.strip("`")
            rows = [zip(COLUMNS[name], line.split("\t"), strict=True) for line in lines]
            found[name] = sorted(tuple(read(text) for read, text in row) for row in rows)
        return found

    def end(self) -> None:
        self._building.kill()
        self._building.wait()


CHDB = """
import json, sys
from chdb.session import Session
given = json.load(open(sys.argv[1]))
database = Session()
for each in given["statements"]:
    database.query(each)
rows = {name: str(database.query(each, "JSONCompactEachRow")) for name, each in given["questions"].items()}
print(json.dumps({name: [json.loads(line) for line in text.splitlines()] for name, text in rows.items()}))
"""


class ClickHouse:
    """The example in chdb, which has no Kafka engine: the records come as files, in the format of that engine."""

    def __init__(self, bridge: Connection, folder: Path) -> None:
        self._bridge, self._folder = bridge, folder

    def answers(self) -> Answers:
        """To the page's questions, and what there is of events."""
        self._folder.mkdir(exist_ok=True)
        instead = {"now()": f"toDateTime({END_MS // 1000})"}
        of_the_engine = "_offset UInt64 MATERIALIZED rowNumberInAllBlocks(), _error String MATERIALIZED ''"
        text = (ROOT / "examples" / "data-platform" / "clickhouse.sql").read_text("utf-8")
        engines = re.findall(r"CREATE TABLE (\w+_topic) \((.*?)\) ENGINE = Kafka (SETTINGS .*?);", text, re.DOTALL)
        assert len(engines) == 2
        inserts: list[str] = []
        for (name, columns, settings), topic in zip(engines, (TASK_EVENTS, TASK_STATES), strict=True):
            assert f"'{topic.name}'" in settings
            path = self._folder / name
            path.write_bytes(b"".join(each.value() or b"" for each in read_topic(self._bridge, topic.name)))
            instead[f"({columns}) ENGINE = Kafka {settings}"] = f"({columns}, {of_the_engine}) ENGINE = Null"
            structure = columns.replace("'", "''")
            inserts.append(
                f"INSERT INTO {name} SELECT * FROM file('{path}', 'AvroConfluent', '{structure}')"  # noqa: S608 - names of ours
                f" SETTINGS format_avro_schema_registry_url = '{self._bridge.registry_url}'"
            )
        for documented, here in instead.items():
            assert text.count(documented) == 1
            text = text.replace(documented, here)
        created = re.sub(r"^--.*$", "", text, flags=re.MULTILINE).split(";")
        questions = {each: f"FROM {each} SELECT *" for each in QUESTIONS}
        questions["events"] = "SELECT action, count() FROM task_events FINAL GROUP BY ALL ORDER BY ALL"
        given = self._folder / "given.json"
        statements = [each for each in (*created, *inserts) if each.strip()]
        given.write_bytes(msgspec.json.encode({"statements": statements, "questions": questions}))
        printed = uv("run", "--no-project", "--quiet", "--with", "chdb-core==26.9.0", "python", "-c", CHDB, str(given))
        columns_of = {**COLUMNS, "open_tasks": (str, int, int)}
        return {
            name: [tuple(read(cell) for read, cell in zip(columns_of[name], row, strict=True)) for row in rows]
            for name, rows in json.loads(printed).items()
        }


@pytest.fixture
def flink(bridge: Connection, tmp_path: Path) -> Generator[Flink]:
    flink = Flink(bridge, tmp_path / "flink")
    yield flink
    flink.end()


# In every run, DuckDB answers the same queries of the same month, below.
@pytest.mark.nightly
def test_flink_and_clickhouse_answer_the_questions_of_a_month_that_was_replayed(
    bridge: Connection, worker: Worker, flink: Flink, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    postings = month()
    right = expected(postings) | {"events": distinct(postings)}
    produce(bridge, postings)
    produce(bridge, in_another_order(postings))
    abort(bridge, postings[0])
    worker.start()
    eventually(lambda: worker.is_ready() and caught_up(bridge), what="the month is folded, twice")
    clickhouse = ClickHouse(bridge, tmp_path / "clickhouse")
    assert clickhouse.answers() == {name: right[name] for name in (*QUESTIONS, "events")}
    assert flink.answers() == {name: right[name] for name in COLUMNS}


def in_another_order(postings: Iterable[Posting]) -> list[Posting]:
    return random.Random(1).sample(again := [*postings], len(again))


def test_the_questions_of_a_month_are_answered_right_and_again_after_every_kind_of_replay(
    bridge: Connection, worker: Worker, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    postings = month()
    right = expected(postings)
    assert all(len(found) >= 3 for found in right.values())
    events = distinct(postings)
    assert sum(count for _, count in events) < len(postings), "some came twice"
    right["events"] = events
    right_landed = {name: right[name] for name in (*QUESTIONS, "events")}
    platform = Platform(bridge, tmp_path / "landed")
    most = len(postings) * 3 // 4
    deletions = [each for each in postings[:most] if each.action == "delete"]
    assert deletions, "of instances whose states are there by then"
    first = [each for each in postings[:most] if each.action != "delete"]
    produce(bridge, first)
    worker.start()
    eventually(lambda: worker.is_ready() and caught_up(bridge), what="the first of it is folded")
    landed, _ = platform.land()
    assert landed["task_events"] == len(first)
    produce(bridge, deletions + postings[most:])
    eventually(lambda: caught_up(bridge), what="the month is folded")
    landed, complaints = platform.land()
    assert (landed["task_events"], complaints) == (len(postings) - len(first), "")
    assert platform.answers() == right_landed

    again = in_another_order(postings)
    produce(bridge, again)
    abort(bridge, postings[0])
    eventually(lambda: caught_up(bridge), what="all of it once more, in another order")
    landed, _ = platform.land()
    assert landed["task_events"] == len(again)
    assert platform.answers() == right_landed

    write_what_cannot_be_decoded(bridge)
    landed, complaints = platform.land()
    assert landed["task_events"] == 0
    assert complaints.count("passed over taskbridge.task-events.v1 ") == len(UNDECODABLE)
    assert platform.land() == ({"task_events": 0, "task_states": 0}, ""), "each is landed once"
    assert platform.answers() == right_landed

    shutil.rmtree(platform.folder)
    platform.is_killed_while_it_lands(eventually)
    platform.land()
    assert platform.answers() == right_landed
    assert "median_s" in platform.shows()
