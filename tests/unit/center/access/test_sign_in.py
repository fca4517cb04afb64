"""Signing in by OpenID Connect: who comes in, as whom, and a table of attacks."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc.jwk import RSAKey

from support.identity_provider import CLIENT_ID, CLIENT_SECRET, KEY_ID, IdentityProvider
from support.sign_in import SAME_SITE, Served, back_from, me, nobody, settings_of, sign_in, to_provider
from taskbridge.center.access.access import SESSION_COOKIE
from taskbridge.center.access.oidc import provider_of
from taskbridge.center.web import sign_in as pages
from taskbridge.runtime import rates
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from taskbridge.center.settings import CenterSettings
    from taskbridge.runtime.database import Database


@pytest.fixture(scope="module")
def running_provider() -> Generator[IdentityProvider]:
    with IdentityProvider().running() as found:
        yield found


@pytest.fixture
def provider(running_provider: IdentityProvider) -> IdentityProvider:
    """It says that everybody is Ann."""
    honest = IdentityProvider({"preferred_username": "ann"}, running_provider.key, url=running_provider.url)
    vars(running_provider).update(vars(honest))
    return running_provider


@pytest.fixture
def settings(provider: IdentityProvider, tmp_path: Path) -> Callable[..., CenterSettings]:
    secret = tmp_path / "secret"
    secret.write_text(f"{CLIENT_SECRET}\n")

    def make(**given: str) -> CenterSettings:
        needed = {
            "oidc_issuer": provider.url,
            "oidc_client_id": CLIENT_ID,
            "oidc_client_secret_file": str(secret),
            "corp_id": "ours",
        }
        return settings_of(**(needed | given))

    return make


@pytest.fixture
def serve(settings: Callable[..., CenterSettings], sqlite_database: Database) -> Generator[Callable[..., Served]]:
    made: list[Served] = []

    def serve(**given: str) -> Served:
        made.append(Served(settings(**given), sqlite_database))
        return made[-1]

    yield serve
    for each in made:
        each.rows.close()


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
        "auditor": False,
        "session": True,
        "preferences": {"language": None, "theme": None, "notifications": None},
        "owned_apps": [],
        "start_forms": False,
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
        ({"mapped_id": "employee_number", "oidc_user_claim": "number"}, {"number": "1"}, "ann"),
        ({"oidc_corp_claim": "org"}, {"org": "theirs", "preferred_username": "dan"}, "dan"),
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
        ({"mapped_id": "employee_number"}, [{"preferred_username": "2"}], "several people have your id"),
        ({}, [{"preferred_username": each} for each in ("nobody", "dan")], "no person has your id"),
        ({}, [{"preferred_username": each} for each in (None, " ", 7)], "no claim"),
        ({"oidc_corp_claim": "org"}, [dict[str, Any]()], "no claim"),
    ],
)
def test_an_unclear_person_is_refused_in_words(
    serve: Callable[..., Served],
    provider: IdentityProvider,
    given: dict[str, str],
    claims: list[dict[str, Any]],
    words: str,
) -> None:
    served = serve(**given)
    for each in claims:
        provider.claims |= each
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


def test_an_id_token_for_others_or_another_time_is_refused(
    serve: Callable[..., Served], provider: IdentityProvider
) -> None:
    """Times are in seconds from now."""
    now, served, honest = int(time.time()), serve(), dict(provider.claims)
    wrong: list[dict[str, Any]] = [
        {"iss": "https://elsewhere.example"},
        {"aud": "another client"},
        {"aud": ["another client", CLIENT_ID], "azp": "another client"},
        {"exp": -600},
        {"iat": 3600},
        {"nonce": "of another sign-in"},
        {"nonce": None},
        {"sub": None},
    ]
    for each in wrong:
        claims = {name: now + value if isinstance(value, int) else value for name, value in each.items()}
        provider.claims = honest | claims
        assert sign_in(served.browser()).status_code == 403, each
        assert served.session_count == 0
    provider.claims = honest
    assert sign_in(served.browser()).status_code == 303


def test_an_id_token_of_another_key_is_refused(serve: Callable[..., Served], provider: IdentityProvider) -> None:
    provider.signing_key = RSAKey.generate_key(2048, {"kid": KEY_ID}, private=True)
    assert sign_in(serve().browser()).status_code == 403


def test_an_id_token_that_anybody_could_sign_is_refused(
    serve: Callable[..., Served], provider: IdentityProvider
) -> None:
    """With the published key as a secret, or without a signature, even if the provider offers these algorithms."""
    provider.algorithms, served = ("RS256", "none", "HS256"), serve()
    for provider.algorithm in ("none", "HS256"):
        assert sign_in(served.browser()).status_code == 403
    provider.algorithm = "RS256"
    assert sign_in(served.browser()).status_code == 303


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


def test_nobody_is_led_elsewhere(serve: Callable[..., Served]) -> None:
    served = serve()
    for elsewhere in (
        *("https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil.example", "/\t/evil.example"),
        *("/\n/evil.example", "javascript:alert(1)", "evil.example", ""),
    ):
        assert sign_in(served.browser(), return_to=elsewhere).headers["location"] == "/", elsewhere


def test_a_page_elsewhere_changes_nothing(serve: Callable[..., Served]) -> None:
    browser = serve().browser()
    sign_in(browser)
    elsewhere: list[dict[str, str]] = [
        {},
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "same-site", "Origin": "https://other.tasks.example"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ]
    for headers in elsewhere:
        assert browser.post("/sign-out", headers=headers).status_code == 403, headers
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
    ("given", "groups"),
    [
        ({"operators": "ours/ann"}, {True: [None]}),
        ({"operators": "theirs/ann, ours/bob"}, {False: [None]}),
        ({"operator_groups": "it, ops"}, {True: [["staff", "ops"], "ops"], False: [["OPS", 7, None], {"ops": 1}, 7]}),
        ({}, {False: [[""]]}),
    ],
    ids=str,
)
def test_operators_are_listed_or_in_a_group(
    serve: Callable[..., Served], provider: IdentityProvider, given: dict[str, str], groups: dict[bool, list[Any]]
) -> None:
    served = serve(**given)
    for is_operator, claims in groups.items():
        for provider.claims["groups"] in claims:
            browser = served.signed_in()
            assert me(browser)["operator"] is is_operator
            statuses = [
                browser.get(path).status_code
                for path in ("/v1/people", "/v1/corps/theirs/users/dan/counts", "/v1/instances/I-bob")
            ]
            assert statuses == ([200, 200, 200] if is_operator else [403, 403, 404])


def test_one_address_cannot_fill_the_database(serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "time", SimpleNamespace(monotonic=lambda: 0.0))
    monkeypatch.setattr(pages, "_BURST", 3)
    browser = serve().browser()
    assert [browser.get("/sign-in").status_code for _ in range(4)] == [303, 303, 303, 429]
    callback = "/sign-in/callback?state=x&code=y"
    assert [browser.get(callback).status_code for _ in range(4)] == [400, 400, 400, 429]


def test_an_answer_that_nobody_waits_for_is_refused_without_writing(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve()
    stranger, browser = served.browser(), served.browser()
    state = parse_qs(urlsplit(to_provider(browser)).query)["state"][0]
    assert stranger.get("/sign-in").status_code == 303  # so it has a cookie, for another sign-in

    def write(**_: object) -> None:
        raise AssertionError("a transaction that writes")

    monkeypatch.setattr(served.database, "write", write)
    for query in ("", "?state=x", f"?state={state}&code=x"):
        answer = stranger.get(f"/sign-in/callback{query}")
        assert (answer.status_code, "Not signed in" in answer.text) == (400, True)


@pytest.mark.parametrize(
    "given",
    [
        {"public_url": ""},
        {"oidc_client_id": ""},
        {"corp_id": ""},
        {"oidc_issuer": "http://provider.example"},
        {"public_url": "http://tasks.example"},
        {"public_url": "tasks.example"},
        {"oidc_scopes": "profile"},
        {"dingtalk_client_id": "dingapp"},
        {"operators": "ann"},
        {"operators": "ours/"},
    ],
    ids=str,
)
def test_unsafe_or_incomplete_settings_are_refused(
    settings: Callable[..., CenterSettings], given: dict[str, str]
) -> None:
    with pytest.raises(ConfigurationError):
        provider_of(settings(**given), nobody)
