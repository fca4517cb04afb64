"""What assistants read at ``/mcp``: a person's own tasks, by the person's token; and who is refused."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete, func, insert, select, update

from support import http_clients
from support.assistants import AUDIENCE, Assistant, text_of, token_of
from support.center_rows import ANN, entry_row, state
from support.edge.process import wait_until
from support.identity_provider import CLIENT_ID
from support.served_apps import serving
from support.sign_in import SAME_SITE, URL, Served, signing_in, tokens_file
from taskbridge.center.access import oidc
from taskbridge.center.access.access import Caller
from taskbridge.center.access.audit import ASSISTANT_READ
from taskbridge.center.access.delegations import Delegation
from taskbridge.center.assistants.clients import Clients
from taskbridge.center.assistants.content import ANSWER_MAX, LISTED_MOST, TEXT_MAX, cut, marked
from taskbridge.center.assistants.tools import CALLS_A_MINUTE
from taskbridge.center.erasure import Erasure
from taskbridge.center.tables import assistants, audit, delegations, entries
from taskbridge.runtime.database import now_ms
from taskbridge.schemas.events import Person, PersonRecord, Status, TaskEntry

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from mcp.client.client import ConnectMode

    from support.identity_provider import IdentityProvider
    from taskbridge.runtime.database import Database

OPERATORS = "operators"
OURS, THEIRS = "tb_ours", "tb_theirs"


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Generator[tuple[Served, IdentityProvider, str]]:
    tokens = tokens_file(tmp_path, ours=OURS, theirs=THEIRS)
    with (
        signing_in(database, tmp_path, operator_groups=OPERATORS, operators="ours/bob", api_tokens_file=tokens) as (
            served,
            provider,
        ),
        serving(served.http) as url,
    ):
        yield served, provider, url


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_an_assistant_reads_the_tasks_of_its_person(
    world: tuple[Served, IdentityProvider, str], mode: ConnectMode
) -> None:
    served, provider, url = world
    pending = TaskEntry("7", Status.PENDING, ("bob",), created_at=1_000, step_name="Manager")
    served.rows.store(state("I-own", corp_id="ours", originator=ANN, title="Servers", tasks=(pending,)))
    ann = Assistant(url, token_of(provider), mode=mode)
    assert set(ann.tools()) == {
        *("list_tasks", "get_task", "count_tasks", "waiting_for", "propose_decision", "get_proposal"),
    }
    assert ann("count_tasks") == {"created": 1, "pending": 1, "handled": 0, "copied": 0}
    [item] = ann("list_tasks", view="created")["items"]
    assert (item["instance_id"], item["status"], item["created_at"]) == ("I-own", "PENDING", "1970-01-01T00:00:01.000Z")
    assert item["title"] == {"untrusted": True, "text": "Servers"}
    assert item["link"] == f"{URL}/#created/I-own"
    assert ann("list_tasks", view="pending", overdue=True) == {"items": [], "next_cursor": None}
    assert ann("list_tasks", view="created", q="nothing like it")["items"] == []
    found = ann("get_task", instance_id="I-own")
    assert (found["revision"], found["tasks"][0]["assignee_ids"], found["form"]) == (1, ["bob"], [])
    waiting = ann("waiting_for", instance_id="I-own")
    [waits] = waiting["items"]
    assert waiting["people"] == [{"user_id": "bob", "name": {"untrusted": True, "text": "Bob"}}]
    assert waits["assignee_ids"] == ["bob"]
    assert waits["step_name"]["text"] == "Manager"


def test_the_tasks_of_others_never_appear(world: tuple[Served, IdentityProvider, str]) -> None:
    """Bob is an operator, and Ann has delegated her tasks to him: here he is nobody but himself."""
    served, provider, url = world
    with served.database.write() as connection:
        row = Delegation("D-1", "ours", "ann", "bob", "", "", 0, now_ms() + 1_000_000)
        connection.execute(insert(delegations).values(row._asdict()))
    for user, own in (("ann", "I-ann"), ("bob", "I-bob")):
        assistant = Assistant(url, token_of(provider, user, groups=[OPERATORS]))
        [item] = assistant("list_tasks", view="pending")["items"]
        assert item["instance_id"] == own
        for other in {"I-ann", "I-bob", "I-dan", "I-none"} - {own}:
            for tool in ("get_task", "waiting_for"):
                assert "no such instance" in assistant(tool, instance_id=other)
        assert "one person's" in assistant("list_tasks", view="pending", corp_id="ours", user_id="cai")
        assert "one person's" in assistant("count_tasks", corp_id="theirs")


def test_a_token_of_elsewhere_or_of_another_time_is_refused(world: tuple[Served, IdentityProvider, str]) -> None:
    _, provider, url = world
    metadata = f"{URL}/.well-known/oauth-protected-resource/mcp"
    now = int(time.time())
    wrong: list[dict[str, Any]] = [
        {"aud": f"{URL}/other"},
        {"aud": CLIENT_ID},
        {"aud": None},
        {"iss": "https://elsewhere.example"},
        {"exp": now - 120},
        {"exp": None},
        {"iat": None},
        {"iat": now + 86_400},
        {"nbf": now + 86_400},
        {"iat": now - 100 * 86_400},
    ]
    for claims in wrong:
        answer = post(url, token_of(provider, **claims))
        assert answer.status_code == 401, claims
        assert answer.headers["www-authenticate"] == f'Bearer error="invalid_token", resource_metadata="{metadata}"'
    assert post(url, token_of(provider)).status_code == 200


def test_a_token_that_the_provider_did_not_sign_is_refused(world: tuple[Served, IdentityProvider, str]) -> None:
    _, provider, url = world
    provider.algorithms = "RS256", "none", "HS256"
    for provider.algorithm in ("none", "HS256"):
        assert post(url, token_of(provider)).status_code == 401
    provider.algorithm = "RS256"
    assert post(url, token_of(provider)).status_code == 200


def test_people_of_other_corps_and_unknown_people_are_refused(database: Database, tmp_path: Path) -> None:
    with (
        signing_in(database, tmp_path, oidc_corp_claim="org") as (served, provider),
        serving(served.http) as url,
    ):
        assert post(url, token_of(provider, org="ours")).status_code == 200
        for claims in ({"org": "theirs"}, {"org": "nowhere"}, {}, {"org": "ours", "preferred_username": "nobody"}):
            assert post(url, token_of(provider, **claims)).status_code == 403, claims


def test_a_cookie_and_no_token_open_nothing(world: tuple[Served, IdentityProvider, str]) -> None:
    served, _, url = world
    browser = served.signed_in()
    assert browser.post("/mcp", json={}, headers=SAME_SITE).status_code == 401
    for elsewhere in ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, {"Origin": "null"}):
        headers = {"Authorization": f"Bearer {token_of(world[1])}", **elsewhere}
        assert browser.post("/mcp", json={}, headers=headers).status_code == 403
    assert post(url, None).status_code == 401
    described = http_clients.get(f"{url}/.well-known/oauth-protected-resource/mcp").json()
    assert described["resource"] == AUDIENCE
    assert described["authorization_servers"] == [world[1].url]


def test_a_token_with_an_unknown_key_has_the_keys_read_once_in_a_minute(
    world: tuple[Served, IdentityProvider, str],
) -> None:
    _, provider, url = world
    assert post(url, token_of(provider)).status_code == 200
    provider.key_id = "2"
    assert [post(url, token_of(provider)).status_code for _ in range(3)] == [401] * 3
    assert provider.keys_read == 1


def test_a_provider_that_is_away_is_asked_once_for_many_requests(world: tuple[Served, IdentityProvider, str]) -> None:
    """And the keys that are known are used while it is."""
    _, provider, url = world
    provider.is_down = True
    with ThreadPoolExecutor(8) as threads:
        answers = threads.map(post, [url] * 16, [token_of(provider)] * 16)
        assert [each.status_code for each in answers] == [503] * 16
    assert provider.configuration_read == 1


def test_the_first_requests_share_one_reading_of_the_keys(world: tuple[Served, IdentityProvider, str]) -> None:
    _, provider, url = world
    with ThreadPoolExecutor(8) as threads:
        answers = threads.map(post, [url] * 16, [token_of(provider)] * 16)
        assert [each.status_code for each in answers] == [200] * 16
    assert provider.keys_read == 1


def test_a_provider_that_hangs_holds_up_only_who_sends_an_unknown_key(
    world: tuple[Served, IdentityProvider, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, provider, url = world
    known = token_of(provider)
    assert post(url, known).status_code == 200
    monkeypatch.setattr(oidc, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 61))
    provider.key_id = "2"
    provider.answers.clear()
    with ThreadPoolExecutor(1) as threads:
        stranger = threads.submit(post, url, token_of(provider))
        try:
            wait_until(lambda: provider.keys_read == 2, what="the keys are read again")
            assert post(url, known).status_code == 200
            assert not stranger.done()
        finally:
            provider.answers.set()
        assert stranger.result().status_code == 401


def test_a_program_reads_for_whom_it_names_within_its_corps(world: tuple[Served, IdentityProvider, str]) -> None:
    _, _, url = world
    program = Assistant(url, OURS)
    [item] = program("list_tasks", view="pending", corp_id="ours", user_id="bob")["items"]
    assert item["instance_id"] == "I-bob"
    assert "give corp_id and user_id" in program("count_tasks")
    assert "may not read" in program("count_tasks", corp_id="theirs", user_id="dan")
    assert "no such instance" in program("get_task", instance_id="I-ann", corp_id="ours", user_id="bob")
    proposed = program("propose_decision", instance_id="I-bob", task_id="T-1", action="agree")
    assert "only a person's own access token" in proposed


def test_sizes_and_rates_are_limited(world: tuple[Served, IdentityProvider, str]) -> None:
    served, provider, url = world
    assert post(url, token_of(provider), content=b" " * 65_537).status_code == 413
    assert http_clients.get(f"{url}/mcp").status_code == 405
    long = "\u6587" * 3 * TEXT_MAX
    rows = [entry_row(f"I-{n}", user="cai", corp="ours", title=long, process_name=long) for n in range(60)]
    served.rows.add(*rows)
    cai = Assistant(url, token_of(provider, "cai"))
    seen, cursor = set[str](), ""
    query: dict[str, Any] = {"view": "pending", "limit": 50}
    while True:
        [answer] = cai.calls(("list_tasks", query | ({"cursor": cursor} if cursor else {})))
        page = answer.structured_content
        assert len(json.dumps(page)) + len(json.dumps(text_of(answer))) <= ANSWER_MAX
        seen |= {each["instance_id"] for each in page["items"]}
        assert page["items"][0]["title"] == {"untrusted": True, "text": long[:TEXT_MAX], "truncated": True}
        if (cursor := page["next_cursor"]) is None:
            break
    assert len(seen) == 60
    check_rate(cai, cai)
    other = Assistant(url, token_of(provider, "cai", azp="another"))
    assert other("count_tasks")["pending"] == 60, "each client has its own"


def test_an_instance_that_is_too_long_is_cut(world: tuple[Served, IdentityProvider, str]) -> None:
    served, provider, url = world
    tasks = tuple(TaskEntry(str(n), Status.COMPLETED, ("ann",), "ann", remark="r" * 3000) for n in range(300))
    served.rows.store(state("I-long", corp_id="ours", originator=ANN, tasks=tasks))
    [answer] = Assistant(url, token_of(provider)).calls(("get_task", {"instance_id": "I-long"}))
    found = answer.structured_content
    assert found["truncated"]
    assert 0 < len(found["tasks"]) < 300
    assert len(json.dumps(found)) + len(json.dumps(text_of(answer))) <= ANSWER_MAX
    ann = Assistant(url, token_of(provider))
    short = tuple(TaskEntry(str(n), Status.PENDING, ("ann",)) for n in range(LISTED_MOST + 1))
    served.rows.store(state("I-many", corp_id="ours", originator=ANN, tasks=short))
    waiting = ann("waiting_for", instance_id="I-many")
    assert (waiting["truncated"], len(waiting["items"])) == (True, LISTED_MOST)
    [task] = ann("get_task", instance_id="I-long", task_id="299")["tasks"]
    assert (task["task_id"], len(task["remark"]["text"])) == ("299", TEXT_MAX)


def test_of_a_long_list_only_a_part_is_looked_at() -> None:
    """Each item takes time to mark and to measure."""
    found = cut({"ids": ["1"] * LISTED_MOST * 20, "few": ["1"]})
    assert (len(found["ids"]), found["few"], found["truncated"]) == (LISTED_MOST, [marked("1")], True)
    assert "truncated" not in cut({"ids": ["1"] * LISTED_MOST})


def test_texts_of_any_characters_fit(world: tuple[Served, IdentityProvider, str]) -> None:
    """In all fields, of a list and of an instance: some characters are twelve in JSON."""
    served, provider, url = world
    names = "title", "process_name", "serial_no", "instance_status", "approved_result"
    for character in ("\U0001f600", "\u0001", '"', "\u6587"):
        instance_id, long = f"I-{ord(character)}", character * TEXT_MAX
        task = TaskEntry("7", Status.PENDING, ("ann",), created_at=1_000, step_name=long)
        its: dict[str, Any] = {"corp_id": "ours", "process_code": instance_id, "app_type": instance_id}
        its |= {**dict.fromkeys(names, long), "originator": Person("ann", long), "tasks": (task,)}
        served.rows.store(state(instance_id, **its))
        calls = ("list_tasks", {"view": "created", "limit": 1}), ("get_task", {"instance_id": instance_id})
        for answer in Assistant(url, token_of(provider)).calls(*calls):
            found: dict[str, Any] = answer.structured_content or {}
            assert len(json.dumps(found)) + len(json.dumps(text_of(answer))) <= ANSWER_MAX
            title = (found if "title" in found else found["items"][0])["title"]
            assert set(title["text"]) == {character}
        with served.database.write() as connection:
            connection.execute(delete(entries))


def test_clients_without_a_name_in_the_token_are_one(world: tuple[Served, IdentityProvider, str]) -> None:
    """Under any name: they have one limit, and an operator can refuse them."""
    served, provider, url = world
    token, path = token_of(provider, azp=None), "/v1/ops/corps/ours/assistants"
    operator = served.signed_in("bob")
    check_rate(Assistant(url, token, name="one"), Assistant(url, token, name="another"))
    [item] = operator.get(path).json()["items"]
    assert (item["client"], item["people"]) == ("unnamed", 1)
    refusal = {"client": "unnamed", "refused": True}
    assert operator.put(path, json=refusal, headers=SAME_SITE).status_code == 200
    assert post(url, token).status_code == 401
    assert post(url, token_of(provider)).status_code == 200


def test_a_client_with_a_long_name_is_refused_by_what_is_shown_of_it(
    world: tuple[Served, IdentityProvider, str],
) -> None:
    served, provider, url = world
    token, path = token_of(provider, azp="https://a.example/" + "x" * 300), "/v1/ops/corps/ours/assistants"
    Assistant(url, token)("count_tasks")
    operator = served.signed_in("bob")
    [item] = operator.get(path).json()["items"]
    operator.put(path, json={"client": item["client"], "refused": True}, headers=SAME_SITE)
    assert post(url, token).status_code == 401


def test_odd_arguments_are_refused_or_find_nothing(world: tuple[Served, IdentityProvider, str]) -> None:
    _, provider, url = world
    odd: list[dict[str, Any]] = [
        {"instance_id": "\ud800"},
        {"instance_id": "I\0"},
        {"instance_id": "\ud800", "task_id": "\udfff", "action": "agree", "remark": "\ud800\0"},
        {"view": "pending", "q": "\ud800"},
        {"view": "pending", "q": "\0%_\\"},
        {"view": "pending", "app_type": "\ud800"},
        {"view": "pending", "cursor": "\ud800"},
        {"proposal_id": "\ud800"},
    ]
    for arguments in odd:
        tool = "list_tasks" if "view" in arguments else "get_proposal" if "proposal_id" in arguments else "get_task"
        tool = "propose_decision" if "action" in arguments else tool
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
        answer = post(url, token_of(provider), content=json.dumps(call).encode())
        assert answer.status_code in (200, 400), arguments
        if answer.status_code == 200:
            said = answer.json().get("result", {}).get("content", [{"text": "refused"}])[0]["text"]
            assert said != f"Error executing tool {tool}", "a failure that nobody expected"


def test_a_body_that_is_no_request_is_refused(world: tuple[Served, IdentityProvider, str]) -> None:
    _, provider, url = world
    for content in (b"[" * 60_000, b'{"a":' * 12_000, b"\xff\xfe", b"NaN", b" ", b"[]", b"\0"):
        assert 400 <= post(url, token_of(provider), content=content).status_code < 500, content[:9]


def test_signing_out_everywhere_refuses_earlier_tokens(world: tuple[Served, IdentityProvider, str]) -> None:
    served, provider, url = world
    now = int(time.time())
    earlier, later = token_of(provider, iat=now - 10), token_of(provider, iat=now + 10)
    assert post(url, earlier).status_code == 200
    browser = served.signed_in()
    browser.post("/sign-out?everywhere=true", headers=SAME_SITE)
    assert post(url, earlier).status_code == 401
    assert post(url, later).status_code == 200
    assert post(url, token_of(provider, "bob", iat=now - 10)).status_code == 200


def test_erasing_a_person_refuses_earlier_tokens_for_good(world: tuple[Served, IdentityProvider, str]) -> None:
    """Also once they are imported again."""
    served, provider, url = world
    now = int(time.time())
    earlier, later = token_of(provider, iat=now - 10), token_of(provider, iat=now + 10)
    assert post(url, earlier).status_code == 200
    Erasure(served.database).erase(("ours", "ann"))
    served.rows.know("ours", PersonRecord("ann", "Ann", employee_number="1"))
    assert (post(url, earlier).status_code, post(url, later).status_code) == (401, 200)
    with served.database.read() as connection:
        assert "ann" not in connection.execute(select(assistants.c.user_id)).scalars().all()


def test_who_reads_is_recorded_once_an_hour_at_any_number_of_replicas(
    world: tuple[Served, IdentityProvider, str],
) -> None:
    served, _, _ = world
    caller = Caller("sso", "claude", corp_id="ours", user_id="ann")

    async def note() -> None:
        for _ in range(3):  # each knows nothing of the others, or has forgotten it
            clients = Clients(served.database, served.rows.threads)
            await clients.note(caller, ("ours", "ann"), "claude", "claude", address="192.0.2.1")

    asyncio.run(note())
    with served.database.write() as connection:
        entries = connection.execute(select(func.count()).select_from(audit).where(audit.c.action == ASSISTANT_READ))
        assert entries.scalar_one() == 1
        connection.execute(update(assistants).values(used_at=assistants.c.used_at - 3_600_001))
    asyncio.run(note())
    with served.database.read() as connection:
        entries = connection.execute(select(func.count()).select_from(audit).where(audit.c.action == ASSISTANT_READ))
        assert entries.scalar_one() == 2


def test_an_operator_sees_and_refuses_clients(world: tuple[Served, IdentityProvider, str]) -> None:
    served, provider, url = world
    path, operator = "/v1/ops/corps/ours/assistants", served.signed_in("bob")
    ann, cai = Assistant(url, token_of(provider, "ann")), Assistant(url, token_of(provider, "cai", azp="codex"))
    for each in (ann, ann, cai):
        each("count_tasks")
    items = operator.get(path).json()["items"]
    assert sorted((each["client"], each["people"], each["refused"]) for each in items) == [
        ("claude", 1, False),
        ("codex", 1, False),
    ]
    refusal = {"client": "claude", "refused": True}
    assert operator.put(path, json=refusal).status_code == 403, "from no page of ours"
    items = operator.put(path, json=refusal, headers=SAME_SITE).json()["items"]
    assert {each["client"]: each["refused"] for each in items} == {"claude": True, "codex": False}
    later = token_of(provider, "ann", iat=int(time.time()) + 30)
    assert post(url, later).status_code == 401
    assert cai("count_tasks")["pending"] == 0
    operator.put(path, json={**refusal, "refused": False}, headers=SAME_SITE)
    assert post(url, later).status_code == 200
    person = served.signed_in("ann")
    assert person.get(path).status_code == 403
    with served.database.read() as connection:
        entries = connection.exec_driver_sql("SELECT action, subject FROM audit ORDER BY seq").all()
    found = [tuple(each) for each in entries if "assistant" in each[0]]
    assert found == [
        ("assistant_read", "claude"),
        ("assistant_read", "codex"),
        ("assistant_refused", "claude"),
        ("assistant_allowed", "claude"),
    ]


def check_rate(*assistants: Assistant) -> None:
    """Together they make no more calls than in a minute, and those that come back with time."""
    began, nothing = time.monotonic(), dict[str, Any]()
    answers = [each for one in assistants for each in one.calls(*[("count_tasks", nothing)] * CALLS_A_MINUTE)]
    refused = [each for each in answers if "calls in a minute" in text_of(each)]
    assert len(answers) - len(refused) <= CALLS_A_MINUTE + time.monotonic() - began + 1


def post(url: str, token: str | None, *, content: bytes | None = None) -> Any:
    """A request of the protocol, whose answer is HTTP's."""
    ping = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    return http_clients.post(f"{url}/mcp", content=content or ping, headers=headers)
