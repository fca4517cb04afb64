"""Faust, mode and aiokafka are as the engine needs them: each part that it relies on, by a digest of its source.

An upgrade that changes one of them fails here, before it fails on Kafka in some other way. Read the change, compare it
with the given reason and with our code, and write the new digest here.
"""

from __future__ import annotations

import ast
import asyncio
import hashlib
import inspect
import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.consumer.consumer import AIOKafkaConsumer
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.protocol.api import Request
from faust import App, Service
from faust.tables import TableManager
from faust.tables.recovery import Recovery as FaustRecovery
from faust.transport.consumer import Consumer
from faust.transport.consumer import Fetcher as FaustFetcher
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from support.streams.faust_app import faust_app
from taskbridge.schemas.topics import TASK_EVENTS
from taskbridge.streams.engine import app as engine_app
from taskbridge.streams.engine import consumer_thread, transport
from taskbridge.streams.tables import recovery

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST, SECOND = TP(TASK_EVENTS.name, 0), TP(TASK_EVENTS.name, 1)

RELIED_ON: list[tuple[Any, str, str, str]] = [
    # Overridden here.
    (Consumer, "on_init", "10032732", "is called when a consumer is made or restarted, before anything is fetched"),
    (Consumer, "wait_empty", "10330787", "a rebalance waits for it before partitions go"),
    (Consumer, "on_stop", "31523768", "is called when the consumer is stopped"),
    (Consumer, "stop_flow", "93852316", "is called before anything else when a rebalance begins"),
    (Consumer, "perform_seek", "65798700", "goes back to what is committed"),
    (Consumer, "on_partitions_assigned", "18909834", "is called once in a rebalance, with its generation"),
    (Consumer, "on_partitions_revoked", "94214434", "is called before partitions go"),
    (Consumer, "verify_all_partitions_active", "35305627", "is Faust's watchdog, and no more"),
    (Consumer, "getmany", "33963310", "yields messages, each with its partition, as an asynchronous generator"),
    (Consumer, "_drain_messages", "31044055", "ChunkConsumer does the same; new_records recognizes repeated records"),
    (Consumer, "_filter_tps_with_pending_acks", "11170915", "says of which partitions Faust commits"),
    (driver.Consumer, "_new_consumer_thread", "38180207", "makes the thread that has aiokafka's consumer"),
    (driver.AIOKafkaConsumerThread, "_create_worker_consumer", "87946772", "makes the consumer before it starts"),
    (driver.AIOKafkaConsumerThread, "_fetch_records", "26069433", "gives the records of one poll, by partition"),
    (driver.AIOKafkaConsumerThread, "seek_to_committed", "53985464", "all partitions go back to where they begin"),
    (
        driver.ConsumerRebalanceListener,
        "on_partitions_assigned",
        "12720443",
        "the generation is known before the assignment",
    ),
    (TableManager, "recovery", "10889319", "returns the recovery of the tables"),
    (TableManager, "on_start", "24590662", "starts the recovery"),
    (Service, "on_start", "41909762", "is called when a service starts"),
    (Service, "on_stop", "79660699", "is called when a service stops"),
    (PartitionRecords, "_consumer_record", "10421628", "makes the record of what was read from a batch"),
    # Called here.
    (AIOKafkaClient, "_wait_on_metadata", "37401763", "who leads a topic that is written to"),
    (AIOKafkaClient, "force_metadata_update", "92038486", "somebody else leads a partition; what to wait for"),
    (AIOKafkaClient, "coordinator_lookup", "11668989", "once each"),
    (AIOKafkaClient, "send", "16472587", "a request, and its answer"),
    (ClusterMetadata, "leader_for_partition", "57979958", "None or below zero where there is none"),
    (Request, "prepare", "26414101", "makes the version that a broker accepts"),
    (Consumer, "_wait_next_records", "44370620", "one poll: records, and the active partitions"),
    (driver.AIOKafkaConsumerThread, "_ensure_consumer", "11547105", "aiokafka's consumer, from the thread that has it"),
    (TableManager, "_update_channels", "61916644", "declares the changelogs' topics, and pauses them"),
    # What their code does, in the order in which it does it.
    (AIOKafkaConsumer, "start", "21307561", "passes on _isolation_level, which is set before"),
    (
        Fetcher,
        "",
        "19451423",
        "MemoryRecords, PartitionRecords, _records and _default_reset_strategy are used as expected",
    ),
    (PartitionRecords, "", "67242759", "consumer_thread has what is read from a batch, and no more"),
    (
        driver.AIOKafkaConsumerThread,
        "getmany",
        "17633794",
        "each poll goes through _fetch_records, in the consumer's thread",
    ),
    (driver.ConsumerRebalanceListener, "on_partitions_revoked", "23768033", "stops the flow before it awaits anything"),
    (FaustFetcher, "", "90976533", "what polls is the consumer's own loop"),
    (FaustRecovery, "_resume_streams", "98389794", "Recovery._go_live takes the same steps in the same order"),
    (FaustRecovery, "on_rebalance", "77030290", "the tables' manager calls our recovery in the same way"),
    (FaustRecovery, "on_partitions_revoked", "99992404", "likewise"),
    (TableManager, "on_stop", "24021840", "stops the recovery"),
    (TableManager, "on_rebalance", "20432065", "the recovery hears of a rebalance after the tables"),
    (TableManager, "wait_until_recovery_completed", "10174590", "agents begin once our recovery is completed"),
]
"""A class, one of its methods or all of it, the digest of the source, and what relies on it."""

ATTRIBUTES: dict[type, tuple[str, ...]] = {
    App: ("_fetcher",),
    Consumer: ("_committed_offset", "_buffered_partitions", "flow_active", "can_resume_flow"),
    driver.Consumer: ("_thread", "RebalanceListener"),
    driver.ConsumerRebalanceListener: ("_thread",),
    driver.Transport: ("Consumer",),
    TableManager: ("_recovery", "actives_ready"),
    FaustRecovery: ("completed",),
    AIOKafkaConsumer: ("_isolation_level", "_coordinator", "_fetcher", "_subscription"),
    GroupCoordinator: ("generation", "member_id", "_group_instance_id"),
    Fetcher: ("_records", "_default_reset_strategy"),
}
"""What is read or set on their objects."""

OURS = (
    transport.ChunkConsumer,
    transport.Transport,
    consumer_thread.ConsumerThread,
    consumer_thread.RebalanceListener,
    consumer_thread.FetchedPartition,
    engine_app.Tables,
    recovery.Recovery,
)
"""Every subclass of a class of theirs."""

LISTED = {name for _, name, *_ in RELIED_ON} | {name for names in ATTRIBUTES.values() for name in names}
LIBRARIES = ("faust", "mode", "aiokafka")
PUBLIC = {"faust", "faust.types"}
"""What parts other than the engine import: types and a service."""
STREAMS = Path(engine_app.__file__).parents[1]
PRIVATE = re.compile(r"_[a-z]")
"""Not librdkafka's codes of errors, which are in capitals."""


def digest(of: type, name: str) -> str:
    found: Any = inspect.getattr_static(of, name, None) if name else of
    assert found is not None, f"{of.__qualname__}.{name} is gone"
    found = found.fget if isinstance(found, property) else found
    source = inspect.getsource(inspect.unwrap(found))
    return str(int(hashlib.sha256(source.encode()).hexdigest(), 16))[:8]


@pytest.mark.parametrize(("of", "name", "reviewed", "relied_on"), RELIED_ON)
def test_each_used_part_of_the_libraries_is_as_reviewed(of: type, name: str, reviewed: str, relied_on: str) -> None:
    assert digest(of, name) == reviewed, f"{of.__module__}.{of.__qualname__}.{name} has changed. It {relied_on}"


@pytest.mark.parametrize(("of", "name"), [(of, name) for of, names in ATTRIBUTES.items() for name in names])
def test_their_objects_have_each_used_attribute(of: type, name: str) -> None:
    assert any(name in inspect.getsource(each) for each in of.__mro__ if each.__module__.startswith(LIBRARIES))


def test_each_override_of_a_library_part_is_listed_here() -> None:
    unlisted = {
        f"{ours.__name__}.{name}"
        for ours in OURS
        for name in _own_names(ast.parse(inspect.getsource(ours)))
        if not name.startswith("__") and any(name in vars(theirs) for theirs in _bases(ours))
    }
    assert {each for each in unlisted if each.rpartition(".")[2] not in LISTED} == set()


def test_only_the_engine_uses_private_parts_of_the_libraries_and_each_is_listed_here() -> None:
    theirs = {name for ours in OURS for base in _bases(ours) for name in _assigned(base) | vars(base).keys()}
    with_ours = {Path(inspect.getfile(ours)) for ours in OURS}
    found: set[str] = set()
    for path in STREAMS.rglob("*.py"):
        tree = ast.parse(path.read_text())
        used, own = _private_names(tree), _own_names(tree)
        if "engine" in path.parts:
            own -= theirs if path in with_ours else set()
            found |= {f"{path.name}: {name}" for name in used - own - LISTED}
        else:
            found |= {f"{path.name}: {name}" for name in (used - own) & theirs}
            found |= {f"{path.name}: {name}" for name in _imported(tree) - PUBLIC}
    assert found == set()


@pytest.fixture
def app(tmp_path: Path) -> App:
    return faust_app(tmp_path, partitions=2)


def test_faust_finds_our_parts_by_its_settings(app: App) -> None:
    assert isinstance(app.tables, engine_app.Tables)
    assert isinstance(app.transport, transport.Transport)


class _Polled:
    """Records of one partition as aiokafka's fetcher keeps them."""

    def __init__(self, offsets: range) -> None:
        self._offsets = iter(offsets)
        self.next_fetch_offset = offsets.start

    def __iter__(self) -> Iterator[Any]:
        for offset in self._offsets:
            self.next_fetch_offset = offset + 1
            yield SimpleNamespace(offset=offset)


async def test_aiokafka_polls_in_the_order_that_the_engine_changes(app: App) -> None:
    async def nothing(*_: Any) -> None:
        pass

    subscription = cast("Any", SubscriptionState())
    subscription.subscribe({TASK_EVENTS.name}, listener=None)
    subscription.assign_from_subscribed({FIRST, SECOND})
    assignment = subscription.subscription.assignment
    client = SimpleNamespace(_loop=asyncio.get_running_loop(), _metadata_max_age_ms=1)
    # Its constructor begins to fetch; what is polled is given here.
    fetcher = cast("Any", Fetcher)(client, subscription)
    fetcher._fetch_task.cancel()
    for tp, end in ((FIRST, 5), (SECOND, 2)):
        subscription.seek(tp, 0)
        result = FetchResult(tp, assignment=assignment, partition_records=_Polled(range(end)), backoff=0)
        fetcher._records[tp] = result
    consumer = transport.ChunkConsumer(
        app.transport, callback=nothing, on_partitions_revoked=nothing, on_partitions_assigned=nothing
    )
    thread = cast("Any", consumer)._thread
    thread._consumer = SimpleNamespace(_fetcher=fetcher, _closed=False, _subscription=subscription)
    polls: list[dict[TP, list[int]]] = []
    for _ in range(3):
        fetched = await thread._fetch_records(thread._consumer, {FIRST, SECOND}, timeout=0, max_records=2)
        polls.append({tp: [record.offset for record in records] for tp, records in fetched.items()})
    assert polls == [{FIRST: [0, 1]}, {SECOND: [0, 1]}, {FIRST: [2, 3]}]
    assert [thread.fetch_position(tp) for tp in (FIRST, SECOND, TP("other", 0))][:2] == [4, 2]
    assert thread.polled == {FIRST: 4, SECOND: 2}
    thread.thread_loop.close()


def _bases(ours: type) -> list[type]:
    return [each for each in ours.__mro__ if each.__module__.startswith(LIBRARIES)]


def _assigned(of: type) -> set[str]:
    """Names that the class's code assigns to its objects."""
    return set(re.findall(r"\bself\.(\w+)(?:: [^=\n]+)? = ", inspect.getsource(of)))


def _own_names(tree: ast.AST) -> set[str]:
    """What is defined in classes there, or assigned to objects."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            names |= {each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
            fields = [each for each in node.body if isinstance(each, ast.Assign | ast.AnnAssign)]
            bound = [name for each in fields for name in ast.walk(each) if isinstance(name, ast.Name)]
            names |= {each.id for each in bound if isinstance(each.ctx, ast.Store)}
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return names


def _private_names(tree: ast.AST) -> set[str]:
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and PRIVATE.match(node.attr)}


def _imported(tree: ast.AST) -> set[str]:
    """The modules of the libraries that are imported there."""
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    return {each for each in imported if each.partition(".")[0] in LIBRARIES}
