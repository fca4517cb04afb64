"""Only operators see how the bridge is doing, and the events of a person are for those who may see that person."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, cast

import pytest
from fastapi.testclient import TestClient

from support.streams.api_context import AnsweringWorker
from taskbridge.cli.status import problems_of
from taskbridge.streams.api.access import Access
from taskbridge.streams.api.tokens import TokensFile
from taskbridge.streams.http import build_http
from taskbridge.streams.monitoring.progress import Health
from taskbridge.streams.operations.reporting import OperationsReporter
from taskbridge.streams.operations.routes import operations_router
from taskbridge.streams.sse.hub import Hub
from taskbridge.streams.sse.routes import events_router

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from taskbridge.streams.sse.missed import MissedReader


@pytest.fixture
def access(tmp_path: Path) -> Access:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(
        "\n".join(
            f'[[tokens]]\nname = "{name}"\nsha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\ncorps = ["{corp}"]'
            for name, corp in (("operator-secret-of-all", "*"), ("portal-secret-of-corp", "corp"))
        )
    )
    return Access(tokens=TokensFile(tokens))


@pytest.fixture
def client(tmp_path: Path, access: Access) -> Generator[TestClient]:
    context = AnsweringWorker(tmp_path / "worker", access)
    hub = Hub(next_offset=lambda _: 5, most=0, most_of_person=1)
    reporter = OperationsReporter(
        context.context, own_url="http://127.0.0.1:8500", edge_urls=" , ", streams=lambda: hub.count
    )
    routers = [
        operations_router(reporter, access),
        events_router(hub, lambda: cast("MissedReader", object()), context.context.resolver),
    ]
    with TestClient(build_http(dict, context.metrics, routers=routers)) as found:
        yield found
    context.close()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


OPERATOR, PORTAL = bearer("operator-secret-of-all"), bearer("portal-secret-of-corp")


@pytest.mark.parametrize("path", ["overview", "callbacks?instance_id=I", "worker", "instance?instance_id=I"])
def test_operators_only(client: TestClient, path: str) -> None:
    assert client.get(f"/v1/ops/{path}").status_code == 401
    assert client.get(f"/v1/ops/{path}", headers=bearer("wrong")).status_code == 401
    assert client.get(f"/v1/ops/{path}", headers=PORTAL).status_code == 403
    assert client.get(f"/v1/ops/{path}", headers=OPERATOR).status_code in (200, 503)


def test_a_person_is_listened_to_by_whom_may_see_them(client: TestClient) -> None:
    mine, others = "/v1/corps/corp/users/ann/events", "/v1/corps/other/users/ann/events"
    assert client.get(mine).status_code == 401
    assert client.get(others, headers=PORTAL).status_code == 403
    # 503: these hold no streams, which is asked last.
    assert client.get(mine, headers=PORTAL).status_code == 503
    assert client.get(others, headers=OPERATOR).status_code == 503


def test_an_overview_without_kafka_is_one_too(client: TestClient) -> None:
    found = client.get("/v1/ops/overview", headers=OPERATOR).json()
    assert [each["url"] for each in found["workers"]] == ["http://127.0.0.1:8500"]
    assert found["edges"] == []
    assert len(found["flow"]["minutes"]) == 60
    assert found["history"]["times"] == []


def test_a_change_of_the_tokens_that_is_not_in_force_is_where_operators_look(
    client: TestClient, access: Access
) -> None:
    tokens = access.tokens
    assert tokens is not None
    assert Health(tokens).readiness()["problems"] == []
    tokens.path.write_text("[[tokens]\n")
    tokens.reload_if_changed()
    says = f"the last change is invalid and not in use: API tokens file {tokens.path}: line 1: not TOML: Expected ']]'"
    (problem,) = Health(tokens).readiness()["problems"]
    assert problem.startswith(says)
    (worker,) = client.get("/v1/ops/overview", headers=OPERATOR).json()["workers"]
    assert worker["problem"] == problem
    found = {"edges": [], "workers": [{**worker, "ready": True}], "partitions": []}
    assert problems_of(found) == [f"worker http://127.0.0.1:8500: {problem}"]


def test_what_is_asked_for_must_be_named(client: TestClient) -> None:
    answer = client.get("/v1/ops/callbacks?instance_id=", headers=OPERATOR)
    assert answer.status_code == 400
    assert "instance_id" in answer.json()["detail"]
