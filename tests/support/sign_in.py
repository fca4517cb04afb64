"""A task center with people, at which browsers sign in."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select
from starlette.testclient import TestClient

from support import http_clients
from support.center_rows import AnsweringCenter, state, unchecked
from support.identity_provider import CLIENT_ID, CLIENT_SECRET, IdentityProvider
from taskbridge.center.access.access import build_access
from taskbridge.center.access.audit import Audit
from taskbridge.center.access.delegations import Delegations
from taskbridge.center.access.oidc import provider_of
from taskbridge.center.access.sessions import Sessions
from taskbridge.center.actions.agents import Agents
from taskbridge.center.actions.store import Actions
from taskbridge.center.actions.systems import Agent, Systems
from taskbridge.center.actions.targets import Endpoints
from taskbridge.center.api.actions import actions_router
from taskbridge.center.api.audit import audit_router
from taskbridge.center.api.comments import CommentReader, comments_router
from taskbridge.center.api.delegations import delegations_router
from taskbridge.center.api.leavers import leavers_router
from taskbridge.center.api.personal import personal_router
from taskbridge.center.api.talk import Talk
from taskbridge.center.assistants.parts import Assistants
from taskbridge.center.settings import settings_class
from taskbridge.center.tables import sessions
from taskbridge.center.web.sign_in import sign_in_router
from taskbridge.dingtalk.calls import Refused
from taskbridge.runtime.refusals import NotNow
from taskbridge.runtime.settings import load_settings
from taskbridge.runtime.tokens import digest_of
from taskbridge.schemas.events import SOURCE_YIDA, PersonRecord, Status, TaskEntry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Sequence
    from pathlib import Path

    import httpx2
    from fastapi import FastAPI

    from taskbridge.center.actions.systems import ReadComments
    from taskbridge.center.settings import CenterSettings
    from taskbridge.center.tables import Person
    from taskbridge.runtime.database import Database

URL = "https://tasks.example"
SAME_SITE = {"Sec-Fetch-Site": "same-origin", "Origin": URL}


def settings_of(**given: str) -> CenterSettings:
    needed = {"kafka_bootstrap_servers": "127.0.0.1:1", "schema_registry_url": "http://127.0.0.1:1", "public_url": URL}
    environment = {f"CENTER_{name.upper()}": value for name, value in (needed | given).items()}
    return load_settings(settings_class(), environment)


class _Systems(Systems):
    """Other systems, and what reads comments of Yida's apps."""

    reader: ReadComments | None = None
    writes: bool = False

    def writes_agents(self, corp_id: str) -> bool:  # noqa: ARG002 - as Systems
        return self.writes

    def comments(self, corp_id: str, source: str, app_type: str) -> ReadComments | None:  # noqa: ARG002 - as Systems
        return self.reader if source == SOURCE_YIDA else None


class Served:
    """Anns, Bobs and Cais of one corp, and Dan of another."""

    def __init__(
        self, settings: CenterSettings, database: Database, identities: IdentityProvider | None = None
    ) -> None:
        self._identities = identities
        self.people_complete = True
        self.database = database
        self.rows = AnsweringCenter(database, build_access(settings))
        self.sessions = Sessions(database, self.rows.threads, idle_s=3600, longest_s=3600)
        self.audit = Audit(database, self.rows.threads)
        self.rows.access = build_access(settings, self._users_of, self.sessions, self.audit)
        provider = provider_of(settings, self._users_of)
        assert provider is not None
        access = self.rows.access
        self.endpoints = Endpoints()
        self.wakes: list[None] = []
        self.systems = _Systems(endpoints=lambda: self.endpoints)
        acts = actions_router(
            access,
            Actions(database, unchecked),
            self.rows.queries.people,
            self.rows.threads,
            systems=self.systems,
            wake=lambda: self.wakes.append(None),
        )
        self.comments_read: list[str] = []
        comments = comments_router(
            access,
            self.rows.queries,
            Talk(database, self.systems, self.rows.complete_lists),
            self.rows.threads,
            systems=self.systems,
            wake=lambda: self.wakes.append(None),
            reading=CommentReader(self.comments_read.append),
        )
        self.agents: list[Agent] = []
        self.agents_read = 0
        delegates = delegations_router(
            access,
            Delegations(database, self.rows.complete_lists),
            self.rows.queries,
            self.rows.threads,
            agents=self._agents_of,
            at_yida=Agents(database, self.systems),
            wake=lambda: self.wakes.append(None),
        )
        self.store = Actions(database, self.rows.complete_lists)
        self.assistants = Assistants(
            settings,
            database,
            self.rows.threads,
            access,
            provider=provider,
            queries=self.rows.queries,
            store=self.store,
            systems=self.systems,
            reading=CommentReader(self.comments_read.append),
            forms=self.rows.forms,
            complete=self.rows.complete_lists,
            wake=lambda: self.wakes.append(None),
        )
        self.http: FastAPI = self.rows.http(
            *self.assistants.routers,
            sign_in_router(provider, self.sessions, access),
            audit_router(self.audit, access, database, self.rows.threads),
            personal_router(access, self.rows.marks, database, self.rows.threads),
            acts,
            leavers_router(
                access,
                Actions(database, unchecked),
                self.rows.threads,
                systems=Systems(endpoints=lambda: self.endpoints),
                wake=lambda: self.wakes.append(None),
            ),
            comments,
            delegates,
        )
        self.http.router.lifespan_context = self._running
        for corp, user, number in (
            ("ours", "ann", "1"),
            ("ours", "bob", "2"),
            ("ours", "cai", "2"),
            ("theirs", "dan", "1"),
        ):
            self.rows.know(corp, PersonRecord(user, user.title(), employee_number=number))
        for corp, user in (("ours", "ann"), ("ours", "bob"), ("theirs", "dan")):
            self.rows.store(state(f"I-{user}", corp_id=corp, tasks=(TaskEntry("T-1", Status.PENDING, (user,)),)))

    @asynccontextmanager
    async def _running(self, _: FastAPI) -> AsyncGenerator[None]:
        task = asyncio.create_task(self.assistants.run())
        await asyncio.sleep(0)
        yield
        task.cancel()

    def browser(self) -> TestClient:
        return TestClient(self.http, base_url=URL, follow_redirects=False)

    def signed_in(self, user: str | None = None) -> TestClient:
        """A browser of this person, or of whom the provider names."""
        if user is not None:
            assert self._identities is not None
            self._identities.claims["preferred_username"] = user
        browser = self.browser()
        sign_in(browser)
        return browser

    @property
    def session_count(self) -> int:
        with self.database.read() as connection:
            return connection.execute(select(func.count()).select_from(sessions)).scalar_one()

    async def _agents_of(self, _: Person) -> list[Agent]:
        self.agents_read += 1
        if not self.agents:
            raise Refused("DingTalk says no")
        return self.agents

    async def _users_of(self, corp_id: str, kind: str | None, value: str) -> Sequence[str]:
        if not self.people_complete:
            raise NotNow("not all people are read")
        return await self.rows.threads.run(self.rows.queries.users_of, corp_id, kind, value)


def tokens_file(folder: Path, **tokens: str) -> str:
    """A file of API tokens, one for each of these corps; that of ``all`` is for all corps."""
    path = folder / "tokens.toml"
    entries = (
        f'[[tokens]]\nname = "{name}"\nsha256 = "{digest_of(token)}"\ncorps = ["{"*" if name == "all" else name}"]\n'
        for name, token in tokens.items()
    )
    path.write_text("".join(entries))
    return str(path)


@contextmanager
def signing_in(database: Database, folder: Path, **settings: str) -> Generator[tuple[Served, IdentityProvider]]:
    """Its provider signs in Ann, until a test says otherwise."""
    (folder / "secret").write_text(CLIENT_SECRET)
    with IdentityProvider({"preferred_username": "ann"}).running() as provider:
        client = {"oidc_client_id": CLIENT_ID, "oidc_client_secret_file": str(folder / "secret")}
        given = settings_of(**{"oidc_issuer": provider.url, "corp_id": "ours", **client, **settings})
        found = Served(given, database, provider)
        yield found, provider
        found.rows.close()


async def nobody(*_: object) -> list[str]:
    """Finds no person."""
    return []


def to_provider(browser: TestClient, **query: str) -> str:
    """Start a sign-in; returns the address at the provider."""
    answer = browser.get("/sign-in", params=query)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def back_from(address: str) -> str:
    """What the browser then requests of the task center: the provider sends it back at once."""
    return http_clients.get(address).headers["location"].removeprefix(URL)


def sign_in(browser: TestClient, **query: str) -> httpx2.Response:
    return browser.get(back_from(to_provider(browser, **query)))


def me(browser: TestClient) -> Any:
    return browser.get("/v1/me").json()
