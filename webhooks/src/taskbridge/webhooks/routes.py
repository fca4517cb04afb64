"""The operators' HTTP side, on what the commands do: list endpoints, send a test, deliver again what was given up."""

# pyright: reportUnusedFunction=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from fastapi import APIRouter
from fastapi.responses import JSONResponse
from starlette.requests import Request  # noqa: TC002 - FastAPI resolves the annotations

from taskbridge.runtime.access import TOKEN, on_loopback, own_hosts, token_of
from taskbridge.runtime.problems import documented
from taskbridge.runtime.refusals import Forbidden
from taskbridge.runtime.tokens import ALL_CORPS, TokensFile

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from taskbridge.runtime.database import Threads
    from taskbridge.webhooks.operations import Operations
    from taskbridge.webhooks.settings import WebhooksSettings

_NOT_STORED = {"cache-control": "no-store"}

log = structlog.get_logger(__name__)


class Operators:
    """Lets operators in: with a token for all corps or, without a file of tokens, anybody on this machine."""

    def __init__(self, settings: WebhooksSettings) -> None:
        """Raise ConfigurationError if the tokens file is broken."""
        file = settings.api_tokens_file
        self.tokens = None if file is None else TokensFile(file)
        self.only_hosts = own_hosts(settings.host) if file is None and on_loopback(settings.host) else None
        """Set if the service is open to its own machine."""

    def name_of(self, request: Request) -> str:
        """The operator's name; raises Unauthorized or Forbidden for anybody else."""
        if self.only_hosts is not None:
            return "open"
        if self.tokens is None:
            raise Forbidden("the operators' API is closed: set WEBHOOKS_API_TOKENS_FILE")
        entry = token_of(request, self.tokens)
        if ALL_CORPS not in entry.corps:
            raise Forbidden("operators only: a token for all corps is required")
        return entry.name


def operators_router(
    operations: Operations, operators: Operators, threads: Threads, recent: Mapping[str, Collection[bool]]
) -> APIRouter:
    """``recent``: by endpoint, whether the last attempts of this process succeeded."""
    refused: dict[int | str, dict[str, Any]] = {
        401: documented(401, "The bearer token is missing or unknown."),
        403: documented(403, "The token is not for all corps, or no tokens file is set."),
        503: documented(503, "The database does not answer; retry after `Retry-After`."),
    }
    unknown = {**refused, 404: documented(404, "The endpoints file has no such endpoint.")}
    router = APIRouter(prefix="/v1/endpoints", tags=["operators"], dependencies=[TOKEN])

    @router.get("", summary="List endpoints, what waits for them, and what failed last", responses=refused)
    async def endpoints(request: Request) -> JSONResponse:
        """`attempts` and `delivered` count the last 100 attempts of this process at an endpoint."""
        operators.name_of(request)
        found = await threads.run(operations.endpoints)
        for each in found:
            last = recent.get(each["id"], ())
            each.update(attempts=len(last), delivered=sum(last))
        return JSONResponse({"items": found}, headers=_NOT_STORED)

    @router.post("/{endpoint}/test", summary="Send an example to an endpoint now", responses=unknown)
    async def test(request: Request, endpoint: str) -> JSONResponse:
        operator = operators.name_of(request)
        found = await operations.test(endpoint)
        log.info("endpoint_tested", by=operator, **found)
        return JSONResponse(found, headers=_NOT_STORED)

    @router.post("/{endpoint}/replay", summary="Deliver again what was given up", responses=unknown)
    async def replay(request: Request, endpoint: str) -> JSONResponse:
        """`overtaken` counts those that are not sent: a later change of the same list entry was delivered."""
        operator = operators.name_of(request)
        done = await threads.run(operations.replay, endpoint)
        found = {"id": endpoint, "replayed": done.again, "overtaken": done.overtaken}
        log.info("deliveries_replayed", by=operator, **found)
        return JSONResponse(found, headers=_NOT_STORED)

    return router
