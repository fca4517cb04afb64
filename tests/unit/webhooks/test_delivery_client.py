"""One attempt: what is sent, and what each answer means."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from taskbridge.runtime.guard import Guard
from taskbridge.runtime.standard_webhooks import new_secret
from taskbridge.webhooks import delivery_client as module
from taskbridge.webhooks.delivery_client import DeliveryClient
from unit.webhooks.receivers import LOOPBACK, SECRET, Receiver, attempts, delivery_of, endpoint_of, serving

if TYPE_CHECKING:
    from pathlib import Path


def test_a_notification_is_a_signed_cloud_event(tmp_path: Path) -> None:
    receiver = Receiver()

    [result] = attempts(tmp_path, receiver)

    assert result.delivered
    [request] = receiver.got
    event = Webhook(SECRET).verify(request.body, request.headers)
    assert event == json.loads(request.body)
    assert event["specversion"] == "1.0"
    assert event["type"] == "taskbridge.notification.added.v1"
    assert event["id"] == event["data"]["notification_id"] == request.headers["webhook-id"]
    assert request.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert event["data"]["view"] == "pending"


def test_each_secret_that_is_rotated_signs(tmp_path: Path) -> None:
    old, new, receiver = new_secret(), new_secret(), Receiver()

    attempts(tmp_path, receiver, lines=(f'secrets = ["{old}", "{new}"]', 'format = "notification"'))

    [request] = receiver.got
    for secret in (old, new):
        Webhook(secret).verify(request.body, request.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(request.body, request.headers)


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_every_2xx_is_delivered(tmp_path: Path, status: int) -> None:
    [result] = attempts(tmp_path, Receiver(status=status))
    assert result.delivered
    assert result.status == status


@pytest.mark.parametrize("status", [301, 400, 401, 404, 422, 429, 500, 503])
def test_everything_else_is_tried_again(tmp_path: Path, status: int) -> None:
    [result] = attempts(tmp_path, Receiver(status=status))
    assert not result.delivered
    assert result.problem == f"{status} said so"
    assert result.retry_in_ms is not None
    assert 5_000 <= result.retry_in_ms <= 5_500
    assert result.disable is None


def test_after_the_tenth_failure_it_is_given_up(tmp_path: Path) -> None:
    [ninth] = attempts(tmp_path, Receiver(status=500), failed_before=8)
    assert ninth.retry_in_ms is not None
    assert ninth.retry_in_ms >= 24 * 3_600_000
    [tenth] = attempts(tmp_path, Receiver(status=500), failed_before=9)
    assert tenth.retry_in_ms is None


def test_it_waits_as_long_as_the_receiver_requests(tmp_path: Path) -> None:
    [seconds] = attempts(tmp_path, Receiver(status=429, headers={"retry-after": "120"}))
    assert seconds.retry_in_ms == 120_000
    later = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    shown = later.strftime("%a, %d %b %Y %H:%M:%S GMT")
    [date] = attempts(tmp_path, Receiver(status=503, headers={"retry-after": shown}))
    assert date.retry_in_ms is not None
    assert 3_590_000 <= date.retry_in_ms <= 3_600_000


def test_gone_disables_the_endpoint(tmp_path: Path) -> None:
    [result] = attempts(tmp_path, Receiver(status=410))
    assert result.disable == "it answered 410 Gone"
    assert result.retry_in_ms == 24 * 3_600_000, "at once, it would be sent until the endpoint is known to be disabled"


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    receiver = Receiver(status=302, headers={"location": "/elsewhere"})

    [result] = attempts(tmp_path, receiver)

    assert result.status == 302
    assert [each.path for each in receiver.got] == ["/hook"]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/hook",
        "http://localhost:{port}/hook",
        "http://2130706433:{port}/hook",
        "http://[::1]/",
        # Names that IDNA makes addresses: full-width digits, ideographic full stops, circled digits.
        "http://１２７.０.０.１:{port}/hook",  # noqa: RUF001 - it looks like them
        "http://127。0。0。1:{port}/hook",
        "http://①②⑦.⓪.⓪.①:{port}/hook",
    ],
)
def test_this_machine_is_refused_by_any_name(tmp_path: Path, url: str) -> None:
    receiver = Receiver()

    [result] = attempts(tmp_path, receiver, url=url, allowed=())

    assert "not a public address" in result.problem or "not a canonical IPv4 address" in result.problem
    assert receiver.got == []


def test_of_several_addresses_each_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver, resolve = Receiver(), socket.getaddrinfo

    def addresses(_host: str, port: int, *more: int, **options: int) -> list[Any]:
        return [each for host in ("127.0.0.1", "::1") for each in resolve(host, port, *more, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", addresses)

    [refused] = attempts(tmp_path, receiver, url="http://receiver.example:{port}/hook", allowed=())
    [accepted] = attempts(tmp_path, Receiver(), url="http://receiver.example:{port}/hook")

    assert refused.problem.count("is not a public address") == 2
    assert receiver.got == []
    assert accepted.delivered, "the other address is refused, this one is not"


def test_a_name_that_hangs_delays_its_own_endpoint_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve, over, hanging = socket.getaddrinfo, threading.Event(), threading.Semaphore(0)

    def addresses(host: str, *more: Any, **options: Any) -> Any:
        if host == "hangs.example":
            hanging.release()
            over.wait()
        return resolve("127.0.0.1", *more, **options)

    async def nobody(*_: str) -> None: ...

    async def run() -> None:
        async with serving(Receiver()) as port:
            stuck, well = (
                DeliveryClient(
                    endpoint_of(tmp_path, f"http://{host}:{port}/", "in_flight = 100"), Guard(LOOPBACK), nobody
                )
                for host in ("hangs.example", "well.example")
            )
            waiting = [asyncio.create_task(stuck.attempt(delivery_of(stuck.endpoint))) for _ in range(100)]
            await asyncio.to_thread(hanging.acquire)
            found = await well.attempt(delivery_of(well.endpoint))
            over.set()
            assert found.delivered, found.problem
            assert all(each.delivered for each in await asyncio.gather(*waiting))
            for each in (stuck, well):
                await each.close()

    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    try:
        asyncio.run(run())
    finally:
        over.set()


@pytest.mark.parametrize("count", [3, None])
def test_informational_answers_come_to_an_end(tmp_path: Path, count: int | None) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        for _ in range(count or 1_000_000):
            if transport.is_closing():
                break
            transport.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * (1 if count else 1000))  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        return web.Response(status=204)

    [result] = attempts(tmp_path, Receiver(answer))

    assert result.delivered is (count is not None), result.problem
    assert count or "more than 16 informational answers" in result.problem


def test_of_an_endless_answer_only_the_beginning_is_read(tmp_path: Path) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=500)
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    [result] = attempts(tmp_path, Receiver(endless))

    assert result.status == 500
    assert len(result.problem) < 1000


def test_an_answer_that_does_not_come_in_time_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ATTEMPT_S", 0.05)

    async def silent(_request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    [result] = attempts(tmp_path, Receiver(silent))

    assert not result.delivered
    assert "no answer within" in result.problem


def test_half_an_answer_is_a_failure(tmp_path: Path) -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=200, headers={"content-length": "100"})
        await response.prepare(request)
        await response.write(b"x")
        assert request.transport is not None
        request.transport.close()
        return response

    [result] = attempts(tmp_path, Receiver(half))

    assert not result.delivered
    assert "ClientPayloadError" in result.problem


async def test_an_attempt_without_a_thread_to_resolve_the_name_delays_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, refusals = threading.Thread.start, ["can't start new thread"]

    def begin(thread: threading.Thread) -> None:
        if thread.name.startswith("resolve") and refusals:
            raise RuntimeError(refusals.pop())
        start(thread)

    async def nobody(*_: str) -> None: ...

    monkeypatch.setattr(threading.Thread, "start", begin)
    async with serving(Receiver()) as port:
        sender = DeliveryClient(endpoint_of(tmp_path, f"http://localhost:{port}/"), Guard(LOOPBACK), nobody)
        first, second = [await sender.attempt(delivery_of(sender.endpoint)) for _ in range(2)]
        await sender.close()
    assert "can't start new thread" in first.problem
    assert second.delivered, second.problem


def test_a_receiver_that_does_not_listen_is_named(tmp_path: Path) -> None:
    [result] = attempts(tmp_path, Receiver(), url="https://127.0.0.1:1/hook")
    assert result.problem.startswith("cannot connect to 127.0.0.1:1: ")
    assert "SSLContext" not in result.problem


@pytest.mark.parametrize("answer", ["echo", "nonsense", "no port"])
def test_no_problem_repeats_the_token_in_an_address(tmp_path: Path, answer: str) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        if answer == "echo":
            return web.Response(status=404, text=f"Cannot POST {request.path_qs}; {request.query}")
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 nonsense\r\n\r\n")  # type: ignore[attr-defined]
        return web.Response()

    port = "99999" if answer == "no port" else "{port}"
    token, path = "t%2Fk-5f0c9a", "b7c1d2e3f4a5b6c7d8"
    url = f"http://127.0.0.1:{port}/hook/{path}?access_token={token}&v=1"

    [result] = attempts(tmp_path, Receiver(handle), url=url)

    assert not result.delivered
    assert result.problem
    for secret in (token, "t/k-5f0c9a", path):
        assert secret not in result.problem


def test_a_certificate_of_somebody_else_is_refused_in_words(tmp_path: Path) -> None:
    served, trusted = trustme.CA(), trustme.CA()
    trusted.cert_pem.write_to_path(tmp_path / "ca.pem")
    receiver = Receiver()

    [result] = attempts(
        tmp_path, receiver, url="https://127.0.0.1:{port}/hook", tls=tls_of(served), lines=('ca_file = "ca.pem"',)
    )

    assert "its TLS certificate is not accepted" in result.problem
    assert receiver.got == []


def tls_of(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context
