"""The form of an instance as its system has it now, what changed since the start, and the steps to come.

It is read when a person opens the details, within limits, and once for several readers. A list costs no call.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Generic, NamedTuple, TypeVar

import structlog
from fastapi import Query
from starlette.requests import Request  # noqa: TC002 - FastAPI resolves the handlers' annotations
from starlette.responses import Response

from taskbridge.center.access.refusals import TooManyQueries
from taskbridge.center.actions.seen_form import DIGEST_MAX, changed_fields, digest_of
from taskbridge.center.actions.systems import Away, FormRead, LoggedChange, Step, answered
from taskbridge.center.api import models
from taskbridge.center.api.files import FOREIGN
from taskbridge.center.api.guard import InstanceId, InstanceReader  # noqa: TC001 - FastAPI resolves them
from taskbridge.center.api.json_forms import files_json, people_json
from taskbridge.runtime.database import Threads, now_ms
from taskbridge.runtime.rates import AtOnce, Rate
from taskbridge.runtime.refusals import Forbidden, NotNow, Unknown
from taskbridge.runtime.remembered import Remembered
from taskbridge.schemas.cloudevents import iso, optional_iso
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import Status
from taskbridge.schemas.json_forms import to_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastapi import APIRouter

    from taskbridge.center.access.access import Caller
    from taskbridge.center.actions.seen_form import Values
    from taskbridge.center.actions.systems import FormReader
    from taskbridge.center.api.queries import Queries
    from taskbridge.schemas.events import TaskState

    ReaderOf = Callable[[str, str, str], FormReader | None]
    """What reads forms of a corp, a source and an app; None if nothing here does."""

_OF_CALLER, _HOUR_S = 240, 3600.0
"""Forms that a caller may have read in an hour. Those of a corp are limited by their calls."""
_SHARE, _SHARE_LEAST, _DAY_S = 0.1, 20, 86_400.0
"""Of a corp's calls of a day a person may use this part, and at least so many."""
_READ_CALLS, _CHANGES_CALLS, _STEPS_CALLS = 1, 1, 2
"""The most that each costs."""
_AT_ONCE, _AT_ONCE_S = 8, 2.0
"""Of a corp, and when to try again."""
_TOO_MANY = partial(TooManyQueries, "too many forms were read: try again later", retry_after_s=60)
_TOO_MANY_AT_ONCE = partial(NotNow, "too many forms are being read: try again", retry_after_s=_AT_ONCE_S)
_FORMS = 128
"""Whose values are in memory: each may be large."""
_READ_S, _STEPS_S = 15.0, 600.0
"""How long values are shown again, and logs and steps of the same values."""

_Seen = Annotated[
    str, Query(max_length=DIGEST_MAX, description="A `digest` that is out of date: values with it are read again.")
]

T = TypeVar("T")

log = structlog.get_logger(__name__)


class _Optional(NamedTuple, Generic[T]):
    value: T | None
    at: float
    """When it was found, on the monotonic clock."""


class _ShareUsed(OperatorError):
    """A person has used up the calls that one may have made."""


class Newest(NamedTuple):
    read: FormRead
    digest: str
    at: int
    instead_of: str = ""
    """The digest that was out of date when this was read."""


class NewestForms:
    """Where the newest values come from, and what else the system says of them."""

    def __init__(self, reader_of: ReaderOf) -> None:
        self._reader_of = reader_of
        self._reads = Remembered[Newest](_READ_S, keys=_FORMS)
        self._changes = Remembered[_Optional[Mapping[str, LoggedChange]]](_STEPS_S)
        self._steps = Remembered[_Optional[Sequence[Step]]](_STEPS_S)
        self._of_caller, self._at_once = Rate(_OF_CALLER, per_s=_HOUR_S), AtOnce(_AT_ONCE)
        self._shares = dict[float, Rate]()
        """By the calls of a day: of each person those that are left."""

    async def newest(self, state: TaskState, caller: Caller, *, outdated: str = "") -> Newest:
        """The values of the newest read.

        Raises:
            Unknown: This system's forms are not read here, or it has no such instance.
            NotNow, TooManyQueries: They cannot be read for the moment.
        """
        reader = self._reader(state)
        key = state.corp_id, state.instance_id

        async def find() -> Newest:
            return await self._read(reader, state, caller)

        async def find_again() -> Newest:
            return (await find())._replace(instead_of=outdated)

        began = now_ms()
        found = await self._reads.of(key, find)
        # Once only: one who always names the newest would have it read at each request.
        if found.digest == outdated and found.at < began and found.instead_of != outdated:
            self._reads.forget(key)
            found = await self._reads.of(key, find_again)
        return found

    async def changes(
        self, state: TaskState, newest: Newest, fields: Sequence[str], caller: Caller
    ) -> Mapping[str, LoggedChange]:
        """Who changed these fields and when, as far as the system says it."""
        if not fields:
            return {}
        reader, key = self._reader(state), (state.corp_id, state.instance_id, newest.digest)

        async def call() -> Mapping[str, LoggedChange]:
            self._use(reader, caller, _CHANGES_CALLS)
            return await reader.changes(state.instance_id, newest.read, fields)

        return await self._optional(self._changes, key, call) or {}

    async def steps(self, state: TaskState, newest: Newest, caller: Caller) -> Sequence[Step]:
        """The steps to come, as far as the system says it."""
        pending = [each for each in state.tasks if each.status is Status.PENDING]
        if not newest.read.is_running or not pending:
            return []
        here = sorted({each.step_id for each in pending if each.step_id})
        key = state.corp_id, state.instance_id, newest.digest, tuple(each.task_id for each in pending)
        reader = self._reader(state)

        async def call() -> Sequence[Step]:
            self._use(reader, caller, _STEPS_CALLS if not here else 1)
            return await reader.steps(state.instance_id, newest.read, here)

        return await self._optional(self._steps, key, call) or []

    def _reader(self, state: TaskState) -> FormReader:
        reader = self._reader_of(state.corp_id, state.source, state.app_type)
        if reader is None:
            raise Unknown("forms of this app are not read here")
        return reader

    async def _read(self, reader: FormReader, state: TaskState, caller: Caller) -> Newest:
        with self._at_once.of(state.corp_id, _TOO_MANY_AT_ONCE):
            self._of_caller.check(caller.rate_key, _TOO_MANY)
            try:
                self._use(reader, caller, _READ_CALLS)
                read = await answered(reader.read(state.instance_id))
            except _ShareUsed as error:
                raise TooManyQueries(str(error), retry_after_s=_HOUR_S) from None
            except Away as error:
                log.warning("form_not_read", problem=str(error))
                raise NotNow("the form cannot be read now", retry_after_s=60) from None
            except OperatorError as error:
                log.warning("form_not_read", problem=str(error))
                raise NotNow("the form cannot be read here: see the log", retry_after_s=None) from None
        if read is None:
            raise Unknown("the system has no such instance")
        return Newest(read, digest_of(read.values), now_ms())

    def _use(self, reader: FormReader, caller: Caller, calls: int) -> None:
        """Take so many calls from the share of the person, or their assistants': neither uses up the day of others.

        A program has none: its administrator decides what it is for.
        """
        if caller.user_id is None:
            return
        most = max(_SHARE_LEAST, reader.calls_per_day * _SHARE)
        share = self._shares.setdefault(most, Rate(most, per_s=_DAY_S))
        if not share.allows(caller.rate_key, times=calls):
            raise _ShareUsed("a person's share of the calls of a day is used up: try again later")

    @staticmethod
    async def _optional(
        remembered: Remembered[_Optional[T]], key: object, call: Callable[[], Awaitable[T]]
    ) -> T | None:
        """What only adds to the values: None where the system does not say it."""

        async def find() -> _Optional[T]:
            found = None
            try:
                found = await answered(call())
            except OperatorError as error:
                log.warning("form_details_not_read", problem=str(error))
            return _Optional(found, time.monotonic())

        found = await remembered.of(key, find)
        if found.value is None and time.monotonic() >= found.at + _READ_S:
            remembered.forget(key)
            found = await remembered.of(key, find)
        return found.value


def add_form_route(router: APIRouter, queries: Queries, threads: Threads, forms: NewestForms) -> None:
    """``/instances/{instance_id}/form``."""

    async def form(request: Request, caller: InstanceReader, instance_id: InstanceId, outdated: _Seen = "") -> Response:
        """Reads the form from the system, by one to four calls of its API. The answer is used again for 15 seconds.

        240 an hour for a caller, 8 at once for an organisation, and so many calls in a day as the settings allow, of
        which a person may use a tenth, and at least 20. 404 where forms are not read, 503 while they cannot be.
        """
        if request.headers.get("sec-fetch-site") in FOREIGN:
            raise Forbidden("a page elsewhere may not have forms read")
        state, start = await threads.run(partial(queries.start, now_ms=now_ms()), instance_id, caller)
        newest = await forms.newest(state, caller, outdated=outdated)
        fields = changed_fields(start, newest.read.values) if start else []
        changes = await forms.changes(state, newest, fields, caller)
        steps = await forms.steps(state, newest, caller)
        users = [each.user_id for each in changes.values() if each.user_id]
        users += [user_id for each in steps for user_id, _ in each.people]
        names = {user_id: name for each in steps for user_id, name in each.people if name}
        names |= await threads.run(queries.names, state.corp_id, users)
        answer: models.CurrentFormOut = {
            "instance_id": state.instance_id,
            "read_at": iso(newest.at),
            "digest": newest.digest,
            "form": newest.read.values,
            "files": files_json(newest.read.values),
            "changed": [_changed(each, start, changes.get(each)) for each in fields],
            "to_come": [{"name": each.name, "user_ids": [user_id for user_id, _ in each.people]} for each in steps],
            "people": people_json(users, names),
        }
        return Response(to_json(answer), media_type="application/json", headers={"cache-control": "no-store"})

    router.add_api_route(
        "/instances/{instance_id:path}/form",
        form,
        methods=["GET"],
        summary="Form of an instance as its system has it now",
        response_model=models.CurrentFormOut,
        responses=models.problems(404),
    )


def _changed(field: str, start: Values, change: LoggedChange | None) -> models.ChangedOut:
    at = None if change is None else change.at
    return {
        "field": field,
        "before": start.get(field),
        "user_id": None if change is None else change.user_id,
        "at": optional_iso(at),
    }
