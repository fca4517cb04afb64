"""The reverse proxy as the documents configure it: people sign in, and an operator's token works through it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI
from starlette.requests import Request  # noqa: TC002 - FastAPI resolves the handlers' annotations
from starlette.responses import Response

from support import http_clients
from support.center import databases, sqlite_database
from support.deployment.nginx import proxying
from support.served_apps import serving
from taskbridge.center.app import Center
from taskbridge.center.settings import CenterSettings
from taskbridge.runtime.settings import load_settings
from taskbridge.runtime.tokens import digest_of

if TYPE_CHECKING:
    from collections.abc import Generator

    import httpx2

    from taskbridge.runtime.database import Database

pytestmark = pytest.mark.integration

__all__ = ["databases", "sqlite_database"]

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "say-who-may-ask.md"
OPERATOR, PORTAL = "an-operators-token", "a-token-of-one-corp"
SIGNED_IN = {"Cookie": "session=ann"}


def sign_in_proxy() -> FastAPI:
    """A fake oauth2-proxy: the cookie has the user of the session."""
    app = FastAPI()

    @app.get("/oauth2/auth")
    def auth(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        user = request.cookies.get("session")
        return Response(status_code=202 if user else 401, headers={"X-Auth-Request-User": user} if user else {})

    @app.get("/oauth2/sign_in")
    def sign_in() -> Response:  # pyright: ignore[reportUnusedFunction]
        return Response("sign in, please")

    return app


@pytest.fixture
def proxied(tmp_path: Path, sqlite_database: Database) -> Generator[str]:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(
        "".join(
            f'[[tokens]]\nname = "{name}"\nsha256 = "{digest_of(token)}"\ncorps = ["{corp}"]\n'
            for name, token, corp in (("operator", OPERATOR, "*"), ("portal", PORTAL, "ours"))
        )
    )
    given = {
        "CENTER_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "CENTER_SCHEMA_REGISTRY_URL": "http://127.0.0.1:1",
        "CENTER_API_TOKENS_FILE": str(tokens),
        "CENTER_SSO_PROXIES": "127.0.0.1/32",
        "CENTER_CORP_ID": "ours",
    }
    center = Center(load_settings(CenterSettings, given), sqlite_database)
    recipe = "\n".join(re.findall(r"```nginx\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL))
    with serving(center.http()) as service, serving(sign_in_proxy()) as sign_in:
        for documented, here in (("http://center.internal:8500", service), ("http://127.0.0.1:4180", sign_in)):
            assert documented in recipe
            recipe = recipe.replace(documented, here)
        around, location, inside = recipe.partition("location / {")
        with proxying(tmp_path, http=around, server=location + inside) as url:
            yield url


def get(url: str, path: str, **headers: str) -> httpx2.Response:
    return http_clients.get(f"{url}{path}", headers=headers)


def test_an_operators_token_works_behind_the_proxy_and_the_proxy_names_the_person(proxied: str) -> None:
    operator = get(proxied, "/v1/ops/overview", **SIGNED_IN, Authorization=f"Bearer {OPERATOR}")
    assert operator.status_code == 200, operator.text
    assert get(proxied, "/v1/me", **SIGNED_IN, Authorization=f"Bearer {OPERATOR}").json()["operator"] is True
    portal = {**SIGNED_IN, "Authorization": f"Bearer {PORTAL}"}
    assert get(proxied, "/v1/ops/overview", **portal).status_code == 403
    assert get(proxied, "/v1/ops/overview", **SIGNED_IN, Authorization="Bearer made-up").status_code == 401

    for claimed in ({}, {"X-Forwarded-User": "bob"}, {"Authorization": "Basic YW5uOnB3"}):
        me = get(proxied, "/v1/me", **SIGNED_IN, **claimed).json()
        assert (me["mode"], me["corp_id"], me["user_id"]) == ("sso", "ours", "ann"), claimed
    assert get(proxied, "/v1/ops/overview", **SIGNED_IN).status_code == 403
    # A token does not open the proxy, and a header cannot claim another person.
    for claimed in ({"Authorization": f"Bearer {OPERATOR}"}, {"X-Forwarded-User": "bob"}, {}):
        assert get(proxied, "/v1/me", **claimed).text == "sign in, please"
    forged = get(proxied, "/v1/me", **portal, **{"X-Forwarded-User": "bob"}).json()
    assert (forged["mode"], forged["user_id"]) == ("token", None)
