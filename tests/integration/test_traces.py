"""One trace from Yida's POST to the event stream, through a spool that outlives its edge, as OTLP brings it."""

from __future__ import annotations

import json
import signal
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from support.edge.fakes import SYSTEM_TOKEN, task_of
from support.edge.process import RunningEdge
from support.streams.processes import Worker
from support.tracing import OtlpReceiver
from taskbridge.edge.sender import encode_callback, signed
from taskbridge.local.host import free_port
from taskbridge.runtime.tracing import traceparent_of
from taskbridge.schemas.cloudevents import headers_of
from taskbridge.schemas.topics import TASK_EVENTS, TASK_NOTIFICATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from confluent_kafka import Message

    from support.tracing import Received
    from taskbridge.cli.connection import Connection

pytestmark = pytest.mark.integration

POST = "POST /yida/tasks/create"
CREATE, SEND, PROCESS = (f"{operation} taskbridge.task-events.v1" for operation in ("create", "send", "process"))
NOTIFY = "send taskbridge.task-notifications.v1"
MANY = 20


def traceparent() -> str:
    """As a sender may send it."""
    return f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-01"


def id_of(traceparent: str) -> str:
    """Of its trace."""
    return traceparent.split("-")[1]


class Poster:
    """Posts creates of tasks for one person of its own."""

    def __init__(self) -> None:
        self.user_id = uuid.uuid4().hex
        self.instance_id = uuid.uuid4().hex

    def parameters(self, task_id: str) -> dict[str, str]:
        task = {**task_of(self.instance_id, task_id), "actionerId": [self.user_id], "originatorId": self.user_id}
        return signed({"task": json.dumps(task), "dateTime": "1693462062502"}, system_token=SYSTEM_TOKEN)

    def post(self, edge: RunningEdge, task_id: str, traced: str | None = None) -> dict[str, Any]:
        encoded = encode_callback(self.parameters(task_id), "json")
        answer = edge.post("/yida/tasks/create", encoded, **({} if traced is None else {"traceparent": traced}))
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def receiver() -> Generator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture
def edge(tmp_path: Path, connection: Connection, receiver: OtlpReceiver) -> Generator[RunningEdge]:
    """Its Kafka does not answer."""
    with RunningEdge(
        tmp_path,
        bootstrap_servers=f"127.0.0.1:{free_port()}",
        registry_url=connection.registry_url,
        **receiver.environment,
    ) as edge:
        yield edge


@pytest.fixture
def worker(tmp_path: Path, connection: Connection, receiver: OtlpReceiver) -> Generator[Worker]:
    # It is frozen for a while, and must not lose its partitions meanwhile, however slow the machine is.
    with Worker(tmp_path, connection, STREAMS_SESSION_TIMEOUT_S="30", **receiver.environment) as worker:
        yield worker


def test_one_trace_leads_from_the_post_through_spool_and_fold_to_the_notification(  # noqa: PLR0917
    edge: RunningEdge,
    worker: Worker,
    connection: Connection,
    receiver: OtlpReceiver,
    read_topic: Callable[[str], list[Message]],
    eventually: Callable[..., Any],
) -> None:
    poster = Poster()
    spooled, repeated = traceparent(), traceparent()
    many = [traceparent() for _ in range(MANY)]

    def is_in(trace_id: str, name: str) -> bool:
        return any(each.name == name for each in receiver.spans(trace_id))

    edge.start()
    eventually(edge.is_ready, what="the edge is ready")
    assert poster.post(edge, "T-spooled", spooled)["durability"] == "spool"
    assert edge.stop() == 0
    assert [each.name for each in receiver.spans(id_of(spooled))] == [POST, CREATE], "exported at the end"

    worker.start()
    eventually(worker.is_ready, what="the worker is ready")
    edge.environment["EDGE_KAFKA_BOOTSTRAP_SERVERS"] = connection.bootstrap_servers
    edge.start()
    eventually(lambda: is_in(id_of(spooled), NOTIFY), what="the event from the spool is published")
    eventually(edge.has_drained, what="nothing is left in the spool")
    event_id = poster.post(edge, "T-direct")["eventId"]
    eventually(lambda: any(is_in(each.trace_id, NOTIFY) for each in posts_of(receiver, event_id)), what="it is sent")
    assert poster.post(edge, "T-direct", repeated)["eventId"] == event_id
    eventually(lambda: is_in(id_of(repeated), NOTIFY), what="it is published again")
    worker.signal(signal.SIGSTOP)
    for number, traced in enumerate(many):
        poster.post(edge, f"T-{number}", traced)
    worker.signal(signal.SIGCONT)  # then it finds them all at once
    eventually(lambda: all(is_in(id_of(traced), NOTIFY) for traced in many), what="all are sent")
    assert edge.stop() == 0
    assert worker.end(signal.SIGTERM) == 0

    assert_went_through_the_spool(receiver, spooled)
    (begun,) = {each.trace_id for each in posts_of(receiver, event_id)} - {id_of(repeated)}
    assert_went_directly(receiver, begun, event_id, parent="")
    assert_went_directly(receiver, id_of(repeated), event_id, parent=repeated.split("-")[2])
    assert_many_were_joined(receiver, many)
    assert {each.service for each in receiver.spans()} == {"taskbridge-edge", "taskbridge-streams"}
    assert not [each for each in receiver.spans() if each.is_error]
    assert_records_carry(read_topic, poster, receiver)
    assert_nothing_secret(receiver, poster)


def assert_went_through_the_spool(receiver: OtlpReceiver, traced: str) -> None:
    """The sender, the request, the event; it was sent by another edge and published by the worker."""
    trace = receiver.spans(id_of(traced))
    post, created, sent = (one(trace, name) for name in (POST, CREATE, SEND))
    assert post.parent == traced.split("-")[2]
    assert (created.parent, sent.parent) == (post.span_id, created.span_id)
    assert (post.kind, created.kind, sent.kind) == ("SERVER", "PRODUCER", "CLIENT")
    assert created.start_ns < sent.start_ns < created.end_ns < sent.end_ns, "as long as it waited"
    assert_published(receiver, trace, event=created)


def assert_went_directly(receiver: OtlpReceiver, trace_id: str, event_id: str, *, parent: str) -> None:
    trace = receiver.spans(trace_id)
    post, sent = one(trace, POST), one(trace, SEND)
    assert (post.parent, sent.parent, sent.kind) == (parent, post.span_id, "PRODUCER")
    assert sent.attributes["messaging.message.id"] == event_id
    assert_published(receiver, trace, event=sent)


def assert_many_were_joined(receiver: OtlpReceiver, many: list[str]) -> None:
    """Spans that join them have links, and each is published in a trace of its own."""
    traces = [receiver.spans(id_of(traced)) for traced in many]
    events = {(each.trace_id, each.span_id) for trace in traces for each in [one(trace, SEND)]}
    joining = [each for each in receiver.spans() if each.name == PROCESS and events & set(each.links)]
    assert set[tuple[str, str]]().union(*(each.links for each in joining)) >= events
    assert max(len(each.links) for each in joining) > 1
    for trace in traces:
        assert_published(receiver, trace, event=one(trace, SEND))


def posts_of(receiver: OtlpReceiver, event_id: str) -> list[Received]:
    return [each for each in receiver.spans() if each.attributes.get("messaging.message.id") == event_id]


def one(trace: list[Received], name: str) -> Received:
    (found,) = [each for each in trace if each.name == name]
    return found


def assert_published(receiver: OtlpReceiver, trace: list[Received], *, event: Received) -> None:
    """The event is folded by a span with a link to it, and published in its own trace."""
    notify = one(trace, NOTIFY)
    assert (notify.parent, notify.kind) == (event.span_id, "PRODUCER")
    (process,) = [
        each for each in receiver.spans() if each.name == PROCESS and (event.trace_id, event.span_id) in each.links
    ]
    assert process.kind == "CONSUMER"
    assert notify.links == ((process.trace_id, process.span_id),)
    assert all(each.start_ns >= event.start_ns for each in (process, notify))


def assert_records_carry(read_topic: Callable[[str], list[Message]], poster: Poster, receiver: OtlpReceiver) -> None:
    """The records on both topics name spans that were received, by the trace of each."""
    spans = {(each.trace_id, each.span_id): each.name for each in receiver.spans()}
    subject = ("ce_subject", poster.instance_id.encode())
    for topic, names in ((TASK_EVENTS.name, {CREATE, SEND}), (TASK_NOTIFICATIONS.name, {NOTIFY})):
        headers: list[Any] = [headers_of(each) for each in read_topic(topic)]
        carried = [found.split("-") for each in headers if subject in each if (found := traceparent_of(each))]
        assert {spans[trace_id, span_id] for _, trace_id, span_id, _ in carried} == names
        assert len(carried) >= MANY


def assert_nothing_secret(receiver: OtlpReceiver, poster: Poster) -> None:
    text = "\n".join(f"{each.name} {each.attributes}" for each in receiver.spans())
    parameters = poster.parameters("T-direct")
    task = json.loads(parameters["task"])
    written = (task["title"], task["originatorDisplayName"], task["url"], poster.user_id)
    assert [each for each in (parameters["sign"], SYSTEM_TOKEN, *written) if each in text] == []
