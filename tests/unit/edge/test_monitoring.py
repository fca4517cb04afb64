"""Health, readiness and metrics of the edge."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pytest

from support.edge.client import EdgeClient
from support.edge.fakes import MemoryPublisher
from taskbridge.center.operations.answers import Answers, edge_of
from taskbridge.cli.status import problems_of
from taskbridge.edge.app import create_app
from taskbridge.edge.decision.callbacks import ACTIONS
from taskbridge.edge.decision.decide import IS_BUILT
from taskbridge.edge.monitoring import readiness
from taskbridge.edge.verification.credentials import CredentialsFile

if TYPE_CHECKING:
    from taskbridge.edge.settings import EdgeSettings


def test_it_is_ready_when_every_part_is(client: EdgeClient) -> None:
    answer = client.get("/readyz")
    parts = {"degraded": False, "kafka": "ok", "spool": "ok", "registry": "ok", "credentials": "ok"}
    parts["core"] = "native" if IS_BUILT else "python"
    assert (answer.status_code, answer.json()) == (200, {"ready": True, **parts})


def test_it_is_ready_but_degraded_while_only_the_spool_can_keep_a_callback(
    client: EdgeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def health(_: object) -> dict[str, str]:
        return {"kafka": "does not answer", "spool": "ok", "registry": "ok"}

    monkeypatch.setattr(MemoryPublisher, "health", health)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["ready"], answer.json()["degraded"]) == (200, True, True)
    assert answer.json()["kafka"] == "does not answer"


def test_a_change_of_the_credentials_that_is_not_in_force_is_where_operators_look(
    settings: EdgeSettings, publisher: MemoryPublisher
) -> None:
    credentials = CredentialsFile(settings.credentials_file)
    settings.credentials_file.write_text("[[apps]\n")
    credentials.reload_if_changed()
    answer = readiness(credentials, cast("Any", publisher), core="native", details=True)
    assert answer["ready"]
    says = (
        "credentials: the last change is invalid and not in use: credentials file "
        f"{settings.credentials_file}: not TOML"
    )
    edge = edge_of(Answers("http://edge", json.dumps(answer), ""))
    center: dict[str, object] = {"filled": 1.0, "replicas": []}
    (problem,) = problems_of({"edges": [edge], "workers": [], "partitions": [], "center": center})
    assert problem.startswith(f"edge http://edge is degraded: {says}: Expected ']]'")


def test_it_lives_but_is_not_ready_while_nothing_can_keep_a_callback(
    client: EdgeClient, publisher: MemoryPublisher
) -> None:
    publisher.away = "does not answer"
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["ready"], answer.json()["kafka"]) == (503, False, "does not answer")
    assert client.get("/healthz").status_code == 200


def test_without_apps_it_runs_and_is_not_ready(settings: EdgeSettings, publisher: MemoryPublisher) -> None:
    settings.credentials_file.write_text("")
    with EdgeClient(create_app(settings, publisher=publisher)) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["credentials"]) == (503, "no apps")
        assert client.post("/yida/tasks/delete?appType=A").status_code == 401


def test_metrics_are_prometheus_text_of_this_app_alone(settings: EdgeSettings, publisher: MemoryPublisher) -> None:
    with (
        EdgeClient(create_app(settings, publisher=publisher)) as one,
        EdgeClient(create_app(settings, publisher=publisher)) as other,
    ):
        one.post("/yida/tasks/create")
        assert 'taskbridge_edge_callbacks_total{action="create",outcome="task-json"} 1.0' in one.get("/metrics").text
        assert 'taskbridge_edge_callbacks_total{action="create",outcome="task-json"} 0.0' in other.get("/metrics").text
        assert "taskbridge_edge_credentials_apps 2.0" in one.get("/metrics").text
        assert one.get("/metrics").headers["content-type"].startswith("text/plain; version=")


@pytest.mark.parametrize("wire_action", ACTIONS)
def test_the_openapi_document_has_every_answer_of_every_action(client: EdgeClient, wire_action: str) -> None:
    document: dict[str, Any] = client.get("/openapi.json").json()
    operation = document["paths"][f"/yida/tasks/{wire_action}"]["post"]
    assert set(operation["responses"]) == {"200", "400", "401", "408", "413", "415", "503"}
    for status, response in operation["responses"].items():
        media_type = "application/json" if status == "200" else "application/problem+json"
        assert response["content"][media_type]["schema"]["required"]
    assert set(document["paths"]) >= {"/healthz", "/readyz", "/metrics"}


def test_operators_may_have_a_port_of_their_own(settings: EdgeSettings, publisher: MemoryPublisher) -> None:
    apart = settings.model_copy(update={"operator_port": 9100})
    with EdgeClient(create_app(apart, publisher=publisher)) as anybody:
        operators = "http://testserver:9100"
        assert (anybody.get("/readyz").status_code, anybody.get("/readyz").json()) == (200, {"ready": True})
        assert anybody.get(f"{operators}/readyz").json()["spool"] == "ok"
        assert anybody.get("/metrics").status_code == 404
        assert "taskbridge_edge_credentials_apps 2.0" in anybody.get(f"{operators}/metrics").text
        assert [anybody.get(f"{each}/healthz").status_code for each in ("", operators)] == [200, 200]
        assert anybody.post("/yida/tasks/create").status_code == 400
        assert anybody.post(f"{operators}/yida/tasks/create").status_code == 404
        assert anybody.post(f"{operators}/yida/tasks/create").headers["content-type"] == "application/problem+json"
        assert "/metrics" not in anybody.get("/openapi.json").json()["paths"]
        publisher.away = "does not answer"
        assert (anybody.get("/readyz").status_code, anybody.get("/readyz").json()) == (503, {"ready": False})
