"""Faust, mode and aiokafka are as the engine needs them: each private part by its name, with what relies on it.

An upgrade that changes one of them fails here with an explanation, before it fails on Kafka in some other way.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import textwrap
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.consumer.consumer import AIOKafkaConsumer
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.protocol.api import Request, RequestStruct
from faust import App, Service
from faust.stores import rocksdb
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
from taskbridge.streams.tables import recovery, store
from taskbridge.streams.tables.store import instances_table

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST, SECOND = TP(TASK_EVENTS.name, 0), TP(TASK_EVENTS.name, 1)


class Method(NamedTuple):
    """One of a library's, that is overridden or called here."""

    of: type
    name: str
    takes: str
    """The names of its parameters."""
    relied_on: str
    is_awaited: bool = False

    def check(self) -> None:
        where = f"{self.of.__module__}.{self.of.__name__}.{self.name}"
        found: Any = inspect.getattr_static(self.of, self.name, None)
        assert found is not None, f"{where} is gone. Relied on: {self.relied_on}"
        found = found.fget if isinstance(found, property) else found
        takes = " ".join(inspect.signature(found).parameters)
        assert takes == self.takes, f"{where} takes ({takes}), not ({self.takes}). Relied on: {self.relied_on}"
        is_awaited = inspect.iscoroutinefunction(inspect.unwrap(found))
        assert is_awaited == self.is_awaited, (
            f"{where} is {'' if is_awaited else 'not '}awaited. Relied on: {self.relied_on}"
        )


class Attribute(NamedTuple):
    """One that a library's objects have."""

    of: type
    name: str
    relied_on: str

    def check(self) -> None:
        assert self.name in set(_attributes(self.of)), (
            f"{self.of.__module__}.{self.of.__name__} has no {self.name}. Relied on: {self.relied_on}"
        )


class Code(NamedTuple):
    """What a library's code does, in the order in which it does it."""

    of: Any
    does: tuple[str, ...]
    relied_on: str

    def check(self) -> None:
        code = inspect.getsource(self.of)
        at = 0
        for step in self.does:
            found = code.find(step, at)
            assert found >= 0, (
                f"{self.of.__module__}.{self.of.__qualname__} does not do `{step}`, or not at that place."
                f" Relied on: {self.relied_on}"
            )
            at = found + len(step)


_OVERRIDDEN = [
    Method(Consumer, "on_init", "self", "is called when a consumer is made or restarted, before anything is fetched"),
    Method(Consumer, "wait_empty", "self", "a rebalance waits for it before partitions go", is_awaited=True),
    Method(Consumer, "on_stop", "self", "is called when the consumer is stopped", is_awaited=True),
    Method(Consumer, "stop_flow", "self", "is called before anything else when a rebalance begins"),
    Method(Consumer, "perform_seek", "self", "goes back to what is committed", is_awaited=True),
    Method(
        Consumer,
        "on_partitions_assigned",
        "self assigned generation_id",
        "is called once a rebalance, with its generation",
        is_awaited=True,
    ),
    Method(Consumer, "on_partitions_revoked", "self revoked", "is called before partitions go", is_awaited=True),
    Method(Consumer, "verify_all_partitions_active", "self", "is Faust's watchdog, and no more", is_awaited=True),
    Method(
        Consumer, "getmany", "self timeout", "yields messages, each with its partition, as an asynchronous generator"
    ),
    Method(Consumer, "_drain_messages", "self fetcher", "is the fetcher's loop, until either stops", is_awaited=True),
    Method(driver.Consumer, "_new_consumer_thread", "self", "makes the thread that has aiokafka's consumer"),
    Method(Consumer, "_filter_tps_with_pending_acks", "self topics", "says of which partitions Faust commits"),
    Method(
        driver.AIOKafkaConsumerThread,
        "_create_worker_consumer",
        "self transport",
        "makes the consumer before it starts",
    ),
    Method(
        driver.AIOKafkaConsumerThread,
        "_fetch_records",
        "self consumer active_partitions timeout max_records",
        "gives the records of one poll, by partition",
        is_awaited=True,
    ),
    Method(
        driver.AIOKafkaConsumerThread,
        "seek_to_committed",
        "self",
        "is how all partitions go back to where they begin, and returns the committed position of each",
        is_awaited=True,
    ),
    Method(
        driver.ConsumerRebalanceListener,
        "on_partitions_assigned",
        "self assigned",
        "is called in the consumer's thread before anything of the assignment is fetched",
        is_awaited=True,
    ),
    Method(TableManager, "recovery", "self", "returns the recovery of the tables"),
    Method(TableManager, "on_start", "self", "starts the recovery", is_awaited=True),
    Method(
        rocksdb.Store,
        "on_rebalance",
        "self assigned revoked newly_assigned generation_id",
        "would open and close the stores of partitions",
        is_awaited=True,
    ),
    Method(rocksdb.Store, "stop", "self", "closes all stores", is_awaited=True),
    Method(Service, "on_start", "self", "is called when a service starts", is_awaited=True),
    Method(Service, "on_stop", "self", "is called when a service stops", is_awaited=True),
]

_CALLED = [
    Method(AIOKafkaClient, "_wait_on_metadata", "self topic", "who leads a topic that is written to", is_awaited=True),
    Method(AIOKafkaClient, "add_topic", "self topic", "from now on its metadata are fetched"),
    Method(AIOKafkaClient, "force_metadata_update", "self", "somebody else leads a partition; what to wait for"),
    Method(AIOKafkaClient, "coordinator_lookup", "self coordinator_type coordinator_key", "once each", is_awaited=True),
    Method(AIOKafkaClient, "send", "self node_id request group", "a request, and its answer", is_awaited=True),
    Method(ClusterMetadata, "leader_for_partition", "self partition", "None or below zero where there is none"),
    Method(Request, "prepare", "self versions", "makes the version that a broker takes"),
    Method(RequestStruct, "encode", "self", "the bytes of a request without its header"),
    Method(
        Consumer, "_wait_next_records", "self timeout", "one poll: records, and the active partitions", is_awaited=True
    ),
    Method(driver.Consumer, "_to_message", "self tp record", "Faust's message of one record"),
    Method(
        driver.AIOKafkaConsumerThread, "_ensure_consumer", "self", "aiokafka's consumer, from the thread that has it"
    ),
    Method(
        TableManager, "_update_channels", "self", "declares the changelogs' topics, and pauses them", is_awaited=True
    ),
    Method(rocksdb.Store, "_open_for_partition", "self partition", "opens one partition's RocksDB, with the options"),
    Method(
        FaustRecovery,
        "on_rebalance",
        "self assigned revoked newly_assigned generation_id",
        "the tables' manager calls it so of what is there in its place",
        is_awaited=True,
    ),
    Method(FaustRecovery, "on_partitions_revoked", "self revoked", "likewise"),
]

_ATTRIBUTES = [
    Attribute(App, "_fetcher", "the service that polls: started again after a recovery"),
    Attribute(Consumer, "_committed_offset", "what perform_seek found committed, by partition"),
    Attribute(Consumer, "_buffered_partitions", "are yielded although they are not active"),
    Attribute(Consumer, "flow_active", "is false from a rebalance's begin to the end of its recovery"),
    Attribute(Consumer, "can_resume_flow", "is set when it becomes true"),
    Attribute(driver.Consumer, "_thread", "the thread that has aiokafka's consumer"),
    Attribute(driver.Consumer, "RebalanceListener", "the class of the listener that the thread makes"),
    Attribute(driver.ConsumerRebalanceListener, "_thread", "the same one"),
    Attribute(driver.Transport, "Consumer", "the class of the consumer that the app makes"),
    Attribute(TableManager, "_changelogs", "the tables by the topic of their changelog"),
    Attribute(TableManager, "_recovery", "what is stopped with the tables"),
    Attribute(TableManager, "actives_ready", "true from on_actives_ready to the next rebalance"),
    Attribute(FaustRecovery, "completed", "an event that the tables' manager waits for"),
    Attribute(rocksdb.Store, "_dbs", "the open RocksDBs by partition"),
    Attribute(AIOKafkaConsumer, "_isolation_level", "set before start, it is the fetcher's"),
    Attribute(AIOKafkaConsumer, "_coordinator", "the group's, as this member knows it"),
    Attribute(AIOKafkaConsumer, "_fetcher", "has what is fetched and not polled"),
    Attribute(AIOKafkaConsumer, "_subscription", "has the positions"),
    Attribute(GroupCoordinator, "generation", "of the last assignment"),
    Attribute(GroupCoordinator, "member_id", "as the group's coordinator gave it"),
    Attribute(GroupCoordinator, "_group_instance_id", "the name that was set"),
    Attribute(Fetcher, "_records", "fetched and not polled, by partition, in the order of polling"),
    Attribute(Fetcher, "_default_reset_strategy", "read whenever a position is not there"),
]

_CODE = [
    Code(
        AIOKafkaConsumer.start,
        ("isolation_level=self._isolation_level",),
        "what is set on a consumer that is not started is how it reads: of undecided transactions nothing",
    ),
    Code(
        Fetcher,
        ("OffsetOutOfRangeError:", "if self._default_reset_strategy != OffsetResetStrategy.NONE:", "self._set_error("),
        "where nothing may be skipped, a position that the topic does not have is an error",
    ),
    Code(
        driver.AIOKafkaConsumerThread.getmany,
        ("self.call_thread(", "self._fetch_records,", "max_records="),
        "each poll goes through _fetch_records, in the consumer's thread",
    ),
    Code(
        driver.ConsumerRebalanceListener.on_partitions_revoked,
        ("app.on_rebalance_start()", "thread.on_partitions_revoked("),
        "the flow is stopped before anything of a rebalance is awaited",
    ),
    Code(
        driver.ConsumerRebalanceListener.on_partitions_assigned,
        ("app.consumer_generation_id = generation", "thread.on_partitions_assigned("),
        "the generation is known before the assignment",
    ),
    Code(
        cast("Any", Consumer)._drain_messages,
        (
            "consumer_should_stop() or fetcher_should_stop()",
            "getmany(timeout=1.0)",
            "offset >= r_offset",
            "self.wait_first(",
            "callback(message), self.suspend_flow.wait()",
            "except self.consumer_stopped_errors:",
            "except asyncio.CancelledError:",
        ),
        "ChunkConsumer._drain_messages does the same; that nothing is handed on again is known by new_records",
    ),
    Code(
        cast("Any", FaustRecovery)._resume_streams,
        (
            "app.on_rebalance_complete.send()",
            "consumer.resume_partitions(",
            "consumer.perform_seek()",
            "self.completed.set()",
            "app.flow_control.resume()",
            "consumer.resume_flow()",
            "._fetcher.maybe_start()",
            "on_actives_ready()",
            "app.on_rebalance_end()",
        ),
        "Recovery._go_live takes the same steps in the same order",
    ),
    Code(
        TableManager.on_rebalance,
        ("table.on_rebalance", "self._update_channels", "self.recovery.on_rebalance"),
        "the recovery hears of a rebalance after the tables",
    ),
    Code(
        TableManager.wait_until_recovery_completed,
        ("self.recovery.started", "self.recovery.completed"),
        "agents begin once what is there in place of the recovery says that it is completed",
    ),
    Code(
        Fetcher,
        (
            "records = MemoryRecords(part_data[-1])",
            "records.has_next()",
            "PartitionRecords(",
            "tp,",
            "records,",
            "records.size_in_bytes()",
        ),
        "the replacements of both get what was fetched, and of which partition",
    ),
    Code(
        PartitionRecords,
        (
            "records.has_next()",
            "records.next_batch()",
            "next_batch.validate_crc()",
            "next_batch.producer_id",
            "next_batch.base_offset",
            "next_batch.is_control_batch",
            "next_batch.is_transactional",
            "next_batch.next_offset",
            "for record in next_batch",
            "self._consumer_record(tp, record)",
        ),
        "engine.consumer_thread has what is read from a batch, and no more",
    ),
    Code(FaustFetcher, ("consumer._drain_messages(self)",), "what polls is the consumer's own loop"),
    Code(
        App,
        ("def tables(self)", "self.conf.TableManager(", "app=self,", "beacon="),
        "the setting makes the tables' manager",
    ),
]

_NAMED = [*_OVERRIDDEN, *_CALLED, *_ATTRIBUTES]
_OURS: list[tuple[type, tuple[type, ...]]] = [
    (transport.ChunkConsumer, (driver.Consumer, Consumer)),
    (transport.Transport, (driver.Transport,)),
    (consumer_thread.ConsumerThread, (driver.AIOKafkaConsumerThread,)),
    (consumer_thread.RebalanceListener, (driver.ConsumerRebalanceListener,)),
    (engine_app.Tables, (TableManager,)),
    (engine_app.TableStore, (rocksdb.Store,)),
    (store.Store, (rocksdb.Store,)),
    (recovery.Recovery, (Service,)),
]


_ROOM = Path(engine_app.__file__).parents[1]
_PUBLIC = {"faust", "faust.types"}
"""What others import: types and a service."""


@pytest.mark.parametrize("part", [*_NAMED, *_CODE], ids=lambda part: getattr(part, "name", part.of.__qualname__))
def test_each_used_part_of_the_libraries_is_as_expected(part: Method | Attribute | Code) -> None:
    part.check()


def test_each_override_of_a_library_part_is_listed_here() -> None:
    named = {each.name for each in [*_OVERRIDDEN, *_ATTRIBUTES]}
    unnamed = {
        f"{ours.__name__}.{name}"
        for ours, _ in _OURS
        for name in _own_names(ast.parse(inspect.getsource(ours)))
        if not name.startswith("__") and any(name in vars(theirs) for theirs in ours.__mro__[1:]) and name not in named
    }
    assert unnamed == set(), "name them in _OVERRIDDEN, with what relies on them"


def test_each_used_private_part_of_a_library_is_listed_here() -> None:
    theirs = {name for _, bases in _OURS for base in bases for name in _attributes(base)}
    unnamed: set[str] = set()
    for module in {engine_app, *(inspect.getmodule(ours) for ours, _ in _OURS)}:
        assert module is not None
        assert module.__file__ is not None
        tree = ast.parse(Path(module.__file__).read_text())
        ours_alone = _own_names(tree) - theirs
        unnamed |= {f"{module.__name__}: {name}" for name in _private_names(tree) - ours_alone}
    named = {each.name for each in _NAMED}
    assert {each for each in unnamed if each.rpartition(" ")[2] not in named} == set(), (
        "name them, with what relies on them"
    )


def test_only_the_engine_uses_private_parts_of_the_libraries() -> None:
    theirs = {name for _, bases in _OURS for base in bases for name in _attributes(base)}
    found: set[str] = set()
    for path in _ROOM.rglob("*.py"):
        if "engine" not in path.parts:
            tree = ast.parse(path.read_text())
            touched = (_private_names(tree) - _own_names(tree)) & theirs
            found |= {f"{path.name}: {each}" for each in touched | (_libraries(tree) - _PUBLIC)}
    assert found == set()


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (
            Method(driver.Consumer, "_to_message", "self tp record more", "messages"),
            r"Consumer\._to_message takes \(self tp record\), not \(self tp record more\)\. Relied on: messages",
        ),
        (Method(driver.Consumer, "_gone", "self", "it"), r"Consumer\._gone is gone\. Relied on: it"),
        (Method(Consumer, "wait_empty", "self", "it"), r"wait_empty is awaited\. Relied on: it"),
        (Attribute(Fetcher, "_gone", "it"), r"Fetcher has no _gone\. Relied on: it"),
        (
            Code(cast("Any", FaustRecovery)._resume_streams, ("completed.set()", "perform_seek()"), "order"),
            r"_resume_streams does not do `perform_seek\(\)`, or not at that place\. Relied on: order",
        ),
    ],
)
def test_a_change_fails_with_an_explanation(part: Method | Attribute | Code, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        part.check()


@pytest.fixture
def app(tmp_path: Path) -> App:
    return faust_app(tmp_path, partitions=2)


def test_faust_finds_our_parts_by_its_settings(app: App) -> None:
    instances, _ = instances_table(app, partitions=2)
    assert isinstance(instances, store.Store)
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


def test_aiokafka_polls_in_the_order_that_the_engine_changes(app: App) -> None:
    async def nothing(*_: Any) -> None:
        pass

    async def check() -> None:
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
        thread.thread_loop.close()

    asyncio.run(check())


def _attributes(of: type) -> Iterator[str]:
    """Names that its code gives to its objects, or that the class has."""
    for each in of.__mro__:
        if each.__module__.partition(".")[0] not in ("faust", "mode", "aiokafka"):
            continue
        yield from vars(each)
        yield from vars(each).get("__annotations__", ())
        yield from _own_names_of(each)


@cache
def _own_names_of(of: type) -> set[str]:
    return _own_names(ast.parse(textwrap.dedent(inspect.getsource(of))))


def _own_names(tree: ast.AST) -> set[str]:
    """What is defined there, or assigned to ``self``."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(body=body):
                names |= {name for each in body for name in _bound(each)}
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                names.add(name)
            case _:
                pass
    return names


def _bound(node: ast.stmt) -> list[str]:
    """The names that a statement of a class defines."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case _:
            return []


def _libraries(tree: ast.AST) -> set[str]:
    """The modules of theirs that are imported."""
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    return {each for each in imported if each.partition(".")[0] in ("faust", "mode", "aiokafka")}


def _private_names(tree: ast.AST) -> set[str]:
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
    }
