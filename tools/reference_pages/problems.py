"""The page of all kinds of problem that the services answer, from what answers them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reference_pages.markdown import code, page, prose, table
from taskbridge.edge import errors as edge_errors
from taskbridge.edge.answers import STATUS, UNAVAILABLE
from taskbridge.edge.server.connections.gate import ADDRESS_FULL, FULL
from taskbridge.runtime.http import refusals as servers
from taskbridge.runtime.http.problems import unforeseen
from taskbridge.runtime.http.refusals import Refusal, not_admitted
from taskbridge.streams.api import refusals
from taskbridge.streams.api.access import FOREIGN_HOST

if TYPE_CHECKING:
    from collections.abc import Iterator

_INTRODUCTION = """\
Every error is answered with a problem document (RFC 9457, `application/problem+json`): `type` names the kind and
stays the same for ever, `detail` says in a sentence what to do, and `success` is `false`. A kind is the end of its
type, after `urn:taskbridge:problem:`; what only the HTTP status says (an unknown path, another method) has the type
`about:blank`. What is worth another try comes with `Retry-After`."""

_HEADS = ("kind", "status", "meaning")


def problems_page() -> str:
    return page(
        "Problems",
        _INTRODUCTION,
        "## Of the edge",
        table(_HEADS, _edge()),
        "## Of the task center's API",
        table(_HEADS, _queries()),
        "## Of the server, before a request reaches its route",
        table(_HEADS, _servers()),
    )


def _row(kind: str, status: int, meaning: str | None) -> tuple[str, str, str]:
    return code(kind), str(int(status)), prose(meaning or "")


def _edge() -> Iterator[tuple[str, str, str]]:
    for error, (status, kind) in STATUS.items():
        yield _row(kind, status, error.__doc__)
    yield _row(UNAVAILABLE[1], UNAVAILABLE[0], _first(edge_errors.NotDurable))


def _queries() -> Iterator[tuple[str, str, str]]:
    for error in refusals.Refused.__subclasses__():
        yield _row(error.kind, error.status, error.__doc__)
    yield _row(FOREIGN_HOST, 400, "A service that asks for no token was asked under a name that is not its machine's.")


def _servers() -> Iterator[tuple[str, str, str]]:
    own = [each for each in vars(servers).values() if isinstance(each, Refusal)]
    for each in [*own, not_admitted(FULL), not_admitted(ADDRESS_FULL)]:
        yield _row(each.reason, each.status, each.detail)
    yield _row("internal-error", unforeseen().status_code, "An error that was not foreseen; it is in the log.")


def _first(found: Any) -> str:
    return (found.__doc__ or "").splitlines()[0]
