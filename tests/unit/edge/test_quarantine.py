"""A rejected callback is stored as received, without secrets and within bounds, and judged again like a new one."""

from __future__ import annotations

import asyncio
import time
import uuid
from itertools import permutations
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from pydantic import SecretStr
from structlog.testing import capture_logs

from support.edge.callbacks import good, message, send
from support.edge.client import EdgeClient
from support.edge.fakes import (
    APP_TYPE,
    CORP_ID,
    SOURCE,
    SOURCE_SECRET,
    SYSTEM_TOKEN,
    MemoryPublisher,
    message_of,
    parameters_of,
)
from support.edge.refused import bad_messages, bad_requests
from taskbridge.edge import quarantine as quarantines
from taskbridge.edge.app import create_app
from taskbridge.edge.decision.callbacks import ACTIONS
from taskbridge.edge.errors import Malformed, Rejection, Unverified
from taskbridge.edge.monitoring import Metrics
from taskbridge.edge.quarantine import Quarantine, quarantined, reconsider
from taskbridge.edge.request import Received
from taskbridge.edge.sender import ENCODINGS, encode_callback, signed
from taskbridge.edge.server.admission import LINES_PER_MINUTE
from taskbridge.edge.verification.credentials import parse_credentials
from taskbridge.edge.verification.replays import MemoryWindow
from taskbridge.schemas.codec import quarantined_callback_codec
from taskbridge.schemas.testing import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.edge.sender import Encoding
    from taskbridge.edge.settings import EdgeSettings
    from taskbridge.schemas.events import QuarantinedCallback, TaskEvent

TOKEN_IN_FORCE = parse_credentials(f'[[apps]]\napp_type = "{APP_TYPE}"\nsystem_tokens = ["{SYSTEM_TOKEN}"]')
BEARER = "s3cret-bearer"


def request(parameters: Mapping[str, str] | None = None, **changed: Any) -> Received:
    encoded = encode_callback(good() if parameters is None else parameters, "json")
    received = Received(
        wire_action="complete",
        received_at=1_700_000_000_123,
        remote_address="192.0.2.7",
        method="POST",
        path="/yida/tasks/complete",
        query=b"",
        headers={"content-type": "application/json"},
        body=encoded.body,
    )
    return replace(received, **changed)


def entry(reason: str = "wrong-sign", **changed: Any) -> QuarantinedCallback:
    return quarantined(request(**changed), Unverified(reason), bearer_tokens=())


def judged(found: QuarantinedCallback) -> TaskEvent:
    return reconsider(found, credentials=TOKEN_IN_FORCE, delete_extra_keys=(), window=MemoryWindow())


def counted(client: EdgeClient) -> dict[tuple[str, str], float]:
    lines = [line for line in client.get("/metrics").text.splitlines() if "edge_quarantine_total{" in line]
    return {
        (line.split('reason="')[1].split('"')[0], line.split('outcome="')[1].split('"')[0]): count
        for line in lines
        if (count := float(line.split()[-1]))
    }


def test_a_rejected_callback_is_stored_as_it_arrived(client: EdgeClient, publisher: MemoryPublisher) -> None:
    before = time.time_ns() // 1_000_000
    body = encode_callback(good(token="wrong"), "json").body
    headers = {"Content-Type": "application/json", "X-Odd": "odd"}
    answer = client.post("/yida/tasks/complete?a=%20b&%C3%A9=1", content=body, headers=headers)
    assert answer.status_code == 401
    (callback,) = publisher.quarantined
    assert uuid.UUID(callback.quarantine_id).version == 4
    assert before <= callback.received_at <= time.time_ns() // 1_000_000
    assert (callback.action, callback.reason, callback.app_type) == ("complete", "wrong-sign", APP_TYPE)
    assert (callback.method, callback.path, callback.query) == ("POST", "/yida/tasks/complete", "a=%20b&%C3%A9=1")
    assert callback.headers["content-type"] == "application/json"
    assert callback.headers["x-odd"] == "odd"
    assert (callback.body, callback.remote_address) == (body, "testclient")


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantines, "MAX_PER_MINUTE", 3)


def test_every_plausible_rejection_is_stored(settings: EdgeSettings, publisher: MemoryPublisher) -> None:
    stored = 0
    with EdgeClient(create_app(settings, publisher=publisher)) as client:
        for bad in [*bad_requests(), *bad_messages()]:
            answer = client.request(bad.method, f"{bad.path}?{bad.query}", content=bad.body, headers=dict(bad.headers))
            stored += bad.method == "POST" and bool(bad.body or bad.query)
            assert (answer.status_code, len(publisher.quarantined)) == (bad.status, stored), bad.name
        assert sum(counted(client).values()) == stored


def test_bytes_that_are_no_utf_8_survive_the_record() -> None:
    registry = FakeRegistry()
    codec = quarantined_callback_codec(registry)
    callback = entry(headers={"x": "caf\xe9\xff"}, query=b"a=\xff\xe9", body=b"\xff\x00")
    stored = codec.decode(codec.encode(callback))
    registry.close()
    assert stored == callback
    assert (stored.query.encode("latin-1"), stored.body) == (b"a=\xff\xe9", b"\xff\x00")


def test_secrets_in_headers_are_masked(settings: EdgeSettings, publisher: MemoryPublisher) -> None:
    asking = settings.model_copy(update={"bearer_tokens": (SecretStr(BEARER),)})
    with EdgeClient(create_app(asking, publisher=publisher)) as client:
        headers = {"Authorization": f"Bearer {BEARER}", "Cookie": "session=s3cret", "Proxy-Authorization": "s3cret"}
        send(client, "complete", good(token="wrong"), headers=headers)
    (callback,) = publisher.quarantined
    assert "s3cret" not in repr(callback)
    assert (callback.headers["authorization"], callback.headers["cookie"]) == ("***", "***")


def test_a_request_without_its_bearer_token_stays_rejected_with_any_other_fault(
    settings: EdgeSettings, publisher: MemoryPublisher
) -> None:
    asking = settings.model_copy(update={"bearer_tokens": (SecretStr(BEARER),)})
    unlocated = signed(parameters_of("complete", instance_id="i") | {"appType": ""}, system_token=SYSTEM_TOKEN)
    with EdgeClient(create_app(asking, publisher=publisher)) as client:
        send(client, "complete", good())
        send(client, "complete", good(), headers={"Authorization": "Bearer *** "})
        send(client, "complete", unlocated)
        send(client, "complete", good(token="wrong"), headers={"Authorization": f"Bearer {BEARER}"})
    reasons: list[str] = []
    for callback in publisher.quarantined:
        # As if the body had been fixed since: only the bearer token is missing.
        fixed = replace(callback, body=encode_callback(good(), "json").body)
        try:
            judged(fixed)
            reasons.append("released")
        except Rejection as rejection:
            reasons.append(rejection.reason)
    assert [callback.reason for callback in publisher.quarantined] == [
        "no-bearer",
        "wrong-bearer",
        "no-app",
        "wrong-sign",
    ]
    assert reasons == ["no-bearer", "wrong-bearer", "no-bearer", "released"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("wire_action", ACTIONS)
def test_after_the_fault_is_fixed_it_becomes_the_event_it_would_have_been(
    settings: EdgeSettings, publisher: MemoryPublisher, wire_action: str, encoding: Encoding
) -> None:
    rotated = good(wire_action, token="rotated")
    with EdgeClient(create_app(settings, publisher=publisher)) as client:
        assert send(client, wire_action, rotated, encoding).status_code == 401
    (callback,) = publisher.quarantined
    registry = FakeRegistry()
    codec = quarantined_callback_codec(registry)
    stored = codec.decode(codec.encode(callback))
    registry.close()
    credentials = parse_credentials(f'[[apps]]\napp_type = "{APP_TYPE}"\nsystem_tokens = ["rotated"]')
    found = reconsider(stored, credentials=credentials, delete_extra_keys=(), window=MemoryWindow())
    assert (found.raw_parameters, found.received_at) == (rotated, callback.received_at)
    assert found.corp_id == CORP_ID


@pytest.mark.parametrize("reason", ["cross-action-replay", "altered-replay", "no-bearer", "wrong-bearer"])
def test_some_stay_rejected_though_their_signature_is_right(reason: str) -> None:
    assert judged(entry()).instance_id == "inst-1"
    with pytest.raises(Unverified) as caught:
        judged(entry(reason))
    assert caught.value.reason == reason


def kept_message(*, received_at: int, **signing: Any) -> QuarantinedCallback:
    sent = message("create", **signing)
    received = request(
        wire_action="create",
        path=f"/sources/{SOURCE}/tasks/create",
        received_at=received_at,
        headers={name.lower(): value for name, value in sent.headers.items()},
        body=sent.body,
    )
    return quarantined(received, Unverified("wrong-sign"), bearer_tokens=(BEARER,))


def judged_message(found: QuarantinedCallback, window: MemoryWindow | None = None) -> TaskEvent:
    credentials = parse_credentials(
        f'[[sources]]\nname = "{SOURCE}"\ncorp_id = "{CORP_ID}"\nsecrets = ["{SOURCE_SECRET}"]'
    )
    return reconsider(found, credentials=credentials, delete_extra_keys=(), window=window or MemoryWindow())


def test_whether_a_message_is_timely_counts_from_when_it_was_received() -> None:
    day_s = 24 * 60 * 60
    received_at = (int(time.time()) - day_s) * 1000
    event = judged_message(kept_message(received_at=received_at, ago_s=day_s))
    assert (event.instance_id, event.received_at) == (f"{SOURCE}:I-1", received_at)
    with pytest.raises(Unverified) as caught:
        judged_message(kept_message(received_at=received_at))
    assert caught.value.reason == "untimely"


def test_of_two_messages_with_one_id_the_one_that_was_received_first_is_let_in() -> None:
    now, window = int(time.time()) * 1000, MemoryWindow()
    first, second = (
        kept_message(received_at=now, data=message_of("create", instance_id=instance_id))
        for instance_id in ("I-1", "I-2")
    )
    judged_message(first, window)
    judged_message(first, window)
    with pytest.raises(Unverified) as caught:
        judged_message(second, window)
    assert caught.value.reason == "altered-replay"


def test_a_forged_one_stays_rejected() -> None:
    with pytest.raises(Unverified):
        judged(entry(parameters=good(token="forged")))
    with pytest.raises(Malformed):
        judged(entry(body=b"{"))


def test_a_copy_of_an_original_in_the_quarantine_stays_rejected() -> None:
    window = MemoryWindow()
    reconsider(entry(), credentials=TOKEN_IN_FORCE, delete_extra_keys=(), window=window)
    copy = replace(entry(), action="cancel")
    with pytest.raises(Unverified) as caught:
        reconsider(copy, credentials=TOKEN_IN_FORCE, delete_extra_keys=(), window=window)
    assert caught.value.reason == "cross-action-replay"


def fitting(first: str, second: str) -> tuple[dict[str, str], dict[str, str]]:
    """The parameters of a callback, and what a thief makes of them for another action: the values sign the same."""
    original = good(first)
    if first in ("create", "cc"):
        if second in ("create", "cc"):
            return original, original
        # The text of the task cut in pieces, so that some of them are what the other action needs.
        text, keys = original["dateTime"] + original["task"], dict[str, str]()
        needed = {"appType": APP_TYPE, "corpId": CORP_ID, "formInstId": "inst-1"}
        if second != "delete":
            needed["taskId"] = "2199132092"
        fillers = iter(("aa", "appTypez", "corpIdz", "formInstIdz"))
        for key, value in needed.items():
            before, _, text = text.partition(value)
            keys[next(fillers)] = before
            keys[key] = value
        return original, {**keys, "zz": text, "sign": original["sign"]}
    if second == "delete":
        # A complete without an actor: its instance and task in one make an instance of a delete.
        values = dict(parameters_of(first, instance_id="inst-1"))
        if first != "delete":
            values["actualWorkId"] = ""
        original = signed(values, system_token=SYSTEM_TOKEN)
        copy = {key: value for key, value in original.items() if key not in ("actualWorkId", "taskId")}
        return original, {**copy, "formInstId": original["formInstId"] + original.get("taskId", "")}
    return original, original


@pytest.mark.parametrize(("first", "second"), list(permutations(ACTIONS, 2)))
def test_one_signature_passes_at_one_action_only(
    settings: EdgeSettings, publisher: MemoryPublisher, first: str, second: str
) -> None:
    original, copy = fitting(first, second)
    extra = settings.model_copy(update={"delete_extra_keys": frozenset(copy)})
    with EdgeClient(create_app(extra, publisher=MemoryPublisher())) as client:
        alone = send(client, second, copy)
    new_folder = extra.model_copy(update={"data_dir": settings.data_dir / "new"})
    with EdgeClient(create_app(new_folder, publisher=publisher)) as client:
        assert send(client, first, original).status_code == 200
        refused = send(client, second, copy)
        assert send(client, first, original, "form").status_code == 200
    if alone.status_code == 200:
        assert refused.status_code == 401
        assert [callback.reason for callback in publisher.quarantined] == ["cross-action-replay"]
    else:
        # A create needs a task, and a complete needs a task id: the shape is in the way already.
        assert (alone.status_code, refused.status_code) == (400, 400)
        assert second == "create" or (first, second) in (("delete", "complete"), ("delete", "cancel"))
    assert [event.event_id for event in publisher.published] == [publisher.published[0].event_id] * 2


def test_the_window_survives_a_restart(settings: EdgeSettings, publisher: MemoryPublisher) -> None:
    with EdgeClient(create_app(settings, publisher=publisher)) as client:
        assert send(client, "complete", good()).status_code == 200
    with EdgeClient(create_app(settings, publisher=publisher)) as client:
        assert send(client, "cancel", good()).status_code == 401
        assert send(client, "complete", good()).status_code == 200


def test_a_callback_that_could_not_be_stored_may_come_again_and_its_copy_may_not(
    client: EdgeClient, publisher: MemoryPublisher
) -> None:
    publisher.away = "Kafka is away"
    assert send(client, "complete", good()).status_code == 503
    publisher.away = None
    assert send(client, "cancel", good()).status_code == 401
    assert send(client, "complete", good()).status_code == 200


@pytest.mark.usefixtures("tight")
def test_all_401_are_the_same_bytes_stored_or_not(settings: EdgeSettings, publisher: MemoryPublisher) -> None:
    with EdgeClient(create_app(settings, publisher=publisher)) as client:
        send(client, "complete", good())
        answers = [send(client, "cancel", good())]
        answers += [send(client, "complete", good(token="wrong")) for _ in range(4)]
        publisher.away = "Kafka is away"
        answers.append(send(client, "complete", good(token="wrong")))
        outcomes = {outcome for _, outcome in counted(client)}
    assert outcomes == {"kept", "suppressed"}
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    assert len({tuple(sorted(answer.headers.items())) for answer in answers}) == 1


def test_a_quarantine_that_fails_leaves_the_answer_as_it_is(
    settings: EdgeSettings, publisher: MemoryPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def break_down(*_: object) -> None:
        raise RuntimeError("not foreseen")

    with capture_logs() as lines, EdgeClient(create_app(settings, publisher=publisher)) as client:
        expected = send(client, "complete", good(token="wrong"))
        publisher.away = "Kafka is away"
        away = send(client, "complete", good(token="wrong"))
        publisher.away = None
        monkeypatch.setattr(MemoryPublisher, "quarantine", break_down)
        broken = send(client, "complete", good(token="wrong"))
        assert counted(client) == {("wrong-sign", "kept"): 1, ("wrong-sign", "failed"): 2}
    assert away.content == broken.content == expected.content
    assert [line["problem"] for line in lines if line["event"] == "quarantine_failed"] == [
        "Kafka is away",
        "not foreseen",
    ]


def test_a_quarantine_that_hangs_holds_the_answer_up_for_a_bounded_time(
    settings: EdgeSettings, publisher: MemoryPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(MemoryPublisher, "quarantine", hang)
    monkeypatch.setattr("taskbridge.edge.quarantine._SLACK_S", 0.1)
    hasty = settings.model_copy(update={"kafka_timeout_ms": 1})
    with EdgeClient(create_app(hasty, publisher=publisher)) as client:
        assert send(client, "complete", good(token="wrong")).status_code == 401


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ten_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantines, "MAX_PER_MINUTE", 10)


def quarantine_of(settings: EdgeSettings, publisher: MemoryPublisher, clock: Clock) -> Quarantine:
    bounded = settings.model_copy(update={"quarantine_max_bytes_per_day": 1 << 20})
    return Quarantine(bounded, publisher, Metrics().quarantine, clock=clock)


def flood(quarantine: Quarantine, address: str, times: int, **changed: Any) -> int:
    async def run() -> list[str | None]:
        received = request(remote_address=address, **changed)
        return [await quarantine.store(received, Unverified("wrong-sign")) for _ in range(times)]

    return sum(each is not None for each in asyncio.run(run()))


@pytest.mark.usefixtures("ten_a_minute")
def test_a_flood_from_one_address_is_bounded_and_others_still_get_in(
    settings: EdgeSettings, publisher: MemoryPublisher
) -> None:
    clock = Clock()
    quarantine = quarantine_of(settings, publisher, clock)
    assert flood(quarantine, "192.0.2.1", 1000) == 10
    assert flood(quarantine, "192.0.2.2", 5) == 5
    assert flood(quarantine, "2001:db8::1", 6) + flood(quarantine, "2001:db8::2", 6) == 10
    clock.now = 60.0
    assert flood(quarantine, "192.0.2.1", 1000) == 10


@pytest.mark.usefixtures("ten_a_minute")
def test_a_flood_from_everywhere_is_bounded(settings: EdgeSettings, publisher: MemoryPublisher) -> None:
    quarantine = quarantine_of(settings, publisher, Clock())
    assert sum(flood(quarantine, f"10.0.{each}.1", 5) for each in range(100)) == 100


def test_the_bytes_of_a_day_are_bounded_for_one_and_for_all(settings: EdgeSettings, publisher: MemoryPublisher) -> None:
    clock = Clock()
    quarantine = quarantine_of(settings, publisher, clock)
    body = b"x" * (64 << 10)
    for hour in range(25):
        clock.now = hour * 3600.0
        for address in range(20):
            flood(quarantine, f"192.0.2.{address}", 100, body=body)
    by_source: dict[str, int] = {}
    for callback in publisher.quarantined:
        by_source[callback.remote_address] = by_source.get(callback.remote_address, 0) + len(callback.body)
    assert sum(by_source.values()) <= 2 << 20
    assert max(by_source.values()) <= 2 << 18
    assert len(by_source) >= 4


def test_a_flood_costs_few_log_lines_and_is_counted_whole(settings: EdgeSettings, publisher: MemoryPublisher) -> None:
    with capture_logs() as lines, EdgeClient(create_app(settings, publisher=publisher)) as client:
        for _ in range(3 * LINES_PER_MINUTE):
            send(client, "complete", good(token="wrong"))
        assert counted(client) == {("wrong-sign", "kept"): 3 * LINES_PER_MINUTE}
    rejected = [line for line in lines if line["event"] == "callback_rejected"]
    assert LINES_PER_MINUTE <= len(rejected) < 2 * LINES_PER_MINUTE


@pytest.mark.usefixtures("tight")
def test_what_is_proven_is_stored_however_much_strangers_send(
    settings: EdgeSettings, publisher: MemoryPublisher
) -> None:
    misshapen = signed(parameters_of("complete", instance_id="i") | {"taskId": " "}, system_token=SYSTEM_TOKEN)
    with EdgeClient(create_app(settings, publisher=publisher)) as client:
        for _ in range(5):
            send(client, "complete", good(token="wrong"))
        assert send(client, "complete", misshapen).status_code == 400
        assert send(client, "complete", good()).status_code == 200
        assert send(client, "cancel", good()).status_code == 401
    # A copy is no proof: a person who saw a callback can send it, at another action, any number of times.
    assert [callback.reason for callback in publisher.quarantined] == ["wrong-sign"] * 3 + ["no-taskId"]


@pytest.mark.usefixtures("ten_a_minute")
def test_what_is_proven_is_bounded_too(settings: EdgeSettings, publisher: MemoryPublisher) -> None:
    quarantine = quarantine_of(settings, publisher, Clock())
    proven = Unverified("no-taskId")
    proven.proven = True

    async def run() -> int:
        return sum([await quarantine.store(request(), proven) is not None for _ in range(100)])

    assert asyncio.run(run()) == 10


@pytest.mark.parametrize("reason", ["too-large", "slow-body", "overloaded", "unknown-path"])
def test_what_was_stored_in_part_or_came_to_an_unknown_path_stays_rejected(reason: str) -> None:
    with pytest.raises(Rejection) as caught:
        judged(entry(reason, wire_action="unknown" if reason == "unknown-path" else "complete"))
    assert caught.value.reason == reason


def test_a_request_that_failed_for_our_fault_is_released_once_that_is_fixed() -> None:
    assert judged(entry("error")).instance_id == "inst-1"
