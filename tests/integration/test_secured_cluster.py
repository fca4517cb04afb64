"""Kafka as it is in companies: three brokers with TLS, SASL and ACLs, a registry behind TLS and a password.

The ACLs of ``taskbridge topics acls`` suffice, and each is needed: without it Kafka refuses an operation, and the
program names the missing ACL. Each single ACL is tried nightly, also for whole workers and rebuilds.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sqlite3
import subprocess
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import (
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from support import forked
from support.background import Steadily
from support.callbacks import post_callback
from support.center_process import CenterProcess, lists_of
from support.edge.fakes import CORP_ID, SYSTEM_TOKEN, parameters_of
from support.edge.process import RunningEdge, wait_until
from support.kafka.brokers import BROKERS
from support.kafka.secured import OAUTH, PASSWORD, PLAIN, SCRAM, SecuredCluster
from support.nightly import one_of_each
from support.streams.lives import assert_all_is_right, caught_up, read_topic, remove_workers
from support.streams.processes import Worker
from support.webhooks_process import Receivers, WebhooksProcess
from taskbridge.cli.acls import apply_acls, bindings, roles
from taskbridge.cli.connection import Connection
from taskbridge.cli.doctor_checks import Examination
from taskbridge.cli.reconcile_runs import one_pass
from taskbridge.client.inbox import Inbox
from taskbridge.client.source import Kafka, KafkaRefused
from taskbridge.client.subscription import subscribe
from taskbridge.local.artifacts import cache_folder, ensure_artifacts
from taskbridge.local.fake_dingtalk import Company, FakeDingTalk, served
from taskbridge.local.jvm import java_argv, make_service_folder
from taskbridge.reconcile.kafka import PASSES
from taskbridge.runtime.clock import SystemClock
from taskbridge.runtime.kafka import NotAllowed, consumer_config, producer_config
from taskbridge.runtime.partition_reader import PartitionReader
from taskbridge.runtime.producer import AsyncProducer
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas import topics
from taskbridge.schemas.codec import form_data_codec
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import SOURCE_YIDA, Action, FormData, Person, TaskEvent
from taskbridge.schemas.topics import FORM_DATA, TASK_EVENTS, TASK_NOTIFICATIONS, TASK_STATES, Topic
from taskbridge.streams.contract.live_version import LiveVersion
from taskbridge.streams.contract.start import EXTRAS, INTERNAL, WORK, Contract
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.engine.joint_producer import JointProducer
from taskbridge.streams.table_versions import FIRST_VERSION, VERSION_TOPIC, instances_changelog
from taskbridge.streams.transactions.offsets import Offsets, describe_group

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from taskbridge.local.jvm import Endpoints
    from taskbridge.runtime.kafka import Acl

pytestmark = [pytest.mark.integration, pytest.mark.disasters]

ROLES = roles("subscriber")


def privilege(acl: Acl) -> tuple[str, str]:
    """What Kafka and the clients treat alike: one ACL of each is tried in every run."""
    return acl.operation, acl.resource


TRIED = Topic(f"{INTERNAL}of-the-test", None)
"""The internal topic that is tried: a worker would read records of the others."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, stack: Endpoints) -> Generator[SecuredCluster]:
    folder = tmp_path_factory.mktemp("secured-cluster")
    with SecuredCluster(folder, registry_url=stack.registry_url, users=ROLES) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def outside(cluster: SecuredCluster, stack: Endpoints) -> Generator[Connection]:
    """An administrator's connection, to look at the topics without the tested ACLs."""
    connection = Connection(cluster.servers, stack.registry_url, {})
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def edge(
    cluster: SecuredCluster, outside: Connection, tmp_path_factory: pytest.TempPathFactory
) -> Generator[RunningEdge]:
    """One with what the printed ACLs give it, on topics that the operator made with theirs."""
    taskbridge(outside, None, "topics", "acls", "--apply")
    operator = as_user(cluster, "operator")
    taskbridge(operator, cluster.config_file("operator"), "topics", "apply", "--replication", "3")
    taskbridge(operator, cluster.config_file("operator"), "schemas", "register")
    with RunningEdge(
        tmp_path_factory.mktemp("edge"),
        bootstrap_servers=cluster.secured_servers,
        registry_url=cluster.registry_url,
        EDGE_KAFKA_CONFIG_FILE=cluster.config_file("edge"),
    ) as edge:
        edge.start()
        yield edge


@pytest.fixture
def worker(cluster: SecuredCluster, outside: Connection, edge: RunningEdge, tmp_path: Path) -> Generator[Worker]:
    del edge  # first: its fixture brings the ACLs and topics
    remove_workers(outside)
    # Tokens here, where both kinds of clients are, aiokafka and librdkafka; passwords for the others.
    config = cluster.config_file("streams", OAUTH)
    # A session that a busy machine does not end: three brokers start while others compile.
    given = {"STREAMS_KAFKA_CONFIG_FILE": config, "STREAMS_SESSION_TIMEOUT_S": "30"}
    with Worker(tmp_path, as_user(cluster, "streams"), **given) as worker:
        yield worker


@pytest.fixture
def center(cluster: SecuredCluster, edge: RunningEdge, tmp_path: Path) -> Generator[CenterProcess]:
    del edge
    config = cluster.config_file("center", PLAIN)
    with CenterProcess(tmp_path, as_user(cluster, "center"), CENTER_KAFKA_CONFIG_FILE=config) as center:
        yield center


@pytest.fixture
def webhooks(
    cluster: SecuredCluster, edge: RunningEdge, tmp_path: Path
) -> Generator[tuple[WebhooksProcess, Receivers]]:
    del edge
    receivers = Receivers(1)
    receivers.start()
    config, endpoints = cluster.config_file("webhooks"), {"erp": f'{receivers.url("erp")}\nstart = "present"'}
    process = WebhooksProcess(
        tmp_path, as_user(cluster, "webhooks"), endpoints, corp=CORP_ID, WEBHOOKS_KAFKA_CONFIG_FILE=config
    )
    process.start()
    yield process, receivers
    process.kill()
    receivers.stop()


def test_the_acls_suffice_and_brokers_restart_one_by_one_unnoticed(
    cluster: SecuredCluster,
    outside: Connection,
    edge: RunningEdge,
    *,
    worker: Worker,
    center: CenterProcess,
    webhooks: tuple[WebhooksProcess, Receivers],
) -> None:
    worker.start()
    center.start()
    process, receivers = webhooks
    wait_until(edge.is_whole, what="the edge is ready")
    wait_until(worker.is_ready, what="the worker is ready")
    wait_until(center.is_ready, what="the task center is ready")
    wait_until(process.is_ready, what="webhooks are ready")
    with Steadily(edge) as sent:
        for broker in (*BROKERS[1:], BROKERS[0]):
            cluster.restart(broker)
            wait_until(lambda: in_sync(outside) == set(BROKERS), what=f"all are in sync after {broker} came back")
    assert set(sent.statuses) == {200}
    wait_until(edge.has_drained, what="the spool is empty")
    stored = {(message.key() or b"").decode() for message in read_topic(outside, TASK_EVENTS.name)}
    assert sent.instances <= stored
    wait_until(lambda: caught_up(outside), what="all events are folded")
    assert_all_is_right(outside, lambda topic: read_topic(outside, topic))

    assert "not_allowed" not in worker.log_path.read_text()
    assert worker.readiness()["topics"] == []
    assert [line for line in edge.log() if line["event"].startswith("topic_")] == []
    received = asyncio.run(of_subscriber(cluster))
    person = received[0].recipient_id

    def is_listed() -> bool:
        listed = {each.instance_id for each in lists_of(center.url, received[0].corp_id, person) or {}}
        return {each.instance_id for each in received if each.recipient_id == person} <= listed

    wait_until(is_listed, what="the task center has the entries")
    assert {each.instance_id for each in received} <= sent.instances
    delivered = receivers.received["erp"].entries
    wait_until(lambda: sent.instances <= {each[3] for each in delivered}, what="webhooks deliver all of it")
    assert "lacks" not in process.log_path.read_text()
    operator, config = as_user(cluster, "operator"), cluster.config_file("operator")
    tail = ("tail", TASK_NOTIFICATIONS.name, "--from-beginning", "--max", "1", "--json")
    assert json.loads(taskbridge(operator, config, *tail).splitlines()[0])["value"]["corp_id"]
    for topic in ("dlq", "quarantine"):
        assert taskbridge(operator, config, topic, "list", "--json") == ""


def test_with_a_wrong_password_the_edge_still_stores_accepted_callbacks(
    cluster: SecuredCluster, outside: Connection, edge: RunningEdge, tmp_path: Path
) -> None:
    del edge
    other = RunningEdge(
        tmp_path,
        bootstrap_servers=cluster.secured_servers,
        registry_url=cluster.registry_url,
        EDGE_KAFKA_CONFIG_FILE=cluster.config_file("edge"),
    )
    remove_workers(outside)
    wrong, right = (cluster.config_file("streams", password=each) for each in ("wrong", PASSWORD))
    worker = Worker(tmp_path, as_user(cluster, "streams"), STREAMS_KAFKA_CONFIG_FILE=wrong)
    try:
        # It learns the schemas' ids first: the registry has the same password.
        other.start()
        wait_until(other.is_whole, what="the edge is ready")
        other.stop()
        other.environment["EDGE_KAFKA_CONFIG_FILE"] = cluster.config_file("edge", password="wrong")
        other.start()
        worker.start()
        wait_until(other.is_ready, what="the edge can store callbacks")
        assert post(other, "spooled first", SYSTEM_TOKEN) == (200, "spool")
        wait_until(lambda: worker.readiness().get("problems"), what="the worker reports the problem")
        assert not worker.readiness()["ready"]
        other.stop()
        other.environment["EDGE_KAFKA_CONFIG_FILE"] = cluster.config_file("edge")
        other.start()
        wait_until(other.has_drained, what="the spool is empty")
        events = [each.key() for each in read_topic(outside, TASK_EVENTS.name)]
        assert events.count(b"spooled first") == 1
        worker.kill()
        worker.environment["STREAMS_KAFKA_CONFIG_FILE"] = right
        worker.start()
        wait_until(worker.is_ready, what="the worker is ready")
        wait_until(lambda: caught_up(outside), what="all events are folded")
    finally:
        other.kill_if_running()
        worker.kill()


def test_the_doctor_names_what_is_wrong_with_the_credentials_of_kafka(
    cluster: SecuredCluster, edge: RunningEdge, tmp_path: Path, disk_folder: Callable[[], Path]
) -> None:
    def found(**changes: str) -> dict[tuple[str, str], str]:
        return {(each.check, each.state): each.says for each in Examination(settings | changes).findings()}

    edge.credentials.chmod(0o600)
    settings = {
        "EDGE_KAFKA_BOOTSTRAP_SERVERS": cluster.secured_servers,
        # Who may look at all topics.
        "EDGE_KAFKA_CONFIG_FILE": cluster.config_file("operator"),
        "EDGE_SCHEMA_REGISTRY_URL": cluster.registry_url,
        "EDGE_CREDENTIALS_FILE": str(edge.credentials),
        "EDGE_DATA_DIR": str(disk_folder()),
    }
    well = found()
    assert not [each for each in well if each[1] == "failed"], well
    assert {("kafka", "ok"), ("replicas", "ok")} <= {*well}
    wrong = found(EDGE_KAFKA_CONFIG_FILE=cluster.config_file("edge", password="wrong"))
    assert "invalid credentials" in wrong["kafka", "failed"]
    plain = tmp_path / "plain.properties"
    plain.touch()
    assert "does not answer" in found(EDGE_KAFKA_CONFIG_FILE=str(plain))["kafka", "failed"]


def test_the_acls_of_a_rebuild_suffice(
    cluster: SecuredCluster, outside: Connection, internal_topics: None, tmp_path: Path
) -> None:
    del internal_topics
    rebuild(cluster, tmp_path, "--rebuild")
    assert_all_is_right(outside, lambda topic: read_topic(outside, topic))


async def of_subscriber(cluster: SecuredCluster) -> list[Any]:
    """The first notification and all of an inbox, for the user who may only subscribe."""
    source = Kafka(cluster.secured_servers, cluster.registry_url, cluster.properties("subscriber"))
    first = await anext(aiter(subscribe(source, group="subscriber-of-the-test")))
    async with Inbox(source) as inbox:
        entries = [each for who in inbox.people() for each in inbox.entries(*who, first.view)]
    assert entries
    return [first, *entries]


@pytest.mark.parametrize("acl", one_of_each(ROLES["edge"], privilege), ids=str)
def test_the_edge_needs_each_of_its_acls(
    cluster: SecuredCluster, outside: Connection, edge: RunningEdge, acl: Acl
) -> None:
    wait_until(edge.is_whole, what="the edge is ready")
    with without(outside, "edge", acl):
        if acl.operation == "DescribeConfigs":
            wait_until(lambda: refusal(acl, as_user(cluster, "edge")), what="a refusal names the ACL")
            return
        is_events = acl.name == TASK_EVENTS.name
        name, token = ("kafka", SYSTEM_TOKEN) if is_events else ("quarantine", "not the token")

        def is_logged() -> bool:
            status, durability = post(edge, f"without {acl}", token)
            assert (status, durability) in ([(200, "kafka"), (200, "spool")] if is_events else [(401, None)])
            return f"lacks {acl}" in readiness(edge)[name]

        wait_until(is_logged, what="the edge says which one is missing")
    wait_until(lambda: edge.is_whole() and edge.has_drained(), what="what waited in the spool is on Kafka")
    assert f"without {acl}" in str([message.value() for message in read_topic(outside, acl.name)])


@pytest.mark.parametrize("acl", one_of_each(ROLES["streams"], privilege), ids=str)
def test_a_worker_needs_each_of_its_acls(
    as_streams: Connection, outside: Connection, internal_topics: None, acl: Acl
) -> None:
    del internal_topics
    wait_until(lambda: lacks_nothing(as_streams), what="all is as it was")
    with without(outside, "streams", acl):
        wait_until(lambda: refusal(acl, as_streams), what="Kafka refuses")
        if acl.operation not in ("Create", "DescribeConfigs") and acl.resource != "transactional-id":
            wait_until(lambda: is_logged_at_start(acl, as_streams), what="a worker says which one is missing")


READING = [(role, acl) for role in ("center", "webhooks", "operator") for acl in ROLES[role]]


@pytest.mark.nightly
@pytest.mark.parametrize(("role", "acl"), READING, ids=str)
def test_task_center_webhooks_and_commands_need_each_of_their_acls(
    cluster: SecuredCluster, outside: Connection, edge: RunningEdge, role: str, acl: Acl
) -> None:
    del edge  # it brings ACLs and topics
    with without(outside, role, acl):
        wait_until(lambda: refusal(acl, as_user(cluster, role)), what="a refusal names the ACL")


@pytest.mark.parametrize("acl", one_of_each(ROLES["land"], privilege), ids=str)
def test_land_needs_each_of_its_acls_and_nothing_else(
    cluster: SecuredCluster, outside: Connection, edge: RunningEdge, tmp_path: Path, acl: Acl
) -> None:
    del edge
    values = FormData("corp", "APP", "FORM-1", "landed", 1_700_000_000_000, "scan", data={"numberField_1": "1"})
    producer = Producer(producer_config(outside.bootstrap_servers))
    producer.produce(FORM_DATA.name, key=b"landed", value=form_data_codec(outside.registry).encode(values))
    assert producer.flush(30) == 0
    land = as_user(cluster, "land")
    with without(outside, "land", acl):
        wait_until(lambda: refusal(acl, land), what="a refusal names the ACL")
    target = tmp_path / "target.db"
    given = {"LAND_KAFKA_CONFIG_FILE": cluster.config_file("land"), "LAND_PORT": "0"}
    taskbridge(land, cluster.config_file("land"), "land", "--to", f"sqlite:///{target}", "--once", **given)
    with closing(sqlite3.connect(target)) as database:
        assert database.execute("SELECT instance_id, numberfield_1 FROM f_form1").fetchall() == [("landed", 1)]


@pytest.mark.parametrize("acl", one_of_each(ROLES["subscriber"], privilege), ids=str)
def test_a_subscriber_needs_each_of_its_acls(
    cluster: SecuredCluster, outside: Connection, edge: RunningEdge, acl: Acl
) -> None:
    del edge
    with without(outside, "subscriber", acl):

        def is_refused() -> bool:
            try:
                asyncio.run(of_subscriber(cluster))
            except KafkaRefused as error:
                lacks = str(acl) if acl.resource == "topic" or not acl.prefixed else "Read on its group"
                return "lacks" in str(error) and lacks in str(error)
            return False

        wait_until(is_refused, what="a refusal names the ACL")


@pytest.mark.parametrize("acl", one_of_each(PASSES, lambda _: "any"), ids=str)
def test_a_pass_of_reconcile_needs_each_of_its_acls(
    cluster: SecuredCluster, outside: Connection, worker: Worker, tmp_path: Path, acl: Acl
) -> None:
    # An event to read, and a task of which no callback arrived.
    produce_to(outside, TASK_STATES.name)
    produce_to(outside, TASK_EVENTS.name)
    # Events are read only where some wait for the workers.
    waits = (acl.operation, acl.name) == ("Read", TASK_EVENTS.name)
    if not waits:
        worker.start()
    at = time.time_ns() // 1_000_000 - 3_600_000
    missed = TaskEvent(
        event_id="of the truth alone",
        source=SOURCE_YIDA,
        action=Action.CREATED,
        corp_id="corp",
        app_type="APP",
        instance_id=f"missed without {acl}",
        occurred_at=at,
        received_at=at,
        form_uuid="FORM-1",
        originator=Person("user-1"),
        task_id="T-1",
        recipient_ids=("user-2",),
    )
    dingtalk = FakeDingTalk(Company([missed]), SystemClock(), system_tokens={"APP": SYSTEM_TOKEN})
    with served(dingtalk.app) as url:
        (tmp_path / "apps.toml").write_text(
            f'[[corps]]\ncorp_id = "corp"\napp_key = "{dingtalk.app_key}"\napp_secret = "{dingtalk.app_secret}"\n'
            f'user_id = "{dingtalk.user_id}"\n[[apps]]\napp_type = "APP"\nsystem_token = "{SYSTEM_TOKEN}"\n'
        )
        settings = {
            "RECONCILE_KAFKA_BOOTSTRAP_SERVERS": cluster.secured_servers,
            "RECONCILE_SCHEMA_REGISTRY_URL": cluster.registry_url,
            "RECONCILE_KAFKA_CONFIG_FILE": cluster.config_file("reconcile"),
            "RECONCILE_APPS_FILE": str(tmp_path / "apps.toml"),
            "RECONCILE_DATA_DIR": str(tmp_path / "reconcile"),
            "RECONCILE_API_URL": url,
        }
        with without(outside, "reconcile", acl):
            wait_until(
                lambda: f"lacks {acl}" in str(refused_pass(settings)),
                180,
                what="a refusal names the ACL",
            )
        if waits:
            worker.start()
        wait_until(lambda: refused_pass(settings) is None, 180, what="a pass with all of them")
    assert missed.instance_id.encode() in {each.key() for each in read_topic(outside, TASK_EVENTS.name)}


def refused_pass(settings: dict[str, str]) -> str | None:
    """Why Kafka does not let a pass of reconcile come to its end."""
    try:
        done = one_pass(settings)
    except OperatorError as error:
        return str(error)
    assert done["problems"] == {}
    return None


@pytest.mark.nightly
@pytest.mark.parametrize("acl", [each for each in WORK if each.operation != "Create"], ids=str)
def test_no_worker_works_without_one_of_its_acls(
    outside: Connection, edge: RunningEdge, worker: Worker, acl: Acl
) -> None:
    wait_until(edge.is_whole, what="the edge is ready")
    with without(outside, "streams", acl):
        # It does not check, and finds out.
        worker.start(
            "import taskbridge.streams.contract.start as contract; contract.missing_acls = lambda *_, **__: [];"
            "from taskbridge.streams.app import main; main()"
        )
        assert post(edge, f"unnoticed without {acl}", SYSTEM_TOKEN) == (200, "kafka")
        produce_to(outside, TASK_EVENTS.name)  # to be parked
        wait_until(lambda: is_refused(worker), 120, what="Kafka refuses")
        worker.kill()
        if acl.resource != "transactional-id":  # which Kafka does not check beforehand
            worker.start()
            wait_until(lambda: f"{acl} (" in str(worker.readiness().get("problems")), what="the next start says it")
            worker.kill()
    worker.start()
    wait_until(worker.is_ready, what="the worker is ready")
    wait_until(lambda: caught_up(outside), what="all events are folded")


@pytest.mark.nightly
@pytest.mark.parametrize("acl", EXTRAS, ids=str)
def test_a_worker_without_an_optional_acl_works_and_logs_what_is_missing(
    outside: Connection, worker: Worker, acl: Acl
) -> None:
    with without(outside, "streams", acl):
        worker.start()
        wait_until(worker.is_ready, what="the worker is ready")
        text = worker.log_path.read_text()
        if acl.operation == "DescribeConfigs":
            assert "topic_not_checked" in text
        else:
            assert f"lacks {acl}" in str(worker.readiness()["topics"])


@pytest.mark.nightly
def test_kafkas_own_tool_accepts_the_printed_commands(
    cluster: SecuredCluster, outside: Connection, tmp_path: Path
) -> None:
    printed = taskbridge(outside, None, "topics", "acls", "streams", "--principal", "streams=User:another")
    jars = ensure_artifacts(cache_folder(os.environ), progress=print).kafka_jars
    make_service_folder(tmp_path)
    java = java_argv("-cp", f"{jars}/*", "org.apache.kafka.tools.AclCommand", program=jars, heap_mb=128)
    shell = f'kafka-acls.sh() {{ {shlex.join(java)} "$@"; }}\nKAFKA={cluster.servers} ADMIN=/dev/null\n{printed}'
    done = subprocess.run(["bash", "-e", "-c", shell], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    admin: Any = outside.admin()
    anything: Any = (None, ResourcePatternType.ANY, "User:another", None, AclOperation.ANY, AclPermissionType.ANY)
    found = admin.describe_acls(AclBindingFilter(ResourceType.ANY, *anything)).result(30)
    assert set(found) == set(bindings("User:another", ROLES["streams"]))


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_each_acl_of_a_rebuild_is_needed(
    cluster: SecuredCluster, outside: Connection, internal_topics: None, tmp_path: Path
) -> None:
    del internal_topics
    found: dict[str, str] = {}
    own = [acl for acl in ROLES["rebuild"] if acl not in ROLES["operator"]]
    for partitions, acl in enumerate(own, topics.DEFAULT_PARTITIONS + 1):
        commands = (
            ("--rebuild",),
            ("--republish",),
            ("--rebuild", "--partitions", str(partitions)),
            # Deletes the changelog of the version before the live one.
            ("--rebuild",),
        )
        refused = None
        with without(outside, "rebuild", acl):
            for command in commands:
                try:
                    rebuild(cluster, tmp_path, *command)
                except AssertionError as error:
                    refused, found[str(acl)] = command, f"{command[0]}: {error}"
                    break
        if refused is not None:
            wait_until(lambda command=refused: is_done(cluster, tmp_path, command), what="it is done with the ACL")
    print(json.dumps(found, indent=2))  # noqa: T201 - to be looked at
    assert [str(acl) for acl in own if str(acl) not in found] == []


@pytest.fixture(scope="module")
def internal_topics(outside: Connection, edge: RunningEdge) -> None:
    """Those that a worker makes, where no test before has had one."""
    del edge
    made = [VERSION_TOPIC, instances_changelog(FIRST_VERSION), TRIED]
    apply_topics(outside.admin(), made, partitions=topics.DEFAULT_PARTITIONS)


@pytest.fixture(scope="module")
def as_streams(cluster: SecuredCluster) -> Generator[Connection]:
    connection = as_user(cluster, "streams", OAUTH)
    yield connection
    connection.close()


def is_refused(worker: Worker) -> bool:
    """Whether its log has it. Librdkafka retries for positions until its timeout, or only logs the failure."""
    text = worker.log_path.read_text()
    words = ("uthorization", "user lacks", "committed offsets: Local: Timed out", "the worker crashed")
    return any(each in text for each in words)


@contextmanager
def without(outside: Connection, user: str, acl: Acl) -> Generator[None]:
    """Remove one ACL while the context is open."""
    [binding] = bindings(f"User:{user}", [acl])
    found: Any = binding
    exactly = AclBindingFilter(
        found.restype,
        found.name,
        found.resource_pattern_type,
        found.principal,
        found.host,
        found.operation,
        found.permission_type,
    )
    admin: Any = outside.admin()
    [deleted] = admin.delete_acls([exactly]).values()
    assert len(deleted.result(30)) == 1
    try:
        yield
    finally:
        apply_acls(admin, [binding])


def refusal(acl: Acl, connection: Connection) -> str | None:
    """The error of the operation that needs the ACL; None where it succeeds."""
    is_ours = acl.prefixed and acl.resource == "topic"
    name = TRIED.name if acl.name == INTERNAL else TASK_STATES.name if is_ours else acl.name
    try:
        match acl.resource, acl.operation:
            case "topic", "Create":
                apply_topics(connection.admin(), [Topic(f"{acl.name}new", None)], partitions=1)
            case "topic", "DescribeConfigs":
                [report] = apply_topics(connection.admin(), [Topic(name, None)], partitions=topics.DEFAULT_PARTITIONS)
                return report.unchecked
            case "group", "Read":
                describe_group(connection.admin(), name)
            case _ if acl in ROLES["operator"]:
                of_the_operator(connection, name, writes=acl.operation == "Write")
            case "topic", "Read":
                # A topic without DESCRIBE is refused here; librdkafka reports nothing about its records.
                Offsets(consumer(connection)).partitions(name)
                with closing(PartitionReader(consumer(connection))) as reader:
                    list(reader.read(name, {0: 0}, within_s=30))
            case "group", "Describe":
                describe_group(connection.admin(), name)
            case _:
                in_a_transaction(connection, name if acl.resource == "topic" else TRIED.name)
    except (OperatorError, KafkaException) as error:
        text = str(error)
        assert any(words in text for words in ("uthorization failed", "lacks", "may not create")), text
        return text
    return None


def of_the_operator(connection: Connection, topic: str, *, writes: bool) -> None:
    async def write() -> None:
        producer = AsyncProducer(producer_config(connection.bootstrap_servers, connection.kafka_properties))
        await producer.produce(topic, key=b"tried", value=b"")

    if writes:
        asyncio.run(write())
    else:
        list(connection.read_to_end(TASK_STATES.name, progress=print))


def in_a_transaction(connection: Connection, topic: str) -> None:
    config = producer_config(connection.bootstrap_servers, connection.kafka_properties)
    with closing(JointProducer(config, f"{INTERNAL}of-the-test")) as producer:
        producer.claim()
        with producer.transaction():
            producer.send(topic, [(b"tried", b"", [])])


def consumer(connection: Connection) -> dict[str, object]:
    return consumer_config(connection.bootstrap_servers, APP_ID, connection.kafka_properties)


def contract_of(connection: Connection) -> Contract:
    offsets = Offsets(consumer(connection))
    live_version = LiveVersion(connection.bootstrap_servers, connection.kafka_properties, offsets)
    partitions = topics.DEFAULT_PARTITIONS
    return Contract(connection.admin(), connection.registry, partitions, live_version, offsets)


def lacks_nothing(connection: Connection) -> bool:
    try:
        return contract_of(connection).apply().drift == []
    except OperatorError:
        return False


def is_logged_at_start(acl: Acl, connection: Connection) -> bool:
    """Whether a worker that starts names it: as why it waits, or as what it goes without."""
    try:
        text = str(contract_of(connection).apply().drift)
    except NotAllowed as error:
        text = str(error)
    return str(acl) in text and "lacks" in text


def produce_to(outside: Connection, topic: str) -> None:
    """An unreadable callback."""
    producer = Producer(producer_config(outside.bootstrap_servers))
    producer.produce(topic, key=b"not readable", value=b"not readable")
    assert producer.flush(30) == 0


def post(edge: RunningEdge, instance_id: str, token: str) -> tuple[int, str | None]:
    """The status, and where the callback is stored."""
    answer = post_callback(
        edge.url, "create", parameters_of("create", instance_id=instance_id), system_token=token, encoding="json"
    )
    return answer.status, cast("dict[str, Any]", answer.body).get("durability")


def readiness(edge: RunningEdge) -> dict[str, Any]:
    answer = edge.get("/readyz")
    return {} if answer is None else answer.json()


def in_sync(outside: Connection) -> set[int]:
    """The brokers that have all of the events."""
    found: Any = outside.admin().list_topics(TASK_EVENTS.name, timeout=60)
    partitions = found.topics[TASK_EVENTS.name].partitions.values()
    return {broker for broker in BROKERS if all(broker in each.isrs for each in partitions)}


def as_user(cluster: SecuredCluster, user: str, mechanism: str = SCRAM) -> Connection:
    return Connection(cluster.secured_servers, cluster.registry_url, cluster.properties(user, mechanism))


def is_done(cluster: SecuredCluster, folder: Path, command: tuple[str, ...]) -> bool:
    try:
        rebuild(cluster, folder, *command)
    except AssertionError:
        return False
    return True


def rebuild(cluster: SecuredCluster, folder: Path, *arguments: str) -> None:
    config = cluster.config_file("rebuild")
    data_dir = {"STREAMS_DATA_DIR": str(folder / "rebuild"), "TASKBRIDGE_PARTITIONS": str(topics.DEFAULT_PARTITIONS)}
    taskbridge(as_user(cluster, "rebuild"), config, "streams", *arguments, **data_dir)


def taskbridge(connection: Connection, config: str | None, *arguments: str, **more: str) -> str:
    """The program's output, with Kafka's settings given as an operator gives them."""
    environment = {
        **os.environ,
        **more,
        "TASKBRIDGE_KAFKA_BOOTSTRAP_SERVERS": connection.bootstrap_servers,
        "TASKBRIDGE_SCHEMA_REGISTRY_URL": connection.registry_url,
        **({} if config is None else {"TASKBRIDGE_KAFKA_CONFIG_FILE": config}),
    }
    done = forked.taskbridge(*arguments, environment=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout
