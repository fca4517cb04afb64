"""What the task center needs to know of DingTalk, next to its own settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from taskbridge.center.settings import CenterSettings
from taskbridge.runtime.settings import FileOrNone, TextOrNone, Url  # noqa: TC001 - pydantic reads them

DINGTALK_API = "https://api.dingtalk.com"


class DingTalkSettings(CenterSettings):
    """Each field is the environment variable ``CENTER_`` and its name in capitals; the reference has its text."""

    dingtalk_client_id: TextOrNone = None
    """Client id (AppKey) of an internal app at DingTalk where people sign in, instead of an OpenID Connect provider.
    Requires `CENTER_DINGTALK_CLIENT_SECRET_FILE`, `CENTER_PUBLIC_URL` and `CENTER_CORP_ID`: only members of this
    organisation may sign in."""
    dingtalk_client_secret_file: FileOrNone = None
    """File with the app's secret. Read at each sign-in."""
    dingtalk_api_url: Url = DINGTALK_API
    """URL of DingTalk's API. Any other than the default also serves the sign-in page and the older API."""
    apps_file: FileOrNone = None
    """File with the apps whose tasks people may decide in the task center, and their corps' credentials for DingTalk's
    API: the same as `RECONCILE_APPS_FILE`. Changes are loaded without a restart."""
    form_calls_per_day: Annotated[int, Field(ge=0)] = 500
    """Calls of DingTalk's API that may be made in a day for an organisation, to show forms as they are now and
    the steps to come: up to four for each request that somebody opens. 0 turns it off. Decisions are not limited."""
