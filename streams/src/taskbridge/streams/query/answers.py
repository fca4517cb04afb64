"""The two most frequent queries, a page and the counts, and their answers. Knows no routes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from starlette.responses import Response

from taskbridge.streams.api.json_forms import Forms, Names, to_json
from taskbridge.streams.api.refusals import NotNow
from taskbridge.streams.inbox import layout
from taskbridge.streams.query.cursors import read_cursor, write_cursor
from taskbridge.streams.query.lines import lines_json
from taskbridge.streams.query.search import matcher

if TYPE_CHECKING:
    from starlette.requests import Request

    from taskbridge.streams.api.resolver import Here, OwnerResolver
    from taskbridge.streams.directories.people import People
    from taskbridge.streams.inbox.told_ahead import ToldAhead
    from taskbridge.streams.query.history import Histories
    from taskbridge.streams.query.inboxes import Inboxes
    from taskbridge.streams.query.instances import Instances

LIMIT_MAX, LIMIT_DEFAULT = 200, 50
_VIEWS = {view.value.lower(): view for view in layout.VIEWS}
VIEW_NAMES = tuple(_VIEWS)
"""As in queries and answers."""


@dataclass(frozen=True, slots=True)
class Readers:
    """What a worker answers from."""

    inboxes: Inboxes
    told_ahead: ToldAhead
    instances: Instances
    histories: Histories
    people: People
    forms: Forms

    @property
    def names(self) -> Names:
        """How people are called."""
        return self.people.name_of


class ApiContext:
    """What the routes share; the readers come when Kafka is connected."""

    def __init__(self, resolver: OwnerResolver) -> None:
        self.resolver = resolver
        self._readers: Readers | None = None

    def open(self, readers: Readers) -> None:
        self._readers = readers

    @property
    def readers(self) -> Readers:
        """What is here.

        Raises:
            NotNow: this worker is still waiting for Kafka.
        """
        if self._readers is None:
            raise NotNow("this worker is starting")
        return self._readers


class PageQuery(NamedTuple):
    """Which lines of whom; every value is one that the contract allows."""

    corp_id: str
    user_id: str
    view: str
    """In lower case."""
    app_type: str | None = None
    source: str | None = None
    q: str = ""
    limit: int = LIMIT_DEFAULT
    cursor: str | None = None


async def person_here(context: ApiContext, request: Request, corp_id: str, user_id: str) -> tuple[Here, bytes]:
    """Where the lists of this person are, and the person in their keys; they hold all their notifications.

    Raises:
        Refused, PartitionNotHeld: they cannot be read.
        AnsweredElsewhere: another worker has answered.
    """
    here = await context.resolver.user(request, corp_id, user_id)
    user = layout.user_part(corp_id, user_id)
    if await context.readers.told_ahead.stored(here.partition, user):
        context.resolver.check_still_here(here)
    return here, user


async def page_answer(context: ApiContext, request: Request, asked: PageQuery) -> Response:
    """A page of a view, newest first.

    Raises:
        Refused, PartitionNotHeld: it cannot be answered.
        AnsweredElsewhere: another worker has answered.
    """
    corp_id, view = asked.corp_id, _VIEWS[asked.view]
    here, user = await person_here(context, request, corp_id, asked.user_id)
    after = None if asked.cursor is None else read_cursor(asked.cursor, user, view)
    inboxes, names = context.readers.inboxes, context.readers.names
    matches = matcher(asked.q, asked.app_type, asked.source, name_of=partial(names, corp_id))
    if matches is None:
        page = inboxes.page(here.partition, user, view, limit=asked.limit, after=after)
    else:
        page = await inboxes.search(here.partition, user, view, matches, limit=asked.limit, after=after)
        context.resolver.check_still_here(here)
    next_cursor = b"null" if page.next_place is None else to_json(write_cursor(user, view, page.next_place))
    lines = lines_json(page.values, asked.view, corp_id, names)
    return JsonAnswer(b'{"items":%b,"next_cursor":%b}' % (lines, next_cursor))


async def counts_answer(context: ApiContext, request: Request, corp_id: str, user_id: str) -> Response:
    """How many lines each view has. Raises as ``page_answer``."""
    here, user = await person_here(context, request, corp_id, user_id)
    found = context.readers.inboxes.counts(here.partition, user)
    return JsonAnswer(b'{"created":%d,"pending":%d,"handled":%d,"copied":%d}' % found)


class JsonAnswer(Response):
    """JSON that is written already. No cache on the way may store it."""

    def __init__(self, body: bytes) -> None:
        # Without Response's own method, which builds the same headers each time.
        self.status_code = 200
        self.background = None
        self.body = body
        self.raw_headers = [
            (b"cache-control", b"no-store"),
            (b"content-length", b"%d" % len(body)),
            (b"content-type", b"application/json"),
        ]


def json_answer(content: object) -> Response:
    return JsonAnswer(to_json(content))
