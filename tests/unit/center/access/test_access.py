"""Who may query whom: by every route of the OpenAPI document, also by those that are yet to be written."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from starlette.requests import HTTPConnection
from starlette.testclient import TestClient

from support.center_rows import AnsweringCenter, state
from support.sign_in import tokens_file
from taskbridge.center.access import access as access_module
from taskbridge.center.access.access import Access, Caller, build_access
from taskbridge.center.actions.systems import FormRead
from taskbridge.center.settings import CenterSettings
from taskbridge.runtime import rates
from taskbridge.runtime.access import own_hosts
from taskbridge.runtime.refusals import NotNow, Unauthorized
from taskbridge.runtime.settings import FileBroken, load_settings
from taskbridge.runtime.tokens import TokensFile, digest_of, new_token, parse_tokens
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.schemas.events import Action, PersonRecord, Status, TaskEntry, TaskEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from taskbridge.center.actions.systems import LoggedChange, Step
    from taskbridge.runtime.database import Database

OURS, THEIRS, ALL = new_token(), new_token(), new_token()

NEEDS_NO_TOKEN = {"/healthz", "/readyz", "/metrics"}
ABOUT_THE_CALLER = {"/v1/me", "/v1/people"}


def settings(**given: str) -> CenterSettings:
    needed = {"kafka_bootstrap_servers": "127.0.0.1:1", "schema_registry_url": "http://127.0.0.1:1"}
    return load_settings(CenterSettings, {f"CENTER_{name.upper()}": value for name, value in (needed | given).items()})


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return Path(tokens_file(tmp_path, ours=OURS, theirs=THEIRS, all=ALL))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def make_center(sqlite_database: Database) -> Generator[Callable[[Access], AnsweringCenter]]:
    made: list[AnsweringCenter] = []

    def make(access: Access) -> AnsweringCenter:
        made.append(AnsweringCenter(sqlite_database, access))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def center(make_center: Callable[[Access], AnsweringCenter]) -> AnsweringCenter:
    """One that is open to its machine."""
    return make_center(Access(tokens=None))


def furnish(center: AnsweringCenter, corp: str, user: str = "ann") -> None:
    """An instance ``I-{corp}`` that is in a list of the user, with a file."""
    center.store(state(f"I-{corp}", corp_id=corp, title="Leave", tasks=(TaskEntry("T-1", Status.PENDING, (user,)),)))
    created = TaskEvent(
        event_id=f"e-{corp}",
        source="yida",
        action=Action.CREATED,
        corp_id=corp,
        app_type="APP",
        instance_id=f"I-{corp}",
        occurred_at=1,
        received_at=1,
        form_data={"file": '[{"name": "x", "url": "/x"}]'},
    )
    center.store_events(created)
    center.open_file = lambda _file: temporary_address
    center.read_form = Unchanged()


class Unchanged:
    """Reads forms that are as they were."""

    calls_per_day = 500

    async def read(self, instance_id: str) -> FormRead:
        return FormRead({}, is_running=False, about=instance_id)

    async def changes(self, instance_id: str, read: FormRead, fields: Sequence[str]) -> Mapping[str, LoggedChange]:
        assert (read.about, fields) == (instance_id, ["file"])
        return {}

    async def steps(self, instance_id: str, read: FormRead, here: Sequence[str]) -> Sequence[Step]:
        assert (read.about, here) == (instance_id, [])
        return ()


async def temporary_address(_user_id: str | None) -> str:
    return "https://files.example/x"


def queries(client: TestClient, corp: str) -> list[tuple[str, str, str]]:
    """Every operation of the OpenAPI document, filled in with that corp's things: template, method, path."""
    named = {"corp_id": corp, "user_id": "ann", "instance_id": f"I-{corp}", "view": "pending"}
    named |= {"place": "file", "number": "0"}
    found: list[tuple[str, str, str]] = []
    for template, operations in client.get("/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            query = "&".join(
                f"{each['name']}={named.get(each['name'], '1')}"
                for each in operation.get("parameters", ())
                if each["in"] == "query" and each["required"]
            )
            found.append((template, method, f"{template.format(**named)}?{query}"))
    return found


def test_a_token_of_one_corp_reads_nothing_of_another_by_any_route(
    make_center: Callable[[Access], AnsweringCenter], tokens: Path
) -> None:
    center = make_center(build_access(settings(api_tokens_file=str(tokens))))
    furnish(center, "ours")
    center.know("ours", PersonRecord("ann", "Ann"))
    with TestClient(center.http(), follow_redirects=False) as client:
        found = queries(client, "ours")
        assert {template for template, _, _ in found} > NEEDS_NO_TOKEN | ABOUT_THE_CALLER
        for template, method, path in found:
            if template in NEEDS_NO_TOKEN:
                continue
            answers = {who: client.request(method, path, headers=bearer(who)) for who in (OURS, THEIRS, ALL)}
            assert client.request(method, path).status_code == 401, path
            assert client.request(method, path, headers=bearer("wrong")).status_code == 401, path
            expected = 303 if template.endswith("/files") else 200
            assert answers[OURS].status_code == answers[ALL].status_code == expected, path
            if template in ABOUT_THE_CALLER:
                assert "ours" not in answers[THEIRS].text
            else:
                assert answers[THEIRS].status_code == (404 if "instance_id" in template else 403), path
                assert "Leave" not in answers[THEIRS].text


def test_what_is_not_there_and_what_is_not_for_the_caller_look_the_same(
    make_center: Callable[[Access], AnsweringCenter], tokens: Path
) -> None:
    center = make_center(build_access(settings(api_tokens_file=str(tokens))))
    furnish(center, "ours")
    with TestClient(center.http()) as client:
        answers = {
            path: client.get(f"/v1/instances/{path}", headers=bearer(THEIRS))
            for path in ("I-ours", "I-never", "I-ours/history", "I-never/history")
        }
    assert {answer.status_code for answer in answers.values()} == {404}
    assert len({answer.text for answer in answers.values()}) == 1


def test_no_route_changes_anything(center: AnsweringCenter) -> None:
    with TestClient(center.http()) as client:
        assert {method for _, method, _ in queries(client, "ours")} == {"get"}


def test_no_answer_is_kept_on_the_way(center: AnsweringCenter) -> None:
    furnish(center, "ours")
    with TestClient(center.http(), follow_redirects=False) as client:
        for template, _, path in queries(client, "ours"):
            if template not in NEEDS_NO_TOKEN:
                assert client.get(path).headers["cache-control"] == "no-store", path


@pytest.fixture
def sso_client(make_center: Callable[[Access], AnsweringCenter], tokens: Path) -> Callable[[str], TestClient]:
    access = build_access(
        settings(
            api_tokens_file=str(tokens),
            sso_proxies="10.1.0.0/16, fd00::/8",
            sso_corp_header="X-Forwarded-Corp",
            corp_id="another",
        )
    )
    center = make_center(access)
    furnish(center, "ours")
    center.know("ours", PersonRecord("ann", "安"))
    center.store(state("I-of-others", corp_id="ours", tasks=(TaskEntry("T-1", Status.PENDING, ("bob",)),)))
    http = center.http()
    return lambda address: TestClient(http, client=(address, 1))


@pytest.fixture
def mapped_center(make_center: Callable[[Access], AnsweringCenter], tokens: Path) -> AnsweringCenter:
    """Each is known by an id that another has as their user id, and one of another corp has the id of one of ours."""
    given = {"sso_proxies": "10.1.0.0/16", "sso_corp_header": "X-Forwarded-Corp", "mapped_id": "ldap"}

    async def users_of(corp_id: str, kind: str | None, value: str) -> Sequence[str]:
        if not center.complete:
            raise NotNow("not all people are read")
        return await center.threads.run(center.queries.users_of, corp_id, kind, value)

    center = make_center(build_access(settings(**given, api_tokens_file=str(tokens)), users_of))
    for corp, user, ldap in (
        ("ours", "ann", "a.ann"),
        ("ours", "bob", "ann"),
        ("ours", "cai", "twice"),
        ("ours", "dan", "twice"),
        ("ours", "eve", ""),
        ("theirs", "ann", "a.theirs"),
    ):
        center.know(
            corp, PersonRecord(user, employee_number="a.ann" if user == "dan" else None, other_ids={"ldap": ldap})
        )
    furnish(center, "ours")
    return center


@pytest.fixture
def mapped(mapped_center: AnsweringCenter) -> Callable[..., Any]:
    """The response to a person who has this id, as the proxy says."""
    client = TestClient(mapped_center.http(), client=("10.1.2.3", 1))

    def get(ldap: str, path: str = "/v1/me", **headers: str) -> Any:
        sent = {"X-Forwarded-User": ldap, "X-Forwarded-Corp": "ours", **headers}
        return client.get(path, headers={name.encode(): value.encode() for name, value in sent.items()})

    return get


def test_who_signs_in_by_a_mapped_id_is_the_person_who_has_it(mapped: Callable[..., Any]) -> None:
    me = mapped("a.ann").json()
    assert (me["mode"], me["corp_id"], me["user_id"]) == ("sso", "ours", "ann")
    assert mapped("a.ann", "/v1/corps/ours/users/ann/counts").status_code == 200
    assert mapped("a.ann", "/v1/instances/I-ours").status_code == 200
    assert mapped("a.ann", "/v1/corps/ours/users/bob/counts").status_code == 403
    # An id that is another's user id is that of the person who has it as their mapped id, and of nobody else.
    assert mapped("ann").json()["user_id"] == "bob"
    assert mapped("ann", "/v1/corps/ours/users/ann/counts").status_code == 403
    assert mapped("ann", "/v1/instances/I-ours").status_code == 404


def test_an_id_that_does_not_say_who_it_is_lets_nobody_in(mapped: Callable[..., Any]) -> None:
    for ldap in ("bob", "eve", "twice", "a.theirs", "A.ANN", "a.ann,ann", "a.ann\u200b", "nobody"):
        for path in ("/v1/me", "/v1/corps/ours/users/ann/counts", "/v1/instances/I-ours"):
            answer = mapped(ldap, path, **bearer(ALL))
            assert (answer.status_code, answer.json()["type"]) == (403, "urn:taskbridge:problem:unknown-person"), ldap
            assert "administrator" in answer.json()["detail"]


def test_nobody_is_let_in_by_a_mapped_id_while_somebody_else_may_have_it_too(
    mapped: Callable[..., Any], mapped_center: AnsweringCenter
) -> None:
    mapped_center.complete = False
    answer = mapped("a.ann")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


ANN = {"X-Forwarded-User": "ann", "X-Forwarded-Corp": "ours"}


def test_who_signed_in_at_a_trusted_proxy_sees_themselves_and_what_concerns_them(
    sso_client: Callable[[str], TestClient],
) -> None:
    client, *others = (sso_client(each) for each in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::1"))
    assert [each.get("/v1/me", headers=ANN).json()["user_id"] for each in others] == ["ann", "ann"]

    def status(path: str) -> int:
        return client.get(path, headers=ANN).status_code

    assert client.get("/v1/me", headers=ANN).json() == {
        "mode": "sso",
        "name": None,
        "corps": ["ours"],
        "corp_id": "ours",
        "user_id": "ann",
        "user_name": "安",
        "operator": False,
        "auditor": False,
        "session": False,
        "preferences": {"language": None, "theme": None, "notifications": None},
        "owned_apps": [],
        "start_forms": False,
    }
    assert status("/v1/people") == 403, "not even themselves"
    assert status("/v1/corps/ours/users/ann/tasks?view=pending") == 200
    assert status("/v1/corps/ours/users/bob/tasks?view=pending") == 403
    assert status("/v1/corps/theirs/users/ann/counts") == 403
    assert status("/v1/instances/I-ours") == 200
    assert status("/v1/instances/I-of-others") == 404
    assert status("/v1/instances/I-of-others/history") == 404


def test_whom_a_proxy_names_may_be_an_operator(
    make_center: Callable[[Access], AnsweringCenter],
) -> None:
    access = build_access(settings(sso_proxies="10.1.0.0/16", corp_id="ours", operators="ours/ann"))
    center = make_center(access)
    furnish(center, "theirs")
    client = TestClient(center.http(), client=("10.1.2.3", 1))
    for user, status in (("ann", 200), ("bob", 404)):
        assert client.get("/v1/instances/I-theirs", headers={"X-Forwarded-User": user}).status_code == status
        assert client.get("/v1/me", headers={"X-Forwarded-User": user}).json()["operator"] is (user == "ann")


def test_a_proxy_may_say_the_groups_of_operators_and_auditors(
    make_center: Callable[[Access], AnsweringCenter],
) -> None:
    given = {"sso_groups_header": "X-Forwarded-Groups", "operator_groups": "ops", "auditor_groups": "audit"}
    http = make_center(build_access(settings(sso_proxies="10.1.0.0/16", corp_id="ours", **given))).http()
    for address, groups, expected in (
        ("10.1.2.3", ["staff, ops"], (200, True, False)),
        ("10.1.2.3", ["audit"], (200, False, True)),
        ("10.1.2.3", ["OPS,"], (200, False, False)),
        ("10.1.2.3", [], (200, False, False)),
        ("10.1.2.3", ["staff", "ops"], (401, None, None)),  # a client's own, too
        ("10.1.2.3", ["ops" * 10_000], (401, None, None)),
        ("10.9.9.9", ["ops"], (401, None, None)),
    ):
        headers = [("X-Forwarded-User", "ann"), *(("X-Forwarded-Groups", each) for each in groups)]
        answer = TestClient(http, client=(address, 1)).get("/v1/me", headers=headers)
        me = answer.json()
        assert (answer.status_code, me.get("operator"), me.get("auditor")) == expected, groups


def test_the_headers_of_anybody_else_are_as_if_they_were_not_there(sso_client: Callable[[str], TestClient]) -> None:
    for anybody in ("10.2.0.1", "no-address"):
        client = sso_client(anybody)
        assert client.get("/v1/me", headers=ANN).status_code == 401
        me = client.get("/v1/me", headers=ANN | bearer(THEIRS)).json()
        assert (me["mode"], me["corps"], me["user_id"]) == ("token", ["theirs"], None)


def test_a_proxy_whose_word_is_not_clear_is_not_believed(sso_client: Callable[[str], TestClient]) -> None:
    for headers in (
        [("X-Forwarded-User", "ann"), ("X-Forwarded-User", "bob"), ("X-Forwarded-Corp", "ours")],
        [("X-Forwarded-User", "ann")],
        [("X-Forwarded-User", "a" * 300), ("X-Forwarded-Corp", "ours")],
        [("X-Forwarded-User", " "), ("X-Forwarded-Corp", "ours")],
    ):
        assert sso_client("10.1.2.3").get("/v1/me", headers=headers).status_code == 401, headers


def test_with_single_sign_on_nobody_is_let_in_openly() -> None:
    access = build_access(settings(sso_proxies="10.1.0.0/16", corp_id="ours"))
    assert not access.is_open


@pytest.mark.parametrize(
    "given",
    [
        {"host": "0.0.0.0"},  # noqa: S104 - refused
        {"host": "center.internal"},
        {"sso_proxies": "10.0.0.0/33", "corp_id": "ours"},
        {"sso_proxies": "10.0.0.0/8"},
        {"sso_proxies": "10.0.0.0/8", "corp_id": "ours", "mapped_id": "user_id"},
        {"sso_proxies": "10.0.0.0/8", "corp_id": "ours", "mapped_id": ""},
        {"sso_proxies": "10.0.0.0/8", "corp_id": "ours", "mapped_id": "ldap", "oidc_issuer": "https://id.example"},
        {"sso_proxies": "10.0.0.0/8", "sso_corp_header": ""},
        {"api_tokens_file": "/nonexistent/tokens.toml"},
        {"sso_proxies": "10.0.0.0/8", "corp_id": "ours", "operators": "ann"},
    ],
)
def test_it_refuses_to_start(given: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        build_access(settings(**given))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tokens = []",
        "[[tokens]]",
        '[[tokens]]\nname = "a"\nsha256 = "abc"\ncorps = ["*"]',
        f'[[tokens]]\nname = "a"\nsha256 = "{digest_of("")}"\ncorps = ["*"]',
        f'[[tokens]]\nname = "a"\nsha256 = "{digest_of("t")}"\ncorps = []',
        f'[[tokens]]\nname = "a"\nsha256 = "{digest_of("t")}"\ncorps = [" "]',
        f'[[tokens]]\nname = "a"\nsha256 = "{digest_of("t")}"\ncorps = ["*", "ours"]',
        f'[[tokens]]\nname = " "\nsha256 = "{digest_of("t")}"\ncorps = ["*"]',
        f'[[tokens]]\nname = "a"\nsha256 = "{digest_of("t")}"\ncorps = ["*"]\ntoken = "t"',
        f'[[tokens]]\nname = "a"\nsha256 = "{digest_of("t")}"\ncorps = ["*"]\n' * 2,
        "not toml",
    ],
)
def test_a_file_that_is_not_right_is_broken_and_shows_no_digest(text: str) -> None:
    with pytest.raises(FileBroken) as broken:
        parse_tokens(text)
    assert digest_of("t") not in str(broken.value)


def test_an_open_service_answers_under_its_own_names_only(center: AnsweringCenter) -> None:
    client = TestClient(center.http(only_hosts=own_hosts("127.0.0.1")), base_url="http://127.0.0.1:8500")
    for host, status in (
        ("127.0.0.1:8500", 200),
        ("localhost:8500", 200),
        ("LOCALHOST", 200),
        ("[::1]:8500", 200),
        ("localhost:port", 400),
        ("evil.example", 400),
        ("evil.example:8500", 400),
        ("localhost.evil.example", 400),
        ("127.0.0.1.evil.example:8500", 400),
        ("", 400),
    ):
        assert client.get("/v1/me", headers={"Host": host}).status_code == status, host


def test_an_open_service_answers_nobody_through_a_proxy(center: AnsweringCenter) -> None:
    client = TestClient(center.http(only_hosts=own_hosts("127.0.0.1")), base_url="http://127.0.0.1:8500")
    anywhere = TestClient(center.http())
    for header in ("Forwarded", "X-Forwarded-For", "x-forwarded-proto", "X-FORWARDED-HOST", "X-Real-IP", "Via"):
        refused = client.get("/v1/me", headers={header: "203.0.113.5"})
        assert (refused.status_code, refused.json()["type"]) == (400, "urn:taskbridge:problem:forwarded"), header
        assert "tokens file" in refused.json()["detail"]
        assert anywhere.get("/v1/me", headers={header: "203.0.113.5"}).status_code == 200


def test_a_page_elsewhere_has_nothing_done_at_an_open_service(center: AnsweringCenter) -> None:
    client = TestClient(center.http(only_hosts=own_hosts("127.0.0.1")), base_url="http://127.0.0.1:8500")
    for origin, status in (
        (None, 405),
        ("http://127.0.0.1:8500", 405),
        ("http://127.0.0.1:9999", 400),
        ("https://evil.example", 400),
        ("null", 400),
    ):
        headers = {} if origin is None else {"Origin": origin}
        assert client.post("/v1/me", headers=headers).status_code == status, origin
        assert client.get("/v1/me", headers=headers).status_code == 200


def test_a_caller_gets_as_many_answers_as_are_allowed_and_then_learns_when_to_come_back(
    make_center: Callable[[Access], AnsweringCenter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "time", SimpleNamespace(monotonic=lambda: 7.0))
    monkeypatch.setattr(access_module, "_BURST_S", 2.0)
    client = TestClient(make_center(Access(tokens=None, rate_per_s=1.5)).http())
    *_, refused = answers = [client.get("/v1/me") for _ in range(5)]
    assert [each.status_code for each in answers] == [200, 200, 200, 429, 429]
    assert (refused.headers["Retry-After"], refused.headers["content-type"]) == ("1", "application/problem+json")


def test_what_is_open_goes_on_as_long_as_its_token_is_there_and_may_see_the_user(tokens: Path) -> None:
    access = build_access(settings(api_tokens_file=str(tokens)))
    assert access.tokens is not None

    def opened(token: str) -> Callable[[float], bool]:
        connection = HTTPConnection(
            {"type": "http", "headers": [(b"authorization", f"Bearer {token}".encode())], "client": ("127.0.0.1", 1)}
        )
        return access.lasting(asyncio.run(access.identify(connection)), "ours", "ann", now=0)

    ours, everybody = opened(OURS), opened(ALL)
    text = tokens.read_text()
    assert ours(1e9)
    for changed, goes_on in (
        (text.replace(digest_of(OURS), digest_of("another token of that name")), False),
        (text, True),
        (text.replace('"ours"]', '"narrower"]'), False),
        (text.replace('"ours"]', '"ours", "wider"]'), True),
        ("broken", True),
    ):
        tokens.write_text(changed)
        access.tokens.reload_if_changed()
        assert (ours(1e9), everybody(1e9)) == (goes_on, True), changed


def test_what_somebody_who_signed_in_has_open_ends_in_time_for_only_the_proxy_knows_of_their_session() -> None:
    access = build_access(settings(sso_proxies="10.0.0.0/8", corp_id="corp"))
    goes_on = access.lasting(Caller("sso", corp_id="corp", user_id="ann"), "corp", "ann", now=1000)
    assert [goes_on(now) for now in (1000, 1299, 1300, 9999)] == [True, True, False, False]
    openly = Access(tokens=None)
    assert openly.lasting(Caller("open", corps=("*",)), "corp", "ann", now=0)(1e9)


def test_what_is_logged_of_a_caller_names_no_secret() -> None:
    assert "secret" not in repr(Caller("token", rate_key="secret", token_sha256="secret"))


def test_a_caller_for_every_corp_is_an_operator() -> None:
    assert Caller("open", corps=("*",)).is_operator
    assert Caller("token", corps=("*",)).is_operator
    assert not Caller("token", corps=("ours",)).is_operator
    assert not Caller("sso", corp_id="ours", user_id="ann").is_operator


def connection_of(client: tuple[str, int] | None, authorization: str = "") -> HTTPConnection:
    return HTTPConnection({"type": "http", "headers": [(b"authorization", authorization.encode())], "client": client})


def test_callers_of_an_open_service_are_counted_by_address() -> None:
    access = Access(tokens=None)
    callers = [
        asyncio.run(access.identify(connection_of(client))) for client in (("192.0.2.1", 1), ("192.0.2.2", 1), None)
    ]
    assert [caller.rate_key for caller in callers] == ["open 192.0.2.1", "open 192.0.2.2", "open "]


@pytest.mark.parametrize("scheme", ["Basic", "", "Bearer x"])
def test_a_token_under_another_scheme_is_none(tokens: Path, scheme: str) -> None:
    access = Access(tokens=TokensFile(tokens))
    assert asyncio.run(access.identify(connection_of(("192.0.2.1", 1), f"bearer  {OURS} "))).name == "ours"
    with pytest.raises(Unauthorized):
        asyncio.run(access.identify(connection_of(("192.0.2.1", 1), f"{scheme} {OURS}")))
