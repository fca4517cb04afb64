"""The apps of Yida as a system of the task center: what its files say, and who acts for whom."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx2
import pytest
from pydantic import SecretStr
from starlette.responses import Response

from support.dingtalk import FakeClock, FaultyDingTalk
from support.sign_in import settings_of
from taskbridge.center.actions.store import Action as StoredAction
from taskbridge.center.actions.systems import Agent, Away, Received, Systems, systems_of
from taskbridge.dingtalk import organisation, wire
from taskbridge.dingtalk.api import YidaApi, address_of
from taskbridge.dingtalk.apps import App, Apps, Corp
from taskbridge.dingtalk.calls import Calls, Pace, Refused, Unexpected, always
from taskbridge.dingtalk.decisions import YidaApps
from taskbridge.local.fake_dingtalk import Company, served
from taskbridge.runtime.clock import SystemClock
from taskbridge.schemas.errors import ConfigurationError, OperatorError
from taskbridge.schemas.events import SOURCE_YIDA, Action, TaskEvent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

APPS = """
[[corps]]
corp_id = "ours"
app_key = "key"
app_secret = "secret"
user_id = "manager"
corp_token = "corp-secret"

[[apps]]
app_type = "APP_1"
"""
CREDENTIALS = """
[[apps]]
app_type = "APP_1"
system_tokens = ["t"]

[[sources]]
name = "erp"
corp_id = "ours"
secrets = ["whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"]
action_url = "https://erp.example/actions"
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    found = {"apps_file": APPS, "credentials_file": CREDENTIALS}
    for name, text in found.items():
        (tmp_path / name).write_text(text)
    return {name: str(tmp_path / name) for name in found}


async def test_apps_and_other_systems_are_read_from_both_files(files: dict[str, str], tmp_path: Path) -> None:
    systems = systems_of(settings_of(**files))
    assert [each[:3] for each in systems.possible("ours")] == [("yida", "APP_1", True), ("erp", None, False)]
    assert (systems.possible("another"), systems.count) == ([], 2)
    assert systems.of("ours", "yida", "APP_1") is not None
    assert systems.of("ours", "yida", "APP_2") is None
    (tmp_path / "apps_file").write_text(APPS.replace("APP_1", "APP_2"))
    (tmp_path / "credentials_file").write_text(CREDENTIALS.replace("APP_1", "APP_2"))
    for each in systems.files:
        each.reload_if_changed()
    assert systems.of("ours", "yida", "APP_2") is not None
    await systems.close()


def test_two_extensions_for_one_source_are_refused(files: dict[str, str]) -> None:
    both = [YidaApps.of(settings_of(**files)) for _ in range(2)]
    with pytest.raises(ConfigurationError, match="have one source"):
        Systems([each for each in both if each is not None])


def test_yida_is_asked_for_agents_with_the_corp_token(files: dict[str, str]) -> None:
    dingtalk = FaultyDingTalk(Company(), SystemClock(), system_tokens={}, app_key="key", app_secret="secret")
    dingtalk.organisation.corp_token = "corp-secret"
    mine = organisation.Agent("bob", "ann", "Bob", "Ann", "2025-10-22T11:06Z", "soon", "EXECUTE", "[]")
    also_mine = organisation.Agent("ann", "cai")
    others = [organisation.Agent("joann", "cai"), organisation.Agent("bob", "ann", agent_category="START")]
    dingtalk.organisation.agents = [mine, also_mine, *others]

    async def scenario(url: str) -> None:
        systems = systems_of(settings_of(**files, dingtalk_api_url=url))
        assert await systems.agents(("ours", "ann")) == [
            Agent(("bob", "Bob"), ("ann", "Ann"), is_for_all=False, starts_at=1_761_131_160_000, ends_at=None),
            Agent(("ann", None), ("cai", None), is_for_all=True, starts_at=None, ends_at=None),
        ]
        assert await systems.agents(("theirs", "dan")) == []
        dingtalk.organisation.corp_token = "another"
        with pytest.raises(Refused) as refused:
            await systems.agents(("ours", "ann"))
        assert "corp-secret" not in str(refused.value)
        dingtalk.lacks = frozenset({organisation.GetAgentTasks.path})
        assert await systems.agents(("ours", "ann")) == []
        await systems.close()

    with served(dingtalk) as url:
        asyncio.run(scenario(url))


FILE = "/ossFileHandle?appType=APP_1&fileName=APP_1_bWFuYWdlcg$$.pdf&instId=&type=download"
SENT = f"https://www.aliwork.com{FILE}"
YIDA = "https://yida.ours.example"
DECISION = StoredAction(
    *("a-1", "ours", "bob", "bob", "I-1", "1", "yida", "APP_1", "agree", "", "", "SENDING", ""),
    attempts=0,
    requested_at=1,
    due_at=None,
)
OLDER = "https://www.aliwork.com/o/2FD66I71?fileName=APP_1_x.jpg&type=open"


class Files:
    """An instance with two files, of ann, for bob; and what opens its files."""

    def __init__(self, url: str, dingtalk: FaultyDingTalk, clock: FakeClock) -> None:
        corp = Corp("ours", "key", SecretStr("secret"))
        apps = Apps((), (App(corp, "APP_1", SecretStr("the-token"), "manager", ()),))
        self.systems = YidaApps(lambda: apps, url, clock=clock)
        self.dingtalk, self.clock = dingtalk, clock
        form = {"f": f'[{{"name": "a.pdf", "downloadUrl": "{FILE}"}}, {{"name": "b.jpg", "url": "{OLDER}"}}]'}
        dingtalk.company.happened(
            TaskEvent(
                *("e-1", SOURCE_YIDA, Action.CREATED, "ours", "APP_1", "I-1"),
                task_id="1",
                recipient_ids=("bob",),
                occurred_at=1,
                received_at=1,
                form_data=form,
            )
        )

    async def open(self, file: str, user_id: str | None = "bob") -> str | None:
        open_file = self.systems.file_opener("ours", "APP_1")
        assert open_file is not None
        opened = open_file(file)
        return None if opened is None else await opened(user_id)


def with_files(scenario: Callable[[Files], Awaitable[None]], kind: type[FaultyDingTalk] = FaultyDingTalk) -> None:
    clock = FakeClock(1_800_000_000_000)
    dingtalk = kind(Company(), clock, system_tokens={"APP_1": "the-token"}, app_key="key", app_secret="secret")

    async def run(url: str) -> None:
        files = Files(url, dingtalk, clock)
        await scenario(files)
        await files.systems.close()

    with served(dingtalk) as url:
        asyncio.run(run(url))


def test_a_file_opens_for_a_minute_in_the_name_of_the_person() -> None:
    async def scenario(files: Files) -> None:
        assert files.systems.file_opener("ours", "APP_2") is None
        assert files.systems.file_opener("theirs", "APP_1") is None
        urls = [await files.open(FILE), await files.open(OLDER), await files.open(FILE, None)]
        assert files.dingtalk.opened == [(SENT, "bob"), (OLDER, "bob"), (SENT, "manager")]
        assert all(url is not None and url.startswith("https://") and files.dingtalk.is_open(url) for url in urls)
        files.clock.pass_s(61)
        assert not any(files.dingtalk.is_open(url or "") for url in urls)

    with_files(scenario)


@pytest.mark.parametrize(
    "forged",
    [
        *(
            "http://169.254.169.254/latest/meta-data",
            "http://127.0.0.1:9/x",
            "file:///etc/passwd",
            "javascript:alert(1)",
        ),
        *("//evil.example/x", "x", "", "https://[", FILE.replace("APP_1", "APP_2"), f"{FILE}&appType=APP_2"),
        *(FILE.replace("fileName=APP_1", "fileName=APP_2"), FILE.replace("appType=APP_1", "appType=%41PP_2")),
        *("https://evil.example/fileHandle?x", "https://10.0.0.1/fileHandle", "https://aliwork.com.evil.example/o/x"),
        *("https://evilaliwork.com/o/x", "https://me@www.aliwork.com/o/x", "https://www.aliwork.com:8443/o/x"),
        *("http://www.aliwork.com/fileHandle", "https:///fileHandle", "https:/fileHandle", "//www.aliwork.com/o/x"),
        *("/admin", "/o/../admin", "/o/%2e%2e/admin", "/o/", "/fileHandle/x", "/x?y=<script>", '/o/x?y="punish""x5"'),
        *("/fileHandle?a#&appType=APP_1", "/fileHandle?a?appType=APP_1", "/fileHandle?a b", "/fileHandle?a\u202eb"),
        *("/fileHandle?a\x00", "/fileHandle?a\u3000", "/fileHandle?a\\b", "/fileHandle?appType=OTHER"),
        *(
            "/fileHandle?apptype=app_2",
            "/o/APP_2/x",
            "/fileHandle?x=y%255fAPP%255F2",
            FILE.replace("APP_1_", "APP_11_"),
        ),
        "/fileHandle?%61pptype=default_tianshu_app&APPTYPE=APP_3",
    ],
)
def test_what_is_no_file_of_the_app_is_not_sent(forged: str) -> None:
    async def scenario(files: Files) -> None:
        assert await files.open(forged) is None
        assert files.dingtalk.calls.total() == 0

    with_files(scenario)


@pytest.mark.parametrize(
    "file",
    [
        "/ossFileHandle?appType=APP_1&fileName=APP_1_病假条.pdf",
        "/fileHandle?appType=default_tianshu_app&fileName=edd07ca9-1d2e.txt&instId=&type=download",
        "https://aliwork.com/o/a-b_c.d/e",
        "https://ours.aliwork.com/fileHandle?apptype=APP_1",
        *("https://YIDA.ours.example/ossFileHandle?appType=APP_1", "/o/x"),
    ],
)
def test_a_path_is_sent_with_the_host_of_its_yida(file: str) -> None:
    public, cluster = Corp("ours", "key", SecretStr("")), Corp("ours", "key", SecretStr(""), yida_url=YIDA)
    for corp, host in ((public, "https://www.aliwork.com"), (cluster, YIDA)):
        app = App(corp, "APP_1", SecretStr(""), "manager", ())
        is_of_another = "ours.example" in file and corp is public
        assert address_of(file, app) == (None if is_of_another else file if "//" in file else host + file)


class Gateway(FaultyDingTalk):
    """Refuses each file with a page, as a gateway does with what it takes for an attack."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith(wire.GetOpenUrl.path):
            await Response("<html>405</html>", 405, media_type="text/html")(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def test_a_page_for_a_file_stops_no_decision() -> None:
    async def scenario(files: Files) -> None:
        with pytest.raises(Unexpected):
            await files.open(FILE)
        system = files.systems.system("ours", "APP_1", always)
        assert system is not None
        assert (await system.send(DECISION, now=1)).received is Received.ACCEPTED

    with_files(scenario, Gateway)


@pytest.mark.parametrize(
    ("answer", "error"), [((500, "x"), Away), ((429, "x"), Away), ((403, "Forbidden"), Refused)], ids=str
)
def test_a_click_is_one_call_and_says_whether_it_passes(answer: tuple[int, str], error: type[Exception]) -> None:
    async def scenario(files: Files) -> None:
        await files.open(FILE)
        files.dingtalk.faults.answers_next.append(answer)
        with pytest.raises(error):
            await files.open(FILE)
        assert files.dingtalk.calls[wire.GetOpenUrl.path] == 2
        assert await files.open(FILE)

    with_files(scenario)


@pytest.mark.parametrize("repeated", [SENT, FILE, quote(SENT, safe=""), quote(FILE, safe="")])
async def test_no_error_repeats_the_address_of_a_file(repeated: str) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        if wire.GetOpenUrl.path not in request.url.path:
            return httpx2.Response(200, json={"access_token": "a-token", "expires_in": 7200})
        return httpx2.Response(400, json={"code": "no", "message": f"cannot read {repeated}, as I said"})

    corp = Corp("ours", "key", SecretStr("secret"))
    app = App(corp, "APP_1", SecretStr("the-token"), "manager", ())
    clock = FakeClock(1_800_000_000_000)
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer), base_url="http://public") as http:
        api = YidaApi(Calls(http, corp, Pace(10, clock), clock, attempts=1), app, clock)
        with pytest.raises(Refused, match=r"cannot read \S+, as I said") as refused:
            await api.temporary_url(SENT, "bob")
    assert "bWFuYWdlcg" not in str(refused.value)


def test_a_file_of_a_request_that_does_not_concern_the_person_is_refused_without_its_address() -> None:
    async def scenario(files: Files) -> None:
        with pytest.raises(Refused) as refused:
            await files.open(FILE, "cai")
        assert "noPermission" in str(refused.value)
        assert "ossFileHandle" not in str(refused.value)

    with_files(scenario)


@pytest.mark.parametrize("fault", ["is_down", "punishes", "calls_per_month", "denied"])
def test_a_failure_of_dingtalk_is_one_that_the_operator_reads(fault: str) -> None:
    async def scenario(files: Files) -> None:
        values = {"calls_per_month": 0, "denied": {wire.GetOpenUrl.path: "Yida.Attachment.Read"}}
        setattr(files.dingtalk.faults, fault, values.get(fault, True))
        with pytest.raises(OperatorError) as failed:
            await files.open(FILE)
        assert ("Yida.Attachment.Read" in str(failed.value)) is (fault == "denied")
        assert files.dingtalk.opened == []

    with_files(scenario)
