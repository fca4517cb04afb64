"""The forms of a corp's apps at Yida, with which people start requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from taskbridge.center.actions.systems import StartForm
from taskbridge.dingtalk import wire
from taskbridge.dingtalk.api import YidaApi, start_url
from taskbridge.dingtalk.calls import Absent
from taskbridge.dingtalk.daily import passing
from taskbridge.dingtalk.organisation import OrganisationApi
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from taskbridge.dingtalk.apps import App, Corp, Organisation
    from taskbridge.dingtalk.calls import Calls
    from taskbridge.runtime.clock import Clock

    CallsOf = Callable[[Corp], Calls]

T = TypeVar("T")

_FORMS_MOST = 500
"""Of an app."""


class YidaStart:
    """A ``Start``. ``organisation`` is None without a corp token: DingTalk then does not say what apps are called."""

    def __init__(
        self,
        apps: Sequence[App],
        organisation: Organisation | None,
        calls_of: CallsOf,
        calls_again_of: CallsOf,
        clock: Clock,
    ) -> None:
        self._apps, self._organisation = {each.app_type: each for each in apps}, organisation
        self._calls_of, self._clock = {False: calls_of, True: calls_again_of}, clock
        self.app_types = tuple(self._apps)

    @property
    def has_names(self) -> bool:
        return self._organisation is not None

    async def forms(self, app_type: str, *, again: bool = False) -> tuple[list[StartForm], bool]:
        app = self._apps[app_type]
        api = YidaApi(self._calls_of[again](app.corp), app, self._clock)
        found, are_all = await _answered(api.startable(_FORMS_MOST))
        return [_form(each, app) for each in found], are_all

    def named(self, app_type: str) -> list[StartForm]:
        app = self._apps[app_type]
        # The topic of forms may have their titles.
        return [_form(wire.Form(each), app) for each in app.forms]

    async def names(self, *, again: bool = False) -> dict[str, str]:
        if self._organisation is None:
            return {}
        api = OrganisationApi(self._calls_of[again](self._organisation.corp), self._organisation)
        return {each.app_type: each.name for each in await _answered(api.applications()) if each.name}


async def _answered(call: Awaitable[T]) -> T:
    try:
        with passing():
            return await call
    except Absent as error:
        raise OperatorError(str(error)) from None


def _form(form: wire.Form, app: App) -> StartForm:
    title = form.title or wire.FormTitle()
    return StartForm(form.form_uuid, title.in_chinese, title.in_english, start_url(form.form_uuid, app))
