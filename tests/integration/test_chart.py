"""The Helm chart: rendered by Helm, valid for Kubernetes, right for the services that it runs."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import signal
import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import httpx2
import kubernetes_validate
import kubernetes_validate.utils
import pytest
import yaml
from fastapi import FastAPI

from support import http_clients
from support.deployment.helm import OUTSIDE, Document, Helm, Peer, Rendered, allows, selects
from support.edge.fakes import SYSTEM_TOKEN, write_credentials
from support.edge.process import wait_until
from support.forked import COMMAND, Forked, taskbridge
from taskbridge.center.settings import settings_class
from taskbridge.dingtalk.approvals import app as approvals_app
from taskbridge.dingtalk.approvals.settings import ApprovalsSettings
from taskbridge.edge import app as edge_app
from taskbridge.edge.server import serving
from taskbridge.edge.settings import EdgeSettings
from taskbridge.landing import app as land_app
from taskbridge.landing.settings import LandSettings
from taskbridge.local.host import free_ports
from taskbridge.reconcile.settings import ReconcileSettings
from taskbridge.runtime.operation import make_server
from taskbridge.runtime.standard_webhooks import new_secret
from taskbridge.schemas.topics import TASK_EVENTS
from taskbridge.streams import app as streams_app
from taskbridge.streams import worker
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.settings import StreamsSettings
from taskbridge.streams.transactions import group_commit
from taskbridge.webhooks import app as webhooks_app
from taskbridge.webhooks.settings import WebhooksSettings

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

pytestmark = [pytest.mark.consumers, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "chart"
OLDEST = "1.30"
"""Of Chart.yaml: the first version with a sleep before SIGTERM that needs no program."""
VERSIONS = [OLDEST, kubernetes_validate.latest_version()]
"""Within a version of an API Kubernetes removes nothing: what both accept, the versions between them accept."""
PARTS = ("edge", "streams")
"""Those with a volume for each pod."""
KINDS = {"edge": "StatefulSet", "streams": "StatefulSet", "center": "Deployment", "webhooks": "Deployment"}
"""Of the parts with several replicas; webhooks where they are enabled."""
SINGLE = ("reconcile", "approvals", "land")
"""Those that have one replica, where they are enabled."""
COMPANION_KINDS = {"ServiceMonitor", "PrometheusRule", "HTTPRoute", "ScaledObject"}
"""Those of operators, which Kubernetes' own schemas do not have."""

MINIMAL: dict[str, Any] = {
    "image": {"repository": "registry.example/taskbridge"},
    "kafka": {"bootstrapServers": "kafka-0:9092, kafka-1:9094"},
    "schemaRegistry": {"url": "http://registry:8081"},
    "edge": {"credentials": {"existingSecret": "apps"}},
    "center": {"apiTokens": {"existingSecret": "tokens"}},
}
TEXTS = {
    "credentials": '[[apps]]\napp_type = "APP_1"\nsystem_tokens = ["the-token"]\n',
    "apiTokens": '[[tokens]]\nname = "portal"\nsha256 = "{{ 64 }}"\ncorps = ["*"]\n',
    "kafkaProperties": 'security.protocol=SASL_SSL\nsasl.password=pass"word\n',
    "apps": '[[corps]]\ncorp_id = "ding1"\napp_key = "key"\napp_secret = "secret"\nuser_id = "manager"\n'
    '[[apps]]\napp_type = "APP_1"\nsystem_token = "the-token"\n',
    "webhooksToken": "tb_operator\n",
    "signInSecret": "a secret\n",
    "reminders": "[[rules]]\nhours = 8\n",
    "mcpRules": "rules = []\n",
    "endpoints": '[[endpoints]]\nname = "erp"\nurl = "https://erp.example"\n'
    'corps = ["ding1"]\nsecrets = ["file:erp"]\n',
}


def merged(base: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """``edge__replicas=3`` is what ``--set edge.replicas=3`` is."""
    found: dict[str, Any] = copy.deepcopy(dict(base))
    for path, value in changes.items():
        *folders, last = path.split("__")
        place = found
        for each in folders:
            place = place.setdefault(each, {})
        place[last] = value
    return found


SECURED = merged(
    MINIMAL,
    schemaRegistry__url="https://registry.example",
    files=[{"secret": {"name": "my-cluster-cluster-ca-cert", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}],
    edge__kafkaProperties__existingSecret="kafka-edge",
    streams__kafkaProperties__existingSecret="kafka-streams",
    networkPolicy__kafka=[{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kafka"}}}],
)
EXTENDED = merged(
    MINIMAL,
    reconcile={"enabled": True, "apps": {"existingSecret": "dingtalk"}},
    webhooks={"enabled": True, "endpoints": {"existingSecret": "endpoints"}},
    approvals={
        "enabled": True,
        "credentials": {"existingSecret": "approvals"},
        "settings": {"APPROVALS_API_URL": "https://api.dingtalk.io"},
    },
    land={"enabled": True, "database": {"existingSecret": "warehouse"}},
    center__settings={
        "CENTER_PUBLIC_URL": "https://tasks.example",
        "CENTER_OIDC_ISSUER": "https://login.example:8443/realms/company",
        "CENTER_OIDC_CLIENT_ID": "task-center",
        "CENTER_CORP_ID": "ding1",
    },
)
PLACED: dict[str, Any] = {
    "podLabels": {"team": "approvals"},
    "podAnnotations": {"sidecar": "no"},
    "nodeSelector": {"disk": "local"},
    "tolerations": [{"key": "kafka", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "priorityClassName": "high",
    "service": {"type": "LoadBalancer", "externalTrafficPolicy": "Local"},
    "volume": {"size": "50Gi", "storageClass": "local"},
}
EVERYTHING = merged(
    MINIMAL,
    edge__credentials={"text": TEXTS["credentials"]},
    center__apiTokens={"text": TEXTS["apiTokens"]},
    **{
        f"{part}__kafkaProperties": {"text": TEXTS["kafkaProperties"]}
        for part in (*KINDS, "reconcile", "land", "setup")
    },
    **{f"reconcile__{name}": value for name, value in PLACED.items() if name != "service"},
    **{f"approvals__{name}": value for name, value in PLACED.items() if name not in ("service", "volume")},
    **{f"land__{name}": value for name, value in PLACED.items() if name not in ("service", "volume")},
    land__enabled=True,
    land__database__existingSecret="warehouse",
    approvals__enabled=True,
    approvals__credentials__existingSecret="approvals",
    approvals__settings={"APPROVALS_API_URL": "http://dingtalk-relay:8443"},
    reconcile__enabled=True,
    reconcile__apps={"text": TEXTS["apps"]},
    reconcile__settings={"RECONCILE_API_URL": "http://dingtalk-relay:8443", "RECONCILE_OUTCOMES": "false"},
    **{
        f"{part}__{name}": PLACED[name]
        for part in KINDS
        for name in PLACED
        if name != "service" or part in ("edge", "center")
    },
    webhooks__enabled=True,
    webhooks__endpoints={"text": TEXTS["endpoints"]},
    webhooks__apiTokens={"text": TEXTS["apiTokens"]},
    center__webhooksToken={"text": TEXTS["webhooksToken"]},
    center__signInSecret={"text": TEXTS["signInSecret"]},
    center__reminders={"text": TEXTS["reminders"]},
    center__mcpRules={"text": TEXTS["mcpRules"]},
    center__apps={"text": TEXTS["apps"]},
    center__credentials={"text": TEXTS["credentials"]},
    webhooks__replicas=2,
    webhooks__database__existingSecret="database",
    webhooks__settings={"WEBHOOKS_ALLOWED_NETWORKS": "10.3.0.0/16"},
    edge__bearerTokens__existingSecret="bearer",
    minReadySeconds=60,
    edge__replicas=3,
    edge__autoscaling={"enabled": True, "maxReplicas": 9, "cpuPercent": 60},
    center__autoscaling={"enabled": True, "maxReplicas": 9, "cpuPercent": 60},
    streams__keda={"enabled": True, "maxReplicas": 12, "lag": 100, "triggerAuthentication": "kafka"},
    routes={"callbacks": ["tasks-in.example", "tasks.example"], "center": ["tasks.example"]},
    ingress__enabled=True,
    ingress__className="nginx",
    ingress__annotations={"nginx.ingress.kubernetes.io/proxy-buffering": "off"},
    ingress__tls=[{"secretName": "tasks-example", "hosts": ["tasks.example"]}],
    gateway={"enabled": True, "parents": [{"name": "public", "namespace": "gateways"}]},
    test__apiToken__existingSecret="portal",
    edge__updatePartition=3,
    edge__settings={"EDGE_SPOOL_MAX_BYTES": "2147483648", "EDGE_TRUSTED_PROXIES": "10.0.0.0/8"},
    streams__replicas=3,
    center__replicas=3,
    center__database__existingSecret="database",
    center__settings={
        "CENTER_SSO_PROXIES": "10.0.0.0/8",
        "CENTER_CORP_ID": "ding1",
        "CENTER_DINGTALK_API_URL": "http://dingtalk-relay:8443",
    },
    image__digest=f"sha256:{'a' * 64}",
    image__pullSecrets=[{"name": "login"}],
    serviceAccountName="taskbridge",
    tracing={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_SAMPLER_ARG": "0.01"},
    monitoring={
        kind: {"enabled": True, "labels": {"release": "kps"}}
        for kind in ("serviceMonitor", "prometheusRule", "dashboards")
    },
    setup__enabled=True,
    networkPolicy={
        "callbacks": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}],
        "api": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}],
        "registry": [{"ipBlock": {"cidr": "10.1.0.0/16"}}],
        "database": [{"ipBlock": {"cidr": "10.1.0.0/16"}}],
        "kafkaPorts": [9095],
        "receivers": [{"ports": [{"port": 8443}], "to": [{"ipBlock": {"cidr": "10.3.0.0/16"}}]}],
        "extraEgress": [{"ports": [{"port": 443}], "to": [{"ipBlock": {"cidr": "10.2.0.0/16"}}]}],
    },
)  # fmt: skip
TRACING = re.findall(r"\b(OTEL_\w+)=", (ROOT / "docs/how-to/trace-it.md").read_text("utf-8"))
PAGE = (ROOT / "docs/how-to/run-on-kubernetes.md").read_text("utf-8")
DOCUMENTED = yaml.safe_load(PAGE.partition("```yaml\n# values.yaml\n")[2].partition("```")[0])
SETS = {
    "minimal": MINIMAL,
    "secured": SECURED,
    "extended": EXTENDED,
    "everything": EVERYTHING,
    "documented": DOCUMENTED,
}


@pytest.fixture(scope="module")
def helm() -> Helm:
    return Helm()


@pytest.fixture(scope="module")
def charts(helm: Helm) -> dict[str, Rendered]:
    return dict(zip(SETS, helm.render(CHART, *SETS.values()), strict=True))


@pytest.fixture(params=list(SETS))
def chart(request: pytest.FixtureRequest, charts: dict[str, Rendered]) -> Rendered:
    found = charts[request.param]
    assert not found.error
    return found


def containers(document: Document) -> list[Document]:
    pod = document["spec"]["template"]["spec"]
    return [*pod.get("initContainers", []), *pod["containers"]]


def env(container: Document) -> dict[str, str | None]:
    """Every variable; None where a Secret or the pod has the value."""
    found = {each["name"]: each.get("value") for each in container["env"]}
    assert len(found) == len(container["env"]), "one name twice"
    return found


def kind_of(part: str) -> str:
    return {**KINDS, "approvals": "Deployment", "land": "Deployment"}.get(part, "StatefulSet")


def ports(container: Document) -> dict[str, int]:
    return {each["name"]: each["containerPort"] for each in container["ports"]}


def running(chart: Rendered) -> dict[str, str]:
    """The parts of ``KINDS`` that this chart has."""
    return {part: kind for part, kind in KINDS.items() if chart.of(kind, component=part)}


def pods(chart: Rendered) -> Iterator[Document]:
    """Everything that has a template of pods; the pod of ``helm test`` as one."""
    for each in chart.documents:
        if each["kind"] == "Pod":
            yield {**each, "spec": {"template": each}}
        elif "template" in each.get("spec", {}):
            yield each


# The library would read the definitions of all kinds, a megabyte, for each document.
_SCHEMAS = cache(kubernetes_validate.utils.schema_contents)


def test_kubernetes_accepts_every_document(chart: Rendered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", _SCHEMAS)
    for each in chart.documents:
        assert each["metadata"]["name"]
        if each["kind"] not in COMPANION_KINDS:
            for version in VERSIONS:
                kubernetes_validate.validate(each, version, strict=True)
    assert OLDEST in yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"]
    names = [(each["kind"], each["metadata"]["name"]) for each in chart.documents]
    assert len(names) == len(set(names))


def test_parts_that_are_switched_off_are_not_rendered(charts: dict[str, Rendered]) -> None:
    kinds = {each["kind"] for each in charts["minimal"].documents}
    assert kinds == {
        "StatefulSet",
        "Deployment",
        "PersistentVolumeClaim",
        "PodDisruptionBudget",
        "Service",
        "NetworkPolicy",
        "Pod",
    }
    assert [*running(charts["minimal"])] == ["edge", "streams", "center"]
    off = ("webhooks", "approvals", "land")
    assert not [each for each in charts["minimal"].documents if each["metadata"]["name"].endswith(off)]
    kinds = {each["kind"] for each in charts["everything"].documents}
    assert kinds >= {"Secret", "Job", "ConfigMap", "Ingress", "HorizontalPodAutoscaler", *COMPANION_KINDS}


def test_helm_lint_finds_nothing(charts: dict[str, Rendered], helm: Helm, tmp_path: Path) -> None:
    assert [each for chart in charts.values() for each in chart.lint if "icon is recommended" not in each] == []
    broken = tmp_path / "taskbridge"
    broken.mkdir()
    (broken / "Chart.yaml").write_text("name: taskbridge\nversion: one\n")
    (found,) = helm.render(broken, {})
    assert any("ERROR" in each for each in found.lint), "or it would find nothing wrong with anything"


# fmt: off
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"image__repository": ""}, "image.repository: say where your image is"),
    ({"kafka__bootstrapServers": ""}, "kafka.bootstrapServers: say where Kafka is"),
    ({"kafka__bootstrapServers": "kafka:9092,other"}, "kafka.bootstrapServers: each needs its port"),
    ({"schemaRegistry__url": ""}, "schemaRegistry.url: say where the schema registry is"),
    ({"schemaRegistry__url": "registry:8081"}, "does not match pattern"),
    ({"edge__credentials": {}}, "edge.credentials: existingSecret or text is needed"),
    ({"edge__credentials__text": "x"}, "edge.credentials: existingSecret or text, not both"),
    ({"center__apiTokens": {}}, "without tokens everybody in the cluster could read all tasks"),
    ({"edge__kafkaProperties": {"existingSecret": "a", "text": "b"}}, "edge.kafkaProperties: existing"),
    ({"center__replicas": 2}, "center.database.existingSecret: several replicas need PostgreSQL"),
    ({"streams__apiTokens__existingSecret": "tokens"}, "'apiTokens' not allowed"),  # as in the release before
    ({"edge__settings__EDGE_KAFKA_TIMEOUT": "1"}, "'EDGE_KAFKA_TIMEOUT' not allowed"),
    ({"edge__settings__EDGE_PORT": "1"}, "'EDGE_PORT' not allowed"),
    ({"edge__settings__EDGE_SPOOL_MAX_BYTES": 2147483648}, "got number, want string"),
    ({"center__settings__CENTER_API_TOKENS_FILE": ""}, "'CENTER_API_TOKENS_FILE' not allowed"),
    ({"center__settings__CENTER_DATABASE_URL": "x"}, "'CENTER_DATABASE_URL' not allowed"),
    ({"edge__terminationGracePeriodSeconds": 30}, "minimum: got 30, want 60"),
    ({"edge__preStopSeconds": 21}, "maximum: got 21, want 20"),
    ({"edge__replicas": 0}, "minimum: got 0, want 1"),
    ({"tracing__EDGE_PORT": "1"}, "'EDGE_PORT' not allowed"),
    ({"egde__replicas": 1}, "'egde' not allowed"),  # spellchecker:disable-line - a misspelt value is what is tested
    ({"reconcile__enabled": True}, "reconcile.apps: existingSecret or text is needed"),
    ({"reconcile__settings__RECONCILE_APPS_FILE": "x"}, "'RECONCILE_APPS_FILE' not allowed"),
    ({"reconcile__replicas": 2}, "'replicas' not allowed"),
    ({"approvals__enabled": True}, "approvals.credentials.existingSecret: it says who"),
    ({"approvals__settings__APPROVALS_APP_SECRET": "x"}, "'APPROVALS_APP_SECRET' not allowed"),
    ({"land__enabled": True}, "land.database.existingSecret: it says which database"),
    ({"land__settings__LAND_TO": "x"}, "'LAND_TO' not allowed"),
    ({"center__autoscaling__enabled": True}, "center.database.existingSecret: several replicas need PostgreSQL"),
    *(
        ({f"{part}__replicas": 7, f"{part}__{scaler}__enabled": True, "center__database__existingSecret": "db"},
         f"{part}.{scaler}.maxReplicas: 6 are fewer than {part}.replicas")
        for part, scaler in {"edge": "autoscaling", "center": "autoscaling", "streams": "keda"}.items()
    ),
    ({"ingress__enabled": True}, "routes: name the hosts"),
    ({"gateway__enabled": True, "routes__center": ["tasks.example"]}, "gateway.parents: name the Gateway"),
    ({"routes__center": ["https://tasks.example"]}, "does not match pattern"),
    ({"edge__resources__request__cpu": "1"}, "'request' not allowed"),
    *(
        ({"edge__resources__requests__memory": quantity}, "does not match pattern")
        for quantity in ("1 core", "1GiB", "1e", "1.2.3", "-1", "Gi")
    ),
    ({"webhooks__enabled": True}, "webhooks.endpoints: existingSecret or text is needed"),
    ({"webhooks__replicas": 2}, "webhooks.database.existingSecret: several replicas need PostgreSQL"),
    ({"webhooks__settings__WEBHOOKS_ENDPOINTS_FILE": "x"}, "'WEBHOOKS_ENDPOINTS_FILE' not allowed"),
    ({"webhooks__kafkaProperties": {"existingSecret": "a", "text": "b"}}, "webhooks.kafkaProperties: existing"),
]
# fmt: on


def test_unsafe_values_and_dead_ones_are_not_rendered(helm: Helm) -> None:
    found = helm.render(CHART, *(merged(MINIMAL, **changes) for changes, _ in REFUSED))
    assert [
        (changes, each.error)
        for (changes, error), each in zip(REFUSED, found, strict=True)
        if error not in each.error or each.documents
    ] == []


def test_the_version_is_that_of_the_project(charts: dict[str, Rendered]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    described = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (described["version"], described["appVersion"]) == (version, version)
    images = {
        name: {each["image"] for pod in pods(chart) for each in containers(pod)} for name, chart in charts.items()
    }
    assert images["minimal"] == {f"registry.example/taskbridge:{version}"}
    assert images["everything"] == {f"registry.example/taskbridge@sha256:{'a' * 64}"}


def test_pods_may_do_nothing_but_run(chart: Rendered) -> None:
    # Kubernetes' own standard for pods calls this "restricted".
    for document in pods(chart):
        pod = document["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"]
        user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "deploy/image/Dockerfile").read_text(), re.MULTILINE)
        assert user, "the image's own user"
        assert [str(pod["securityContext"][each]) for each in ("runAsUser", "fsGroup")] == [*user.groups()]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        allowed = {"name", "projected", "persistentVolumeClaim", "emptyDir"}
        assert all(each.keys() <= allowed for each in pod.get("volumes", []))
        for each in containers(document):
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert each["resources"]["limits"]["memory"]


def test_kubernetes_and_systemd_wait_longer_than_the_services_need_to_end(chart: Rendered) -> None:
    http_s = make_server(FastAPI()).config.timeout_graceful_shutdown
    assert http_s
    assert http_s < streams_app._END_S  # pyright: ignore[reportPrivateUsage]
    needed = {
        "edge": serving._GRACE_S + edge_app._LAST_S,  # pyright: ignore[reportPrivateUsage]
        "streams": worker._STOP_S + group_commit._CLOSE_S + streams_app._END_S,  # pyright: ignore[reportPrivateUsage]
        # Its two followers end next to each other, within five seconds.
        "center": http_s + 5,
        "webhooks": webhooks_app._END_S,  # pyright: ignore[reportPrivateUsage]
    }
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    for part, kind in running(chart).items():
        pod = chart.one(kind, part)["spec"]["template"]["spec"]
        given = schema[part]["properties"]
        sleep_s = longest = 0
        if part != "webhooks":  # which nobody connects to
            sleep_s = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
            # Others learn of a pod's end within seconds; until then it must continue.
            assert sleep_s >= 5
            longest = given["preStopSeconds"]["maximum"]
        assert pod["terminationGracePeriodSeconds"] >= sleep_s + needed[part] + 10
        shortest = given["terminationGracePeriodSeconds"]["minimum"]
        assert shortest >= longest + needed[part] + 10, "with any values"
        unit = (ROOT / "deploy" / "systemd" / f"taskbridge-{part}.service").read_text()
        waits_s = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
        assert waits_s
        assert int(waits_s[1]) > needed[part]


def test_what_is_written_is_on_volumes_that_are_large_enough_and_stay(chart: Rendered) -> None:
    for part in PARTS:
        spec = chart.one("StatefulSet", part)["spec"]
        assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
        (claim,) = spec["volumeClaimTemplates"]
        container = spec["template"]["spec"]["containers"][0]
        mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
        folder = env(container)[f"{part.upper()}_DATA_DIR"]
        # A folder in it: a disk of its own has lost+found at its root.
        assert folder == f"{mounts[claim['metadata']['name']]}/{part}"
        size = re.fullmatch(r"(\d+)Gi", claim["spec"]["resources"]["requests"]["storage"])
        assert size
        if part == "edge":
            spool = int(
                env(container).get("EDGE_SPOOL_MAX_BYTES") or EdgeSettings.model_fields["spool_max_bytes"].default
            )
            assert int(size[1]) << 30 >= 2 * spool


def test_every_variable_is_a_setting_and_every_file_is_mounted(chart: Rendered) -> None:
    known = {
        "edge": {f"EDGE_{name.upper()}" for name in EdgeSettings.model_fields} | {"TASKBRIDGE_PARTITIONS", *TRACING},
        "streams": {f"STREAMS_{name.upper()}" for name in StreamsSettings.model_fields}
        | {"TASKBRIDGE_PARTITIONS", *TRACING},
        "center": {f"CENTER_{name.upper()}" for name in settings_class().model_fields} | {"TASKBRIDGE_PARTITIONS"},
        "webhooks": {f"WEBHOOKS_{name.upper()}" for name in WebhooksSettings.model_fields} | {"TASKBRIDGE_PARTITIONS"},
        **{
            f"{part}-tables": {
                f"{part.upper()}_{name}" for name in ("DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS", "SCHEMA_REGISTRY_URL")
            }
            for part in ("center", "webhooks")
        },
        "reconcile": {f"RECONCILE_{name.upper()}" for name in ReconcileSettings.model_fields}
        | {"TASKBRIDGE_PARTITIONS"},
        "approvals": {f"APPROVALS_{name.upper()}" for name in ApprovalsSettings.model_fields},
        "land": {f"LAND_{name.upper()}" for name in LandSettings.model_fields} | {"TASKBRIDGE_PARTITIONS"},
        "test": {f"TASKBRIDGE_{name}" for name in (
            "KAFKA_BOOTSTRAP_SERVERS", "SCHEMA_REGISTRY_URL", "KAFKA_CONFIG_FILE", "PARTITIONS", "API_TOKEN"
        )} | {"EDGE_CREDENTIALS_FILE", "EDGE_BEARER_TOKENS"},
        "setup": {f"TASKBRIDGE_{name}" for name in (
            "KAFKA_BOOTSTRAP_SERVERS", "SCHEMA_REGISTRY_URL", "KAFKA_CONFIG_FILE", "PARTITIONS"
        )},
    }  # fmt: skip
    ours = {each["metadata"]["name"]: each["stringData"] for each in chart.of("Secret")}
    for document in pods(chart):
        part = document["metadata"]["labels"]["app.kubernetes.io/component"]
        for container in containers(document):
            given = env(container)
            assert given.keys() <= known[part]
            files = {name: value for name, value in given.items() if value and name.endswith("_FILE")}
            volumes = [each for each in document["spec"]["template"]["spec"].get("volumes", []) if "projected" in each]
            mounts = [each["mountPath"] for each in container.get("volumeMounts", []) if each["name"] == "files"]
            assert len(volumes) == len(mounts)
            assert bool(files) <= bool(mounts)
            secrets = [source["secret"]["name"] for each in volumes for source in each["projected"]["sources"]]
            for path in files.values():
                assert path.startswith(f"{mounts[0]}/")
            if ours:
                assert {Path(path).name for path in files.values()} == {key for each in secrets for key in ours[each]}


def test_texts_become_secrets_as_they_are_and_the_start_waits_for_kafkas(charts: dict[str, Rendered]) -> None:
    chart = charts["everything"]
    secrets = {each["metadata"]["name"]: [*each["stringData"].values()] for each in chart.of("Secret")}
    assert secrets == {
        "taskbridge-edge-credentials": [TEXTS["credentials"]],
        "taskbridge-center-api-tokens": [TEXTS["apiTokens"]],
        **{
            f"taskbridge-{part}-kafka-properties": [TEXTS["kafkaProperties"]]
            for part in (*KINDS, "reconcile", "land", "setup")
        },
        "taskbridge-reconcile-apps": [TEXTS["apps"]],
        "taskbridge-webhooks-endpoints": [TEXTS["endpoints"]],
        "taskbridge-webhooks-api-tokens": [TEXTS["apiTokens"]],
        "taskbridge-center-webhooks-token": [TEXTS["webhooksToken"]],
        "taskbridge-center-sign-in-secret": [TEXTS["signInSecret"]],
        "taskbridge-center-reminders": [TEXTS["reminders"]],
        "taskbridge-center-mcp-rules": [TEXTS["mcpRules"]],
        "taskbridge-center-apps": [TEXTS["apps"]],
        "taskbridge-center-credentials": [TEXTS["credentials"]],
    }
    for part, kind in KINDS.items():
        with_texts, without = (
            charts[name].one(kind, part)["spec"]["template"]["metadata"]["annotations"]
            for name in ("everything", "extended")
        )
        name = "taskbridge/kafka-properties"
        assert with_texts[name] != without[name], "a process that reads them at its start restarts"
    existing = charts["secured"].one("StatefulSet", "edge")["spec"]["template"]["spec"]["volumes"]
    assert [each["secret"]["name"] for each in existing[0]["projected"]["sources"]] == [
        "apps",
        "kafka-edge",
        "my-cluster-cluster-ca-cert",
    ]


def test_services_lead_to_the_ports_that_are_listened_on(chart: Rendered) -> None:
    for part, kind in running(chart).items():
        document = chart.one(kind, part)
        container = document["spec"]["template"]["spec"]["containers"][0]
        labels = document["spec"]["template"]["metadata"]["labels"]
        given, listening = env(container), ports(container)
        assert listening["http"] == int(given[f"{part.upper()}_PORT"] or 0)
        if part == "edge":
            assert listening["operator"] == int(given["EDGE_OPERATOR_PORT"] or 0)
        *public, single = sorted(chart.of("Service", component=part), key=lambda each: len(each["metadata"]["name"]))
        assert len(public) == (part in ("edge", "center")), "the others have nothing for clients"
        for service in (*public, single):
            assert selects({"matchLabels": service["spec"]["selector"]}, labels)
        for service in public:
            assert [each["targetPort"] for each in service["spec"]["ports"]] == ["http"]
        assert single["spec"]["clusterIP"] == "None"
        assert single["spec"]["publishNotReadyAddresses"] is True
        if kind == "StatefulSet":
            assert document["spec"]["serviceName"] == single["metadata"]["name"]
        (port,) = single["spec"]["ports"]
        assert listening[port["targetPort"]] == port["port"], "a headless Service moves no port"


def test_the_task_center_finds_all_pods_of_a_part_by_one_name(chart: Rendered) -> None:
    given = env(chart.one("Deployment", "center")["spec"]["template"]["spec"]["containers"][0])
    assert ("CENTER_WEBHOOKS_URLS" in given) is ("webhooks" in running(chart))
    for part in running(chart).keys() - {"center"}:
        (found,) = [each for each in chart.of("Service", component=part) if each["spec"].get("clusterIP") == "None"]
        (port,) = found["spec"]["ports"]
        assert given[f"CENTER_{part.upper()}_URLS"] == f"http://{found['metadata']['name']}.tasks.svc:{port['port']}"


@pytest.mark.parametrize("part", ["center", "webhooks"])
def test_a_database_is_postgresql_or_a_file_of_one_replica(charts: dict[str, Rendered], part: str) -> None:
    def volume(name: str) -> Document:
        pod = charts[name].one("Deployment", part)["spec"]["template"]["spec"]
        (found,) = [each for each in pod["volumes"] if each["name"] == "kept"]
        return found

    variable = f"{part.upper()}_DATABASE_URL"
    alone, several = (charts[name].one("Deployment", part)["spec"] for name in ("extended", "everything"))
    assert (alone["replicas"], alone["strategy"]) == (1, {"type": "Recreate"})
    (container,) = alone["template"]["spec"]["containers"]
    assert variable not in env(container)
    claim = charts["extended"].one("PersistentVolumeClaim", part)
    assert volume("extended")["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert env(container)[f"{part.upper()}_DATA_DIR"] == f"{mounts['kept']}/{part}"
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert not charts["extended"].of("Job")

    assert several["replicas"] > 1
    assert several["strategy"]["type"] == "RollingUpdate"
    assert "emptyDir" in volume("everything")
    assert not charts["everything"].of("PersistentVolumeClaim")
    reference = {"secretKeyRef": {"name": "database", "key": "database-url"}}
    job = charts["everything"].one("Job", f"{part}-tables")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    for container in (several["template"]["spec"]["containers"][0], *containers(job)):
        (url,) = [each for each in container["env"] if each["name"] == variable]
        assert url["valueFrom"] == reference
    assert [each["args"] for each in containers(job)] == [[part, "--migrate"]]


def test_reconcile_is_one_replica_with_its_counts_on_a_volume_that_the_task_center_finds(chart: Rendered) -> None:
    given = env(chart.one("Deployment", "center")["spec"]["template"]["spec"]["containers"][0])
    if not chart.of("StatefulSet", component="reconcile"):
        assert "CENTER_RECONCILE_URL" not in given
        assert not [each for each in chart.documents if "reconcile" in each["metadata"]["name"]]
        return
    document = chart.one("StatefulSet", "reconcile")
    spec, labels = document["spec"], document["spec"]["template"]["metadata"]["labels"]
    assert spec["replicas"] == 1
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    (claim,), (container,) = spec["volumeClaimTemplates"], spec["template"]["spec"]["containers"]
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert env(container)["RECONCILE_DATA_DIR"] == f"{mounts[claim['metadata']['name']]}/reconcile"
    (service,) = chart.of("Service", component="reconcile")
    (port,) = service["spec"]["ports"]
    assert selects({"matchLabels": service["spec"]["selector"]}, labels)
    assert selects(spec["selector"], labels)
    assert ports(container)[port["targetPort"]] == port["port"] == int(env(container)["RECONCILE_PORT"] or 0)
    assert spec["serviceName"] == service["metadata"]["name"]
    host = f"{document['metadata']['name']}-0.{service['metadata']['name']}.tasks.svc"
    assert given["CENTER_RECONCILE_URL"] == f"http://{host}:{port['port']}"


def test_approvals_are_one_replica_with_their_secrets_from_one_that_is_there(chart: Rendered) -> None:
    if not chart.of("Deployment", component="approvals"):
        assert not [each for each in chart.documents if "approvals" in each["metadata"]["name"]]
        return
    spec = chart.one("Deployment", "approvals")["spec"]
    assert spec["replicas"] == 1
    assert selects(spec["selector"], spec["template"]["metadata"]["labels"])
    (container,) = spec["template"]["spec"]["containers"]
    references = {each["name"]: each["valueFrom"] for each in container["env"] if "valueFrom" in each}
    assert references == {
        f"APPROVALS_{name}": {"secretKeyRef": {"name": "approvals", "key": name.lower().replace("_", "-")}}
        for name in ("APP_KEY", "APP_SECRET", "SOURCE_SECRET")
    }
    required = {
        f"APPROVALS_{name.upper()}" for name, each in ApprovalsSettings.model_fields.items() if each.is_required()
    }
    assert required <= env(container).keys()
    (edge,) = [each for each in chart.of("Service", component="edge") if each["spec"].get("clusterIP") != "None"]
    (port,) = edge["spec"]["ports"]
    assert env(container)["APPROVALS_EDGE_URL"] == f"http://{edge['metadata']['name']}:{port['port']}"
    (service,) = chart.of("Service", component="approvals")
    (port,) = service["spec"]["ports"]
    assert ports(container)[port["targetPort"]] == port["port"] == int(env(container)["APPROVALS_PORT"] or 0)
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] >= approvals_app._END_S + 10  # pyright: ignore[reportPrivateUsage]


def test_land_is_one_replica_whose_database_is_in_a_secret_that_is_there(chart: Rendered) -> None:
    if not chart.of("Deployment", component="land"):
        assert not [each for each in chart.documents if "land" in each["metadata"]["name"]]
        return
    spec = chart.one("Deployment", "land")["spec"]
    assert spec["replicas"] == 1
    assert selects(spec["selector"], spec["template"]["metadata"]["labels"])
    (container,) = spec["template"]["spec"]["containers"]
    references = {each["name"]: each["valueFrom"] for each in container["env"] if "valueFrom" in each}
    assert references == {"LAND_TO": {"secretKeyRef": {"name": "warehouse", "key": "database-url"}}}
    (service,) = chart.of("Service", component="land")
    (port,) = service["spec"]["ports"]
    assert ports(container)[port["targetPort"]] == port["port"] == int(env(container)["LAND_PORT"] or 0)
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] >= land_app._END_S + 10  # pyright: ignore[reportPrivateUsage]


def test_no_budget_holds_up_the_drain_of_a_node(chart: Rendered) -> None:
    for part in running(chart):
        budget = chart.one("PodDisruptionBudget", part)["spec"]
        assert budget["maxUnavailable"] == 1
        assert "minAvailable" not in budget
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        for other, kind in running(chart).items():
            labels = chart.one(kind, other)["spec"]["template"]["metadata"]["labels"]
            assert selects(budget["selector"], labels) is (part == other)


def test_updates_go_pod_by_pod_and_pods_are_spread(chart: Rendered, charts: dict[str, Rendered]) -> None:
    for part, kind in running(chart).items():
        spec = chart.one(kind, part)["spec"]
        if kind == "StatefulSet":
            held_back = spec["replicas"] if (part, spec["replicas"]) == ("edge", 3) else 0
            assert spec["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"partition": held_back}}
        assert spec["minReadySeconds"] == (60 if chart is charts["everything"] else 10)
        pod = spec["template"]
        spread = pod["spec"]["topologySpreadConstraints"]
        assert [each["topologyKey"] for each in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
        for selector in (spec["selector"], *(each["labelSelector"] for each in spread)):
            assert selects(selector, pod["metadata"]["labels"])
            assert selector["matchLabels"]["app.kubernetes.io/instance"], "two releases have nothing of each other's"


def test_a_worker_that_is_restarted_is_not_missed(charts: dict[str, Rendered]) -> None:
    given = env(charts["minimal"].one("StatefulSet", "streams")["spec"]["template"]["spec"]["containers"][0])
    assert float(given["STREAMS_SESSION_TIMEOUT_S"] or 0) > StreamsSettings.model_fields["session_timeout_s"].default


PROMETHEUS = Peer({"app.kubernetes.io/name": "prometheus"}, "monitoring")
STRANGER = Peer({"app.kubernetes.io/name": "shell"})
ENDS = {"app.kubernetes.io/name": "taskbridge", "app.kubernetes.io/instance": "taskbridge"}
TEST = Peer({**ENDS, "app.kubernetes.io/component": "test"})
ELSEWHERE = Peer({}, "elsewhere")
INGRESS = Peer({}, "ingress")
KAFKA = Peer({}, "kafka")


def test_the_network_lets_through_what_is_needed_and_nothing_else(charts: dict[str, Rendered]) -> None:
    def labels(part: str) -> Peer:
        kind = kind_of(part)
        return Peer(charts["extended"].one(kind, part)["spec"]["template"]["metadata"]["labels"])

    parts = (*KINDS, *SINGLE)
    ends: dict[str, Peer | None] = {
        **{part: labels(part) for part in parts}, "test": TEST, "Prometheus": PROMETHEUS, "stranger": STRANGER,
        "elsewhere": ELSEWHERE, "ingress": INGRESS, "Kafka": KAFKA, "outside": OUTSIDE,
    }  # fmt: skip

    def passing(name: str, part: str, direction: str) -> set[tuple[str, int]]:
        policy = charts[name].one("NetworkPolicy", part)["spec"]
        assert selects(policy["podSelector"], labels(part).labels)
        assert not any(selects(policy["podSelector"], labels(other).labels) for other in parts if other != part)
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        rules = policy["ingress" if direction == "from" else "egress"]
        tried = {
            22,
            53,
            80,
            443,
            4318,
            5432,
            8081,
            8400,
            8401,
            8443,
            8500,
            8510,
            8600,
            8610,
            8700,
            8720,
            9092,
            9093,
            9094,
            9095,
        }
        return {
            (end, port) for end, peer in ends.items() for port in tried if allows(rules, direction, peer, port, "TCP")
        }

    everybody = {(end, 8400) for end in ends}
    observers = ("center", "test", "Prometheus")
    operators = {(end, 8401) for end in observers}
    workers = {(end, 8510) for end in observers}
    api = {(end, 8500) for end in observers}
    for name in ("minimal", "secured"):
        assert passing(name, "edge", "from") == everybody | operators
        assert passing(name, "center", "from") == api
    assert passing("everything", "edge", "from") == {("ingress", 8400), ("approvals", 8400), ("test", 8400)} | operators
    assert passing("everything", "center", "from") == {("ingress", 8500)} | api

    names = {(end, 53) for end in ends}
    kafka = {(end, port) for end in ends for port in (9092, 9094)}
    own = names | kafka | {(end, 8081) for end in ends}
    probed = {("edge", 8401), ("streams", 8510)}
    assert passing("minimal", "edge", "to") == own
    assert passing("minimal", "center", "to") == own | probed
    registry = {(end, 443) for end in ends}
    assert passing("secured", "edge", "to") == names | registry | {("Kafka", 9092), ("Kafka", 9094)}
    more = {(end, port) for end in ends for port in (9095, 4318)} | {("outside", 8081), ("outside", 443)}
    assert passing("everything", "edge", "to") == names | kafka | more
    for name in ("minimal", "everything"):
        assert passing(name, "streams", "from") == workers
        assert passing(name, "streams", "to") == passing(name, "edge", "to")
    companions = {"reconcile": 8600, "webhooks": 8700}
    database = passing("everything", "center", "to") - passing("everything", "edge", "to")
    relay = {(end, 8443) for end in ends}
    assert database == {("outside", 5432), *companions.items()} | relay | probed, "reminders and decisions go out too"
    for name in ("extended", "everything"):
        for part, port in {**companions, "approvals": 8610, "land": 8720}.items():
            assert passing(name, part, "from") == {(end, port) for end in observers}
    provider = {(end, 8443) for end in ends}
    assert passing("extended", "center", "to") - passing("minimal", "center", "to") == {*companions.items()} | provider
    for part in companions:
        assert passing("extended", part, "to") == own | {(end, 443) for end in ends}
    assert passing("extended", "approvals", "to") == names | {("edge", 8400)} | {(end, 443) for end in ends}
    assert ("outside", 8443) in passing("everything", "approvals", "to"), "the address in APPROVALS_API_URL"
    assert passing("extended", "land", "to") == own | {(end, 5432) for end in ends}
    receivers = passing("everything", "webhooks", "to") - passing("everything", "edge", "to")
    assert receivers == {("outside", 5432), ("outside", 8443)}, "those that the operator names"
    assert ("outside", 8443) in passing("everything", "reconcile", "to"), "the address in RECONCILE_API_URL"
    rules = charts["minimal"].one("NetworkPolicy", "edge")["spec"]["egress"]
    assert allows(rules, "to", OUTSIDE, 53, "UDP")


def test_without_receivers_webhooks_reach_nobody_outside(helm: Helm) -> None:
    (found,) = helm.render(CHART, merged(EXTENDED, networkPolicy__receivers=[]))
    assert not found.error
    rules = found.one("NetworkPolicy", "webhooks")["spec"]["egress"]
    assert not allows(rules, "to", OUTSIDE, 443, "TCP")


def test_hosts_lead_to_the_services_by_an_ingress_and_by_routes(charts: dict[str, Rendered]) -> None:
    chart = charts["everything"]
    services = {
        each["metadata"]["name"]: {port["name"]: port["port"] for port in each["spec"]["ports"]}
        for each in chart.of("Service")
    }
    wanted = {
        ("tasks-in.example", "/yida", "taskbridge-edge"),
        ("tasks-in.example", "/sources", "taskbridge-edge"),
        ("tasks.example", "/yida", "taskbridge-edge"),
        ("tasks.example", "/sources", "taskbridge-edge"),
        ("tasks.example", "/", "taskbridge-center"),
    }
    (ingress,) = chart.of("Ingress")
    found: set[tuple[str, str, str]] = set()
    for rule in ingress["spec"]["rules"]:
        for path in rule["http"]["paths"]:
            backend = path["backend"]["service"]
            assert backend["port"]["name"] in services[backend["name"]]
            found.add((rule["host"], path["path"], backend["name"]))
    assert found == wanted
    found.clear()
    for route in chart.of("HTTPRoute"):
        assert route["spec"]["parentRefs"] == [{"name": "public", "namespace": "gateways"}]
        (rule,) = route["spec"]["rules"]
        (backend,) = rule["backendRefs"]
        assert backend["port"] in services[backend["name"]].values()
        found |= {
            (host, match["path"]["value"], backend["name"])
            for host in route["spec"]["hostnames"]
            for match in rule["matches"]
        }
    assert found == wanted


def test_autoscalers_begin_with_the_replicas_of_the_values_and_remove_no_edge(charts: dict[str, Rendered]) -> None:
    chart = charts["everything"]
    for part in ("edge", "center"):
        scaler, document = chart.one("HorizontalPodAutoscaler", part)["spec"], chart.one(KINDS[part], part)
        assert scaler["scaleTargetRef"] == target(document)
        assert (scaler["minReplicas"], scaler["maxReplicas"]) == (document["spec"]["replicas"], 9)
        assert ("behavior" in scaler) is (part == "edge")
        assert "cpu" in document["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    scaled, document = chart.one("ScaledObject", "streams")["spec"], chart.one("StatefulSet", "streams")
    assert scaled["scaleTargetRef"] == target(document)
    assert scaled["minReplicaCount"] == document["spec"]["replicas"]
    (trigger,) = scaled["triggers"]
    assert trigger["authenticationRef"] == {"name": "kafka"}
    assert trigger["metadata"] == {
        "bootstrapServers": MINIMAL["kafka"]["bootstrapServers"],
        "consumerGroup": APP_ID,
        "topic": TASK_EVENTS.name,
        "lagThreshold": "100",
    }


def target(document: Document) -> Document:
    return {"apiVersion": "apps/v1", "kind": document["kind"], "name": document["metadata"]["name"]}


def test_helm_test_runs_the_doctor_end_to_end_where_it_has_a_token(charts: dict[str, Rendered]) -> None:
    for name, chart in charts.items():
        (pod,) = chart.of("Pod")
        assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
        (container,) = pod["spec"]["containers"]
        done = taskbridge(*container["args"], "--help")
        assert done.returncode == 0, done.stderr
        assert ("--end-to-end" in container["args"]) is (name == "everything")
        assert ("TASKBRIDGE_API_TOKEN" in env(container)) is (name == "everything")
        (edge,) = containers(chart.one("StatefulSet", "edge"))
        of_the_edge = [each for each in edge["env"] if each["name"] == "EDGE_BEARER_TOKENS"]
        assert [each for each in container["env"] if each["name"] == "EDGE_BEARER_TOKENS"] == of_the_edge
        assert any(each.startswith("--webhooks-url") for each in container["args"]) is ("webhooks" in running(chart))


OPEN = {"settings", "resources", "labels", "annotations", "tracing"}
"""Maps whose keys are the user's."""


def test_the_schema_and_the_values_have_the_same_names() -> None:
    def names(values: Mapping[str, Any], prefix: str = "") -> set[str]:
        found: set[str] = set()
        for name, value in values.items():
            deeper = cast("dict[str, Any]", value) if isinstance(value, dict) and name not in OPEN else {}
            found |= names(deeper, f"{prefix}{name}.") or {f"{prefix}{name}"}
        return found

    schema = json.loads((CHART / "values.schema.json").read_text())

    def known(node: Mapping[str, Any], prefix: str = "") -> set[str]:
        if "$ref" in node:
            node = schema["definitions"][node["$ref"].rpartition("/")[2]]
        name = prefix.rstrip(".").rpartition(".")[2]
        if not node.get("properties") or name in OPEN:
            return {prefix.rstrip(".")}
        return {each for key, value in node["properties"].items() for each in known(value, f"{prefix}{key}.")}

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert names(values) == known(schema) - {"global"}


def test_maps_that_are_null_or_that_the_chart_before_lacks_are_empty(helm: Helm) -> None:
    found = helm.render(CHART, *(with_nulls(SETS[name]) for name in ("minimal", "extended", "everything")))
    assert [each.error for each in found] == 3 * [""]


def with_nulls(given: Mapping[str, Any]) -> dict[str, Any]:
    """These values, and null for each map that they do not set."""
    # Nothing is no address, no size, and no policy.
    needed = {"edge__service", "center__service", "networkPolicy"}
    needed |= {f"{part}__volume" for part in ("streams", *given)}

    def without(defaults: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
        for key, value in defaults.items():
            path = f"{prefix}{key}"
            if not isinstance(value, dict) or path in needed:
                continue
            if at(path) is not None or any(each.startswith(f"{path}__") for each in needed):
                yield from without(cast("dict[str, Any]", value), f"{path}__")
            else:
                yield path

    def at(path: str) -> Any:
        found: Any = given
        for key in path.split("__"):
            found = cast("dict[str, Any]", found).get(key) if isinstance(found, dict) else None
        return found

    nulls = [*without(yaml.safe_load((CHART / "values.yaml").read_text()))]
    assert nulls
    return merged(given, **dict.fromkeys(nulls))


def test_alerts_and_dashboards_are_ours_and_look_for_the_jobs_that_are_scraped(charts: dict[str, Rendered]) -> None:
    chart = charts["everything"]
    for part in (*KINDS, *SINGLE):
        rule = chart.one("PrometheusRule", part)
        assert rule["apiVersion"] == "monitoring.coreos.com/v1"
        assert rule["metadata"]["labels"]["release"] == "kps"
        text = (ROOT / f"deploy/alerts/taskbridge-{part}.rules.yml").read_text()
        assert rule["spec"] == yaml.safe_load(text)
        monitor = chart.one("ServiceMonitor", part)
        assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
        (endpoint,) = monitor["spec"]["endpoints"]
        found = [
            service
            for service in chart.of("Service")
            if selects(monitor["spec"]["selector"], service["metadata"]["labels"])
            and any(port["name"] == endpoint["port"] for port in service["spec"]["ports"])
        ]
        assert [each["spec"].get("clusterIP") for each in found] == ["None"], "each pod, once"
        (relabeling,) = endpoint["relabelings"]
        jobs = {each[1] for each in re.finditer(r'job=~"([^"]+)"', text)}
        assert jobs or part in SINGLE
        assert relabeling["replacement"] == f"taskbridge-{part}", "as the dashboards look for it"
        assert all(re.fullmatch(each, relabeling["replacement"]) for each in jobs)
    (dashboards,) = chart.of("ConfigMap")
    folder = ROOT / "deploy" / "dashboards"
    assert dashboards["data"] == {each.name: each.read_text() for each in folder.glob("*.json")}


def test_the_hook_runs_commands_of_the_program_before_the_services(charts: dict[str, Rendered]) -> None:
    job = charts["everything"].one("Job", "setup")
    annotations = job["metadata"]["annotations"]
    assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
    secret = charts["everything"].one("Secret", "setup")["metadata"]["annotations"]
    assert secret["helm.sh/hook"] == annotations["helm.sh/hook"]
    assert int(secret["helm.sh/hook-weight"]) < int(annotations.get("helm.sh/hook-weight", "0")), "before the Job"
    for container in containers(job):
        done = taskbridge(*container["args"], "--help")
        assert done.returncode == 0, done.stderr
    assert [each["args"][:2] for each in containers(job)] == [["topics", "apply"], ["schemas", "register"]]


class Pod:
    """A container as the chart has it, without Kafka: its own variables, at free ports and in folders of the test."""

    def __init__(self, container: Document, folder: Path) -> None:
        names = [*ports(container)]
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.container = container
        moved = {str(port): str(self.ports[name]) for name, port in ports(container).items()}
        (folder / "files").mkdir()
        given = {
            name: moved.get(value, value)
            .replace("/var/lib/taskbridge", str(folder))
            .replace("/etc/taskbridge", str(folder / "files"))
            for name, value in env(container).items()
            if value is not None
        }
        given |= {name: "127.0.0.1" for name in given if name.endswith("_HOST")}
        given |= {name: "127.0.0.1:1" for name in given if name.endswith("_BOOTSTRAP_SERVERS")}
        given |= {name: "http://127.0.0.1:1" for name in given if name.endswith(("_REGISTRY_URL", "_API_URL"))}
        secrets = {"APPROVALS_APP_KEY": "key", "APPROVALS_APP_SECRET": "s", "APPROVALS_SOURCE_SECRET": new_secret()}
        secrets["LAND_TO"] = f"sqlite:///{folder}/target.db"
        given |= {name: value for name, value in secrets.items() if name in env(container)}
        write_credentials(folder / "files" / "credentials.toml", SYSTEM_TOKEN)
        (folder / "files" / "api-tokens.toml").write_text(
            f'[[tokens]]\nname = "a"\nsha256 = "{"0" * 64}"\ncorps = ["*"]\n'
        )
        for name in ("apps", "endpoints"):
            (folder / "files" / f"{name}.toml").write_text(TEXTS[name])
        (folder / "files" / "erp").write_text(new_secret())
        ours = ("EDGE_", "STREAMS_", "CENTER_", "RECONCILE_", "WEBHOOKS_", "APPROVALS_", "LAND_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self.log = folder / "log"
        arguments = ["taskbridge", *container["args"]]
        with contextlib.chdir(folder):
            self.process = Forked(COMMAND, environment=inherited | given, log=self.log, arguments=arguments)

    def get(self, port: str, path: str) -> int | None:
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(httpx2.HTTPError):
            return http_clients.get(f"http://127.0.0.1:{self.ports[port]}{path}", timeout=5).status_code
        return None

    def probe(self, name: str) -> int | None:
        probe = self.container[name]["httpGet"]
        return self.get(probe["port"], probe["path"])


@pytest.fixture(params=[*KINDS, *SINGLE])
def pod(request: pytest.FixtureRequest, charts: dict[str, Rendered], tmp_path: Path) -> Generator[Pod]:
    document = charts["extended"].one(kind_of(request.param), request.param)
    pod = Pod(document["spec"]["template"]["spec"]["containers"][0], tmp_path)
    yield pod
    pod.process.kill()
    pod.process.wait()


def test_a_pod_starts_with_its_variables_and_answers_its_probes(pod: Pod, charts: dict[str, Rendered]) -> None:
    wait_until(lambda: pod.probe("startupProbe") == 200, what="the start")
    assert pod.probe("livenessProbe") == 200
    part = pod.container["name"]
    # Without Kafka the edge stores callbacks in its spool, a worker has no states, the center no lists.
    ready = {
        "edge": 200,
        "streams": 503,
        "center": 503,
        "reconcile": 200,
        "webhooks": 503,
        "approvals": 200,
        "land": 200,
    }
    assert pod.probe("readinessProbe") == ready[part]
    (endpoint,) = charts["everything"].one("ServiceMonitor", part)["spec"]["endpoints"]
    assert pod.get("operator" if part == "edge" else "http", endpoint["path"]) == 200
    if part == "edge":
        assert pod.get("http", endpoint["path"]) == 404, "strangers reach this port"
        pod.process.send_signal(signal.SIGTERM)
        spec = charts["minimal"].one("StatefulSet", part)["spec"]["template"]["spec"]
        assert pod.process.wait(spec["terminationGracePeriodSeconds"]) == 0
