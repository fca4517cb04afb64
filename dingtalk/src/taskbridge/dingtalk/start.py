"""The forms of a corp's apps at Yida, with which people start requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.center.actions.systems import Away, StartForm
from taskbridge.dingtalk import wire
from taskbridge.dingtalk.api import YidaApi, start_url
from taskbridge.dingtalk.calls import Absent, Later, NotOffered
from taskbridge.dingtalk.organisation import OrganisationApi

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taskbridge.dingtalk.apps import App, Corp, Organisation
    from taskbridge.dingtalk.calls import Calls
    from taskbridge.runtime.clock import Clock

_FORMS_MOST = 500
"""Of an app."""


class YidaStart:
    """A ``Start``. ``organisation`` is None without a corp token: DingTalk then does not say what apps are called."""

    def __init__(
        self, apps: Sequence[App], organisation: Organisation | None, calls_of: Callable[[Corp], Calls], clock: Clock
    ) -> None:
        self._apps, self._organisation = {each.app_type: each for each in apps}, organisation
        self._calls_of, self._clock = calls_of, clock
        self.app_types = tuple(self._apps)

    async def forms(self, app_type: str) -> list[StartForm]:
        app = self._apps[app_type]
        try:
            found = await YidaApi(self._calls_of(app.corp), app, self._clock).startable(_FORMS_MOST)
        except Absent:
            return []
        except NotOffered:
            # Those that the apps file names: the topic of forms may have their titles.
            found = [wire.Form(each) for each in app.forms]
        except Later as error:
            raise Away(str(error)) from None
        return [_form(each, app) for each in found]

    async def names(self) -> dict[str, str]:
        if self._organisation is None:
            return {}
        try:
            apps = await OrganisationApi(self._calls_of(self._organisation.corp), self._organisation).applications()
        except (Absent, NotOffered):
            return {}
        except Later as error:
            raise Away(str(error)) from None
        return {each.app_type: each.name for each in apps if each.name}


def _form(form: wire.Form, app: App) -> StartForm:
    title = form.title or wire.FormTitle()
    return StartForm(form.form_uuid, title.in_chinese, title.in_english, start_url(form.form_uuid, app))
