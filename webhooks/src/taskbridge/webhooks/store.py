"""Queues and deliveries in the database. Every function blocks, and raises DatabaseUnavailable.

A queue is what waits for one list entry at one endpoint. The replica that delivers its first delivery has claimed it
for longer than an attempt takes; what an attempt that lost its claim has to say is ignored. So changes of an entry are
sent one after the other, also when a replica dies in the middle of an attempt.
"""

from __future__ import annotations

import uuid
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sqlalchemy import (
    BigInteger,
    Connection,
    Row,
    and_,
    bindparam,
    cast,
    delete,
    exists,
    extract,
    func,
    literal,
    or_,
    select,
    update,
)

from taskbridge.runtime.database import Database, Upsert, clean, in_key_order, now_ms
from taskbridge.webhooks.tables import Outcome, deliveries, endpoints, queues

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from sqlalchemy import ColumnElement, FromClause

K = TypeVar("K")
V = TypeVar("V")

CLAIM_MS = 60_000
"""Three times as long as an attempt takes at most."""
GIVEN_UP_DAYS, DELIVERED_DAYS = 30, 3
"""How long deliveries stay that have ended, from when they were added."""
_DAY_MS = 24 * 3600 * 1000
FAILING_MS = 5 * _DAY_MS
"""An endpoint that fails for so long is disabled."""
SILENCE_MS = 2 * _DAY_MS
"""Longer than between two attempts of a delivery."""
_FAILURES = 5
_PURGED_ROWS = 5_000


class Delivery(NamedTuple):
    """One notification for one endpoint, to be sent now."""

    id: int
    entry: str
    webhook_id: str
    data: bytes
    attempts: int
    """Failed ones before this."""
    at: int
    """When it was added."""
    claim: str = ""
    """Of its queue: a random name."""


class Waiting(NamedTuple):
    deliveries: int = 0
    oldest_s: float = 0.0


class Result(NamedTuple):
    """How an attempt ended."""

    delivery: Delivery
    at: int
    delivered: bool
    status: int | None
    problem: str
    retry_in_ms: int | None
    """None: no further attempt."""
    disable: str | None = None
    """Why the endpoint gets nothing any more."""


class Replayed(NamedTuple):
    """What was requested to be delivered again."""

    again: int
    waiting: int
    """They were waiting, and are due now."""
    overtaken: int
    """A later change of their entry was delivered, or is being sent."""


class EndpointState(NamedTuple):
    name: str
    disabled: str | None
    failing_since: int | None
    has_present: bool
    next_due: int | None
    """See ``next_due``."""

    @property
    def condition(self) -> str:
        """``disabled``, ``failing`` or ``enabled``."""
        return "disabled" if self.disabled is not None else "failing" if self.failing_since else "enabled"


class New(NamedTuple):
    """A delivery that is added."""

    endpoint: str
    entry: str
    webhook_id: str
    data: bytes
    """The notification as CloudEvents JSON."""


_PUT_DELIVERIES = Upsert(
    deliveries,
    ["endpoint", "entry", "webhook_id", "at", "outcome", "data", "attempts"],
    key=["endpoint", "webhook_id"],
    only_new=True,
)
_NOW = bindparam("now", type_=BigInteger)
_IS_WAITING = deliveries.c.outcome == Outcome.WAITING
_PUT_QUEUES = Upsert(queues, only_lock=True)
_RECOVER = (
    update(endpoints)
    .where(endpoints.c.name == bindparam("its_name"), endpoints.c.failing_since.is_not(None))
    .values(failing_since=None)
)


def add(database: Database, connection: Connection, added: Iterable[New], *, only_first: bool = False) -> set[str]:
    """Add deliveries behind those that wait; one that is there stays as it is. Returns the endpoints.

    ``only_first``: only to entries of which the endpoint has got nothing yet.
    """
    rows = {(each.endpoint, each.webhook_id): each for each in added}
    at = now_ms()
    places = sorted({(each.endpoint, each.entry) for each in rows.values()})
    # First, so that an entry whose last delivery ends at this moment is not forgotten.
    _lock_queues(database, connection, places, at)
    known = _known(database, connection, places) if only_first else set[tuple[str, str]]()
    values = [
        (each.endpoint, each.entry, each.webhook_id, at, int(Outcome.WAITING), each.data, 0)
        for each in rows.values()
        if (each.endpoint, each.entry) not in known
    ]
    database.put(connection, _PUT_DELIVERIES, values)
    return {endpoint for endpoint, _ in places}


def _lock_queues(database: Database, connection: Connection, places: Sequence[tuple[str, str]], at: int) -> None:
    """Add those that are missing."""
    database.put(connection, _PUT_QUEUES, [(*place, at, 0, "", 0) for place in places])


def _known(database: Database, connection: Connection, places: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of which there is a delivery: a query for each endpoint, because one for all pairs would be too deep."""
    of = select(deliveries.c.entry).where(deliveries.c.endpoint == bindparam("its_name"))
    of = of.where(database.among(deliveries.c.entry)).distinct()
    found: set[tuple[str, str]] = set()
    for endpoint, pairs in groupby(places, key=itemgetter(0)):
        given = {"its_name": endpoint, **database.keys(entry for _, entry in pairs)}
        found |= {(endpoint, entry) for entry in connection.scalars(of, given)}
    return found


def _clock(database: Database, here: ColumnElement[int]) -> ColumnElement[int]:
    """The time by which claims end: PostgreSQL's, because the clocks of replicas differ."""
    if database.is_sqlite:
        return here
    return cast(extract("epoch", func.statement_timestamp()) * 1000, BigInteger)


class Queues:
    """The queues of one endpoint. To build statements takes longer than to run them: they are built once.

    Used by several threads at once, each in a transaction of its own.
    """

    def __init__(self, database: Database, endpoint: str, *, collapse: bool) -> None:
        self._database, self._endpoint, self._collapse = database, endpoint, collapse
        here = queues.c.endpoint == endpoint
        given = here, database.among(queues.c.entry)
        waiting = deliveries.c.endpoint == endpoint, database.among(deliveries.c.entry), _IS_WAITING
        clock = _clock(database, _NOW)
        due = select(queues.c.entry).where(here, queues.c.next_at <= _NOW, queues.c.claimed_until <= clock)
        # The rows are chosen once, which SQL promises of a CTE alone.
        due = due.order_by(queues.c.next_at).limit(bindparam("most")).with_for_update(skip_locked=True)
        claim = update(queues).where(here, queues.c.entry.in_(select(due.cte(nesting=True))))
        claim = claim.values(claim=bindparam("new_claim"), claimed_until=clock + CLAIM_MS)
        self._claim = claim.returning(queues.c.entry)
        first, last = (
            select(each(deliveries.c.id)).where(*waiting).group_by(deliveries.c.entry) for each in (func.min, func.max)
        )
        fields = [each for each in Delivery._fields if each in deliveries.c]
        self._first = select(*(deliveries.c[each] for each in fields)).where(deliveries.c.id.in_(first))
        self._replace = update(deliveries).where(*waiting, deliveries.c.id.not_in(last))
        self._forget = delete(queues).where(*given, ~exists().where(_is_of_same_entry(queues), _IS_WAITING))
        self._held = select(queues.c.entry, queues.c.claim).where(*given).order_by(queues.c.entry).with_for_update()
        self._finish = (
            update(deliveries)
            .where(database.among(deliveries.c.id))
            .values(
                outcome=bindparam("new_outcome"),
                attempts=deliveries.c.attempts + 1,
                attempted_at=_NOW,
                status=bindparam("its_status"),
                problem=bindparam("its_problem"),
            )
        )
        self._free = update(queues).where(*given).values(claim="", claimed_until=0)
        self._release = self._free.values(next_at=bindparam("due"), attempts=bindparam("failed"))

    def claim(self, connection: Connection, most: int) -> list[Delivery]:
        """The first deliveries of queues that are due and that nobody has claimed."""
        name = uuid.uuid4().hex
        entries = list(connection.scalars(self._claim, {"now": now_ms(), "most": most, "new_claim": name}))
        if not entries:
            return []
        found = self._firsts(connection, entries)
        untried = [each.entry for each in found if not each.attempts]
        if self._collapse and untried:
            connection.execute(self._replace, {"outcome": Outcome.REPLACED, **self._database.keys(untried)})
            found = [*(each for each in found if each.attempts), *self._firsts(connection, untried)]
        if missing := set(entries) - {each.entry for each in found}:
            # What they had is delivered: a record came twice.
            connection.execute(self._forget, self._database.keys(missing))
        return [each._replace(claim=name) for each in found]

    def _firsts(self, connection: Connection, entries: Collection[str]) -> list[Delivery]:
        return [Delivery(*row) for row in connection.execute(self._first, self._database.keys(entries))]

    def finish(self, connection: Connection, results: Sequence[Result], unsent: Sequence[Delivery] = ()) -> None:
        """Record attempts, and make the next delivery of each entry due. Those that lost their claim are ignored.

        Attempts that ended alike are recorded by one statement. ``unsent`` were claimed, and have their turn as before.
        """
        keys = self._database.keys
        claimed = [*(each.delivery for each in results), *unsent]
        held = {tuple(row) for row in connection.execute(self._held, keys(each.entry for each in claimed))}
        mine = [each for each in results if (each.delivery.entry, each.delivery.claim) in held]
        free = [each.entry for each in unsent if (each.entry, each.claim) in held]
        if not mine and not free:
            return
        now = now_ms()
        for (outcome, status, problem), of in _grouped((_ending(each), each.delivery.id) for each in mine).items():
            values = {"new_outcome": outcome, "its_status": status, "its_problem": problem}
            connection.execute(self._finish, {**values, "now": now, **keys(of)})
        # A statement of its own, which sees what was added before the lock was taken.
        forgotten = connection.execute(self._forget, keys(each.delivery.entry for each in mine)).rowcount
        next_ones = [(_next_attempt(each), each.delivery.entry) for each in mine]
        for (retry_in_ms, failed), of in _grouped(next_ones).items() if forgotten < len(mine) else ():
            connection.execute(self._release, {"due": now + retry_in_ms, "failed": failed, **keys(of)})
        if free:
            connection.execute(self._free, keys(free))
        if mine:
            _note(connection, self._endpoint, mine)


def _grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    found = dict[K, list[V]]()
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found


def _ending(result: Result) -> tuple[int, int | None, str | None]:
    """Outcome, status and problem."""
    outcome = Outcome.DELIVERED if result.delivered else Outcome.WAITING
    if not result.delivered and result.retry_in_ms is None:
        outcome = Outcome.GIVEN_UP
    return int(outcome), result.status, clean(result.problem) or None


def _next_attempt(result: Result) -> tuple[int, int]:
    """In how many milliseconds the entry is due again, and how many attempts have failed then."""
    is_over = result.delivered or result.retry_in_ms is None
    return result.retry_in_ms or 0, 0 if is_over else result.delivery.attempts + 1


def _note(connection: Connection, endpoint: str, results: Sequence[Result]) -> None:
    """The endpoint's state after these attempts: failing, well again, or disabled."""
    reason = next((each.disable for each in results if each.disable), None)
    is_well = any(each.delivered for each in results)
    if is_well:
        connection.execute(_RECOVER, {"its_name": endpoint})
    if is_well and reason is None:
        return
    mine = update(endpoints).where(endpoints.c.name == endpoint)
    is_enabled, last = endpoints.c.disabled.is_(None), max(results, key=lambda each: each.at)
    if reason is not None:
        connection.execute(mine.where(is_enabled).values(disabled=reason, disabled_at=last.at))
    if not is_well:
        since = connection.scalar(select(endpoints.c.failing_since).where(endpoints.c.name == endpoint))
        if since is not None and since >= last.at - FAILING_MS:
            return
        if since is None or _is_first(connection, endpoint, results):
            connection.execute(mine.values(failing_since=last.at))
        else:
            disabled = mine.where(is_enabled, endpoints.c.failing_since == since)
            connection.execute(disabled.values(disabled="it has failed for five days", disabled_at=last.at))


def _is_first(connection: Connection, endpoint: str, results: Sequence[Result]) -> bool:
    """Whether these failures come after silence: nothing had failed for longer than attempts are apart."""
    if any(each.delivery.attempts for each in results):
        return False
    others = deliveries.c.endpoint == endpoint, deliveries.c.id.not_in([each.delivery.id for each in results])
    last = select(func.max(deliveries.c.attempted_at)).where(*others, deliveries.c.problem.is_not(None))
    found = connection.scalar(last)
    return found is None or found < results[0].at - SILENCE_MS


def _next_due(database: Database) -> ColumnElement[int | None]:
    is_free = queues.c.claimed_until <= _clock(database, literal(now_ms()))
    # For each endpoint a look into the index. A query by groups reads all that wait.
    first = select(func.min(queues.c.next_at)).where(queues.c.endpoint == endpoints.c.name, is_free)
    return first.scalar_subquery().label("next_due")


def next_due(database: Database, name: str) -> int | None:
    """When the endpoint's next queue that nobody has claimed is due; that of a dead replica too, after its claim.

    None if nothing waits.
    """
    with database.read() as connection:
        return connection.scalar(select(_next_due(database)).where(endpoints.c.name == name))


def waiting(database: Database, names: Collection[str], outcome: Outcome = Outcome.WAITING) -> dict[str, Waiting]:
    """What waits, or what has ended so, by endpoint."""
    found = select(deliveries.c.endpoint, func.count(), func.min(deliveries.c.at))
    # With their names: the index begins with them, and most deliveries are delivered.
    found = found.where(deliveries.c.endpoint.in_(names), deliveries.c.outcome == outcome)
    now = now_ms()
    with database.read() as connection:
        rows = connection.execute(found.group_by(deliveries.c.endpoint))
        return {name: Waiting(count, max(0, now - oldest) / 1000) for name, count, oldest in rows}


def failures(database: Database, name: str) -> Sequence[Row[Any]]:
    """The deliveries of an endpoint whose last attempt failed, the latest first."""
    failed = select(deliveries).where(deliveries.c.endpoint == name, deliveries.c.problem.is_not(None))
    with database.read() as connection:
        return connection.execute(failed.order_by(deliveries.c.attempted_at.desc()).limit(_FAILURES)).all()


def states(database: Database) -> dict[str, EndpointState]:
    """The endpoints that were ever in the file, by name."""
    columns = (endpoints.c[each] for each in EndpointState._fields if each in endpoints.c)
    with database.read() as connection:
        found = connection.execute(select(*columns, _next_due(database)))
        return {row.name: EndpointState(*row) for row in found}


def present_is_added(database: Database, name: str) -> None:
    """Every entry that was in a list is waiting now."""
    with database.write() as connection:
        connection.execute(update(endpoints).where(endpoints.c.name == name).values(has_present=True))


def register(database: Database, names: Mapping[str, bool]) -> dict[str, EndpointState]:
    """Add the endpoints that are new, by name with whether they start with what is present; the states of all."""
    put = Upsert(endpoints, ["name", "added_at", "has_present"], only_new=True)
    rows = [(name, now_ms(), not is_present) for name, is_present in sorted(names.items())]
    with database.write() as connection:
        database.put(connection, put, rows)
    return states(database)


def set_enabled(database: Database, name: str, *, reason: str | None) -> None:
    """Enable an endpoint, or disable it for this reason."""
    values = {"disabled": reason, "disabled_at": None if reason is None else now_ms(), "failing_since": None}
    with database.write() as connection:
        if reason is None:  # at once, not when the last failure said
            # First and in order: so does the end of an attempt.
            mine = in_key_order(queues, queues.c.endpoint == name)
            connection.execute(update(queues).where(mine).values(next_at=now_ms()))
        connection.execute(update(endpoints).where(endpoints.c.name == name).values(**values))


def replay(
    database: Database,
    endpoint: str,
    *,
    ids: Collection[int] = (),
    since: int | None = None,
    outcome: Outcome = Outcome.GIVEN_UP,
) -> Replayed:
    """Make deliveries wait again, or due if they wait: these, or those since then with this outcome.

    Not what a later change of its entry has overtaken: a receiver would show a task that is gone.
    """

    def is_chosen(of: FromClause) -> ColumnElement[bool]:
        given = of.c.id.in_(ids) if ids else and_(of.c.outcome == outcome, of.c.at >= (since or 0))
        return and_(of.c.endpoint == endpoint, given)

    with database.write() as connection:
        entries = sorted(set(connection.scalars(select(deliveries.c.entry).where(is_chosen(deliveries)))))
        now, among = now_ms(), database.keys(entries)
        _lock_queues(database, connection, [(endpoint, entry) for entry in entries], now)
        # Only of these: what has ended since then has no row in ``queues``, and would wait for ever.
        chosen = is_chosen(deliveries), database.among(deliveries.c.entry)
        total, waiting = connection.execute(
            select(func.count(), func.count().filter(_IS_WAITING)).where(*chosen), among
        ).one()
        overtaken = _is_overtaken(is_chosen, _clock(database, literal(now)))
        replaced = update(deliveries).where(*chosen, deliveries.c.outcome == Outcome.GIVEN_UP, overtaken)
        connection.execute(replaced.values(outcome=Outcome.REPLACED), among)
        again = update(deliveries).where(*chosen, ~_IS_WAITING, ~overtaken).values(outcome=Outcome.WAITING, attempts=0)
        count = connection.execute(again, among).rowcount
        due = update(queues).where(queues.c.endpoint == endpoint, database.among(queues.c.entry))
        connection.execute(due.values(next_at=now), among)
        return Replayed(count, waiting, total - waiting - count)


def _is_overtaken(
    is_chosen: Callable[[FromClause], ColumnElement[bool]], now: ColumnElement[int]
) -> ColumnElement[bool]:
    """Whether a later change of the same entry was delivered, and is not replayed too, or is being sent."""
    later, first = deliveries.alias(), deliveries.alias()
    delivered = later.c.outcome == Outcome.DELIVERED, later.c.id > deliveries.c.id, ~is_chosen(later)
    waiting = select(func.min(first.c.id)).where(first.c.outcome == Outcome.WAITING, _is_of_same_entry(first))
    claimed = exists().where(_is_of_same_entry(queues), queues.c.claimed_until > now)
    return or_(
        exists().where(_is_of_same_entry(later), *delivered),
        and_(claimed, waiting.scalar_subquery() > deliveries.c.id),
    )


def _is_of_same_entry(of: FromClause) -> ColumnElement[bool]:
    return and_(of.c.endpoint == deliveries.c.endpoint, of.c.entry == deliveries.c.entry)


def purge(database: Database, idle: Collection[str] = ()) -> int:
    """Delete deliveries that ended long ago, and what waited as long as these for endpoints that get nothing.

    ``idle``: endpoints that are disabled, or not in the file. Returns how many deliveries.
    """
    now, earlier = now_ms(), deliveries.alias()
    given_up = earlier.c.outcome == Outcome.GIVEN_UP, earlier.c.id < deliveries.c.id
    old = (
        and_(deliveries.c.outcome == Outcome.GIVEN_UP, deliveries.c.at < now - GIVEN_UP_DAYS * _DAY_MS),
        and_(
            deliveries.c.outcome.in_((Outcome.DELIVERED, Outcome.REPLACED)),
            deliveries.c.at < now - DELIVERED_DAYS * _DAY_MS,
            # That one says that those which were given up before it are overtaken.
            ~exists().where(_is_of_same_entry(earlier), *given_up),
        ),
    )
    ended = sum(database.purge(deliveries, where) for where in old)
    return ended + sum(_purge_waiting(database, name, now - GIVEN_UP_DAYS * _DAY_MS) for name in idle)


def _purge_waiting(database: Database, endpoint: str, before: int) -> int:
    """In transactions of some queues each, which are locked: what is added meanwhile has its queue."""
    waiting = deliveries.c.endpoint == endpoint, _IS_WAITING
    old = *waiting, deliveries.c.at < before
    among = database.among(deliveries.c.entry)
    forget = delete(queues).where(queues.c.endpoint == endpoint, database.among(queues.c.entry))
    total = 0
    while True:
        with database.write() as connection:
            entries = set(connection.scalars(select(deliveries.c.entry).where(*old).limit(_PURGED_ROWS)))
            if not entries:
                return total
            _lock_queues(database, connection, [(endpoint, entry) for entry in sorted(entries)], before)
            total += connection.execute(delete(deliveries).where(*old, among), database.keys(entries)).rowcount
            left = set(connection.scalars(select(deliveries.c.entry).where(*waiting, among), database.keys(entries)))
            connection.execute(forget, database.keys(entries - left))
