"""The one way to the work of a route below ``/v1``: identify the caller, limit, check, record.

The caller is identified before anything of the body is read. A route names one rule, as a parameter or a dependency,
which checks and records; without a rule, the program does not start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, Path
from fastapi.routing import APIRoute
from starlette.requests import Request

from taskbridge.center.access.access import Access, Caller
from taskbridge.center.api.models import ID_MAX, problems
from taskbridge.runtime.access import TOKEN
from taskbridge.runtime.refusals import Forbidden

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send

CorpId = Annotated[str, Path(max_length=ID_MAX, examples=["ding5d17e3add038d445"])]
UserId = Annotated[str, Path(max_length=ID_MAX, examples=["manager02"])]
InstanceId = Annotated[str, Path(max_length=ID_MAX, examples=["f30233fb-72e1-4af4-8cb8-c7e0ea9ee530"])]

_ENTERED = "taskbridge.entered"


class _Entered(NamedTuple):
    """A request whose caller is identified and within its limits."""

    access: Access
    caller: Caller


def guarded_router(access: Access, tag: str) -> APIRouter:
    """A router below ``/v1`` whose routes go this way, and are documented with the problems that all of them have."""

    class Guarded(GuardedRoute):
        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            if self.methods is not None and scope["method"] not in self.methods:
                await super().handle(scope, receive, send)  # refuses the method
                return
            async with access.entered(Request(scope)) as caller:
                scope[_ENTERED] = _Entered(access, caller)
                await super().handle(scope, receive, send)

    responses = problems(400, 401, 403, 429, 503)
    return APIRouter(prefix="/v1", tags=[tag], dependencies=[TOKEN], route_class=Guarded, responses=responses)


class GuardedRoute(APIRoute):
    """A route of ``guarded_router``. Raises TypeError if it has no rule."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        if not any(each.call in _RULES for each in self.dependant.dependencies):
            raise TypeError(f"the route {path} has no rule that says who may use it")


async def _known(request: Request) -> Caller:
    return _entered(request).caller


async def _reads_person(request: Request, corp_id: CorpId, user_id: UserId) -> Caller:
    return await _checked(request, (corp_id, user_id))


async def _reads_instance(request: Request, instance_id: InstanceId) -> Caller:
    return await _checked(request, instance_id)


async def _in_person(request: Request, corp_id: CorpId, user_id: UserId) -> Caller:
    _entered(request).caller.check_in_person(corp_id, user_id)
    return await _checked(request, (corp_id, user_id))


async def _own(request: Request, corp_id: CorpId, user_id: UserId) -> Caller:
    _entered(request).caller.check_own(corp_id, user_id)
    return await _checked(request, (corp_id, user_id))


async def _operator(request: Request) -> Caller:
    caller = _entered(request).caller
    if not caller.is_operator:
        raise Forbidden("operators only: a token for all corps, or the role, is required")
    return caller


async def _operator_in_person(request: Request, corp_id: CorpId) -> Caller:
    caller = await _operator(request)
    if caller.mode != "sso" or caller.corp_id != corp_id:
        raise Forbidden("only operators of this corp who signed in may do so, in their own name")
    return caller


async def _auditor(request: Request) -> Caller:
    caller = _entered(request).caller
    if not caller.is_auditor:
        raise Forbidden("auditors only: the role, or a token for all corps, is required")
    return caller


_RULES = frozenset({_known, _reads_person, _reads_instance, _in_person, _own, _operator, _operator_in_person, _auditor})

Known = Annotated[Caller, Depends(_known)]
"""Anybody who is known here. The route answers about the caller alone, or checks itself what else they may do."""
Reader = Annotated[Caller, Depends(_reads_person)]
"""Who may read the lists of this person. That an operator does is recorded."""
InstanceReader = Annotated[Caller, Depends(_reads_instance)]
"""As ``Reader``, of an instance. Whether it concerns a person who signed in is known to the query alone."""
InPerson = Annotated[Caller, Depends(_in_person)]
"""This person, signed in."""
Own = Annotated[Caller, Depends(_own)]
"""This person, or a program that may read their lists; no operator."""
Operator = Annotated[Caller, Depends(_operator)]
"""Who may see how the bridge is doing, which shows something of every corp."""
OperatorInPerson = Annotated[Caller, Depends(_operator_in_person)]
"""An operator who signed in, for their own corp."""
Auditor = Annotated[Caller, Depends(_auditor)]
"""Who may see who did what."""


async def _checked(request: Request, read: tuple[str, str] | str) -> Caller:
    access, caller = _entered(request)
    await access.check_read(request, caller, read)
    return caller


def _entered(request: Request) -> _Entered:
    return request.scope[_ENTERED]
