"""DingTalk's API for all corps of the apps file, at one pace for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.dingtalk.api import YidaApi
from taskbridge.dingtalk.calls import Pace, calls_by_corp, open_http
from taskbridge.dingtalk.clock import Clock, SystemClock
from taskbridge.dingtalk.organisation import Agent, OrganisationApi

if TYPE_CHECKING:
    from taskbridge.dingtalk.apps import App, Organisation
    from taskbridge.dingtalk.calls import Allowed

CALL_S = 20.0
_CALLS_PER_SECOND = 10.0
"""Of one corp. DingTalk allows 20 for an app and an API."""


class DingTalk:
    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self._http = open_http(url, timeout_s=CALL_S, reuse=False)
        self._clock = clock or SystemClock()
        pace = Pace(_CALLS_PER_SECOND, self._clock)
        self._calls_of = calls_by_corp(self._http, pace, self._clock, attempts=2)

    def api(self, app: App, *, allowed: Allowed) -> YidaApi:
        return YidaApi(self._calls_of(app.corp), app, self._clock, allowed=allowed)

    async def agents(self, organisation: Organisation, user_id: str) -> list[Agent]:
        """Whom a person has act for them at Yida, and for whom they act; raises what ``Calls.get`` raises."""
        return await OrganisationApi(self._calls_of(organisation.corp), organisation).agents(user_id)

    async def close(self) -> None:
        await self._http.aclose()
