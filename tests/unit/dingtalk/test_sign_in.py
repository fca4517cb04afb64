"""Signing in by DingTalk: in a browser, and by a page inside DingTalk."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from support.identity_provider import CLIENT_ID, CLIENT_SECRET, DingTalkSignIn
from support.sign_in import SAME_SITE, Served, back_from, me, nobody, settings_of, sign_in, to_provider
from taskbridge.center.access.oidc import provider_of
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from taskbridge.center.settings import CenterSettings
    from taskbridge.runtime.database import Database

INSIDE = {"User-Agent": "Mozilla/5.0 (iPhone) AppleWebKit/605 Mobile DingTalk(7.6.0)"}


@pytest.fixture
def dingtalk() -> Generator[DingTalkSignIn]:
    with DingTalkSignIn().running() as found:
        yield found


@pytest.fixture
def settings(dingtalk: DingTalkSignIn, tmp_path: Path) -> Callable[..., CenterSettings]:
    (tmp_path / "secret").write_text(CLIENT_SECRET)
    needed = {
        "dingtalk_client_id": CLIENT_ID,
        "dingtalk_client_secret_file": str(tmp_path / "secret"),
        "corp_id": "ours",
        "dingtalk_api_url": dingtalk.url,
    }

    def make(**given: str) -> CenterSettings:
        return settings_of(**(needed | given))

    return make


@pytest.fixture
def served(settings: Callable[..., CenterSettings], sqlite_database: Database) -> Generator[Served]:
    found = Served(settings(operators="ours/ann"), sqlite_database)
    yield found
    found.rows.close()


def test_a_member_signs_in_in_a_browser_and_out(served: Served) -> None:
    browser = served.browser()
    assert sign_in(browser, return_to="/#pending").headers["location"] == "/#pending"
    found = me(browser)
    assert (found["corp_id"], found["user_id"], found["operator"], found["session"]) == ("ours", "ann", True, True)
    assert browser.post("/sign-out", headers=SAME_SITE).json() == {"next": "https://tasks.example/"}
    assert browser.get("/v1/me").status_code == 401


def test_a_page_inside_dingtalk_signs_in_by_its_code(served: Served, dingtalk: DingTalkSignIn) -> None:
    browser = served.browser()
    page = browser.get("/sign-in", params={"return_to": '/?a="b"'}, headers=INSIDE)
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src" not in policy, "the vendor's library on this page reads nothing"
    data = dict(re.findall(r'data-(\w+)="([^"]*)"', page.text))
    assert (data["corp"], data["client"], data["return"]) == ("ours", CLIENT_ID, "/?a=&quot;b&quot;")
    answer = browser.get("/sign-in/callback", params={"state": data["state"], "code": dingtalk.new_code()})
    assert (answer.status_code, me(browser)["user_id"]) == (303, "ann")
    # Where that fails, as in any browser.
    assert browser.get("/sign-in", params={"browser": "true"}, headers=INSIDE).status_code == 303


@pytest.mark.parametrize("wrong", ["another organisation", "a contact", "a used code", "an unknown code", "no code"])
def test_others_are_refused_in_words(served: Served, dingtalk: DingTalkSignIn, wrong: str) -> None:
    browser = served.browser()
    back = back_from(to_provider(browser))
    if wrong == "another organisation":
        dingtalk.corp_id = "theirs"
    elif wrong == "a contact":
        dingtalk.contact_type = 1
    elif wrong == "a used code":
        dingtalk.codes.clear()
    elif wrong == "an unknown code":
        back = back.replace("authCode=", "code=x")
    else:
        back = back.replace("authCode=", "other=")
    answer = browser.get(back)
    assert (answer.status_code, served.session_count) == (403, 0)
    assert "无法登录" in answer.text
    assert CLIENT_SECRET not in answer.text, "DingTalk's message repeats it"


def test_a_busy_dingtalk_is_not_a_refusal(served: Served, dingtalk: DingTalkSignIn) -> None:
    dingtalk.is_down = True
    assert sign_in(served.browser()).status_code == 503
    dingtalk.is_down = False
    assert sign_in(served.browser()).status_code == 303


def test_nobody_completes_the_sign_in_of_another_browser(served: Served, dingtalk: DingTalkSignIn) -> None:
    back = back_from(to_provider(served.browser()))
    assert served.browser().get(back).status_code == 400
    assert dingtalk.codes, "it was not even tried"


@pytest.mark.parametrize(
    "given",
    [
        {"corp_id": ""},
        {"dingtalk_client_secret_file": ""},
        {"public_url": ""},
        {"public_url": "http://tasks.example"},
        {"dingtalk_api_url": "http://api.dingtalk.example"},
    ],
    ids=str,
)
def test_unsafe_or_incomplete_settings_are_refused(
    settings: Callable[..., CenterSettings], given: dict[str, str]
) -> None:
    with pytest.raises(ConfigurationError):
        provider_of(settings(**given), nobody)
