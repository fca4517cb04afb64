"""The forms that a person may start: links into the system that has them, by the vendor's own list.

The list of a corp is read for everybody, and once in a while for each person, to leave out what the person may not
start. When the calls for that are used up, the corp's list is shown, and the vendor refuses what is not allowed.
"""

# pyright: reportUnusedFunction=false

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog
from starlette.responses import Response  # noqa: TC002 - FastAPI resolves the handlers' annotations

from taskbridge.center.access.refusals import TooManyQueries
from taskbridge.center.actions.systems import StartForm
from taskbridge.center.api import models
from taskbridge.center.api.guard import CorpId, InPerson, UserId, guarded_router
from taskbridge.center.api.routes import JsonAnswer
from taskbridge.runtime.rates import Rate
from taskbridge.runtime.refusals import NotNow
from taskbridge.runtime.remembered import Remembered
from taskbridge.schemas.cloudevents import iso
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from fastapi import APIRouter

    from taskbridge.center.access.access import Access
    from taskbridge.center.api.queries import Queries
    from taskbridge.center.tables import Person
    from taskbridge.runtime.database import Threads

    ReadForms = Callable[[str, str | None], Coroutine[Any, Any, Sequence[StartForm]]]

_CORP_S, _PERSON_S = 7200.0, 86_400.0
"""How long the list of a corp is shown again, and what a person may start of it."""
_HOUR_S, _DAY_S = 3600.0, 86_400.0
_OF_CORP, _OF_PERSON, _OF_PEOPLE = 6, 4, 30
"""Lists that are read: of a corp and for a person in an hour, and for all people of a corp in a day. Each costs a call
for every app, and decisions need the calls."""

log = structlog.get_logger(__name__)


def start_router(access: Access, queries: Queries, threads: Threads, *, read: ReadForms) -> APIRouter:
    """``…/users/{user_id}/forms``, for the person themself. ``read`` may raise OperatorError."""
    router = guarded_router(access, "task center")
    listed = _Listed(read)

    @router.get(
        "/corps/{corp_id}/users/{user_id}/forms",
        summary="Forms that the person may start",
        response_model=models.StartFormsOut,
    )
    async def forms(_: InPerson, corp_id: CorpId, user_id: UserId) -> Response:
        """As DingTalk lists them: for the organisation every two hours, for the person once a day.

        503 while DingTalk does not answer, 429 after too many attempts.
        """
        person = corp_id, user_id
        found, allowed = await listed.of_corp(corp_id), await listed.of_person(person)
        used = await threads.run(queries.last_started, person)
        items: list[models.StartFormOut] = [
            _shown(each, used.get(each.form_uuid))
            for each in found
            if allowed is None or (each.app_type, each.form_uuid) in allowed
        ]
        answer: models.StartFormsOut = {"items": items, "checked": allowed is not None}
        return JsonAnswer(answer)

    return router


def _shown(form: StartForm, used_at: int | None) -> models.StartFormOut:
    return {
        "app_type": form.app_type,
        "app_name": form.app_name,
        "form_uuid": form.form_uuid,
        "title": form.title,
        "title_en": form.title_en,
        "url": form.url,
        "used_at": None if used_at is None else iso(used_at),
    }


class _Listed:
    """Lists that were read lately, within limits."""

    def __init__(self, read: ReadForms) -> None:
        self._read = read
        self._corps = Remembered[Sequence[StartForm]](_CORP_S)
        self._people = Remembered[frozenset[tuple[str, str]]](_PERSON_S)
        self._of_corp, self._of_person = Rate(_OF_CORP, per_s=_HOUR_S), Rate(_OF_PERSON, per_s=_HOUR_S)
        self._of_people = Rate(_OF_PEOPLE, per_s=_DAY_S)

    async def of_corp(self, corp_id: str) -> Sequence[StartForm]:
        async def find() -> Sequence[StartForm]:
            if not self._of_corp.allows(corp_id, now=time.monotonic()):
                raise TooManyQueries("the forms were read too often in an hour: try again later", retry_after_s=60)
            return await self._read(corp_id, None)

        try:
            return await self._corps.of(corp_id, find)
        except OperatorError as error:
            log.warning("start_forms_not_read", corp_id=corp_id, problem=str(error))
            raise NotNow("DingTalk does not list the forms: see the log", retry_after_s=60) from None

    async def of_person(self, person: Person) -> frozenset[tuple[str, str]] | None:
        """App and form of each that the person may start; None if that is not known now."""

        async def find() -> frozenset[tuple[str, str]]:
            now = time.monotonic()
            if not (self._of_person.allows(person, now=now) and self._of_people.allows(person[0], now=now)):
                raise TooManyQueries("too many lists of people were read", retry_after_s=60)
            return frozenset((each.app_type, each.form_uuid) for each in await self._read(*person))

        try:
            return await self._people.of(person, find)
        except TooManyQueries:
            return None
        except OperatorError as error:
            log.warning("start_forms_not_read", corp_id=person[0], user_id=person[1], problem=str(error))
            return None
