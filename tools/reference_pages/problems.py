"""The page of all kinds of problem that the services answer, from what answers them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reference_pages.markdown import code, listed, page, prose
from taskbridge.center.access import refusals
from taskbridge.edge import errors as edge_errors
from taskbridge.edge.server.admission import FULL
from taskbridge.runtime import problems as servers
from taskbridge.runtime.access import FOREIGN_HOST, FORWARDED
from taskbridge.runtime.problems import Refusal, internal_error, not_admitted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reference_pages.markdown import Row

_INTRODUCTION = """\
Every error response has a problem document (RFC 9457, `application/problem+json`). `type` names the kind and never
changes; `detail` says in one sentence what failed and what to do; `success` is `false`. A type is
`urn:taskbridge:problem:` followed by the kind. Errors that the HTTP status explains (unknown path, wrong method) have
the type `about:blank`. Errors that a client may retry have a `Retry-After` header."""


def problems_page() -> str:
    return page(
        "Problems",
        _INTRODUCTION,
        "## Edge",
        listed(_edge()),
        "## Task center API",
        listed(_queries()),
        "## Server, before a request reaches its route",
        listed(_servers()),
    )


def _row(kind: str, status: int, meaning: str | None) -> Row:
    return f"{code(kind)} ({int(status)})", prose(meaning or "")


def _edge() -> Iterator[Row]:
    for error in edge_errors.Rejection.__subclasses__():
        yield _row(error.kind, error.status, error.__doc__)
    yield _row(edge_errors.NotDurable.kind, edge_errors.NotDurable.status, _first(edge_errors.NotDurable))


def _queries() -> Iterator[Row]:
    named = refusals.Refused.__subclasses__()
    found: dict[str, type[refusals.Refused]] = {}
    for error in [*named, *(each for parent in named for each in parent.__subclasses__())]:
        found.setdefault(error.kind, error)  # one of the same kind says in its message what it is about
    for error in found.values():
        yield _row(error.kind, error.status, error.__doc__)
    yield _row(
        FOREIGN_HOST, 400, "A service without tokens received a request under a host name other than its machine's."
    )
    yield _row(FORWARDED, 400, "A service without tokens received a request through a proxy.")


def _servers() -> Iterator[Row]:
    own = [each for each in vars(servers).values() if isinstance(each, Refusal)]
    for each in [*own, not_admitted(FULL)]:
        yield _row(each.reason, each.status, each.detail)
    yield _row("internal-error", internal_error().status_code, "Internal error; the log has the details.")


def _first(found: Any) -> str:
    return (found.__doc__ or "").splitlines()[0]
