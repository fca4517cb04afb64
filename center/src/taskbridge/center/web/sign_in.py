"""The pages of signing in and out: redirects to the identity provider and back, cookies, and refusals in words."""

# pyright: reportUnusedFunction=false

from __future__ import annotations

import base64
import hashlib
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request  # noqa: TC002 - FastAPI resolves the handlers' annotations
from starlette.responses import JSONResponse, RedirectResponse, Response

from taskbridge.center.access.access import SESSION_COOKIE, Access, address_of
from taskbridge.center.access.audit import SIGNED_IN, SIGNED_OUT
from taskbridge.center.access.providers import CALLBACK, Page, Provider
from taskbridge.center.access.refusals import SignInExpired, SignInRefused, TooManyQueries, UnknownPerson
from taskbridge.center.access.sessions import SIGN_IN_S, Sessions
from taskbridge.center.message_page import PAGE_HEADERS, message_page, refusal_page
from taskbridge.runtime.database import DatabaseUnavailable
from taskbridge.runtime.rates import Rate
from taskbridge.runtime.refusals import Forbidden, Refused
from taskbridge.runtime.tokens import new_token

_BROWSER_COOKIE = "__Host-taskbridge-sign-in"
"""Ties a sign-in to the browser that started it: nobody can complete theirs in another browser."""
_BURST, _FULL_AFTER_S = 500, 10.0
"""Sign-ins that one address may start, and end. It may be that of a proxy in front of the whole company."""
_TOO_MANY = partial(TooManyQueries, "too many sign-ins: try again in some seconds", retry_after_s=5)

_TITLE = "登录 · Sign in"
_CHINESE: dict[type[Refused], str] = {
    UnknownPerson: "您已登录，但系统中没有与您的账号唯一对应的人员，请联系管理员。",
    SignInRefused: "身份提供方拒绝了本次登录，或返回的信息无效。",
    SignInExpired: "本次登录已超时或已使用过。",
    TooManyQueries: "登录请求过于频繁，请稍后再试。",
}


def sign_in_router(provider: Provider, sessions: Sessions, access: Access) -> APIRouter:
    """``/sign-in``, ``/sign-in/callback`` and ``/sign-out``."""
    router = APIRouter(include_in_schema=False)
    starts, answers = Rate(_BURST, per_s=_FULL_AFTER_S), Rate(_BURST, per_s=_FULL_AFTER_S)

    @router.get("/sign-in")
    async def start(
        request: Request, return_to: Annotated[str, Query(max_length=2000)] = "/", *, browser: bool = False
    ) -> Response:
        """Redirect to the identity provider, and afterwards to ``return_to``, a path of the task center.

        A page of the provider's signs in without a redirect inside its app, unless that failed: ``browser``.
        """
        try:
            starts.check(address_of(request), _TOO_MANY)
            url, state, sign_in = await provider.authorize(_own_path(return_to))
            # The same for further tabs, so that each of them can complete its sign-in.
            cookie = request.cookies.get(_BROWSER_COOKIE) or new_token()
            await sessions.add_sign_in(state, cookie, sign_in)
        except (Refused, DatabaseUnavailable) as refused:
            return _refusal(refused)
        page = None if browser else provider.page(request.headers.get("user-agent", ""), state, sign_in.return_to)
        answer = RedirectResponse(url, 303, headers=PAGE_HEADERS) if page is None else _page_of(page)
        _set_cookie(answer, _BROWSER_COOKIE, cookie, max_age=SIGN_IN_S)
        return answer

    @router.get(CALLBACK)
    async def callback(request: Request, state: str = "") -> Response:
        """Create a session from the provider's answer."""
        try:
            answers.check(address_of(request), _TOO_MANY)
            browser = request.cookies.get(_BROWSER_COOKIE, "")
            sign_in = await sessions.consume_sign_in(state, browser) if state and browser else None
            if sign_in is None:
                raise SignInExpired("this sign-in took too long, was already used, or was started in another browser")
            person, groups = await provider.redeem(request.query_params, sign_in)
            # A new token at each sign-in: one that somebody else put into the browser is worth nothing.
            former = request.cookies.get(SESSION_COOKIE)
            token, session = await sessions.open(person, access.roles_of(groups), instead_of=former)
            await access.record(request, access.signed_in(person, session), SIGNED_IN)
        except (Refused, DatabaseUnavailable) as refused:
            return _refusal(refused)
        answer = RedirectResponse(sign_in.return_to, 303, headers=PAGE_HEADERS)
        _set_cookie(answer, SESSION_COOKIE, token)
        return answer

    @router.post("/sign-out")
    async def sign_out(request: Request, *, everywhere: bool = False) -> Response:
        """End this session, or all of the person; the answer says where the browser goes to sign out there too."""
        caller = await access.identify(request)
        if caller.session is None:
            raise Forbidden("this caller has no session")
        await access.record(request, caller, SIGNED_OUT, "everywhere" if everywhere else "")
        await sessions.end(caller.session, everywhere=everywhere)
        answer = JSONResponse({"next": await provider.sign_out_url()}, headers={"Cache-Control": "no-store"})
        answer.delete_cookie(SESSION_COOKIE, secure=True, httponly=True, samesite="lax")
        return answer

    return router


def _own_path(given: str) -> str:
    """The path, or ``/`` if it could lead elsewhere. Browsers read a backslash as a slash, and skip control codes."""
    is_ours = given.startswith("/") and not given.startswith("//") and "\\" not in given and given.isprintable()
    return given if is_ours else "/"


def _set_cookie(answer: Response, name: str, value: str, *, max_age: int | None = None) -> None:
    # Lax: the provider's redirect and links from mails come from elsewhere. Changes are checked by their origin.
    answer.set_cookie(name, value, max_age=max_age, secure=True, httponly=True, samesite="lax")


def _refusal(refused: Refused | DatabaseUnavailable) -> Response:
    """In both languages. A person sees it, not a program."""
    return refusal_page(
        refused,
        title=_TITLE,
        heading="无法登录 · Not signed in",
        chinese=_CHINESE,
        otherwise="暂时无法登录，请稍后再试。",
        more='<a class="primary-button" href="/sign-in">重新登录 · Sign in again</a>',
    )


def _page_of(page: Page) -> Response:
    """The provider's page: nothing but its script and the vendor's library runs there."""
    body = f"""<h1>正在登录 · Signing in</h1>
<script src="{page.library}"></script>
<script {page.attributes}>{page.script}</script>"""
    digest = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    scripts = f"script-src 'sha256-{digest}' {page.library}"
    policy = f"default-src 'none'; {scripts}; style-src 'self'; frame-ancestors 'none'"
    return message_page(_TITLE, body, headers={"Content-Security-Policy": policy})
