"""Push messages on this device: what a browser subscribes with, and what it says of its subscription."""

# pyright: reportUnusedFunction=false

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.responses import Response

from taskbridge.center.access.refusals import TooManyQueries
from taskbridge.center.api import models
from taskbridge.center.api.guard import Known, guarded_router
from taskbridge.center.api.routes import JsonAnswer
from taskbridge.center.reminders.file import PUSH
from taskbridge.center.reminders.web_push import Device, check_keys
from taskbridge.runtime.access import on_loopback
from taskbridge.runtime.rates import Rate
from taskbridge.runtime.refusals import BadQuery, Forbidden
from taskbridge.runtime.tokens import ALL_CORPS

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import APIRouter

    from taskbridge.center.access.access import Access, Caller
    from taskbridge.center.access.sessions import Session
    from taskbridge.center.reminders.devices import Devices
    from taskbridge.center.reminders.file import Reminders
    from taskbridge.runtime.database import Threads

_CHANGES, _HOUR_S = 60, 3600.0
"""Of a person: a page says it each time that it is loaded."""
_TOO_MANY = partial(TooManyQueries, "push messages were turned on and off too often: try again later", retry_after_s=60)


def push_router(access: Access, devices: Devices, threads: Threads, reminders: Callable[[], Reminders]) -> APIRouter:
    """``/v1/me/push``."""
    router = guarded_router(access, "task center")
    changes = Rate(_CHANGES, per_s=_HOUR_S)

    def key_for(caller: Caller) -> str | None:
        current = reminders()
        channel, key = current.channels.get(PUSH), current.push_key
        if caller.session is None or channel is None or key is None:
            return None
        return key.public if channel.corps & {ALL_CORPS, caller.session.corp_id} else None

    def session_of(caller: Caller) -> Session:
        if caller.session is None:
            raise Forbidden("only people who signed in here get push messages: they end with the session")
        changes.check(caller.rate_key, _TOO_MANY)
        return caller.session

    @router.get("/me/push", summary="Key for push messages", response_model=models.PushOut)
    async def key(caller: Known) -> Response:
        """`key` is the organisation's public key; null where there are none for the caller."""
        return JsonAnswer({"key": key_for(caller)})

    @router.put("/me/push", summary="Get push messages on this device", status_code=204)
    async def turn_on(caller: Known, body: models.PushIn) -> Response:
        """Instead of what the session had. It ends with the session, and when the push service says so."""
        session = session_of(caller)
        if key_for(caller) is None:
            raise Forbidden("the organisation has no push messages")
        device = Device(session.token_sha256, body.endpoint, body.p256dh, body.auth)
        _check(device)
        await threads.write(devices.put, (session.corp_id, session.user_id), device)
        return Response(status_code=204)

    @router.delete("/me/push", summary="Get no push messages on this device", status_code=204)
    async def turn_off(caller: Known) -> Response:
        session = session_of(caller)
        await threads.write(devices.remove, session.token_sha256)
        return Response(status_code=204)

    return router


def _check(device: Device) -> None:
    """The address is looked at again when it is called: see ``GuardedTransport``."""
    try:
        parts = urlsplit(device.endpoint)
        host, _ = parts.hostname, parts.port
        check_keys(device.p256dh, device.auth)
    except ValueError as error:
        raise BadQuery("the browser's subscription is not valid") from error
    is_plain = device.endpoint.isascii() and device.endpoint.isprintable() and "@" not in parts.netloc
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and on_loopback(host or ""))
    if not host or not is_plain or not is_safe:
        raise BadQuery("the endpoint must be an https address")
