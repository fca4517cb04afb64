"""A file of a form is opened by who sees the form, at an address that nobody else learns."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx2
import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from support.center_rows import state
from support.sign_in import SAME_SITE, Served, signing_in, tokens_file
from taskbridge.center.actions import systems
from taskbridge.center.actions.systems import Away
from taskbridge.center.api import files as module
from taskbridge.center.tables import audit
from taskbridge.runtime.tokens import new_token
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import SOURCE_YIDA, Action, Person, Status, TaskEntry, TaskEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from taskbridge.center.actions.systems import Open
    from taskbridge.runtime.database import Database

OURS, THEIRS = new_token(), new_token()
FILE = "/ossFileHandle?appType=APP&fileName=APP_secret.pdf&instId=&type=download"
TEMPORARY = "https://files.yida.example/4f?Signature=5e%2Bc"
PATH = "/v1/instances/I-1/files?place=attachmentField_1&number=0"


def created(instance_id: str, at: int, form: dict[str, str | None]) -> TaskEvent:
    return TaskEvent(
        event_id=f"e-{at}",
        source=SOURCE_YIDA,
        action=Action.CREATED,
        corp_id="ours",
        app_type="APP",
        instance_id=instance_id,
        occurred_at=at,
        received_at=at,
        form_data=form,
    )


class Vendor:
    """What opens files: it records what it gets."""

    def __init__(self) -> None:
        self.answer: str | None = TEMPORARY
        self.problem: OperatorError | None = None
        self.is_of_app = True
        self.is_silent = False
        self.meanwhile: Callable[[], object] | None = None
        self.requests: list[tuple[str | None, str]] = []

    def __call__(self, file: str) -> Open | None:
        async def opens(user_id: str | None) -> str | None:
            self.requests.append((user_id, file))
            if self.meanwhile is not None:
                await asyncio.to_thread(self.meanwhile)
            if self.is_silent:
                await asyncio.Event().wait()
            if self.problem:
                raise self.problem
            return self.answer

        return opens if self.is_of_app else None


class World:
    """Ann's request, which waits for Bob, with a file; Cai is an operator and Bob an auditor."""

    def __init__(self, served: Served) -> None:
        self.served, self.browser, self.vendor = served, served.signed_in, Vendor()
        served.rows.open_file = self.vendor
        tasks = (TaskEntry("T-1", Status.PENDING, ("bob",)),)
        served.rows.store(state("I-1", corp_id="ours", originator=Person("ann", "Ann"), tasks=tasks))
        self.write(FILE)

    def write(self, address: str, at: int = 1_000) -> None:
        value = json.dumps([{"name": "<b>.pdf", "size": 9, "downloadUrl": address}])
        self.served.rows.store_events(created("I-1", at, {"attachmentField_1": value}))

    def program(self, token: str) -> httpx2.Response:
        return self.served.browser().get(PATH, headers={"Authorization": f"Bearer {token}"})

    def opened(self) -> list[str]:
        with self.served.database.read() as connection:
            return [*connection.scalars(select(audit.c.subject).where(audit.c.action == "file_opened"))]


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Generator[World]:
    tokens = tokens_file(tmp_path, ours=OURS, theirs=THEIRS)
    people = {"operators": "ours/cai", "auditors": "ours/bob", "api_tokens_file": tokens}
    with signing_in(database, tmp_path, **people) as (served, _):
        yield World(served)


def test_who_sees_the_form_opens_its_files(world: World) -> None:
    # The vendor knows whom the request concerns; of others, we know that they may see it.
    for user, vendors_user in (("ann", "ann"), ("bob", "bob"), ("cai", None)):
        answer = world.browser(user).get(PATH)
        assert (answer.status_code, answer.headers["location"]) == (303, TEMPORARY), user
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert world.vendor.requests.pop() == (vendors_user, FILE)
    assert world.program(OURS).status_code == 303
    assert world.vendor.requests.pop() == (None, FILE)


def test_a_delegate_opens_them_until_the_delegation_ends(world: World) -> None:
    ann, bob = world.browser("ann"), world.browser("bob")
    world.served.rows.store(state("I-2", corp_id="ours", tasks=(TaskEntry("7", Status.PENDING, ("bob",)),)))
    world.served.rows.store_events(created("I-2", 3, {"f": json.dumps([{"name": "x", "url": FILE}])}))
    path = "/v1/instances/I-2/files?place=f&number=0"
    assert ann.get(path).status_code == 404
    begins, ends = (datetime.now(UTC) + timedelta(days=each) for each in (-1, 1))
    body = {"delegate_id": "ann", "starts_at": begins.isoformat(), "ends_at": ends.isoformat()}
    delegations = "/v1/corps/ours/users/bob/delegations"
    [given] = bob.post(delegations, json=body, headers=SAME_SITE).json()["items"]
    assert ann.get(path).status_code == 303
    assert world.vendor.requests == [(None, FILE)]
    bob.delete(f"{delegations}/{given['delegation_id']}", headers=SAME_SITE)
    assert ann.get(path).status_code == 404


def test_nobody_else_does_and_nothing_is_asked_or_recorded(world: World) -> None:
    world.served.rows.store(state("I-9", corp_id="ours", tasks=(TaskEntry("T-9", Status.PENDING, ("ann",)),)))
    ann, foreign = world.browser("ann"), {"Sec-Fetch-Site": "cross-site"}
    answers = {
        "not signed in": (world.served.browser().get(PATH), 401),
        "another corp": (world.program(THEIRS), 404),
        "no such instance": (ann.get(PATH.replace("I-1", "I-0")), 404),
        "a form without files": (ann.get(PATH.replace("I-1", "I-9")), 404),
        "another person's": (ann.get(PATH.replace("I-1", "I-bob")), 404),
        "no such place": (ann.get(PATH.replace("Field_1", "Field_2")), 404),
        "no such number": (ann.get(PATH.replace("number=0", "number=1")), 404),
        "a negative number": (ann.get(PATH.replace("number=0", "number=-1")), 400),
        "from a page elsewhere": (ann.get(PATH, headers=foreign), 403),
        "before a click": (ann.get(PATH, headers={"Sec-Purpose": "prefetch;prerender"}), 403),
    }
    assert {name: answer.status_code for name, (answer, _) in answers.items()} == {
        name: status for name, (_, status) in answers.items()
    }
    world.served.rows.open_file = None
    assert ann.get(PATH).status_code == 404, "an app without credentials"
    world.served.rows.open_file, world.vendor.is_of_app = world.vendor, False
    assert ann.get(PATH).status_code == 404, "no file of the app"
    assert (world.vendor.requests, world.opened()) == ([], [])


def test_lists_and_details_ask_nothing_and_no_temporary_address_is_anywhere(world: World) -> None:
    ann, bob = world.browser("ann"), world.browser("bob")
    with capture_logs() as logs:
        history = ann.get("/v1/instances/I-1/history").json()
        assert history["files"] == {"attachmentField_1": [{"name": "<b>.pdf", "size": 9}]}
        assert history["opens_files"]
        for path in ("/v1/instances/I-1", "/v1/corps/ours/users/ann/tasks?view=created"):
            assert ann.get(path).status_code == 200
        assert world.vendor.requests == []
        assert ann.get(PATH).status_code == 303
        shown = [ann.get("/v1/instances/I-1/history").text, bob.get("/v1/audit").text, bob.get("/v1/audit.csv").text]
    assert all("files.yida.example" not in each and "Signature" not in each for each in [*shown, str(logs)])
    assert FILE not in str(logs)
    world.served.rows.open_file = None
    assert not ann.get("/v1/instances/I-1/history").json()["opens_files"]


def test_each_time_is_in_the_audit_trail_before_the_vendor_is_asked(world: World) -> None:
    world.vendor.problem = Away("it is away")
    ann, bob = world.browser("ann"), world.browser("bob")
    assert ann.get(PATH).status_code == 503
    world.vendor.problem = None
    assert ann.get(PATH).status_code == 303
    assert world.opened() == ["I-1 attachmentField_1/0"] * 2
    [entry, _] = bob.get("/v1/audit?action=file_opened").json()["items"]
    assert (entry["actor"], entry["instance_id"]) == ("ann", "I-1")


def test_the_redirect_leads_to_https_or_nowhere(world: World) -> None:
    ann = world.browser("ann")
    for address in (
        *("http://files.example/x", "javascript:alert(1)", "data:text/html,x", "//files.example/x", "/x", "", "https:"),
        *("https:///x", "https://user@evil.example/", "https://[", "https://evil.example\\@x", "https://a\r\nb: c"),
    ):
        world.vendor.answer = address
        with capture_logs() as logs:
            answer = ann.get(PATH)
        assert (answer.status_code, "location" in answer.headers) == (503, False), address
        assert [each["event"] for each in logs if each["log_level"] == "warning"] == ["file_not_opened"]


def test_a_file_that_the_vendor_does_not_have_is_unknown(world: World) -> None:
    world.vendor.answer = None
    assert world.browser("ann").get(PATH).status_code == 404


def test_a_changed_form_opens_what_it_has_now(world: World) -> None:
    world.write(FILE.replace("secret", "newer"), at=2_000)
    world.browser("ann").get(PATH)
    assert world.vendor.requests == [("ann", FILE.replace("secret", "newer"))]


def test_a_caller_and_a_corp_open_so_many_in_an_hour(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_OF_CALLER", 2)
    monkeypatch.setattr(module, "_OF_CORP", 3)
    with signing_in(database, tmp_path) as (served, _):
        world = World(served)
        ann, bob = world.browser("ann"), world.browser("bob")
        assert [ann.get(PATH).status_code for _ in range(3)] == [303, 303, 429]
        assert [bob.get(PATH).status_code for _ in range(2)] == [303, 429]
        assert bob.get(PATH).headers["retry-after"] == "60"
        assert len(world.vendor.requests) == len(world.opened()) == 3


def test_a_person_reads_why_a_file_does_not_open(world: World) -> None:
    ann, html = world.browser("ann"), {"Accept": "text/html,*/*;q=0.8"}
    assert ann.get(PATH, headers=html).status_code == 303
    world.vendor.problem = Away("<script>")
    answer = ann.get(PATH, headers=html)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "暂时无法打开文件" in answer.text
    assert "The file cannot be opened now: try again later, or open it on the approval page." in answer.text
    assert 'href="/"' in answer.text
    assert "<script" not in answer.text
    world.vendor.problem = OperatorError("403 Yida.Attachment.Read")
    answer = ann.get(PATH, headers=html)
    assert (answer.status_code, "retry-after" in answer.headers, "Yida" in answer.text) == (503, False, False)
    assert "请在审批页面查看" in answer.text
    assert "open it on the approval page" in answer.text
    assert "文件不存在" in ann.get(PATH.replace("I-1", "I-0"), headers=html).text
    assert ann.get(PATH).headers["content-type"] == "application/problem+json"
    stranger = world.served.browser()
    answer = stranger.get(PATH, headers=html)
    assert (answer.status_code, "请先登录" in answer.text, 'href="/"' in answer.text) == (401, True, True)
    assert stranger.get(PATH).headers["content-type"] == "application/problem+json"


def test_a_click_ends_though_the_vendor_does_not_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systems, "OPEN_S", 0.01)
    ann, world.vendor.is_silent = world.browser("ann"), True
    # Nor does it occupy one of the places.
    assert [ann.get(PATH).status_code for _ in range(6)] == [503] * 6


def test_few_are_opened_at_once_and_the_next_is_told_so(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 1)
    with signing_in(database, tmp_path) as (served, _):
        world = World(served)
        ann, bob, answers = world.browser("ann"), world.browser("bob"), list[httpx2.Response]()
        world.vendor.meanwhile = lambda: answers.append(bob.get(PATH, headers={"Accept": "text/html"}))
        assert [ann.get(PATH).status_code for _ in range(2)] == [303, 303]
        for answer in answers:
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            assert "Too many files are being opened" in answer.text
        assert (len(answers), len(world.vendor.requests), len(world.opened())) == (2, 2, 2)
