"""The OpenAPI document matches the edge: schemathesis finds no difference, and its examples are accepted."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from support.edge.client import EdgeClient
from support.edge.fakes import SOURCE, SOURCE_SECRET, SYSTEM_TOKEN, MemoryPublisher, write_credentials
from support.served_apps import TOKEN, differences, edge_app, serving
from taskbridge.edge.app import create_app
from taskbridge.edge.decision.callbacks import ACTIONS
from taskbridge.edge.sender import signed
from taskbridge.runtime import standard_webhooks

if TYPE_CHECKING:
    from pathlib import Path

    from taskbridge.edge.settings import EdgeSettings


def test_the_document_matches_the_service(tmp_path: Path) -> None:
    http = edge_app(tmp_path)
    document = http.openapi()
    assert "text/plain" in document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
    assert "503" in document["paths"]["/readyz"]["get"]["responses"]
    with serving(http) as url:
        assert differences(url, tmp_path, token=TOKEN) == ""


@pytest.mark.parametrize("bearer", ["", TOKEN], ids=["without a bearer token", "with one"])
def test_callbacks_have_a_security_requirement_where_a_bearer_token_is_configured(tmp_path: Path, bearer: str) -> None:
    document = edge_app(tmp_path, bearer=bearer).openapi()
    callbacks = [document["paths"][f"/yida/tasks/{each}"]["post"] for each in ACTIONS]
    assert all(("security" in each) is bool(bearer) for each in callbacks)


def test_the_answer_at_an_unknown_path_is_in_the_document(settings: EdgeSettings) -> None:
    http = create_app(settings, publisher=MemoryPublisher())
    documented = http.openapi()["components"]["responses"]["UnknownPath"]["content"]
    with EdgeClient(http) as client:
        for answer, status in ((client.get("/nowhere"), 404), (client.post("/healthz"), 405)):
            assert (answer.status_code, [answer.headers["content-type"]]) == (status, list(documented))
            assert answer.json().keys() == documented["application/problem+json"]["schema"]["properties"].keys()


@pytest.mark.parametrize("wire_action", ACTIONS)
@pytest.mark.parametrize("kind", ["application/json", "application/cloudevents+json"])
def test_the_example_of_a_source_is_accepted_once_it_is_signed(
    settings: EdgeSettings, wire_action: str, kind: str
) -> None:
    publisher = MemoryPublisher()
    http = create_app(settings, publisher=publisher)
    operation = http.openapi()["paths"]["/sources/{source}/tasks/{action}"]["post"]
    body = json.dumps(operation["requestBody"]["content"][kind]["example"]).encode()
    shown = {each["name"]: each["schema"]["examples"][0] for each in operation["parameters"] if each["in"] == "header"}
    headers = {name: each for name, each in shown.items() if kind == "application/json" or not name.startswith("ce-")}
    timestamp = str(int(time.time()))
    headers |= {"Content-Type": kind, "webhook-timestamp": timestamp}
    headers["webhook-signature"] = standard_webhooks.signature(
        headers["webhook-id"], timestamp, body, key=standard_webhooks.key_of(SOURCE_SECRET)
    )
    corp = "ding5d17e3add038d445"
    named = f'[[sources]]\nname = "{SOURCE}"\ncorp_id = "{corp}"\nsecrets = ["{SOURCE_SECRET}"]\n'
    settings.credentials_file.write_text(named)
    with EdgeClient(create_app(settings, publisher=publisher)) as client:
        answer = client.post(f"/sources/{SOURCE}/tasks/{wire_action}", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    event = publisher.published[0]
    assert (event.instance_id, event.corp_id, event.occurred_at) == (f"{SOURCE}:I-1", corp, 1693462062502)


def test_the_example_of_a_push_is_accepted_with_its_token(settings: EdgeSettings) -> None:
    publisher = MemoryPublisher()
    operation = create_app(settings, publisher=publisher).openapi()["paths"]["/sources/{source}/tasks"]["post"]
    named = f'[[sources]]\nname = "oa"\nformat = "todo"\ncorp_id = "ding"\nbearer_tokens = ["{TOKEN * 2}"]\n'
    settings.credentials_file.write_text(named)
    with EdgeClient(create_app(settings, publisher=publisher)) as client:
        example = operation["requestBody"]["content"]["application/json"]["example"]
        answer = client.post("/sources/oa/tasks", json=example, headers={"Authorization": f"Bearer {TOKEN * 2}"})
    assert answer.status_code == 200, answer.text
    assert (publisher.published[0].instance_id, publisher.published[0].occurred_at) == ("oa:F-1", 1693462062502)


@pytest.mark.parametrize("wire_action", ACTIONS)
def test_the_example_of_every_action_is_accepted_once_it_is_signed(settings: EdgeSettings, wire_action: str) -> None:
    publisher = MemoryPublisher()
    http = create_app(settings, publisher=publisher)
    body = http.openapi()["paths"][f"/yida/tasks/{wire_action}"]["post"]["requestBody"]["content"]
    example = dict(body["application/json"]["example"])
    app, corp = "APP_RY60OCRF33Z7534", "ding5d17e3add038d445"
    write_credentials(settings.credentials_file, SYSTEM_TOKEN, app_type=app, corp_id=corp)
    del example["sign"]
    with EdgeClient(create_app(settings, publisher=publisher)) as client:
        answer = client.post(f"/yida/tasks/{wire_action}", json=signed(example, system_token=SYSTEM_TOKEN))
    assert answer.status_code == 200, answer.text
    event = publisher.published[0]
    assert (event.app_type, event.corp_id, event.occurred_at) == (app, corp, 1693462062502)
