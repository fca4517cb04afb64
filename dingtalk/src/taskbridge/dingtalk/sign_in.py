"""Signing in by DingTalk: its own shape of OAuth 2 in a browser, and the authorization code of a page inside DingTalk.

It is a provider of the group ``taskbridge.sign_in``.
Yida's user ids are DingTalk's, so nobody needs to be imported. Paths and fields are those of the vendor's SDK
(``alibabacloud-dingtalk`` 2.2.65) and of its older API, which alone knows user ids.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import httpx2
import structlog

from taskbridge.center.access.providers import ANSWER_S, CALLBACK, Page, Provider, SignedIn, checked_url, read_secret
from taskbridge.center.access.refusals import ProviderUnavailable, SignInRefused
from taskbridge.center.access.sessions import SignIn
from taskbridge.dingtalk.settings import DINGTALK_API, DingTalkSettings
from taskbridge.dingtalk.wire import TOKEN_HEADER, token_request
from taskbridge.runtime.bounded_http import open_http
from taskbridge.runtime.settings import masked
from taskbridge.runtime.tokens import new_token
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.center.access.sso import UsersOf
    from taskbridge.center.settings import CenterSettings

_INSIDE = "DingTalk"
"""In the user agent of a page inside DingTalk."""
_LIBRARY = "https://g.alicdn.com/dingding/dingtalk-jsapi/3.0.25/dingtalk.open.js"
_INTERNAL = 0
"""``contact_type`` of a member of the organisation; others are contacts from outside."""
_LOGIN, _OLD_API = "https://login.dingtalk.com", "https://oapi.dingtalk.com"

log = structlog.get_logger(__name__)


class DingTalk(Provider):
    """One organisation's app at DingTalk."""

    @classmethod
    def of(cls, settings: CenterSettings, users_of: UsersOf) -> DingTalk | None:  # noqa: ARG003 - as of all providers
        """None without a client id. Raises ConfigurationError if the settings are incomplete or unsafe."""
        if not isinstance(settings, DingTalkSettings) or settings.dingtalk_client_id is None:
            return None
        return cls(settings)

    def __init__(self, settings: DingTalkSettings) -> None:
        client_id, corp_id, public_url = settings.dingtalk_client_id, settings.corp_id, settings.public_url
        secret = settings.dingtalk_client_secret_file
        if client_id is None or corp_id is None or secret is None or public_url is None:
            raise ConfigurationError(
                "CENTER_DINGTALK_CLIENT_ID: set CENTER_DINGTALK_CLIENT_SECRET_FILE, CENTER_CORP_ID and"
                " CENTER_PUBLIC_URL too"
            )
        self.client_id, self.corp_id, self._secret_file = client_id, corp_id, secret
        self._public_url = checked_url("CENTER_PUBLIC_URL", public_url)
        self._api = checked_url("CENTER_DINGTALK_API_URL", settings.dingtalk_api_url)
        is_own = self._api == DINGTALK_API
        # The older API alone knows user ids.
        self._login, self._old_api = (_LOGIN, _OLD_API) if is_own else (self._api, self._api)

    async def authorize(self, return_to: str) -> tuple[str, str, SignIn]:
        state = new_token()
        query = {
            "redirect_uri": self._public_url + CALLBACK,
            "response_type": "code",
            "client_id": self.client_id,
            "scope": "openid corpid",
            "corpId": self.corp_id,
            "state": state,
            "prompt": "consent",
        }
        return f"{self._login}/oauth2/auth?{urlencode(query)}", state, SignIn("", "", return_to)

    def page(self, user_agent: str, state: str, return_to: str) -> Page | None:
        """Inside DingTalk: a page whose script requests the code from the DingTalk around it."""
        if _INSIDE not in user_agent:
            return None
        data = {"corp": self.corp_id, "client": self.client_id, "state": state, "return": return_to}
        attributes = " ".join(f'data-{name}="{html.escape(value)}"' for name, value in data.items())
        return Page(attributes, Path(__file__).with_suffix(".js").read_text("utf-8"), _LIBRARY)

    async def redeem(self, answer: Mapping[str, str], sign_in: SignIn) -> SignedIn:  # noqa: ARG002 - as of all providers
        """``authCode`` is a browser's, ``code`` that of a page inside DingTalk."""
        try:
            async with open_http("", timeout_s=ANSWER_S) as client:
                if "authCode" in answer:
                    user_id = await self._user_of_browser(client, answer["authCode"])
                elif "code" in answer:
                    user_id = (await self._old(client, "/topapi/v2/user/getuserinfo", code=answer["code"]))["userid"]
                else:
                    raise SignInRefused(f"DingTalk refused: {answer.get('error', 'it sent no code')}")
        except (httpx2.HTTPError, OSError) as error:
            log.warning("identity_provider_unavailable", problem=str(error) or type(error).__name__)
            raise ProviderUnavailable("DingTalk does not answer: try again later") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            log.warning("sign_in_refused", problem=repr(error))
            raise SignInRefused("DingTalk's answer is not valid") from error
        return SignedIn((self.corp_id, str(user_id)))

    async def sign_out_url(self) -> str:
        return f"{self._public_url}/"

    async def _user_of_browser(self, client: httpx2.AsyncClient, code: str) -> Any:
        """The organisation's user who consented. Anybody may consent; others have no user here."""
        own = {"clientId": self.client_id, "clientSecret": self._secret()}
        given = {**own, "code": code, "grantType": "authorization_code"}
        token = await self._new(client, "POST", "/v1.0/oauth2/userAccessToken", json=given)
        if token.get("corpId", self.corp_id) != self.corp_id:
            raise SignInRefused("you chose another organisation at DingTalk")
        headers = {TOKEN_HEADER: str(token["accessToken"])}
        me = await self._new(client, "GET", "/v1.0/contact/users/me", headers=headers)
        user = await self._old(client, "/topapi/user/getbyunionid", unionid=me["unionId"])
        if user.get("contact_type", _INTERNAL) != _INTERNAL:
            raise SignInRefused("you are not a member of the organisation at DingTalk")
        return user["userid"]

    async def _old(self, client: httpx2.AsyncClient, path: str, **given: Any) -> dict[str, Any]:
        """A call of the older API, by a token of the app."""
        token_path, body = token_request(self.corp_id, self.client_id, self._secret())
        token = await self._new(client, "POST", token_path, json=body)
        query = {"access_token": str(token["access_token"])}
        answer = await client.post(self._old_api + path, params=query, json=given)
        found = answer.raise_for_status().json()
        if found["errcode"] != 0:
            raise SignInRefused(f"DingTalk refused: {found.get('errmsg')} ({found['errcode']})")
        return found["result"]

    async def _new(self, client: httpx2.AsyncClient, method: str, path: str, **given: Any) -> dict[str, Any]:
        answer = await client.request(method, self._api + path, **given)
        if answer.is_client_error:
            found = answer.json()
            message = masked(str(found.get("message")), [self._secret()])
            raise SignInRefused(f"DingTalk refused: {message} ({found.get('code')})")
        return answer.raise_for_status().json()

    def _secret(self) -> str:
        return read_secret(self._secret_file, "CENTER_DINGTALK_CLIENT_SECRET_FILE")
