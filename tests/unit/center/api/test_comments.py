"""Comments are read for who opens a request that they may see, within limits, and written in their own name."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from support.center_rows import state, unchecked
from support.sign_in import SAME_SITE, Served, signing_in, tokens_file
from taskbridge.center.access.access import Caller
from taskbridge.center.actions import systems
from taskbridge.center.actions.store import Actions
from taskbridge.center.actions.systems import Away, Busy, Comment
from taskbridge.center.actions.targets import Endpoint
from taskbridge.center.api import comments as module
from taskbridge.runtime.database import now_ms
from taskbridge.runtime.tokens import new_token
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import Person, Status, TaskEntry

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from pathlib import Path

    import httpx2
    from starlette.testclient import TestClient

    from taskbridge.runtime.database import Database

OURS, THEIRS = new_token(), new_token()
PATH = "/v1/instances/I-1/comments"
URGE = {"action": "urge"}
MARKUP = '<script>alert(1)</script>"&amp;\u202e'
AT = 1_700_000_000_000


class Vendor:
    """What has comments: it records what it gets."""

    def __init__(self) -> None:
        self.comments: Sequence[Comment] | None = [Comment("7", "bob", MARKUP, AT, "ann")]
        self.problem: OperatorError | None = None
        self.is_silent = False
        self.requests: list[tuple[str, str]] = []

    async def read(self, form_uuid: str, instance_id: str) -> Sequence[Comment] | None:
        self.requests.append((form_uuid, instance_id))
        await asyncio.sleep(0)
        if self.is_silent:
            await asyncio.Event().wait()
        if self.problem is not None:
            raise self.problem
        return self.comments


class World:
    """Ann's request, which waits for Bob; Cai is an operator and Bob an auditor."""

    def __init__(self, served: Served) -> None:
        self.served, self.browser, self.vendor = served, served.signed_in, Vendor()
        served.systems.reader = self.vendor.read
        self.store(("I-1", "I-1/comments", "I-2"))

    def store(self, instance_ids: Iterable[str]) -> list[str]:
        tasks = (TaskEntry("T-1", Status.PENDING, ("bob",)),)
        its: dict[str, Any] = {"corp_id": "ours", "form_uuid": "FORM-1", "originator": Person("ann", "Ann")}
        stored = [*instance_ids]
        self.served.rows.store(*(state(each, tasks=tasks, **its) for each in stored))
        return stored

    def trail(self, action: str) -> list[dict[str, Any]]:
        return self.browser("bob").get(f"/v1/audit?action={action}").json()["items"]


def write(browser: TestClient, text: str = "why?", path: str = PATH, **headers: str) -> httpx2.Response:
    return browser.post(path, json={"text": text}, headers={**SAME_SITE, **headers})


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Generator[World]:
    tokens = tokens_file(tmp_path, ours=OURS, theirs=THEIRS)
    people = {"operators": "ours/cai", "auditors": "ours/bob", "api_tokens_file": tokens}
    with signing_in(database, tmp_path, **people) as (served, _):
        yield World(served)


def test_who_sees_the_request_reads_its_comments_as_text_at_one_call(world: World) -> None:
    ann = world.browser("ann")
    for path in ("/v1/instances/I-1", "/v1/instances/I-1/history", "/v1/corps/ours/users/ann/tasks?view=created"):
        ann.get(path)
    assert world.vendor.requests == [], "lists and details cost no call"
    answer = ann.get(PATH).json()
    assert answer == {
        "items": [
            {
                "comment_id": "7",
                "user_id": "bob",
                "text": MARKUP,
                "at": "2023-11-14T22:13:20.000Z",
                "notified_id": "ann",
            }
        ],
        "reason": None,
        "said": [],
        "may_comment": True,
        "may_urge": ["bob"],
        "people": [{"user_id": "bob", "name": "Bob"}, {"user_id": "ann", "name": "Ann"}],
    }
    may_urge = {user: world.browser(user).get(PATH).json()["may_urge"] for user in ("bob", "cai")}
    assert may_urge == {"bob": [], "cai": ["bob"]}
    program = world.served.browser().get(PATH, headers={"Authorization": f"Bearer {OURS}"}).json()
    assert (len(program["items"]), program["may_comment"], program["may_urge"]) == (1, False, [])
    assert (world.vendor.requests, world.served.comments_read) == ([("FORM-1", "I-1")], ["read"])


def test_nobody_else_reads_or_writes(world: World) -> None:
    ann, elsewhere = world.browser("ann"), {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    anybody, program = world.served.browser(), {"Authorization": f"Bearer {OURS}"}
    answers = {
        "not signed in": (anybody.get(PATH), 401),
        "another corp": (anybody.get(PATH, headers={"Authorization": f"Bearer {THEIRS}"}), 404),
        "another person's": (ann.get("/v1/instances/I-bob/comments"), 404),
        "no such instance": (ann.get("/v1/instances/I-0/comments"), 404),
        "written to another person's": (write(ann, path="/v1/instances/I-bob/comments"), 404),
        "written without signing in": (write(anybody), 401),
        "written by a program": (write(anybody, **program), 403),
        "written from elsewhere": (write(ann, **elsewhere), 403),
        "urged from elsewhere": (ann.post(PATH, json=URGE, headers=elsewhere), 403),
        "urged by a program": (anybody.post(PATH, json=URGE, headers=program), 403),
        "urged by whom it waits for": (world.browser("bob").post(PATH, json=URGE, headers=SAME_SITE), 403),
        "urged at another person's": (ann.post("/v1/instances/I-bob/comments", json=URGE, headers=SAME_SITE), 404),
        "nothing": (write(ann, ""), 400),
        "blanks": (write(ann, " \n"), 400),
        "too much": (write(ann, "x" * 1001), 400),
        "half a character": (
            ann.post(PATH, content=b'{"text": "\\ud800"}', headers={**SAME_SITE, "content-type": "application/json"}),
            400,
        ),
        "more than a text": (ann.post(PATH, json={"text": "x", "user_id": "bob"}, headers=SAME_SITE), 400),
        "no text at all": (ann.post(PATH, json={"text": ["x"]}, headers=SAME_SITE), 400),
        "urged with a novel": (ann.post(PATH, json={**URGE, "text": "x" * 1001}, headers=SAME_SITE), 400),
        "anything else": (ann.post(PATH, json={"action": "agree", "text": "x"}, headers=SAME_SITE), 400),
    }
    assert {name: answer.status_code for name, (answer, _) in answers.items()} == {
        name: status for name, (_, status) in answers.items()
    }
    assert (world.served.wakes, world.trail("comment"), world.trail("urge")) == ([], [], [])
    assert world.vendor.requests == []


def test_a_comment_is_recorded_and_shown_until_the_system_has_it(world: World) -> None:
    ann = world.browser("ann")
    write(ann, MARKUP)
    [said] = write(ann, MARKUP).json()["said"]
    assert (said["text"], said["status"], said["recipient_id"]) == (MARKUP, "REQUESTED", None)
    assert len(world.served.wakes) == 2
    assert world.browser("bob").get(PATH).json()["said"] == [], "it is nobody else's yet"
    [entry] = world.trail("comment")
    its = entry["actor"], entry["instance_id"], entry["action_id"], entry["decision"], entry["task_id"]
    assert its == ("ann", "I-1", said["action_id"], "comment", None)


def test_what_the_system_has_accepted_is_read_again_for_the_next_one(world: World) -> None:
    ann, store = world.browser("ann"), Actions(world.served.database, unchecked)
    [said] = write(ann).json()["said"]
    [recorded] = store.due(now=now_ms())
    store.advance(recorded, status="DONE", due_at=None)
    world.vendor.comments = [Comment("8", "ann", "why?", recorded.requested_at, None)]
    [shown] = ann.get(PATH).json()["said"]
    assert (shown["action_id"], shown["status"]) == (said["action_id"], "DONE")
    found = world.browser("bob").get(PATH).json()
    assert ([each["text"] for each in found["items"]], len(world.vendor.requests)) == (["why?"], 2)
    assert ann.get(PATH).json()["said"] == [], "it is among the others now"
    assert len(world.vendor.requests) == 2


def test_urging_is_recorded_and_refused_soon_after(world: World) -> None:
    ann = world.browser("ann")
    [said] = ann.post(PATH, json={**URGE, "text": "now"}, headers=SAME_SITE).json()["said"]
    assert (said["action"], said["text"], said["recipient_id"]) == ("urge", "now", "bob")
    again = world.browser("cai").post(PATH, json=URGE, headers=SAME_SITE)
    assert (again.status_code, again.headers["retry-after"]) == (429, "14400")
    [entry] = world.trail("urge")
    assert (entry["actor"], entry["instance_id"]) == ("ann", "I-1")


def test_a_delegate_writes_until_the_delegation_ends(world: World) -> None:
    ann, bob = world.browser("ann"), world.browser("bob")
    world.served.rows.store(
        state("I-9", corp_id="ours", form_uuid="F", tasks=(TaskEntry("7", Status.PENDING, ("bob",)),))
    )
    path = "/v1/instances/I-9/comments"
    assert write(ann, path=path).status_code == 404
    begins, ends = (datetime.now(UTC) + timedelta(days=each) for each in (-1, 1))
    body = {"delegate_id": "ann", "starts_at": begins.isoformat(), "ends_at": ends.isoformat()}
    delegations = "/v1/corps/ours/users/bob/delegations"
    [given] = bob.post(delegations, json=body, headers=SAME_SITE).json()["items"]
    [said] = write(ann, path=path).json()["said"]
    assert said["text"] == "why? (ann)", "the vendor knows Bob only"
    bob.delete(f"{delegations}/{given['delegation_id']}", headers=SAME_SITE)
    assert write(ann, "more", path=path).status_code == 404


def test_where_the_system_lacks_the_call_nothing_is_offered(world: World) -> None:
    world.vendor.comments = None
    ann = world.browser("ann")
    for _ in range(2):
        off = ann.get(PATH).json()
        assert (off["items"], off["reason"], off["may_comment"], off["may_urge"]) == ([], "not-offered", False, [])
    assert world.served.comments_read == ["not_offered"]
    world.served.systems.reader = None
    off = ann.get(PATH).json()
    assert (off["items"], off["reason"], off["may_comment"]) == ([], "not-offered", False)
    assert write(ann).status_code == 403, "an app without credentials"
    # Another system accepts comments, and has no call to read them.
    world.served.rows.store(state("erp:1", source="erp", corp_id="ours", originator=Person("ann")))
    world.served.endpoints["ours", "erp"] = Endpoint("http://127.0.0.1:9", b"key")
    other = ann.get("/v1/instances/erp:1/comments").json()
    assert (other["items"], other["may_comment"]) == ([], True)


@pytest.mark.parametrize(
    ("problem", "reason", "may"), [(Away("later"), "not-now", True), (OperatorError("403"), "not-offered", False)]
)
def test_a_failure_of_the_vendor_breaks_nothing(
    world: World, problem: OperatorError, reason: str, *, may: bool
) -> None:
    world.vendor.problem = problem
    ann = world.browser("ann")
    with capture_logs() as logs:
        answers = [ann.get(PATH) for _ in range(3)]
    assert {each.status_code for each in answers} == {200}
    assert (answers[0].json()["reason"], answers[0].json()["may_comment"]) == (reason, may)
    assert [each["event"] for each in logs if each["log_level"] == "warning"] == ["comments_not_read"]
    assert len(world.vendor.requests) == 1, "it is not tried again for a minute"


@pytest.mark.parametrize(
    ("listed", "writer", "is_same"),
    [
        ("@Bob  Is the date\nright?", "ann", True),
        ("<p>Is the&nbsp;date right?</p>", "ann", True),
        ("<p>Is the</p><p>date <a href='/d'>right</a>?</p>", "ann", True),
        ("Is the date right?", "", True),
        ("Is the date right?", "bob", False),
        ("Is another date right?", "ann", False),
    ],
)
def test_a_comment_that_the_vendor_lists_in_another_form_is_shown_once(
    world: World, listed: str, writer: str, *, is_same: bool
) -> None:
    ann, store = world.browser("ann"), Actions(world.served.database, unchecked)
    write(ann, "Is the date right?")
    [recorded] = store.due(now=now_ms())
    store.advance(recorded, status="DONE", due_at=None)
    world.vendor.comments = [Comment("8", writer, listed, recorded.requested_at, None)]
    ann.get(PATH)
    assert (ann.get(PATH).json()["said"] == []) is is_same


def test_a_vendor_that_does_not_answer_holds_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systems, "OPEN_S", 0.01)
    world.vendor.is_silent = True
    assert world.browser("ann").get(PATH).json()["reason"] == "not-now"


def test_a_caller_has_so_many_read_and_what_is_used_up_is_tried_again(world: World) -> None:
    ann, bob = world.browser("ann"), world.browser("bob")
    paths = [f"/v1/instances/{each}/comments" for each in world.store(f"N-{each}" for each in range(121))]
    assert [ann.get(each).json()["reason"] for each in paths] == [None] * 120 + ["not-now"]
    assert world.served.comments_read.count("limited") == 1
    world.vendor.problem = Busy("the calls of the day are used up")
    assert [bob.get(paths[-1]).json()["reason"] for _ in range(2)] == ["not-now"] * 2
    world.vendor.problem = None
    assert bob.get(paths[-1]).json()["reason"] is None
    assert world.served.comments_read.count("limited") == 3


async def test_those_who_open_an_instance_at_the_same_time_share_a_call() -> None:
    vendor, counted = Vendor(), list[str]()
    reader, its = module.CommentReader(counted.append), state("I-1", form_uuid="FORM-1")
    callers = [Caller("sso", rate_key=each) for each in ("ann", "bob")]
    found = await asyncio.gather(*(reader.of(each, its, vendor.read) for each in callers))
    assert ([len(each.items) for each in found], len(vendor.requests), counted) == ([1, 1], 1, ["read"])


async def test_what_was_read_is_read_again_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    caller, its = Caller("sso", rate_key="ann"), state("I-1", form_uuid="FORM-1")
    requests = list[int]()
    for shown_s in (60.0, 0.0):
        monkeypatch.setattr(module, "_SHOWN_S", shown_s)
        vendor, reader = Vendor(), module.CommentReader(lambda _: None)
        for _ in range(2):
            await reader.of(caller, its, vendor.read)
        requests.append(len(vendor.requests))
    assert requests == [1, 2]


@pytest.fixture
def one_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 1)


@pytest.mark.usefixtures("one_remembered")
def test_what_is_read_is_bounded(world: World) -> None:
    world.vendor.comments = [Comment(str(each), "bob", "x" * 5_000, each, None) for each in range(300)]
    ann = world.browser("ann")
    items = ann.get(PATH).json()["items"]
    assert [each["comment_id"] for each in items] == [str(each) for each in range(200, 300)], "the newest"
    assert {len(each["text"]) for each in items} == {2_000}
    ann.get("/v1/instances/I-2/comments")
    ann.get(PATH)
    assert len(world.vendor.requests) == 3, "one instance is remembered"
