"""Signing in by OpenID Connect: who comes in, as whom, and a table of attacks."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from joserfc.jwk import RSAKey
from sqlalchemy import func, select
from starlette.testclient import TestClient

from support.center_rows import AnsweringCenter, state
from support.identity_provider import CLIENT_ID, CLIENT_SECRET, KEY_ID, IdentityProvider, path_of
from taskbridge.center.access.access import SESSION_COOKIE, build_access
from taskbridge.center.access.oidc import OpenIdConnect
from taskbridge.center.access.sessions import Sessions
from taskbridge.center.settings import CenterSettings
from taskbridge.center.tables import sessions
from taskbridge.center.web import sign_in as pages
from taskbridge.center.web.sign_in import sign_in_router
from taskbridge.runtime.refusals import NotNow
from taskbridge.runtime.settings import load_settings
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.schemas.events import PersonRecord, Status, TaskEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from fastapi import FastAPI

    from taskbridge.runtime.database import Database

URL = "https://tasks.example"
SAME_SITE = {"Sec-Fetch-Site": "same-origin", "Origin": URL}


@pytest.fixture(scope="module")
def key() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": KEY_ID}, private=True)


@pytest.fixture
def provider(key: RSAKey) -> Generator[IdentityProvider]:
    yield from IdentityProvider({"preferred_username": "ann"}, key).running()


@pytest.fixture
def settings(provider: IdentityProvider, tmp_path: Path) -> Callable[..., CenterSettings]:
    secret = tmp_path / "secret"
    secret.write_text(f"{CLIENT_SECRET}\n")

    def make(**given: str) -> CenterSettings:
        needed = {
            "kafka_bootstrap_servers": "127.0.0.1:1",
            "schema_registry_url": "http://127.0.0.1:1",
            "public_url": URL,
            "oidc_issuer": provider.url,
            "oidc_client_id": CLIENT_ID,
            "oidc_client_secret_file": str(secret),
            "oidc_corp_id": "ours",
        }
        return load_settings(
            CenterSettings, {f"CENTER_{name.upper()}": value for name, value in (needed | given).items()}
        )

    return make


class Served:
    """A task center with people, at which browsers sign in."""

    def __init__(self, settings: CenterSettings, database: Database) -> None:
        self.people_complete = True
        self.database = database
        self.rows = AnsweringCenter(database, build_access(settings))
        self.sessions = Sessions(database, self.rows.threads, idle_s=3600, longest_s=3600)
        self.rows.access = build_access(settings, self._users_of, self.sessions)
        self.http: FastAPI = self.rows.http(
            sign_in_router(OpenIdConnect(settings, self._users_of), self.sessions, self.rows.access)
        )
        for corp, user, number in (
            ("ours", "ann", "1"),
            ("ours", "bob", "2"),
            ("ours", "cai", "2"),
            ("theirs", "dan", "1"),
        ):
            self.rows.know(corp, PersonRecord(user, user.title(), employee_number=number))
        for corp, user in (("ours", "ann"), ("ours", "bob"), ("theirs", "dan")):
            self.rows.store(state(f"I-{user}", corp_id=corp, tasks=(TaskEntry("T-1", Status.PENDING, (user,)),)))

    def browser(self) -> TestClient:
        return TestClient(self.http, base_url=URL, follow_redirects=False)

    @property
    def session_count(self) -> int:
        with self.database.read() as connection:
            return connection.execute(select(func.count()).select_from(sessions)).scalar_one()

    async def _users_of(self, corp_id: str, kind: str | None, value: str) -> Sequence[str]:
        if not self.people_complete:
            raise NotNow("not all people are read")
        return await self.rows.threads.run(self.rows.queries.users_of, corp_id, kind, value)


@pytest.fixture
def serve(settings: Callable[..., CenterSettings], sqlite_database: Database) -> Generator[Callable[..., Served]]:
    made: list[Served] = []

    def serve(**given: str) -> Served:
        made.append(Served(settings(**given), sqlite_database))
        return made[-1]

    yield serve
    for each in made:
        each.rows.close()


def to_provider(browser: TestClient, **query: str) -> str:
    """Begin; returns the address at the provider."""
    answer = browser.get("/sign-in", params=query)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def back_from(address: str) -> str:
    """The address to which the provider sends the browser."""
    return path_of(httpx2.get(address).headers["location"])


def sign_in(browser: TestClient, **query: str) -> httpx2.Response:
    return browser.get(back_from(to_provider(browser, **query)))


def me(browser: TestClient) -> Any:
    return browser.get("/v1/me").json()


def test_who_signs_in_sees_their_own_lists_and_nothing_else(serve: Callable[..., Served]) -> None:
    browser = serve().browser()
    refused = browser.get("/v1/me")
    assert (refused.status_code, refused.json()["type"]) == (401, "urn:taskbridge:problem:sign-in-required")
    answer = sign_in(browser, return_to="/?a=b#pending/I-ann")
    assert (answer.status_code, answer.headers["location"]) == (303, "/?a=b#pending/I-ann")
    assert me(browser) == {
        "mode": "sso",
        "name": None,
        "corps": ["ours"],
        "corp_id": "ours",
        "user_id": "ann",
        "user_name": "Ann",
        "operator": False,
        "session": True,
    }
    statuses = {
        path: browser.get(path).status_code
        for path in (
            "/v1/corps/ours/users/ann/counts",
            "/v1/corps/ours/users/bob/counts",
            "/v1/corps/theirs/users/dan/counts",
            "/v1/corps/theirs/users/ann/counts",
            "/v1/instances/I-ann",
            "/v1/instances/I-bob",
            "/v1/people",
        )
    }
    assert list(statuses.values()) == [200, 403, 403, 403, 200, 404, 403]


def test_cookies_are_out_of_reach_of_scripts_and_of_other_sites(serve: Callable[..., Served]) -> None:
    browser = serve().browser()
    begun = browser.get("/sign-in")
    ended = browser.get(back_from(begun.headers["location"]))
    for answer in (begun, ended):
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-")
        assert {"Path=/", "HttpOnly", "Secure", "SameSite=lax"} <= set(cookie.split("; "))
        assert "Domain" not in cookie
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("given", "claims", "user"),
    [
        ({}, {}, "ann"),
        ({"oidc_mapped_id": "employee_number", "oidc_user_claim": "number"}, {"number": "1"}, "ann"),
        ({"oidc_corp_id": "", "oidc_corp_claim": "org"}, {"org": "theirs", "preferred_username": "dan"}, "dan"),
    ],
    ids=["user id", "mapped id", "corp by claim"],
)
def test_the_claim_names_the_person(
    serve: Callable[..., Served], provider: IdentityProvider, given: dict[str, str], claims: dict[str, str], user: str
) -> None:
    provider.claims |= claims
    browser = serve(**given).browser()
    sign_in(browser)
    assert me(browser)["user_id"] == user


@pytest.mark.parametrize(
    ("given", "claims", "words"),
    [
        ({}, {"preferred_username": "nobody"}, "no person has your id"),
        ({}, {"preferred_username": "dan"}, "no person has your id"),
        ({"oidc_mapped_id": "employee_number"}, {"preferred_username": "2"}, "several people have your id"),
        ({}, {"preferred_username": None}, "no claim"),
        ({}, {"preferred_username": " "}, "no claim"),
        ({}, {"preferred_username": 7}, "no claim"),
        ({"oidc_corp_id": "", "oidc_corp_claim": "org"}, {}, "no claim"),
    ],
)
def test_an_unclear_person_is_refused_in_words(
    serve: Callable[..., Served],
    provider: IdentityProvider,
    given: dict[str, str],
    claims: dict[str, Any],
    words: str,
) -> None:
    provider.claims |= claims
    served = serve(**given)
    browser = served.browser()
    answer = sign_in(browser)
    assert (answer.status_code, answer.headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert words in answer.text
    assert "无法登录" in answer.text
    assert browser.get("/v1/me").status_code == 401
    assert served.session_count == 0


def test_nobody_comes_in_while_people_are_read(serve: Callable[..., Served]) -> None:
    served = serve()
    served.people_complete = False
    answer = sign_in(served.browser())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def seconds_ago(seconds: int) -> int:
    return int(time.time()) - seconds


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://elsewhere.example"},
        {"aud": "another client"},
        {"aud": ["another client", CLIENT_ID], "azp": "another client"},
        {"exp": seconds_ago(600)},
        {"iat": seconds_ago(-3600)},
        {"nonce": "of another sign-in"},
        {"nonce": None},
        {"sub": None},
    ],
    ids=str,
)
def test_an_id_token_for_others_or_another_time_is_refused(
    serve: Callable[..., Served], provider: IdentityProvider, claims: dict[str, Any]
) -> None:
    provider.claims |= claims
    served = serve()
    assert sign_in(served.browser()).status_code == 403
    assert served.session_count == 0


def test_an_id_token_of_another_key_is_refused(serve: Callable[..., Served], provider: IdentityProvider) -> None:
    provider.signing_key = RSAKey.generate_key(2048, {"kid": KEY_ID}, private=True)
    assert sign_in(serve().browser()).status_code == 403


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_an_id_token_that_anybody_could_sign_is_refused(
    serve: Callable[..., Served], provider: IdentityProvider, algorithm: str
) -> None:
    """With the published key as a secret, or without a signature, even if the provider offers these algorithms."""
    provider.algorithm, provider.algorithms = algorithm, ("RS256", algorithm)
    assert sign_in(serve().browser()).status_code == 403


def test_a_provider_under_another_name_is_not_believed(
    serve: Callable[..., Served], provider: IdentityProvider
) -> None:
    provider.issuer = "https://elsewhere.example"
    browser = serve().browser()
    assert browser.get("/sign-in").status_code == 503
    provider.issuer = None
    assert browser.get("/sign-in").status_code == 303


def test_a_provider_that_is_away_is_said_so_and_asked_again(
    serve: Callable[..., Served], provider: IdentityProvider
) -> None:
    provider.is_down = True
    browser = serve().browser()
    answer = browser.get("/sign-in")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "暂时无法登录" in answer.text
    provider.is_down = False
    assert sign_in(browser).status_code == 303


def test_who_cancels_at_the_provider_is_not_signed_in(serve: Callable[..., Served], provider: IdentityProvider) -> None:
    provider.error = "access_denied<script>"
    answer = sign_in(serve().browser())
    assert answer.status_code == 403
    assert "access_denied&lt;script&gt;" in answer.text


def test_an_answer_of_the_provider_counts_once(serve: Callable[..., Served]) -> None:
    served = serve()
    browser = served.browser()
    back = back_from(to_provider(browser))
    assert browser.get(back).status_code == 303
    again = browser.get(back)
    assert (again.status_code, served.session_count) == (400, 1)
    assert "already used" in again.text


def test_nobody_ends_the_sign_in_of_another_browser(serve: Callable[..., Served]) -> None:
    """Otherwise a link could sign the reader in as its author, who then sees what the reader enters."""
    served = serve()
    back = back_from(to_provider(served.browser()))
    other = served.browser()
    assert other.get(back).status_code == 400
    to_provider(other)
    assert other.get(back).status_code == 400
    assert served.session_count == 0


def test_two_tabs_may_sign_in_at_once(serve: Callable[..., Served]) -> None:
    browser = serve().browser()
    first, second = to_provider(browser), to_provider(browser)
    assert [browser.get(back_from(each)).status_code for each in (second, first)] == [303, 303]


def test_a_token_that_was_put_into_the_browser_is_worth_nothing_after_the_sign_in(
    serve: Callable[..., Served],
) -> None:
    served = serve()
    attacker, victim = served.browser(), served.browser()
    sign_in(attacker)
    planted = attacker.cookies[SESSION_COOKIE]
    victim.cookies.set(SESSION_COOKIE, planted, domain="tasks.example", path="/")
    sign_in(victim)
    assert victim.cookies[SESSION_COOKIE] != planted
    assert attacker.get("/v1/me").status_code == 401


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "javascript:alert(1)",
        "evil.example",
        "",
    ],
)
def test_nobody_is_led_elsewhere(serve: Callable[..., Served], elsewhere: str) -> None:
    assert sign_in(serve().browser(), return_to=elsewhere).headers["location"] == "/"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "same-site", "Origin": "https://other.tasks.example"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
    ids=str,
)
def test_a_page_elsewhere_changes_nothing(serve: Callable[..., Served], headers: dict[str, str]) -> None:
    served = serve()
    browser = served.browser()
    sign_in(browser)
    assert browser.post("/sign-out", headers=headers).status_code == 403
    assert me(browser)["user_id"] == "ann"


def test_who_signs_out_is_out_here_and_told_where_to_leave_the_provider(
    serve: Callable[..., Served], provider: IdentityProvider
) -> None:
    served = serve()
    browser, phone = served.browser(), served.browser()
    sign_in(browser)
    sign_in(phone)
    kept = browser.cookies[SESSION_COOKIE]
    answer = browser.post("/sign-out", headers=SAME_SITE)
    assert answer.json()["next"].startswith(f"{provider.url}/logout?")
    browser.cookies.set(SESSION_COOKIE, kept, domain="tasks.example", path="/")
    assert [each.get("/v1/me").status_code for each in (browser, phone)] == [401, 200]
    sign_in(browser)
    assert phone.post("/sign-out", params={"everywhere": "true"}, headers=SAME_SITE).status_code == 200
    assert [each.get("/v1/me").status_code for each in (browser, phone)] == [401, 401]


@pytest.mark.parametrize(
    ("given", "claims", "is_operator"),
    [
        ({"operators": "ours/ann"}, {}, True),
        ({"operators": "theirs/ann, ours/bob"}, {}, False),
        ({"operator_groups": "it, ops"}, {"groups": ["staff", "ops"]}, True),
        ({"operator_groups": "ops"}, {"groups": "ops"}, True),
        ({"operator_groups": "ops"}, {"groups": ["OPS", 7, None]}, False),
        ({"operator_groups": "ops"}, {"groups": {"ops": 1}}, False),
        ({"operator_groups": "ops"}, {"groups": 7}, False),
        ({}, {"groups": [""]}, False),
    ],
)
def test_operators_are_listed_or_in_a_group(
    serve: Callable[..., Served],
    provider: IdentityProvider,
    given: dict[str, str],
    claims: dict[str, Any],
    is_operator: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    provider.claims |= claims
    browser = serve(**given).browser()
    sign_in(browser)
    assert me(browser)["operator"] is is_operator
    statuses = [
        browser.get(path).status_code
        for path in ("/v1/people", "/v1/corps/theirs/users/dan/counts", "/v1/instances/I-bob")
    ]
    assert statuses == ([200, 200, 200] if is_operator else [403, 403, 404])


def test_one_address_cannot_fill_the_database(serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "time", SimpleNamespace(monotonic=lambda: 0.0))
    browser = serve().browser()
    statuses = {browser.get("/sign-in").status_code for _ in range(80)}
    assert statuses == {303, 429}


@pytest.mark.parametrize(
    "given",
    [
        {"public_url": ""},
        {"oidc_client_id": ""},
        {"oidc_corp_id": ""},
        {"oidc_corp_claim": "org"},
        {"oidc_issuer": "http://provider.example"},
        {"public_url": "http://tasks.example"},
        {"public_url": "tasks.example"},
        {"oidc_scopes": "profile"},
        {"operators": "ann"},
        {"operators": "ours/"},
    ],
    ids=str,
)
def test_unsafe_or_incomplete_settings_are_refused(
    settings: Callable[..., CenterSettings], given: dict[str, str]
) -> None:
    async def nobody(*_: object) -> list[str]:
        return []

    with pytest.raises(ConfigurationError):
        OpenIdConnect(settings(**given), nobody)
