"""An OpenID Connect provider that says what a test has it say: also what no honest one would."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from joserfc import jwt
from joserfc.jwk import RSAKey

from support import toolchains
from support.served_apps import serving

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from playwright.sync_api import Page

CLIENT_ID, CLIENT_SECRET = "task-center", "a secret of the client"
KEY_ID = "1"


@cache
def _own_key() -> RSAKey:
    """Once: it takes longer than a test."""
    return RSAKey.generate_key(2048, {"kid": KEY_ID}, private=True)


@dataclass
class IdentityProvider:
    """Signs everybody in at once, as ``claims`` say. It checks the client, PKCE, and that a code is used once."""

    claims: dict[str, Any] = field(default_factory=dict[str, Any])
    """Added to those of the id token, or in place of them; None leaves one out."""
    key: RSAKey = field(default_factory=_own_key)
    algorithm: str = "RS256"
    signing_key: RSAKey | None = None
    """In place of ``key``, which is published."""
    algorithms: tuple[str, ...] = ("RS256",)
    """What the provider says it signs with."""
    issuer: str | None = None
    """In place of its own address."""
    error: str | None = None
    """With which it sends browsers back."""
    is_down: bool = False
    key_id: str = KEY_ID
    """Of the key that it says it signs with."""
    keys_read: int = 0
    answers: threading.Event = field(default_factory=threading.Event)
    """While it is not set, a reader of the keys waits."""
    configuration_read: int = 0
    url: str = ""
    _codes: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])

    def __post_init__(self) -> None:
        self.answers.set()

    def app(self) -> FastAPI:
        http = FastAPI()
        http.add_api_route("/.well-known/openid-configuration", self.configuration)
        http.add_api_route("/jwks", self.jwks)
        http.add_api_route("/authorize", self.authorize)
        http.add_api_route("/token", self.token, methods=["POST"])
        return http

    async def configuration(self) -> Response:
        self.configuration_read += 1
        if self.is_down:
            return Response("gone fishing", status_code=503)
        return JSONResponse(
            {
                "issuer": self.issuer or self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/jwks",
                "end_session_endpoint": f"{self.url}/logout",
                "id_token_signing_alg_values_supported": self.algorithms,
            }
        )

    async def jwks(self) -> Response:
        self.keys_read += 1
        await asyncio.to_thread(self.answers.wait)
        return JSONResponse({"keys": [self.key.as_dict(private=False)]})

    async def authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        if self.error is not None:
            answer = {"error": self.error}
        else:
            code = secrets.token_urlsafe()
            self._codes[code] = asked
            answer = {"code": code}
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode({**answer, 'state': asked['state']})}", 303)

    async def token(self, request: Request) -> Response:
        given = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        asked = self._codes.pop(given.get("code", ""), None)
        secret = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if asked is None or request.headers.get("authorization") != f"Basic {secret}":
            return JSONResponse({"error": "invalid_grant"}, status_code=400)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(given["code_verifier"].encode()).digest()).rstrip(b"=")
        if (asked["code_challenge"], asked["code_challenge_method"]) != (challenge.decode(), "S256"):
            return JSONResponse({"error": "invalid_grant"}, status_code=400)
        now = int(time.time())
        claims = {
            "iss": self.issuer or self.url,
            "sub": "1",
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        header = {"alg": self.algorithm, "kid": KEY_ID}
        if self.algorithm == "RS256":
            id_token = jwt.encode(header, claims, self.signing_key or self.key)
        else:
            id_token = self._forged(header, claims)
        return JSONResponse({"access_token": "a", "token_type": "Bearer", "id_token": id_token})

    def access_token(self, **claims: Any) -> str:
        """For whom and what the claims say; None leaves one out."""
        now = int(time.time())
        given = {"iss": self.url, "sub": "1", "azp": "claude", "iat": now, "exp": now + 300, **self.claims, **claims}
        given = {name: value for name, value in given.items() if value is not None}
        header = {"alg": self.algorithm, "kid": self.key_id, "typ": "at+jwt"}
        if self.algorithm != "RS256":
            return self._forged(header, given)
        return jwt.encode(header, given, self.signing_key or self.key)

    def _forged(self, header: dict[str, str], claims: dict[str, Any]) -> str:
        """By hand, as libraries refuse it: with the published key as a secret, or with no signature."""
        text = b".".join(base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in (header, claims))
        secret = self.key.as_pem(private=False)
        proof = hmac.new(secret, text, "sha256").digest() if self.algorithm == "HS256" else b""
        return b".".join((text, base64.urlsafe_b64encode(proof).rstrip(b"="))).decode()

    @contextmanager
    def running(self) -> Generator[IdentityProvider]:
        with serving(self.app()) as self.url:
            yield self


@dataclass
class DingTalkSignIn:
    """The calls of DingTalk that sign people in: everybody consents at once, as the member ``ann``."""

    corp_id: str = "ours"
    """Which organisation was chosen in the browser."""
    owner: str = "ours"
    """The organisation of the app."""
    contact_type: int = 0
    is_down: bool = False
    url: str = ""
    codes: set[str] = field(default_factory=set[str])
    """Each is good for one use."""

    def app(self) -> FastAPI:
        http = FastAPI()
        http.add_api_route("/oauth2/auth", self.authorize)
        for path, answer in (
            ("/v1.0/oauth2/userAccessToken", self.user_token),
            (f"/v1.0/oauth2/{self.owner}/token", self.app_token),
            ("/topapi/user/getbyunionid", self.by_union_id),
            ("/topapi/v2/user/getuserinfo", self.by_code),
        ):
            http.add_api_route(path, answer, methods=["POST"])
        http.add_api_route("/v1.0/contact/users/me", self.me)
        return http

    def new_code(self) -> str:
        code = secrets.token_urlsafe()
        self.codes.add(code)
        return code

    async def authorize(self, request: Request) -> Response:
        asked = request.query_params
        assert (asked["client_id"], asked["scope"], asked["response_type"]) == (CLIENT_ID, "openid corpid", "code")
        answer = {"authCode": self.new_code(), "state": asked["state"]}
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(answer)}", 303)

    async def user_token(self, request: Request) -> Response:
        given = await request.json()
        if self.is_down:
            return JSONResponse({"code": "ServiceUnavailable", "message": "busy"}, status_code=503)
        if given["code"] not in self.codes or given["clientSecret"] != CLIENT_SECRET:
            problem = f"the code is used by {given['clientSecret']}"
            return JSONResponse({"code": "InvalidAuthCode", "message": problem}, status_code=400)
        self.codes.remove(given["code"])
        return JSONResponse({"accessToken": "of ann", "refreshToken": "", "expireIn": 7200, "corpId": self.corp_id})

    async def app_token(self, request: Request) -> Response:
        given = await request.json()
        assert given["grant_type"] == "client_credentials"
        if (given["client_id"], given["client_secret"]) != (CLIENT_ID, CLIENT_SECRET):
            return JSONResponse({"code": "invalid.client", "message": "wrong"}, status_code=400)
        return JSONResponse({"access_token": "of the app", "expires_in": 7200})

    async def me(self, request: Request) -> Response:
        assert request.headers["x-acs-dingtalk-access-token"] == "of ann"
        return JSONResponse({"nick": "Ann", "unionId": "union of ann", "openId": "o"})

    async def by_union_id(self, request: Request) -> Response:
        assert request.query_params["access_token"] == "of the app"
        assert await request.json() == {"unionid": "union of ann"}
        result = {"contact_type": self.contact_type, "userid": "ann"}
        return JSONResponse({"errcode": 0, "errmsg": "ok", "result": result})

    async def by_code(self, request: Request) -> Response:
        assert request.query_params["access_token"] == "of the app"
        code = (await request.json())["code"]
        if code not in self.codes:
            return JSONResponse({"errcode": 40078, "errmsg": "the code does not exist"})
        self.codes.remove(code)
        return JSONResponse({"errcode": 0, "errmsg": "ok", "result": {"userid": "ann", "unionid": "union of ann"}})

    @contextmanager
    def running(self) -> Generator[DingTalkSignIn]:
        with serving(self.app()) as self.url:
            yield self


@contextmanager
def certified_provider(port: int, center_url: str) -> Generator[None]:
    """The certified ``oidc-provider`` on this port, for a task center at this URL. Any password will do."""
    program = toolchains.npm_installed("oidc-provider") / "provider.js"
    arguments = [str(port), f"{center_url}/sign-in/callback", f"{center_url}/"]
    with subprocess.Popen(
        [toolchains.NODE, program.name, *arguments], cwd=program.parent, stdout=subprocess.PIPE, text=True
    ) as provider:
        assert provider.stdout is not None
        try:
            assert provider.stdout.readline() == "ready\n"
            yield
        finally:
            provider.kill()


def oidc_settings(port: int, secret: Path, corp_id: str) -> dict[str, str]:
    """Of a task center whose people sign in there."""
    secret.write_text(CLIENT_SECRET)
    return {
        "CENTER_OIDC_ISSUER": f"http://127.0.0.1:{port}",
        "CENTER_OIDC_CLIENT_ID": CLIENT_ID,
        "CENTER_OIDC_CLIENT_SECRET_FILE": str(secret),
        "CENTER_CORP_ID": corp_id,
    }


def enter(page: Page, user: str) -> None:
    """Sign in at this provider, which then asks whether the task center may know who it is."""
    page.locator("input[name=login]").fill(user)
    page.locator("input[name=password]").fill("a password")
    page.locator("button[type=submit]").click()
    page.locator("button[type=submit]").click()
