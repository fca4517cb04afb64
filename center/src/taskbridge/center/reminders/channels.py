"""Sends messages by SMTP, to robots of DingTalk groups, webhooks and devices, and as work notifications: it blocks.

DingTalk's signature and fields are those of its page on custom robots
(https://open.dingtalk.com/document/orgapp/custom-robot-access): at most 20 messages a minute, and a refusal has status
200 with an ``errcode``.
"""

from __future__ import annotations

import base64
import hmac
import smtplib
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, localtime
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote_plus, urlsplit

import httpx2

from taskbridge.center.reminders.file import Channel, Email, Push, Reminders, Robot, Webhook, Work
from taskbridge.center.reminders.messages import Message, Notice, event, group_text, mail, notice, push
from taskbridge.center.reminders.web_push import encrypted
from taskbridge.runtime.bounded_http import UNSENT_ERRORS, BoundedClient, GuardedTransport
from taskbridge.runtime.guard import AddressRefused, Guard
from taskbridge.runtime.standard_webhooks import key_of, signed_headers
from taskbridge.runtime.tokens import ALL_CORPS
from taskbridge.schemas.json_forms import to_json

if TYPE_CHECKING:
    from collections.abc import Generator

    from taskbridge.center.reminders.web_push import Device


ANSWER_S = 10.0
_SILENT_MS, _SILENT_MAX = 10 * 60_000, 4096
_PROBLEM_CHARACTERS = 200


class NotSent(Exception):
    """Why a message was not sent. No secret is in it."""

    def __init__(self, problem: str, *, channel_fails: bool = True, is_final: bool = False) -> None:
        """``channel_fails``: it is not about this message, so that another one would not be sent either.

        ``is_final``: it may have been received, and is not sent again.
        """
        super().__init__(" ".join(problem.split())[:_PROBLEM_CHARACTERS])
        self.channel_fails, self.is_final = channel_fails, is_final


Send = Callable[[Message], None]
"""Sends one message; raises NotSent."""


class Outside(NamedTuple):
    """What channels need of others: each blocks."""

    forget: Callable[[Device], object]
    """A device that a push service does not know any more."""
    notify: Callable[[Notice], None]
    """Sends a work notification; raises NotSent."""
    silent: dict[str, int]
    """Endpoints of devices that did not answer, and until when they are not called: they would hold up all channels."""


@contextmanager
def opened(channel: Channel, reminders: Reminders, url: str | None, outside: Outside) -> Generator[Send]:
    """A connection for several messages, which name this URL of the task center. Raises NotSent."""
    if isinstance(channel, Email):
        with _smtp(channel, reminders) as server:
            yield partial(_send_mail, server, channel, reminders, url)
        return
    if isinstance(channel, Push):
        guard = Guard(channel.allowed_networks, setting="allowed_networks of [push]")
        with BoundedClient(timeout_s=ANSWER_S, transport=GuardedTransport(guard), trust_env=False) as client:
            yield _Pushing(client, channel, reminders, outside).send
        return
    if isinstance(channel, Work):
        yield partial(_send_work, reminders, url, outside)
        return
    with BoundedClient(timeout_s=ANSWER_S) as client:
        if isinstance(channel, Robot):
            yield partial(_send_to_robot, client, channel, reminders, url)
        else:
            yield partial(_send_to_webhook, client, channel)


@contextmanager
def _smtp(channel: Email, reminders: Reminders) -> Generator[smtplib.SMTP]:
    try:
        if channel.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(channel.host, channel.port, timeout=ANSWER_S, context=reminders.tls)
        else:
            server = smtplib.SMTP(channel.host, channel.port, timeout=ANSWER_S)
    except (OSError, smtplib.SMTPException) as error:
        raise NotSent(f"cannot connect to {channel.host}:{channel.port}: {error}") from error
    try:
        try:
            if channel.security == "starttls":
                server.starttls(context=reminders.tls)
            if channel.user is not None and channel.password is not None:
                server.login(channel.user, channel.password.get_secret_value())
        except (OSError, smtplib.SMTPException) as error:
            raise NotSent(f"{channel.host}: {_said(error)}") from error
        yield server
        with suppress(OSError, smtplib.SMTPException):  # what it accepted, it has
            server.quit()
    finally:
        server.close()


def _send_mail(server: smtplib.SMTP, channel: Email, reminders: Reminders, url: str | None, message: Message) -> None:
    subject, text = mail(message, reminders.language, url)
    try:
        found = EmailMessage()
        found["From"] = Address(addr_spec=channel.sender)
        found["To"] = Address(addr_spec=message.address or "")
        found["Subject"] = subject
        found["Date"] = format_datetime(localtime())
        found["Message-ID"] = f"<{message.message_id}@{channel.sender.rpartition('@')[2]}>"
        found["Auto-Submitted"] = "auto-generated"
        found.set_content(text)
    except (ValueError, IndexError, MessageError) as error:
        raise NotSent("the person's address is not valid", channel_fails=False) from error
    try:
        server.send_message(found)
    except (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError, smtplib.SMTPNotSupportedError) as error:
        raise NotSent(f"{channel.host}: {_said(error)}", channel_fails=False) from error
    except (OSError, smtplib.SMTPException) as error:
        raise NotSent(f"{channel.host}: {_said(error)}") from error


def _send_to_robot(
    client: BoundedClient, channel: Robot, reminders: Reminders, url: str | None, message: Message
) -> None:
    address = channel.url.get_secret_value()
    if channel.secret is not None:
        timestamp = str(time.time_ns() // 1_000_000)
        sign = quote_plus(robot_signature(timestamp, channel.secret.get_secret_value()))
        address += f"&timestamp={timestamp}&sign={sign}"
    text = group_text(message, reminders.language, url)
    body = {
        "msgtype": "text",
        "text": {"content": text},
        "at": {"atUserIds": [each.user_id for each in message.lines], "isAtAll": False},
    }
    answer = _post(client, address, to_json(body), {})
    try:
        code, said = answer.json()["errcode"], answer.json().get("errmsg")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NotSent("the robot's answer is not DingTalk's") from error
    if code != 0:
        raise NotSent(f"DingTalk refused: {said} ({code})")


def robot_signature(timestamp: str, secret: str) -> str:
    """Of a request at this time, which is milliseconds."""
    return base64.b64encode(hmac.digest(secret.encode(), f"{timestamp}\n{secret}".encode(), "sha256")).decode()


def _send_to_webhook(client: BoundedClient, channel: Webhook, message: Message) -> None:
    body, timestamp = to_json(event(message)), str(int(time.time()))
    keys = [key_of(channel.secret.get_secret_value())]
    _post(client, channel.url, body, signed_headers(message.message_id, timestamp, body, keys=keys))


class _Pushing:
    """Web Push to the devices of people: to those of a person side by side."""

    def __init__(self, client: BoundedClient, channel: Push, reminders: Reminders, outside: Outside) -> None:
        self._client, self._channel, self._reminders, self._outside = client, channel, reminders, outside
        self._silent: set[str] = set()
        """Hosts that did not answer while this client is open."""

    def send(self, message: Message) -> None:
        """To all devices of a person. If one has it, or none is left, it is sent."""
        titles, problems, is_sent, is_unclear = self._channel.titles, list[str](), False, False
        titled = ALL_CORPS in titles or message.corp_id in titles
        content = to_json(push(message, self._reminders.language, titled=titled))
        called = [each for each in message.devices if not self._is_silent(each, message.at)]
        skipped = {_host(each) for each in message.devices if each not in called}
        problems += [f"{host}: it did not answer before" for host in sorted(skipped)]
        calls = [self._call(each, message, content) for each in called]
        for device, answer in zip(called, self._client.post_all(calls), strict=True):
            host = _host(device)
            if isinstance(answer, BaseException):
                problem, is_final = _no_answer(answer)
                if not isinstance(answer, AddressRefused):
                    self._add_silent(device, message.at)
                is_unclear |= is_final
                problems.append(f"{host}: {problem}")
            elif answer.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
                self._outside.forget(device)
            elif answer.is_success:
                is_sent = True
            else:
                problems.append(f"{host}: it answered {answer.status_code}")
        if problems and not is_sent:
            raise NotSent("; ".join(problems), channel_fails=False, is_final=is_unclear)

    def _call(self, device: Device, message: Message, content: bytes) -> tuple[str, dict[str, Any]]:
        key = self._reminders.push_key
        assert key is not None
        headers = {**key.headers(device.endpoint), "topic": message.message_id}
        return device.endpoint, {"content": encrypted(content, device), "headers": headers}

    def _is_silent(self, device: Device, now: int) -> bool:
        return _host(device) in self._silent or self._outside.silent.get(device.endpoint, 0) > now

    def _add_silent(self, device: Device, now: int) -> None:
        self._silent.add(_host(device))
        known = self._outside.silent
        if len(known) >= _SILENT_MAX:
            known.clear()
        known[device.endpoint] = now + _SILENT_MS


def _host(device: Device) -> str:
    return urlsplit(device.endpoint).netloc


def _no_answer(error: BaseException) -> tuple[str, bool]:
    """The problem, and whether the other side may have the message."""
    if isinstance(error, AddressRefused):
        return str(error), False
    if isinstance(error, UNSENT_ERRORS):
        return "cannot connect", False
    if not isinstance(error, (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError)):
        raise error
    # Its text may repeat the address, by which anybody may send.
    return f"no answer: {type(error).__name__}", isinstance(error, httpx2.HTTPError)


def _send_work(reminders: Reminders, url: str | None, outside: Outside, message: Message) -> None:
    clock = f"{reminders.due.working_time.local(message.at):%m-%d %H:%M}"
    try:
        outside.notify(notice(message, reminders.language, url, clock))
    except NotSent as error:
        # Each organisation has an application and a budget of its own.
        error.channel_fails = False
        raise


def _post(client: BoundedClient, url: str, body: bytes, headers: dict[str, str]) -> httpx2.Response:
    try:
        answer = client.post(url, content=body, headers={"content-type": "application/json", **headers})
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        # Its text may repeat the address, which has the robot's token.
        raise NotSent(f"no answer: {type(error).__name__}") from error
    if not answer.is_success:
        raise NotSent(f"it answered {answer.status_code}")
    return answer


def _said(error: Exception) -> str:
    """What the server said. Of a refused login it repeats no password."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code, said = next(iter(error.recipients.values()))
        return f"{code} {said.decode('utf-8', 'replace')}"
    said = getattr(error, "smtp_error", None)
    if isinstance(said, bytes):
        return f"{getattr(error, 'smtp_code', '')} {said.decode('utf-8', 'replace')}"
    return f"{type(error).__name__}: {error}"
