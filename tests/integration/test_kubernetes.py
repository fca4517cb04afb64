"""The chart on a real Kubernetes, with every part, under a flow of callbacks: none is refused, none is lost."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import yaml

import image as wheels
from release import image
from release.source import export
from support import http_clients, needs, releases
from support.approvals import task_event
from support.background import InBackground
from support.center import PostgresServer
from support.deployment import custom_resources, kubernetes
from support.deployment.kubernetes import HOST, Cluster
from support.deployment.metrics import MetricsServer
from support.edge.fakes import APP_TYPE, CORP_ID, SOURCE, SOURCE_SECRET, SYSTEM_TOKEN, parameters_of
from support.edge.process import wait_until
from support.fake_gateway import FakeGateway
from support.kafka.certificates import Authority
from support.kafka.stack import artifacts, change_properties
from support.receivers import Hook, http_server
from support.reporting import show
from support.wheels import PYPROJECT, git
from taskbridge.cli.callbacks import Sender
from taskbridge.local.fake_dingtalk import Company, FakeDingTalk, served
from taskbridge.local.host import LOOPBACK, free_ports
from taskbridge.local.jvm import kafka_service, registry_answers, registry_service, registry_url
from taskbridge.local.supervisor import Supervisor
from taskbridge.runtime.clock import SystemClock
from taskbridge.runtime.standard_webhooks import new_secret
from taskbridge.runtime.tokens import digest_of
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping
    from pathlib import Path


pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(3600)]

NAMESPACE = "tasks"
CHART = wheels.ROOT / "deploy" / "chart"
VERSION = PYPROJECT["project"]["version"]
BEFORE, ABSENT = "before", "absent"
"""Tags of images: of the last release, and of one that cannot be had."""
API_TOKEN = "tb_portal"
ASSIGNEE = "0169"
HERE = [{"ipBlock": {"cidr": f"{HOST}/32"}}]
OURS = "app.kubernetes.io/name=taskbridge"
PARTS = ("edge", "streams", "center", "webhooks", "reconcile", "approvals")
ROLLOUTS = {
    **dict.fromkeys(("edge", "streams", "reconcile"), "statefulset"),
    **dict.fromkeys(("center", "webhooks", "approvals"), "deployment"),
}
KAFKA = {"existingSecret": "kafka"}
WAITING = ("--wait", "--timeout", "10m")
SOON = {"preStopSeconds": 3}
"""Less than by default: kube-proxy knows within a second which pods end."""
SMALL = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}


@pytest.fixture(scope="module")
def archive(disk_folder: Callable[[], Path]) -> Generator[Future[Path]]:
    """The image, by the tools of a release: it is built while the last release starts."""
    if (reason := image.missing()) is not None:
        needs.leave_out("mmdebstrap", reason)
    with ThreadPoolExecutor(1) as building:
        yield building.submit(_build_image, disk_folder())


def _build_image(folder: Path) -> Path:
    for name in ("wheels", "out", "tree"):
        (folder / name).mkdir()
    wheels.build_wheels(folder / "wheels")
    return image.build(export(folder / "tree", signed=False), folder / "wheels", folder / "out")


@dataclass(frozen=True)
class Release:
    commit: str
    chart: Path
    image: Path
    version: str

    def changes_tables(self) -> bool:
        """Whether this checkout has other tables of the center than the release."""
        return bool(git("diff", "--name-only", self.commit, "--", "center/src/taskbridge/center/migrations/versions"))


@pytest.fixture(scope="module")
def before(disk_folder: Callable[[], Path]) -> Release:
    """The last release."""
    artifacts = releases.built(commit := releases.last_release(), disk_folder())
    (chart,) = artifacts.glob("*.tgz")
    built = releases.image_of(commit, artifacts, disk_folder())
    return Release(commit, chart, built, releases.version_of(artifacts))


@pytest.fixture(scope="module")
def beginning(
    archive: Future[Path], before: Release, disk_folder: Callable[[], Path], pytestconfig: pytest.Config
) -> Generator[tuple[Cluster, Future[Bridge]]]:
    """A cluster, where the last release is being installed. At the end, the table of all cases is printed."""
    lines: list[str] = []
    around_folder, folder = disk_folder(), disk_folder()
    with Cluster(disk_folder()) as cluster, ThreadPoolExecutor() as meanwhile, ExitStack() as stack:
        around = meanwhile.submit(Around, around_folder, stack)
        stack.callback(around.exception)  # what it opens is closed after it
        cluster.wait()

        def install() -> Bridge:
            cluster.load_image(before.image)
            name = "docker.io/library/taskbridge"
            cluster.tag_image(f"{name}:{before.version}", f"{name}:{BEFORE}")
            loaded = meanwhile.submit(lambda: cluster.load_image(archive.result()))
            bridge = Bridge(cluster, around.result(), before, folder, lines.append)
            bridge.install_before()
            loaded.result()
            return bridge

        installing = meanwhile.submit(install)
        stack.callback(installing.exception)
        yield cluster, installing
    show(pytestconfig, lines)


@pytest.fixture(scope="module")
def bridge(beginning: tuple[Cluster, Future[Bridge]]) -> Bridge:
    """The last release: the first test with it upgrades it."""
    return beginning[1].result()


class Around:
    """What the pods need of this machine: Kafka, the registry, PostgreSQL, DingTalk, and a receiver of webhooks."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        port, controller, registry, management, secured = free_ports(5)
        found = artifacts()
        self._supervisor = stack.enter_context(Supervisor(on_event=print))
        self._kafka = kafka_service(
            jars=found.kafka_jars, data_dir=folder / "kafka", port=port, controller_port=controller
        )
        self._folder, self._authorities = folder, (Authority("the first"), Authority("the second"))
        listeners = {
            "listeners": f"PODS://{HOST}:{secured}",
            "advertised.listeners": f"PODS://{HOST}:{secured}",
            "listener.security.protocol.map": "PODS:SSL",
        }
        stores = {f"ssl.{store}.location": str(folder / f"{store}.pem") for store in ("keystore", "truststore")}
        tls = {**stores, "ssl.keystore.type": "PEM", "ssl.truststore.type": "PEM", "ssl.client.auth": "required"}
        named = {f"listener.name.pods.{name}": value for name, value in tls.items()}
        change_properties(folder / "kafka" / "taskbridge-kafka.properties", listeners, named)
        self._write_stores(self._authorities[0], trusted=self._authorities)
        self.servers, self.registry_url = f"{HOST}:{secured}", registry_url(HOST, registry)
        schemas = registry_service(
            home=found.registry_home, data_dir=folder / "registry", port=registry, management_port=management
        )
        argv = [each.replace(f"quarkus.http.host={LOOPBACK}", f"quarkus.http.host={HOST}") for each in schemas.argv]
        ready = lambda: registry_answers(self.registry_url, trust_env=False)  # noqa: E731
        self._supervisor.start(self._kafka, replace(schemas, argv=argv, ready=ready))
        self.postgresql = PostgresServer({"listen_addresses": f"{LOOPBACK},{HOST}"})
        stack.callback(self.postgresql.stop)
        self._open_postgresql()
        self.company = Company()
        dingtalk = FakeDingTalk(self.company, SystemClock(), system_tokens={APP_TYPE: SYSTEM_TOKEN})
        self.dingtalk_url = stack.enter_context(served(dingtalk.app, host=HOST))
        self.gateway = FakeGateway()
        self.gateway_url, self.run = stack.enter_context(_serving(self.gateway))
        self.hook = stack.enter_context(http_server(Hook(), HOST))

    def _open_postgresql(self) -> None:
        with (self.postgresql.folder / "data" / "pg_hba.conf").open("a") as file:
            file.write("host all all all trust\n")
        with psycopg.connect(self.postgresql.url(), autocommit=True) as connection:
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("CREATE DATABASE center")

    @property
    def database_url(self) -> str:
        return self.postgresql.url("center").replace(LOOPBACK, HOST)

    def _write_stores(self, issuer: Authority, *, trusted: Iterable[Authority]) -> None:
        (self._folder / "keystore.pem").write_bytes(b"".join(issuer.issue("broker", HOST)))
        (self._folder / "truststore.pem").write_bytes(b"".join(each.certificate for each in trusted))

    def client_files(self, *, by: int = 0) -> dict[str, str]:
        """Of the Secret of Kafka's clients: a certificate by the first authority, or by the second."""
        key, certificate = self._authorities[by].issue("taskbridge")
        trusted = b"".join(each.certificate for each in self._authorities[: by + 1])
        places = {"ca.location": "ca.crt", "certificate.location": "user.crt", "key.location": "user.key"}
        lines = [f"ssl.{name}=/etc/taskbridge/{file}\n" for name, file in places.items()]
        files = {"ca.crt": trusted, "user.crt": certificate, "user.key": key}
        properties = "".join(["security.protocol=SSL\n", *lines])
        return {"kafka.properties": properties, **{name: each.decode() for name, each in files.items()}}

    def forget_first_authority(self) -> None:
        """From its next start on, Kafka has a certificate by the second one, and trusts no other."""
        self._write_stores(self._authorities[1], trusted=self._authorities[1:])

    @contextmanager
    def without_kafka(self) -> Generator[None]:
        self._supervisor.stop("kafka")
        yield
        self._supervisor.start(self._kafka)


@contextmanager
def _serving(gateway: FakeGateway) -> Generator[tuple[str, Callable[[Any], Any]]]:
    """Its URL, and what runs a coroutine where it runs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)

    serving = gateway.serving(HOST)
    try:
        yield run(serving.__aenter__()), run
    finally:
        run(serving.__aexit__(None, None, None))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Callbacks(InBackground):
    """Posts one callback after the other, each of another instance: every second one by a connection of its own."""

    def __init__(self, url: str, case: str) -> None:
        super().__init__()
        self._url, self._case = url, case
        self.sent = 0
        self.accepted: set[str] = set()
        self.durabilities: Counter[str] = Counter()
        self.refused: list[str] = []

    def work(self) -> None:
        with Sender(self._url) as kept:
            while not self.is_over.wait(0.02):
                if self.sent % 2:
                    self._post(kept)
                else:
                    with Sender(self._url) as sender:
                        self._post(sender)

    def _post(self, sender: Sender) -> None:
        instance = f"{self._case}-{self.sent}"
        self.sent += 1
        try:
            answer = sender.post(
                "create", parameters_of("create", instance_id=instance), system_token=SYSTEM_TOKEN, encoding="json"
            )
        except OperatorError as error:
            self.refused.append(f"{instance}: {error}")
            return
        if answer.accepted:
            self.accepted.add(instance)
            self.durabilities[answer.body["durability"]] += 1
        else:
            self.refused.append(f"{instance}: {answer.status} {answer.body}")


class Bridge:
    """The release ``taskbridge``, installed with every part."""

    def __init__(
        self, cluster: Cluster, around: Around, before: Release, folder: Path, report: Callable[[str], None]
    ) -> None:
        self.cluster, self.around, self.before = cluster, around, before
        self._folder, self._report = folder, report
        self.scaled: dict[str, Any] = {}
        """Values of edge and center that the last release does not know."""
        self.cluster.kubectl("create", "namespace", NAMESPACE)
        for name, files in self.secrets().items():
            self.put_secret(name, files)

    def secrets(self, *tokens: str) -> dict[str, dict[str, str]]:
        named = json.dumps(list(tokens or (SYSTEM_TOKEN,)))
        around = self.around
        return {
            "kafka": around.client_files(),
            "apps": {
                "credentials.toml": f'[[apps]]\napp_type = "{APP_TYPE}"\ncorp_id = "{CORP_ID}"\n'
                f"system_tokens = {named}\n"
                f'[[sources]]\nname = "{SOURCE}"\ncorp_id = "{CORP_ID}"\nsecrets = ["{SOURCE_SECRET}"]\n'
            },
            "tokens": {"api-tokens.toml": api_tokens(API_TOKEN)},
            "database": {"database-url": around.database_url},
            "dingtalk": {
                "apps.toml": f'[[corps]]\ncorp_id = "{CORP_ID}"\napp_key = "dingfakekey"\n'
                f'app_secret = "fake-app-secret"\nuser_id = "manager"\n[[apps]]\napp_type = "{APP_TYPE}"\n'
            },
            "endpoints": {
                "endpoints.toml": f'[[endpoints]]\nname = "erp"\nurl = "http://{HOST}:{around.hook.port}/erp"\n'
                f'secrets = ["file:erp-secret"]\ncorps = ["{CORP_ID}"]\n',
                "erp-secret": new_secret(),
            },
            "portal": {"api-token": API_TOKEN},
            "approvals": {
                "app-key": around.gateway.app_key,
                "app-secret": around.gateway.app_secret,
                "source-secret": SOURCE_SECRET,
            },
        }

    def put_secret(self, name: str, files: Mapping[str, str]) -> None:
        meta = {"name": name, "namespace": NAMESPACE}
        self.cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": dict(files)})

    def values(self) -> dict[str, Any]:
        around = self.around
        receiver = {"ports": [{"port": around.hook.port}], "to": HERE}
        database = {"existingSecret": "database", "port": int(around.postgresql.url().rsplit(":")[-1].split("/")[0])}
        return {
            "image": {"repository": "taskbridge"},
            "kafka": {"bootstrapServers": around.servers, "partitions": 4},
            "schemaRegistry": {"url": around.registry_url},
            "minReadySeconds": 2,
            "edge": {
                **SOON,
                "resources": SMALL,
                "kafkaProperties": KAFKA,
                "credentials": {"existingSecret": "apps"},
                **self.scaled,
            },
            "streams": {**SOON, "resources": SMALL, "kafkaProperties": KAFKA},
            "center": {
                **SOON,
                "resources": SMALL,
                "kafkaProperties": KAFKA,
                "replicas": 2,
                "database": database,
                "apiTokens": {"existingSecret": "tokens"},
                **self.scaled,
            },
            "webhooks": {
                "enabled": True,
                "resources": SMALL,
                "kafkaProperties": KAFKA,
                "endpoints": {"existingSecret": "endpoints"},
                "settings": {"WEBHOOKS_ALLOWED_NETWORKS": f"{HOST}/32"},
            },
            "reconcile": {
                "enabled": True,
                "resources": SMALL,
                "kafkaProperties": KAFKA,
                "apps": {"existingSecret": "dingtalk"},
                "settings": {"RECONCILE_API_URL": around.dingtalk_url},
            },
            "approvals": {
                "enabled": True,
                "resources": SMALL,
                "credentials": {"existingSecret": "approvals"},
                "settings": {"APPROVALS_API_URL": around.gateway_url, "APPROVALS_SOURCE": SOURCE},
            },
            "networkPolicy": {"callbacks": HERE, "api": HERE, "receivers": [receiver]},
            "setup": {"enabled": True, "replication": 1, "resources": SMALL, "kafkaProperties": KAFKA},
            "test": {"apiToken": {"existingSecret": "portal"}},
        }

    def helm(self, *arguments: str) -> str:
        return self.cluster.helm(*arguments, "--namespace", NAMESPACE)

    def install(self, *options: str, tag: str = "") -> None:
        """This release, by default with its own image; it is there when this returns, unless ``options`` differ."""
        self._install(CHART, self.values(), tag, options or WAITING)

    def install_before(self) -> None:
        chart = self.before.chart
        known = yaml.safe_load(self.cluster.helm("show", "values", str(chart)))
        values = {name: value for name, value in self.values().items() if name in known}
        self._install(chart, values, BEFORE, WAITING)

    def _install(self, chart: Path, values: dict[str, Any], tag: str, options: Iterable[str]) -> None:
        file = self._folder / "values.json"
        file.write_text(json.dumps({**values, "image": {**values["image"], "tag": tag}}))
        self.helm("upgrade", "taskbridge", str(chart), "--install", "--values", str(file), *options)

    def kubectl(self, *arguments: str) -> str:
        return self.cluster.kubectl("--namespace", NAMESPACE, *arguments)

    def get(self, *arguments: str) -> list[dict[str, Any]]:
        return self.cluster.get(*arguments, "--namespace", NAMESPACE)["items"]

    def wait(self, *parts: str) -> None:
        """Return when these parts, by default all, are as they were ordered."""
        for part in parts or PARTS:
            self.kubectl("rollout", "status", f"{ROLLOUTS[part]}/taskbridge-{part}", "--timeout=10m")

    def pods(self, *parts: str) -> dict[str, dict[str, Any]]:
        """Of these parts, by default of all."""
        found = self.get("pods", "--selector", f"app.kubernetes.io/component in ({','.join(parts or PARTS)})")
        return {each["metadata"]["name"]: each for each in found}

    def identities(self, *parts: str) -> set[tuple[str, int]]:
        """Of all containers of these parts, by default of all, as long as none of them restarts."""
        return {
            (pod["metadata"]["uid"], status["restartCount"])
            for pod in self.pods(*parts).values()
            for status in pod["status"].get("containerStatuses", [])
        }

    def images(self, *parts: str) -> Counter[str]:
        """The tags of the pods of these parts, by default of all, that are ready."""
        found = (pod for pod in self.pods(*parts).values() if is_ready(pod))
        return Counter(pod["spec"]["containers"][0]["image"].rpartition(":")[2] for pod in found)

    def exit_codes(self, part: str, tag: str) -> set[int]:
        """Of the containers of this image that ended."""
        states = (
            status[which].get("terminated")
            for pod in self.pods(part).values()
            if pod["spec"]["containers"][0]["image"].endswith(f":{tag}")
            for status in pod["status"].get("containerStatuses", [])
            for which in ("state", "lastState")
        )
        return {state["exitCode"] for state in states if state}

    def broken_pods(self, *parts: str) -> list[str]:
        """Those whose image cannot be had."""
        return [
            name
            for name, pod in self.pods(*parts).items()
            for status in pod["status"].get("containerStatuses", [])
            if status["state"].get("waiting", {}).get("reason") in ("ErrImagePull", "ImagePullBackOff")
        ]

    def remove_broken_pods(self) -> None:
        """As docs/how-to/run-on-kubernetes.md says."""
        for name in self.broken_pods():
            self.kubectl("delete", "pod", name, "--wait=false", "--ignore-not-found")

    def evict(self, pod: str) -> bool:
        """Whether the budget lets it go."""
        meta = {"name": pod, "namespace": NAMESPACE}
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta}
        done = self.cluster.done("kubectl", "create", "--raw", path, "--filename=-", given=json.dumps(eviction))
        assert done.returncode == 0 or "disruption budget" in done.stderr, done.stderr
        return done.returncode == 0

    def url(self, part: str) -> str:
        spec = self.cluster.get("service", f"taskbridge-{part}", "--namespace", NAMESPACE)["spec"]
        return f"http://{spec['clusterIP']}:{spec['ports'][0]['port']}"

    def pending(self, wanted: Iterable[str] = ()) -> set[str]:
        """What the task center shows, the newest first; no more than ``wanted`` needs, where that is given."""
        found: set[str] = set()
        missing = set(wanted)
        headers = {"Authorization": f"Bearer {API_TOKEN}"}
        path = f"{self.url('center')}/v1/corps/{CORP_ID}/users/{ASSIGNEE}/tasks?view=pending&limit=200"
        cursor: str | None = ""
        while cursor is not None:
            more = f"&cursor={cursor}" if cursor else ""
            page = http_clients.get(path + more, headers=headers).raise_for_status().json()
            found |= {each["instance_id"] for each in page["items"]}
            cursor = None if missing and missing <= found else page["next_cursor"]
        return found

    @contextmanager
    def flow(self, case: str) -> Generator[Callbacks]:
        """Callbacks while the block runs, and for a moment before and after: none is refused, none is lost."""
        with Callbacks(self.url("edge"), case) as callbacks:
            wait_until(lambda: len(callbacks.accepted) > 20, what="the flow begins")
            yield callbacks
            enough = callbacks.sent + 20
            wait_until(lambda: callbacks.sent >= enough, what="the flow goes on")
        lost = set(callbacks.accepted)

        def all_listed() -> bool:
            lost.difference_update(self.pending(lost))
            return not lost

        try:
            wait_until(all_listed, 180, what="the lists have every accepted callback")
        finally:
            kinds = ", ".join(f"{name} {count}" for name, count in callbacks.durabilities.items())
            self._report(f"{case}: {callbacks.sent} sent ({kinds}), {len(callbacks.refused)} refused, {len(lost)} lost")
        assert callbacks.refused == []


def api_tokens(*tokens: str) -> str:
    entries = enumerate(map(digest_of, tokens))
    return "".join(f'[[tokens]]\nname = "portal-{at}"\nsha256 = "{each}"\ncorps = ["*"]\n' for at, each in entries)


def is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


CONNECTS = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor

def connects(place):
    try:
        socket.create_connection(place[1], 5).close()
    except (TimeoutError, ConnectionRefusedError):
        return False
    return True

places = json.loads(sys.argv[1])
with ThreadPoolExecutor(len(places)) as trying:
    print(json.dumps([name for (name, _), is_open in zip(places, trying.map(connects, places)) if is_open]))
"""


def can_connect(address: str, port: int) -> bool:
    """From this machine."""
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError:
        return False
    return True


def test_the_api_server_accepts_all_features_of_the_chart_and_strimzis_resources(
    beginning: tuple[Cluster, Future[Bridge]], tmp_path: Path
) -> None:
    cluster, _ = beginning
    for each in custom_resources.definitions():
        cluster.kubectl("apply", "--server-side", f"--filename={each}")
    cluster.kubectl("wait", "--for=condition=Established", "customresourcedefinition", "--all", "--timeout=60s")
    scaled = {"enabled": True, "maxReplicas": 6}
    values = {
        "image": {"repository": "taskbridge"},
        "kafka": {"bootstrapServers": "kafka:9092"},
        "schemaRegistry": {"url": "http://registry:8081"},
        "edge": {"credentials": {"existingSecret": "apps"}, "autoscaling": scaled},
        "streams": {"keda": {**scaled, "triggerAuthentication": "kafka"}},
        "center": {
            "apiTokens": {"existingSecret": "tokens"},
            "database": {"existingSecret": "database"},
            "autoscaling": scaled,
        },
        "routes": {"callbacks": ["tasks-in.example"], "center": ["tasks.example"]},
        "ingress": {"enabled": True, "tls": [{"secretName": "tasks-example", "hosts": ["tasks.example"]}]},
        "gateway": {"enabled": True, "parents": [{"name": "public", "namespace": "gateways"}]},
    }
    (tmp_path / "values.json").write_text(json.dumps(values))
    given = ("--values", str(tmp_path / "values.json"), "--kube-version", kubernetes.VERSION)
    rendered = cluster.helm("template", "taskbridge", str(CHART), *given)
    accepted = cluster.kubectl("apply", "--dry-run=server", "--filename=-", given=rendered)
    for kind in ("horizontalpodautoscaler", "scaledobject", "ingress", "httproute"):
        assert f"\n{kind}" in f"\n{accepted}", accepted
    wrong = rendered.replace("maxReplicaCount:", "mostReplicas:")
    assert "mostReplicas" in cluster.fails("kubectl", "apply", "--dry-run=server", "--filename=-", given=wrong)
    for name in ("topics", "users"):
        text = (wheels.ROOT / "deploy" / "strimzi" / f"{name}.yaml").read_text().replace("CLUSTER", "my-cluster")
        assert "created" in cluster.kubectl("apply", "--dry-run=server", "--filename=-", given=text)


def test_an_upgrade_from_the_last_release_with_new_certificates_refuses_nothing(bridge: Bridge) -> None:
    """As docs/how-to/run-on-kubernetes.md renews Kafka's CA: the brokers trust the new one before clients have it."""
    before = bridge.identities()
    assert {*bridge.images()} == {BEFORE}
    with bridge.flow(f"upgraded from {bridge.before.version}, with new certificates of clients"):
        bridge.put_secret("kafka", bridge.around.client_files(by=1))
        bridge.install()
        bridge.wait()
    wait_until(lambda: not before & bridge.identities(), what="all pods are new")
    assert {*bridge.images()} == {VERSION}


def test_every_part_works(bridge: Bridge) -> None:
    for part in PARTS:
        wanted = 2 if part in ("edge", "streams", "center") else 1
        wait_until(lambda part=part, wanted=wanted: bridge.images(part) == {VERSION: wanted}, what=f"{part} is ready")
    with bridge.flow("installed"):
        wait_until(lambda: bridge.around.hook.requests, what="a webhook is delivered")
    bridge.around.run(bridge.around.gateway.push(*task_event("start")))
    wait_until(lambda: not bridge.around.gateway.unacknowledged, what="an approval is acknowledged")
    assert all(restarts == 0 for _, restarts in bridge.identities()), "no container ended"


def test_helm_test_posts_a_task_and_sees_it(bridge: Bridge) -> None:
    said = bridge.helm("test", "taskbridge", "--timeout", "3m")
    assert "Succeeded" in said


def test_a_drained_node_and_evictions_while_kafka_is_away_leave_an_edge(bridge: Bridge) -> None:
    """There is one node: what is evicted waits until the node may be used again. Kafka returns without the old CA."""
    cluster, before = bridge.cluster, bridge.identities("edge")
    drain = ("drain", "node1", "--ignore-daemonsets", "--delete-emptydir-data", f"--pod-selector={OURS}")
    with bridge.flow("node drained, edges evicted while Kafka is away and gets a new certificate") as callbacks:
        with bridge.around.without_kafka():
            bridge.around.forget_first_authority()
            cluster.fails("kubectl", *drain, "--timeout=3s")
            (left,) = [name for name, pod in bridge.pods("edge").items() if is_ready(pod)]
            assert not bridge.evict(left), "the budget holds back the second edge"
            cluster.kubectl("uncordon", "node1")
            wait_until(lambda: bridge.images("edge") == {VERSION: 2}, 180, what="an edge starts without Kafka")
            spooled = callbacks.durabilities["spool"]
            wait_until(lambda: callbacks.durabilities["spool"] > spooled + 20, what="callbacks go to the spool")
            wait_until(lambda: bridge.evict(left), what="the budget lets the second edge go")
        later = callbacks.durabilities["kafka"]
        wait_until(lambda: callbacks.durabilities["kafka"] > later + 20, what="callbacks go to Kafka again")
        wait_until(lambda: not before & bridge.identities("edge"), what="both edges were evicted")
        bridge.wait()


def test_changed_secrets_are_read_without_a_restart(bridge: Bridge) -> None:
    before = bridge.identities()
    other, portal = "ANOTHERTOKEN0123456789ABCDEF0123456789", "tb_another"
    create = parameters_of("create", instance_id="by-another-token")

    def is_accepted() -> bool:
        with Sender(bridge.url("edge")) as sender:
            return sender.post("create", create, system_token=other, encoding="form").accepted

    def may_read() -> bool:
        headers = {"Authorization": f"Bearer {portal}"}
        path = f"/v1/corps/{CORP_ID}/users/{ASSIGNEE}/counts"
        return http_clients.get(bridge.url("center") + path, headers=headers).status_code == 200

    assert not is_accepted()
    assert not may_read()
    with bridge.flow("Secrets changed"):
        bridge.put_secret("apps", bridge.secrets(SYSTEM_TOKEN, other)["apps"])
        bridge.put_secret("tokens", {"api-tokens.toml": api_tokens(API_TOKEN, portal)})
        wait_until(is_accepted, 180, what="the new system token counts")
        wait_until(may_read, 180, what="the new API token counts")
    assert bridge.identities() == before


def test_policies_let_through_what_the_parts_need_and_refuse_strangers(bridge: Bridge) -> None:
    cluster = bridge.cluster
    stranger = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "stranger", "namespace": NAMESPACE},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {"name": "shell", "image": f"taskbridge:{VERSION}", "command": ["python3", "-m", "http.server", "8400"]}
            ],
        },
    }
    cluster.apply(stranger)
    bridge.kubectl("wait", "--for=condition=Ready", "pod/stranger", "--timeout=120s")

    def reached(pod: str, places: Mapping[str, tuple[str, int]]) -> set[str]:
        """The names of those that a pod can connect to."""
        given = json.dumps([*places.items()])
        said = bridge.kubectl("exec", pod, "--", "python3", "-c", CONNECTS, given)
        return set(json.loads(said))

    with bridge.flow("policies"):
        addresses = {part: [pod["status"]["podIP"] for pod in bridge.pods(part).values()] for part in PARTS}
        ports = {"edge": (8400, 8401), "streams": (8510,), "center": (8500,), "webhooks": (8700,)}
        ports |= {"reconcile": (8600,), "approvals": (8610,)}
        places = {f"{part}:{port}": (addresses[part][0], port) for part, found in ports.items() for port in found}
        assert reached("stranger", places) == set(), "a stranger reaches none"
        own = cluster.get("pod", "stranger", "--namespace", NAMESPACE)["status"]["podIP"]
        center = next(iter(bridge.pods("center")))
        names = ("edge:8400", "edge:8401", "streams:8510", "webhooks:8700", "reconcile:8600")
        of_center = {"stranger": (own, 8400), **{name: places[name] for name in names}}
        # It posts no callbacks, and reaches nobody else.
        assert reached(center, of_center) == {"edge:8401", "streams:8510", "webhooks:8700", "reconcile:8600"}
        # From outside: this machine is in networkPolicy.api and .callbacks, and nowhere else.
        assert can_connect(addresses["center"][0], 8500)
        assert not can_connect(addresses["streams"][0], 8510)
        assert not can_connect(addresses["edge"][0], 8401)
    bridge.kubectl("delete", "pod", "stranger", "--wait=false")


def test_a_bad_image_stops_at_the_first_pods_and_the_last_release_comes_back(bridge: Bridge) -> None:
    """Where this release has changed tables, its center stays: the older one does not start."""
    parts = ("edge", "streams", "center")
    with bridge.flow(f"bad image, rolled back to {bridge.before.version}"):
        # Without hooks: the Job before an upgrade would fail first, and no pod would change.
        bridge.install("--no-hooks", tag=ABSENT)
        for part in parts:
            wait_until(lambda part=part: bridge.broken_pods(part), 120, what=f"the new image of {part} is missed")
        assert [len(bridge.broken_pods(part)) for part in parts] == [1, 1, 1]
        bridge.helm("rollback", "taskbridge", "1")
        bridge.remove_broken_pods()
        bridge.wait("edge", "streams")
        assert bridge.images("edge", "streams") == {BEFORE: 4}
        if bridge.before.changes_tables():
            wait_until(lambda: bridge.exit_codes("center", BEFORE) == {1}, what="the older center ends with an error")
            assert bridge.images("center") == {VERSION: 2}
        else:
            bridge.wait("center")
            assert bridge.images("center") == {BEFORE: 2}


def test_uninstalling_leaves_the_volumes_alone_and_installing_again_brings_the_data_back(
    bridge: Bridge, tmp_path: Path
) -> None:
    """With autoscalers, which find the pods busy at first: those of edges are kept afterwards."""
    own = {("Secret", name) for name in bridge.secrets()}
    seen = bridge.pending()
    bridge.helm("uninstall", "taskbridge", "--wait", "--timeout", "5m")
    kinds = bridge.cluster.kubectl("api-resources", "--namespaced", "--verbs=list", "--output=name").split()
    kinds = [each for each in kinds if not each.startswith("events")]
    own |= {("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")}
    pods = [*(f"{part}-{number}" for part in ("edge", "streams") for number in range(2)), "reconcile-0"]
    claims = {("PersistentVolumeClaim", f"kept-taskbridge-{each}") for each in pods}
    claims.add(("PersistentVolumeClaim", "taskbridge-webhooks"))

    def left() -> set[tuple[str, str]]:
        return {(each["kind"], each["metadata"]["name"]) for each in bridge.get(",".join(kinds))} - own

    wait_until(lambda: left() == claims, what=f"only the claims are left, not {left() - claims}")
    volumes = {each["metadata"]["uid"] for each in bridge.get("persistentvolumeclaims")}
    bridge.scaled = {"autoscaling": {"enabled": True, "maxReplicas": 3}}
    with MetricsServer(bridge.cluster, NAMESPACE, tmp_path) as metrics:
        bridge.install()
        with bridge.flow("installed again, pods added and removed by autoscalers"):
            wait_until(lambda: not seen - bridge.pending(), 180, what="the lists are as before")
            wait_until(lambda: bridge.images("edge", "center") == {VERSION: 6}, what="busy pods get a third one")
            metrics.cpu = "1m"
            wait_until(lambda: bridge.images("center") == {VERSION: 2}, what="the third center is removed")
            assert bridge.images("edge") == {VERSION: 3}
        assert {*bridge.images()} == {VERSION}
        assert {each["metadata"]["uid"] for each in bridge.get("persistentvolumeclaims")} > volumes
