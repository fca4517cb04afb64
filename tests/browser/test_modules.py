"""The modules by themselves, in the browser that runs them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import pytest

from support.browser.browsing import Watched, new_context
from support.browser.fake_task_center import FakeTaskCenter, serving
from taskbridge.center.api import models
from taskbridge.center.api.spreadsheet import DECISIONS, STATUSES
from taskbridge.edge.decision.callbacks import ACTIONS, PUSH, UNKNOWN
from taskbridge.edge.errors import REASONS
from taskbridge.schemas.dead_letters import DlqReason

if TYPE_CHECKING:
    from collections.abc import Generator

    from playwright.sync_api import Browser


RunModule = Callable[[str, str, Any], Any]


@pytest.fixture(scope="module")
def run(browser: Browser) -> Generator[RunModule]:
    """Calls a function with a module and an argument, on one page for all of them."""
    with serving(FakeTaskCenter()) as fake, closing(new_context(browser)) as context:
        watched = Watched(context.new_page())
        watched.page.goto(fake.url)

        def run(module: str, function: str, argument: Any) -> Any:
            return watched.page.evaluate(
                f"(argument) => import('/assets/{module}').then(async (module) => ({function})(module, argument))",
                argument,
            )

        yield run
        assert watched.complaints == []


@pytest.mark.parametrize(("module", "language"), [("words-en.js", 0), ("words-zh.js", 1)])
def test_a_spreadsheet_has_the_words_of_the_page(run: RunModule, module: str, language: int) -> None:
    statuses, outcomes = run(
        module, "(words) => Object.values(words).map((each) => [each.statuses, each.outcomes])[0]", None
    )
    assert {each: both[language] for each, both in DECISIONS.items()} == outcomes
    # Those of no list, and what the page knows besides.
    others = {"DELETED", "SENT", "ENDED"}
    shown = {each.lower(): text for each, text in statuses.items() if each not in others}
    assert {each: both[language] for each, both in STATUSES.items()} == shown


@pytest.mark.parametrize("module", ["words-en.js", "words-zh.js"])
def test_every_reason_against_a_decision_is_said_in_words(run: RunModule, module: str) -> None:
    said = run(module, "(words) => Object.values(words).map((each) => Object.keys(each.acting.reasons))[0]", None)
    _, described = get_args(get_type_hints(models.ActionOut, include_extras=True)["detail"])
    of_all = get_args(get_args(get_type_hints(models.ActionsOut)["reason"])[0])
    of_one = re.findall(r"`([a-z-]+)`", described.description)
    assert len(of_one) > 7, "they are named in the model"
    assert {*of_one, *of_all} <= set(said)


EVENTS = """async ({ serverSentEvents }, parts) => {
  const bytes = parts.map((part) => Uint8Array.from(part));
  const body = new ReadableStream({
    start(control) {
      bytes.forEach((part) => control.enqueue(part));
      control.close();
    },
  });
  const found = [];
  for await (const event of serverSentEvents(body)) found.push(event);
  return found;
}"""


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_read_however_they_are_cut(run: RunModule, size: int) -> None:
    lines = ": alive\nid: 3-7\n", 'id: 3-8\nevent: notification\ndata: {"title":"任务: 一\u2028二"}\n', "event: cut"
    content = "\n".join(lines).encode()
    parts = [list(content[start : start + size]) for start in range(0, len(content), size)]
    assert run("event-stream.js", EVENTS, parts) == [
        {"": "alive", "id": "3-7"},
        {"id": "3-8", "event": "notification", "data": '{"title":"任务: 一\u2028二"}'},
    ]


@pytest.mark.parametrize("answer", ["null", '{"type": null, "detail": 5}', "<html>"])
def test_an_answer_of_a_proxy_in_between_is_a_problem_like_others(run: RunModule, answer: str) -> None:
    asked = """({ Api }, answer) => {
      globalThis.fetch = async () => new Response(answer, { status: 401 });
      return new Api().get("/v1/me").catch((error) => [error.name, error.status, error.isSignIn]);
    }"""
    assert run("api.js", asked, answer) == ["Problem", 401, False]


def test_both_languages_say_everything(run: RunModule) -> None:
    shape = """async ({ EN }) => {
      const { ZH } = await import('/assets/words-zh.js');
      const shape = (value) => value !== null && typeof value === "object"
        ? Object.fromEntries(Object.keys(value).toSorted().map((key) => [key, shape(value[key])]))
        : typeof value === "function" ? `function/${value.length}` : typeof value;
      return [shape(ZH), shape(EN)];
    }"""
    chinese, english = run("words-en.js", shape, None)
    for words in (chinese, english):
        del words["ops"]["reasons"]  # codes that are English words
        del words["ops"]["problems"]  # what the services say, in English
    assert json.dumps(chinese, indent=1) == json.dumps(english, indent=1)


def test_every_code_that_the_service_shows_to_operators_has_chinese_words(run: RunModule) -> None:
    words = run("words-zh.js", "({ ZH }) => ZH.ops", None)
    counted = {*REASONS, "not-durable", "error", "aborted"}
    assert set(words["reasons"]) == {*counted, *(reason.value for reason in DlqReason), "unknown"}
    shown = "({ actionTold }, [codes, words]) => codes.map((code) => actionTold(code, words))"
    codes = [*ACTIONS, PUSH, UNKNOWN]
    assert run("ops-panels.js", shown, [codes, words]) == [
        *("创建", "完成", "撤销", "删除", "抄送"),
        *("推送 push", "未知 unknown"),
    ]


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://yida.example/a?b=c", "https://yida.example/a?b=c"),
        ("HTTP://yida.example", "http://yida.example/"),
        ("java\nscript:alert(1)", None),
        (" javascript:alert(1)", None),
        ("/relative", None),
        ("https://user@evil.example/", None),
        ("blob:https://yida.example/x", None),
        (None, None),
        (7, None),
    ],
)
def test_only_addresses_of_the_web_are_addresses(run: RunModule, url: Any, safe: str | None) -> None:
    assert run("dom.js", "({ webAddress }, url) => webAddress(url)", url) == safe


@pytest.mark.parametrize("name", ["href", "src", "srcdoc", "style", "onclick", "formaction"])
def test_elements_refuse_attributes_that_run_or_load_code(run: RunModule, name: str) -> None:
    attempt = """({ element }, name) => {
      try { element("a", { [name]: "x" }); return "made"; } catch (error) { return error.name; }
    }"""
    assert run("dom.js", attempt, name) == "TypeError"


@pytest.mark.parametrize(
    ("language", "shown"),
    [
        ("zh-CN", ["刚刚", "5分钟前", "00:10", "1月2日 00:10:00", "2025年1月2日 00:10:00"]),
        ("en", ["just now", "5 min. ago", "00:10", "Jan 2, 00:10:00", "Jan 2, 2025, 00:10:00"]),
    ],
)
def test_times_are_as_exact_as_their_place_needs(run: RunModule, language: str, shown: list[str]) -> None:
    # In the browser's zone, Shanghai: ten past midnight, which no clock may call 24:10.
    function = """({ Format }, language) => {
      const format = new Format(language), at = '2026-01-01T16:10:00.000Z', now = Date.parse(at);
      return [format.ago(at, now + 1000), format.ago(at, now + 300_000), format.ago(at, now + 7_200_000),
        format.moment(at, now), format.moment('2025-01-01T16:10:00.000Z', now)];
    }"""
    assert run("format.js", function, language) == shown
