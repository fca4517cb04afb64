"""The parts that serve assistants, put together from those of the task center."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.center.access.oidc import OpenIdConnect
from taskbridge.center.assistants.callers import Callers
from taskbridge.center.assistants.clients import Clients
from taskbridge.center.assistants.proposals import Proposals
from taskbridge.center.assistants.routes import assistants_router
from taskbridge.center.assistants.rules import RulesFile
from taskbridge.center.assistants.tools import Deciding, Mcp, Tools
from taskbridge.runtime.database import Database, Threads, now_ms

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import APIRouter

    from taskbridge.center.access.access import Access
    from taskbridge.center.access.providers import Provider
    from taskbridge.center.actions.store import Actions
    from taskbridge.center.actions.systems import Systems
    from taskbridge.center.api.comments import CommentReader
    from taskbridge.center.api.current_form import NewestForms
    from taskbridge.center.api.queries import Queries
    from taskbridge.center.settings import CenterSettings
    from taskbridge.center.tables import Complete


class Assistants:
    def __init__(
        self,
        settings: CenterSettings,
        database: Database,
        threads: Threads,
        access: Access,
        *,
        provider: Provider | None,
        queries: Queries,
        store: Actions,
        systems: Systems,
        reading: CommentReader,
        forms: NewestForms,
        complete: Complete,
        wake: Callable[[], None],
    ) -> None:
        """``wake`` is called when a decision was recorded."""
        url = (settings.public_url or f"http://{settings.host}:{settings.port}").rstrip("/")
        clients = Clients(database, threads)
        proposals = Proposals(database, store, systems, complete, lasts_ms=settings.proposal_minutes * 60_000)
        of_people = provider if isinstance(provider, OpenIdConnect) else None
        self.rules = None if settings.mcp_rules_file is None else RulesFile(settings.mcp_rules_file)
        tools = Tools(
            queries=queries,
            threads=threads,
            systems=systems,
            reading=reading,
            clients=clients,
            proposals=proposals,
            deciding=None if self.rules is None else Deciding(self.rules, forms, wake),
            url=url,
        )
        self.mcp = mcp = Mcp(Callers(access, of_people, clients, url), tools)
        self.run = mcp.run
        self.purges = clients.purge, lambda: proposals.purge(now_ms())
        self.routers: list[APIRouter] = [
            mcp.router(),
            assistants_router(access, clients, proposals, threads, wake=wake),
        ]
