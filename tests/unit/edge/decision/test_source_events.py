"""What another system signed becomes an event of its own name, in both modes. A message id belongs to one event."""

from __future__ import annotations

import base64
import gzip
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from support.edge.callbacks import good, message, post_message, send
from support.edge.client import EdgeClient
from support.edge.fakes import (
    APP_TYPE,
    CORP_ID,
    SOURCE,
    SOURCE_SECRET,
    SYSTEM_TOKEN,
    MemoryPublisher,
    message_of,
    write_credentials,
)
from support.edge.refused import OTHER_SECRET
from taskbridge.edge.app import create_app
from taskbridge.edge.decision.callbacks import ACTIONS
from taskbridge.edge.sender import EncodedCallback
from taskbridge.runtime import standard_webhooks
from taskbridge.schemas.cloudevents import event_headers
from taskbridge.schemas.events import MAX_ID_CHARACTERS, Action, Person, TaskEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskbridge.edge.settings import EdgeSettings

MODES = pytest.mark.parametrize("binary", [False, True], ids=["structured", "binary"])


def resigned(sent: EncodedCallback, *, body: bytes | None = None, **headers: str) -> EncodedCallback:
    """The same, changed and signed again, as the same message."""
    content = sent.body if body is None else body
    given = {**sent.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
    signature = standard_webhooks.signature(
        given[standard_webhooks.ID],
        given[standard_webhooks.TIMESTAMP],
        content,
        key=standard_webhooks.key_of(SOURCE_SECRET),
    )
    return EncodedCallback(headers={**given, standard_webhooks.SIGNATURE: signature}, body=content)


def accepted(
    client: EdgeClient, publisher: MemoryPublisher, sent: EncodedCallback, action: str = "create"
) -> TaskEvent:
    answer = post_message(client, action, sent)
    assert answer.status_code == 200, answer.text
    event = publisher.published[-1]
    assert answer.json() == {"success": True, "eventId": event.event_id, "durability": "kafka"}
    return event


@MODES
@pytest.mark.parametrize("wire_action", ACTIONS)
def test_a_message_becomes_its_event(
    client: EdgeClient, publisher: MemoryPublisher, wire_action: str, *, binary: bool
) -> None:
    sent = message(wire_action, ago_s=60, binary=binary)
    event = accepted(client, publisher, sent, wire_action)
    assert (event.source, event.action, event.corp_id, event.app_type) == (
        SOURCE,
        ACTIONS[wire_action],
        CORP_ID,
        "leave",
    )
    assert event.instance_id == f"{SOURCE}:I-1"
    assert event.task_id == (None if wire_action == "delete" else "T-1")
    assert abs(event.received_at - event.occurred_at - 60_000) < 10_000
    assert event.actor_id == ("0169" if wire_action in ("complete", "cancel") else None)
    headers = dict(event_headers(event))
    assert headers["ce_source"] == f"/{SOURCE}/{CORP_ID}/leave".encode()
    assert headers["ce_subject"] == f"{SOURCE}:I-1".encode()


def test_descriptions_are_read_and_the_message_is_stored_as_received(
    client: EdgeClient, publisher: MemoryPublisher
) -> None:
    data = message_of("create", instance_id="I-1") | {"approved_result": "agree", "finished_at": "2023-09-01T00:00:00Z"}
    event = accepted(client, publisher, message("create", data))
    assert event.recipient_ids == ("0169", "0170")
    assert event.originator == Person("01690741902689", "张红")
    descriptions = (event.title, event.url, event.process_code, event.process_name, event.form_uuid, event.serial_no)
    assert descriptions == (
        "张红的请假申请",
        "https://flow.example/tasks/T-1",
        "leave:3",
        "请假",
        "FORM-1",
        "2023-0001",
    )
    assert (event.instance_status, event.approved_result) == ("RUNNING", "agree")
    assert (event.created_at, event.finished_at) == (1693462062502, 1693526400000)
    assert event.form_data == {"days": "3", "reason": None}
    assert json.loads(event.raw_parameters["data"]) == data
    assert {name: event.raw_parameters[name] for name in ("webhook-id", "specversion", "source", "type")} == {
        "webhook-id": "msg_1",
        "specversion": "1.0",
        "source": f"/{SOURCE}",
        "type": f"{SOURCE}.task.create",
    }


def test_the_outcome_of_a_task_is_in_the_senders_words(client: EdgeClient, publisher: MemoryPublisher) -> None:
    data = message_of("complete", instance_id="I-1") | {"outcome": "refused", "remark": "too late"}
    event = accepted(client, publisher, message("complete", data), "complete")
    assert (event.outcome, event.remark) == ("refused", "too late")


def test_a_task_has_a_step_and_a_due_time_that_is_in_the_future(client: EdgeClient, publisher: MemoryPublisher) -> None:
    step = {"step_name": "Manager", "step_id": "n1", "due_at": "2099-01-01T00:00:00Z", "decided_by": "PERSON"}
    event = accepted(client, publisher, message("create", message_of("create", instance_id="I-1") | step))
    assert (event.step_name, event.step_id, event.due_at) == ("Manager", "n1", 4_070_908_800_000)
    assert event.decided_by is None, "it is not decided"


@pytest.mark.parametrize(("said", "decided_by"), [("AUTOMATIC", "AUTOMATIC"), ("a robot", None), ("", None)])
def test_who_decided_is_one_of_three_words(
    client: EdgeClient, publisher: MemoryPublisher, said: str, decided_by: str | None
) -> None:
    data = message_of("complete", instance_id="I-1") | {"decided_by": said, "due_at": "soon"}
    event = accepted(client, publisher, message("complete", data), "complete")
    assert (event.decided_by, event.due_at) == (decided_by, None)


@MODES
def test_a_message_that_is_sent_again_is_the_same_event(
    client: EdgeClient, publisher: MemoryPublisher, *, binary: bool
) -> None:
    first = message("create", ago_s=100, binary=binary)
    again = resigned(first, webhook_timestamp=str(int(time.time())))
    assert again.headers[standard_webhooks.SIGNATURE] != first.headers[standard_webhooks.SIGNATURE]
    events = [accepted(client, publisher, sent) for sent in (first, again, first)]
    assert len({event.event_id for event in events}) == 1


def test_an_id_belongs_to_one_content_and_one_action(client: EdgeClient, publisher: MemoryPublisher) -> None:
    first = message("complete")
    accepted(client, publisher, first, "complete")
    other = message("complete", message_of("complete", instance_id="I-2"))
    assert post_message(client, "complete", other).status_code == 401
    assert post_message(client, "cancel", first).status_code == 401
    assert [callback.reason for callback in publisher.quarantined] == ["altered-replay", "cross-action-replay"]
    accepted(client, publisher, first, "complete")
    accepted(
        client,
        publisher,
        message("complete", message_of("complete", instance_id="I-2"), message_id="msg_2"),
        "complete",
    )
    assert len({event.event_id for event in publisher.published}) == 2


def test_unsigned_headers_cannot_change_the_meaning_of_a_message(
    client: EdgeClient, publisher: MemoryPublisher
) -> None:
    sent = message("create", binary=True)
    event = accepted(client, publisher, sent)
    for name in ("ce-id", "ce-time", "ce-type", "ce-x"):
        bent = EncodedCallback(headers={**sent.headers, name: "2030-01-01T00:00:00Z"}, body=sent.body)
        assert post_message(client, "create", bent).status_code == 401
    assert {callback.reason for callback in publisher.quarantined} == {"altered-replay"}
    assert publisher.published == [event]


def test_messages_of_two_systems_may_have_the_same_id(settings: EdgeSettings, publisher: MemoryPublisher) -> None:
    with settings.credentials_file.open("a") as file:
        file.write(f'\n[[sources]]\nname = "other"\ncorp_id = "{CORP_ID}"\nsecrets = ["{OTHER_SECRET}"]\n')
    with EdgeClient(create_app(settings, publisher=publisher)) as client:
        accepted(client, publisher, message("create"))
        sent = message("create", secret=OTHER_SECRET)
        answer = client.post("/sources/other/tasks/create", content=sent.body, headers=dict(sent.headers))
    assert answer.status_code == 200
    assert [event.instance_id for event in publisher.published] == [f"{SOURCE}:I-1", "other:I-1"]


def test_secrets_are_rotated_while_both_are_good(settings: EdgeSettings, publisher: MemoryPublisher) -> None:
    write_credentials(settings.credentials_file, SYSTEM_TOKEN, secrets=(OTHER_SECRET, SOURCE_SECRET))
    with EdgeClient(create_app(settings, publisher=publisher)) as client:
        accepted(client, publisher, message("create"))
        accepted(client, publisher, message("create", secret=OTHER_SECRET, message_id="msg_2"))
        metrics = client.get("/metrics").text
    assert metrics.count(f'token_last_used_seconds{{app_type="{SOURCE}",token="') == 2


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/sources/{SOURCE}/tasks/create/", 200),
        (f"//Sources/{SOURCE.upper()}//tasks/CREATE", 200),
        (f"/sources/{SOURCE}/tasks/created", 404),
        ("/sources", 404),
    ],
)
def test_variants_of_a_path_are_accepted_and_similar_paths_are_quarantined(
    client: EdgeClient, publisher: MemoryPublisher, path: str, status: int
) -> None:
    sent = message("create")
    assert client.post(f"http://testserver{path}", content=sent.body, headers=dict(sent.headers)).status_code == status
    assert (len(publisher.published), len(publisher.quarantined)) == ((1, 0) if status == 200 else (0, 1))


VARIANTS: Mapping[str, Callable[[EncodedCallback], EncodedCallback]] = {
    "as it is": lambda sent: sent,
    "gzip, by a gateway": lambda sent: EncodedCallback(headers=sent.headers, body=gzip.compress(sent.body)),
    "a byte-order mark": lambda sent: resigned(sent, body=b"\xef\xbb\xbf" + sent.body),
    "a charset in the type": lambda sent: resigned(sent, Content_Type="application/cloudevents+json; charset=UTF-8"),
    "the type of any JSON": lambda sent: resigned(sent, Content_Type="application/json"),
    "data in base64": lambda sent: resigned(sent, body=_with_base64(sent.body)),
    "data as JSON text": lambda sent: resigned(sent, body=_with_text(sent.body)),
}


def _with_base64(body: bytes) -> bytes:
    event = json.loads(body)
    data = json.dumps(event.pop("data")).encode()
    return json.dumps({**event, "data_base64": base64.b64encode(data).decode()}).encode()


def _with_text(body: bytes) -> bytes:
    event = json.loads(body)
    return json.dumps({**event, "data": json.dumps(event["data"])}).encode()


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_cloudevents_and_gateways_allow_is_read(
    client: EdgeClient, publisher: MemoryPublisher, variant: str
) -> None:
    event = accepted(client, publisher, VARIANTS[variant](message("create")))
    assert (event.title, event.recipient_ids) == ("张红的请假申请", ("0169", "0170"))


def test_data_with_what_is_no_base64_is_refused(client: EdgeClient, publisher: MemoryPublisher) -> None:
    sent = message("create")
    body = _with_base64(sent.body)
    assert post_message(client, "create", resigned(sent, body=body[:-2] + b'!"}')).status_code == 400
    assert [callback.reason for callback in publisher.quarantined] == ["cloudevent"]


def test_of_a_repeated_header_the_first_is_verified_and_counts(client: EdgeClient, publisher: MemoryPublisher) -> None:
    sent = message("create", binary=True)
    twice = [
        *sent.headers.items(),
        (standard_webhooks.ID, "msg_2"),
        (standard_webhooks.SIGNATURE, "v1,x"),
        ("ce-time", "2001-01-01T00:00:00Z"),
    ]
    answer = client.post(f"/sources/{SOURCE}/tasks/create", content=sent.body, headers=twice)
    assert answer.status_code == 200
    (event,) = publisher.published
    assert event.raw_parameters[standard_webhooks.ID] == "msg_1"
    assert event.received_at - event.occurred_at < 60_000


@pytest.mark.parametrize(
    ("changed", "field", "found"),
    [
        ({"recipient_ids": 7}, "recipient_ids", ("7",)),
        ({"recipient_ids": "0169, 0170"}, "recipient_ids", ("0169", "0170")),
        ({"recipient_ids": [{"user_id": "0169"}, True]}, "recipient_ids", ("0169",)),
        ({"recipient_ids": None}, "recipient_ids", ()),
        ({"originator": "0169"}, "originator", Person("0169")),
        ({"originator": ["0169", "0170"]}, "originator", None),
        ({"title": {"zh": "请假"}}, "title", '{"zh":"请假"}'),
        ({"url": "javascript:alert(1)"}, "url", None),
        ({"created_at": "yesterday"}, "created_at", None),
        ({"form_data": [1]}, "form_data", {}),
        ({"form_data": {"rows": [{"n": 1.0}]}}, "form_data", {"rows": '[{"n":1.0}]'}),
    ],
)
def test_what_only_describes_never_sinks_a_proven_message(
    client: EdgeClient, publisher: MemoryPublisher, changed: Mapping[str, Any], field: str, found: Any
) -> None:
    data = {**message_of("create", instance_id="I-1"), **changed}
    event = accepted(client, publisher, message("create", data))
    assert getattr(event, field) == found
    assert json.loads(event.raw_parameters["data"]) == data


def test_an_instance_of_yida_of_the_same_id_is_another_instance(client: EdgeClient, publisher: MemoryPublisher) -> None:
    accepted(client, publisher, message("create", message_of("create", instance_id="inst-1") | {"app_type": APP_TYPE}))
    assert send(client, "complete", good()).status_code == 200
    assert [event.instance_id for event in publisher.published] == [f"{SOURCE}:inst-1", "inst-1"]


def test_a_message_of_a_member_named_as_the_id_is_not_taken_for_another(
    client: EdgeClient, publisher: MemoryPublisher
) -> None:
    sent = message("create")
    event = json.loads(sent.body) | {standard_webhooks.ID: "msg_2"}
    found = accepted(client, publisher, resigned(sent, body=json.dumps(event).encode()))
    assert found.raw_parameters[standard_webhooks.ID] == "msg_1"


def test_the_path_decides_the_action_with_any_type(client: EdgeClient, publisher: MemoryPublisher) -> None:
    sent = message("complete")
    accepted(client, publisher, sent, "cancel")
    assert publisher.published[0].action is Action.CANCELLED


def test_an_instance_id_may_be_as_long_as_an_id_may_be_with_the_systems_name(
    client: EdgeClient, publisher: MemoryPublisher
) -> None:
    longest = "x" * (MAX_ID_CHARACTERS - len(SOURCE) - 1)
    event = accepted(client, publisher, message("create", message_of("create", instance_id=longest)))
    assert event.instance_id == f"{SOURCE}:{longest}"


@pytest.mark.parametrize(
    ("changed", "detail"),
    [({"source": ""}, "Attribute source is missing."), ({"specversion": "0.3"}, "Attribute specversion must be 1.0.")],
)
def test_a_refusal_names_what_a_cloudevent_lacks(client: EdgeClient, changed: Mapping[str, str], detail: str) -> None:
    sent = message("create")
    answer = post_message(client, "create", resigned(sent, body=json.dumps(json.loads(sent.body) | changed).encode()))
    assert (answer.status_code, answer.json()["detail"]) == (400, f"The request is not a CloudEvent 1.0: {detail}")
