"""From the caller to the worker that owns the data: the same for every route about a person or an instance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from taskbridge.streams.tables.store import PartitionNotHeld

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response

    from taskbridge.streams.api.access import Access, Caller
    from taskbridge.streams.api.forwarding import Forwarding
    from taskbridge.streams.api.owners import Owner, Owners


class Here(NamedTuple):
    """The data is on this worker, which answers from its tables."""

    caller: Caller
    partition: int


class AnsweredElsewhere(Exception):
    """Another worker has answered: its answer is the answer, and the route has nothing more to do."""

    def __init__(self, answer: Response) -> None:
        super().__init__()
        self.answer = answer


def give_answers_of_others(app: FastAPI) -> None:
    """Answer with what another worker has answered."""

    async def answered(_request: Request, error: Exception) -> Response:
        assert isinstance(error, AnsweredElsewhere)
        return error.answer

    app.add_exception_handler(AnsweredElsewhere, answered)


@dataclass(eq=False)
class OwnerResolver:
    """Finds the worker that answers."""

    access: Access
    owners: Owners
    forwarding: Forwarding

    async def user(
        self,
        request: Request,
        corp_id: str,
        user_id: str,
        *,
        forward: Callable[[str, Caller], Awaitable[Response]] | None = None,
    ) -> Here:
        """For a query about a user. ``forward`` is how it goes to another worker's URL, if not as a plain query.

        Raises:
            AnsweredElsewhere: it is there, and so is its answer.
            Unauthorized, TooManyQueries, Forbidden: not for this caller.
            NotNow: the owner is unknown, or does not answer.
        """
        caller = await self.access.caller_of(request)
        caller.check(corp_id, user_id)
        return await self._resolved(request, caller, self.owners.of_user(corp_id, user_id), forward)

    async def instance(self, request: Request, instance_id: str) -> Here:
        """For a query about an instance; only its owner knows whether the caller may see it.

        Raises:
            AnsweredElsewhere: as above.
            Unauthorized, TooManyQueries: not for this caller.
            NotNow: the owner is unknown, or does not answer.
        """
        caller = await self.access.caller_of(request)
        return await self._resolved(request, caller, self.owners.of_instance(instance_id))

    def check_still_here(self, here: Here) -> None:
        """To be called where the loop was given back while tables were read: the partition may have gone.

        Raises:
            PartitionNotHeld: it did.
            OwnerUnknown: it did, and nobody is known to have it yet.
        """
        if not self.owners.of_partition(here.partition).here:
            raise PartitionNotHeld("it went to another worker")

    async def _resolved(
        self,
        request: Request,
        caller: Caller,
        owner: Owner,
        forward: Callable[[str, Caller], Awaitable[Response]] | None = None,
    ) -> Here:
        if owner.here:
            return Here(caller, owner.partition)
        if forward is None:
            raise AnsweredElsewhere(await self.forwarding.forward(request, owner.url, caller))
        raise AnsweredElsewhere(await forward(owner.url, caller))
