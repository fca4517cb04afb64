"""The path of a callback through the app: every action in every encoding, every refusal, what the log says of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from support.edge.callbacks import good, message, post_message, send
from support.edge.client import EdgeClient
from support.edge.fakes import APP_TYPE, SYSTEM_TOKEN, MemoryPublisher, parameters_of
from support.edge.refused import OTHER_SECRET, BadRequest, bad_messages, bad_requests
from support.http_clients import callback
from taskbridge.edge.app import create_app
from taskbridge.edge.decision.callbacks import ACTIONS
from taskbridge.edge.sender import ENCODINGS, Encoding, encode_callback, signed
from taskbridge.edge.server.exchange import HEAD_BYTES, LARGE_BODIES_BYTES
from taskbridge.edge.settings import EdgeSettings
from taskbridge.schemas.events import event_id_for

if TYPE_CHECKING:
    from collections.abc import Iterable

    import httpx2

BAD = bad_requests()
BEARER = "s3cret-bearer"


def send_bad(client: EdgeClient, bad: BadRequest) -> httpx2.Response:
    content: bytes | Iterable[bytes] = bad.body
    if bad.chunked:
        content = (bad.body[at : at + 65536] for at in range(0, len(bad.body), 65536))
    return client.request(bad.method, f"{bad.path}?{bad.query}", content=content, headers=dict(bad.headers))


def outcomes(client: EdgeClient) -> dict[str, float]:
    """How often there was each outcome that there was."""
    lines = [line for line in client.get("/metrics").text.splitlines() if "callbacks_total{" in line]
    return {line.split('outcome="')[1].split('"')[0]: count for line in lines if (count := float(line.split()[-1]))}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("wire_action", ACTIONS)
def test_a_callback_is_published_once_and_answered(
    client: EdgeClient, publisher: MemoryPublisher, wire_action: str, encoding: Encoding
) -> None:
    parameters = good(wire_action)
    answer = send(client, wire_action, parameters, encoding)
    event_id = event_id_for("yida", wire_action, parameters)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"success": True, "eventId": event_id, "durability": "kafka"}
    (event,) = publisher.published
    assert (event.event_id, event.action, event.instance_id) == (event_id, ACTIONS[wire_action], "inst-1")
    assert event.raw_parameters == parameters
    assert outcomes(client) == {"kafka": 1}


def test_every_bad_request_gets_its_problem_and_the_edge_stays_well(
    client: EdgeClient, publisher: MemoryPublisher
) -> None:
    for bad in [*BAD, *bad_messages()]:
        answer = send_bad(client, bad)
        assert answer.status_code == bad.status, bad.name
        assert answer.headers["content-type"] == "application/problem+json", bad.name
        problem = answer.json()
        assert set(problem) == {"type", "title", "status", "detail", "success"}, bad.name
        assert (problem["status"], problem["success"]) == (bad.status, False), bad.name
        assert problem["type"] == (f"urn:taskbridge:problem:{bad.kind}" if bad.kind else "about:blank"), bad.name
        assert problem["detail"], bad.name
        assert publisher.published == [], bad.name
    assert send(client, "complete", good()).status_code == 200
    assert post_message(client, "complete", message()).status_code == 200


def test_all_that_is_not_proven_looks_alike(client: EdgeClient) -> None:
    answers = [send_bad(client, bad) for bad in [*BAD, *bad_messages()] if bad.status == 401]
    assert len(answers) > 10
    assert len({answer.content for answer in answers}) == 1
    assert len({tuple(sorted(answer.headers.items())) for answer in answers}) == 1
    assert {"unknown-app", "no-sign", "wrong-sign", "other-corp", "delete-extra-key"} <= set(outcomes(client))
    assert {"unknown-source", "untimely"} <= set(outcomes(client))


def test_a_bearer_token_is_required_where_one_is_configured(settings: EdgeSettings, publisher: MemoryPublisher) -> None:
    asking = EdgeSettings.model_validate({**settings.model_dump(), "bearer_tokens": (BEARER, "another")})
    with EdgeClient(create_app(asking, publisher=publisher)) as client:
        assert send(client, "complete", good(), headers={"Authorization": f"Bearer {BEARER}"}).status_code == 200
        missing = send(client, "complete", good())
        wrong = send(client, "complete", good(), headers={"Authorization": "Bearer wrong"})
        unsigned = send(client, "complete", good(token="x"), headers={"Authorization": f"Bearer {BEARER}"})
        assert {missing.status_code, wrong.status_code, unsigned.status_code} == {401}
        assert missing.content == wrong.content == unsigned.content
        assert {"no-bearer": 1, "wrong-bearer": 1, "wrong-sign": 1}.items() <= outcomes(client).items()


def test_both_readings_of_a_null_verify_and_are_stored_as_they_verified(
    client: EdgeClient, publisher: MemoryPublisher
) -> None:
    parameters = parameters_of("complete", instance_id="inst-1")
    absent = signed(parameters, system_token=SYSTEM_TOKEN)
    as_text = signed({**parameters, "actualWorkId": "null", "x": "null"}, system_token=SYSTEM_TOKEN)
    for sent in ({**absent, "x": None}, {**as_text, "actualWorkId": None, "x": None}):
        body = json.dumps(sent).encode()
        answer = client.post("/yida/tasks/complete", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 200
    assert [event.raw_parameters for event in publisher.published] == [absent, as_text]
    assert [event.actor_id for event in publisher.published] == ["01690741902689", None]
    exposition = client.get("/metrics").text
    for reading, count in (("plain", 1.0), ("literal", 1.0), ("part", 0.0)):
        assert f'taskbridge_edge_readings_total{{reading="{reading}"}} {count}' in exposition


def test_a_task_sent_as_an_object_is_signed_by_its_text(client: EdgeClient, publisher: MemoryPublisher) -> None:
    parameters = good("create")
    spaced = parameters["task"].replace(": ", " :  ")
    resigned = signed({**parameters, "task": spaced}, system_token=SYSTEM_TOKEN)
    body = f'{{"task": {spaced} , "dateTime": {resigned["dateTime"]}, "sign": "{resigned["sign"]}"}}'
    answer = client.post("/yida/tasks/create", content=body.encode(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    assert publisher.published[0].raw_parameters == resigned


def test_while_nothing_can_keep_the_event_the_answer_is_to_try_again(
    client: EdgeClient, publisher: MemoryPublisher
) -> None:
    publisher.away = "Kafka is away"
    answer = send(client, "complete", good())
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["type"] == "urn:taskbridge:problem:not-durable"
    assert outcomes(client) == {"not-durable": 1}
    publisher.away = None
    assert send(client, "complete", good()).status_code == 200


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("header", "handed_on"),
    [
        (TRACE, TRACE),
        (None, None),
        ("", None),
        ("00-0", None),
        (TRACE.upper(), None),
        ("ff" + TRACE[2:], None),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
        (f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01", None),
    ],
)
def test_only_a_valid_trace_context_is_handed_on(
    client: EdgeClient, publisher: MemoryPublisher, header: str | None, handed_on: str | None
) -> None:
    send(client, "complete", good(), headers={} if header is None else {"traceparent": header})
    assert publisher.traceparents == [handed_on]


def test_an_unforeseen_error_is_a_problem_is_counted_and_its_callback_is_stored(
    settings: EdgeSettings, publisher: MemoryPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError(SYSTEM_TOKEN)

    monkeypatch.setattr(MemoryPublisher, "publish", fail)
    with EdgeClient(create_app(settings, publisher=publisher)) as client:
        answer = send(client, "complete", good())
        assert outcomes(client) == {"error": 1}
    assert (answer.status_code, answer.json()["success"]) == (500, False)
    assert SYSTEM_TOKEN not in answer.text
    (callback,) = publisher.quarantined
    assert (callback.reason, callback.app_type, callback.body) == (
        "error",
        APP_TYPE,
        encode_callback(good(), "json").body,
    )


def test_no_token_is_ever_in_an_answer_or_in_the_log(
    settings: EdgeSettings, publisher: MemoryPublisher, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    asking = EdgeSettings.model_validate({**settings.model_dump(), "bearer_tokens": (BEARER,)})
    secrets = {SYSTEM_TOKEN, BEARER, "previous-token", "s3cret-wrong", *(good(action)["sign"] for action in ACTIONS)}
    texts: list[str] = []
    with capture_logs() as lines, EdgeClient(create_app(asking, publisher=publisher)) as client:
        for authorization in (f"Bearer {BEARER}", "Bearer s3cret-wrong"):
            client.headers["Authorization"] = authorization
            texts += [send(client, action, good(action)).text for action in ACTIONS]
            texts += [send_bad(client, bad).text for bad in BAD]
        publisher.away = "Kafka is away"
        texts.append(send(client, "complete", good(), headers={"Authorization": f"Bearer {BEARER}"}).text)
        texts += [client.get(path).text for path in ("/readyz", "/metrics", "/openapi.json")]
    texts += [repr(line) for line in lines]
    events = {line["event"] for line in lines}
    assert {"callback_accepted", "callback_rejected", "callback_not_durable"} <= events
    assert not [text for text in texts for secret in secrets if secret in text]


def test_each_callback_is_one_log_line(client: EdgeClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with capture_logs() as lines:
        send(client, "complete", good())
        send(client, "cancel", good(token="wrong"))
    accepted, rejected = lines
    assert (accepted["event"], accepted["action"], accepted["durability"]) == ("callback_accepted", "complete", "kafka")
    assert (rejected["event"], rejected["reason"], rejected["log_level"]) == (
        "callback_rejected",
        "wrong-sign",
        "warning",
    )


HEAD = b"POST /yida/tasks/complete HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n"


def test_an_announced_body_over_the_limit_is_not_read_at_all(client: EdgeClient) -> None:
    answer = client.sends(HEAD + b"Expect: 100-continue\r\nContent-Length: 1048577\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_request_that_stops_halfway_is_aborted(client: EdgeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskbridge.edge.server.exchange.BODY_TIMEOUT_S", 0.1)
    assert client.sends(HEAD + b'Content-Length: 9\r\n\r\n{"a":').startswith(b"HTTP/1.1 408 ")


def test_a_sender_that_hangs_up_is_no_error(client: EdgeClient, publisher: MemoryPublisher) -> None:
    with capture_logs() as lines:
        client.sends(HEAD + b'Content-Length: 9\r\n\r\n{"a":', hangs_up=True)
    assert [line["event"] for line in lines] == ["callback_aborted"]
    assert outcomes(client) == {"aborted": 1}
    assert publisher.published == []


def test_a_callback_is_stored_although_its_sender_hangs_up(client: EdgeClient, publisher: MemoryPublisher) -> None:
    client.sends(callback("gone"), hangs_up=True)
    client.__exit__()
    assert [event.instance_id for event in publisher.published] == ["gone"]


def from_sources(settings: EdgeSettings, publisher: MemoryPublisher, peer: str, **changed: str) -> EdgeClient:
    changed_settings = EdgeSettings.model_validate({**settings.model_dump(), **changed})
    return EdgeClient(create_app(changed_settings, publisher=publisher), peer=peer)


def test_a_source_that_is_not_allowed_looks_like_any_other_that_is_not_proven(
    settings: EdgeSettings, publisher: MemoryPublisher
) -> None:
    with capture_logs() as lines, from_sources(settings, publisher, "192.0.2.9", source_networks="192.0.2.0/29") as it:
        refused = send(it, "complete", good())
        it.peer = "no address"
        unproven = send(it, "complete", good(token="x"))
        assert refused.status_code == 401
        assert refused.content == unproven.content
        assert outcomes(it)["source-network"] == 2
        assert it.get("/healthz").status_code == 200
    reasons = [line["reason"] for line in lines if line["event"] == "callback_rejected"]
    assert reasons == ["source-network"] * 2
    with from_sources(settings, publisher, "192.0.2.7", source_networks="192.0.2.0/29") as it:
        assert send(it, "complete", good()).status_code == 200


def test_a_source_that_is_not_allowed_is_refused_before_its_body_is_read(
    settings: EdgeSettings, publisher: MemoryPublisher
) -> None:
    elsewhere = EdgeSettings.model_validate({**settings.model_dump(), "source_networks": "198.51.100.0/24"})
    with EdgeClient(create_app(elsewhere, publisher=publisher)) as client:
        answer = client.sends(HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    ("peer", "status", "address"),
    [("10.0.0.1", 200, "192.0.2.1"), ("203.0.113.1", 401, "203.0.113.1"), ("192.0.2.2", 200, "192.0.2.2")],
)
def test_only_a_trusted_proxy_is_believed_about_the_sender(
    *,
    settings: EdgeSettings,
    publisher: MemoryPublisher,
    peer: str,
    status: int,
    address: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    networks = {"source_networks": "192.0.2.0/24", "trusted_proxies": "10.0.0.0/8"}
    with capture_logs() as lines, from_sources(settings, publisher, peer, **networks) as it:
        answer = send(it, "complete", good(), headers={"X-Forwarded-For": "198.51.100.1, 192.0.2.1"})
    assert answer.status_code == status
    (line,) = [line for line in lines if line["event"].startswith("callback_")]
    assert line["remote_address"] == address


def test_a_token_that_signed_is_noted_and_one_that_did_not_is_not(client: EdgeClient) -> None:
    def used() -> list[bool]:
        lines = client.get("/metrics").text.splitlines()
        return sorted(
            float(line.split()[-1]) > 0 for line in lines if line.startswith("taskbridge_edge_token_last_used")
        )

    assert used() == [False, False, False]
    send(client, "complete", good(token="wrong"))
    assert used() == [False, False, False]
    send(client, "complete", good())
    assert used() == [False, False, True]
    send(client, "complete", good(token="previous-token"))
    assert used() == [False, True, True]
    post_message(client, "complete", message(secret=OTHER_SECRET))
    assert used() == [False, True, True]
    post_message(client, "complete", message())
    assert used() == [True, True, True]


def test_metrics_show_how_long_each_step_takes_and_what_is_there(
    client: EdgeClient, publisher: MemoryPublisher
) -> None:
    send(client, "complete", good())
    text = client.get("/metrics").text
    assert 'taskbridge_edge_verify_seconds_count{action="complete"} 1.0' in text
    assert 'taskbridge_edge_publish_seconds_count{action="complete"} 1.0' in text
    assert "taskbridge_edge_build_info{version=" in text
    assert ("taskbridge_edge_kafka_up 1.0" in text, "taskbridge_edge_registry_up 1.0" in text) == (True, True)
    publisher.away = "away"
    assert "taskbridge_edge_kafka_up 0.0" in client.get("/metrics").text


@pytest.mark.parametrize(
    "path", ["/yida/tasks/complete/", "//yida/tasks//complete", "/Yida/Tasks/Complete", "/yida/tasks/COMPLETE//"]
)
def test_a_path_that_is_misspelt_is_understood_where_it_is_plain_what_is_meant(
    client: EdgeClient, publisher: MemoryPublisher, path: str
) -> None:
    encoded = encode_callback(good(), "json")
    answer = client.post(f"http://testserver{path}", content=encoded.body, headers=encoded.headers)
    assert answer.status_code == 200
    assert [event.action for event in publisher.published] == [ACTIONS["complete"]]


@pytest.mark.parametrize("path", ["/yida", "/yida/", "/yida/tasks/finish", "/yida/complete", "/YIDA/tasks/complete/1"])
def test_what_is_posted_at_an_unknown_path_of_ours_is_counted_logged_and_stored(
    client: EdgeClient, publisher: MemoryPublisher, path: str
) -> None:
    encoded = encode_callback(good(), "json")
    with capture_logs() as lines:
        answer = client.post(path, content=encoded.body, headers=encoded.headers)
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:taskbridge:problem:unknown-path")
    (callback,) = publisher.quarantined
    assert (callback.action, callback.reason, callback.path, callback.body) == (
        "unknown",
        "unknown-path",
        path,
        encoded.body,
    )
    assert [line["reason"] for line in lines] == ["unknown-path"]
    assert outcomes(client) == {"unknown-path": 1}


@pytest.mark.parametrize("chunked", [False, True])
def test_the_beginning_of_what_is_too_large_is_stored(
    client: EdgeClient,
    publisher: MemoryPublisher,
    chunked: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    body = encode_callback(good(), "json").body + b" " * (1 << 20)
    content: bytes | Iterable[bytes] = (body[at : at + 65536] for at in range(0, len(body), 65536)) if chunked else body
    assert client.post("/yida/tasks/complete", content=content).status_code == 413
    (callback,) = publisher.quarantined
    assert (callback.reason, callback.body) == ("too-large", body[:HEAD_BYTES])
    assert client.app.callbacks.large_bodies.room == LARGE_BODIES_BYTES
    assert outcomes(client) == {"too-large": 1}


def test_every_outcome_that_an_alert_reads_is_counted_from_zero(client: EdgeClient) -> None:
    """A counter that appears with its first loss does not increase for Prometheus."""
    rules = (Path(__file__).parents[3] / "deploy" / "alerts" / "taskbridge-edge.rules.yml").read_text("utf-8")
    asked_for = {
        each for found in re.findall(r'callbacks_total\{outcome=~"([^"]+)"\}', rules) for each in found.split("|")
    }
    assert {"error", "too-large", "unknown-path"} <= asked_for
    text = client.get("/metrics").text
    for action in (*ACTIONS, "unknown"):
        for outcome in asked_for:
            assert f'taskbridge_edge_callbacks_total{{action="{action}",outcome="{outcome}"}} 0.0' in text
    for reason in ("wrong-sign", "error", "too-large", "unknown-path"):
        for outcome in ("kept", "suppressed", "failed"):
            assert f'taskbridge_edge_quarantine_total{{outcome="{outcome}",reason="{reason}"}} 0.0' in text
    for reason in ("malformed-http", "long-url", "too-many-connections", "gave-way"):
        assert f'taskbridge_edge_connections_refused_total{{reason="{reason}"}} 0.0' in text


def test_every_reason_that_is_given_is_counted_from_zero(client: EdgeClient) -> None:
    known = {
        line.split('outcome="')[1].split('"')[0]
        for line in client.get("/metrics").text.splitlines()
        if "callbacks_total{" in line
    }
    for bad in BAD:
        send_bad(client, bad)
    assert set(outcomes(client)) <= known
