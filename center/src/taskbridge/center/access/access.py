"""Who makes a request, and what they may see. The one place where a request becomes a caller."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

from taskbridge.center.access.refusals import SignInRequired, TooManyQueries
from taskbridge.center.access.sso import SingleSignOn, UsersOf, single_sign_on
from taskbridge.runtime.access import SAFE_METHODS, is_from_own_page, on_loopback, token_of
from taskbridge.runtime.database import working_for
from taskbridge.runtime.rates import AtOnce, Rate
from taskbridge.runtime.refusals import Forbidden
from taskbridge.runtime.tokens import ALL_CORPS, TokensFile
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence

    from starlette.requests import HTTPConnection

    from taskbridge.center.access.audit import Audit
    from taskbridge.center.access.sessions import Session, Sessions
    from taskbridge.center.settings import CenterSettings
    from taskbridge.center.tables import Person

    Identify = Callable[[HTTPConnection], Awaitable["Caller"]]

SESSION_COOKIE = "__Host-taskbridge"
"""Of a signed-in person's browser. The prefix keeps other names of the site from setting it."""
OPERATOR, AUDITOR = "operator", "auditor"
"""Roles of signed-in people."""
_BURST_S = 2.0
"""An idle caller may use this many seconds of its rate at once."""
_AT_ONCE = 200
"""Requests of one caller that are under way: each may hold a body, and wait for a thread."""
_TOO_MANY = partial(TooManyQueries, "too many queries: try again in a second", retry_after_s=1)
_PROXY_STREAM_S = 300.0
"""After it the live-update connection of a person whom a proxy names ends, so that they reconnect through the proxy."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request.

    ``open``: anybody on this machine, where no tokens are set. ``token``: a program. ``sso``: a person who has signed
    in, here or at a trusted proxy; unless they are an operator, they may query only their own data.
    """

    mode: Literal["open", "token", "sso"]
    name: str | None = None
    corps: tuple[str, ...] = ()
    corp_id: str | None = None
    user_id: str | None = None
    rate_key: str = field(default="", repr=False)
    token_sha256: str = field(default="", repr=False)
    session: Session | None = field(default=None, repr=False)
    roles: frozenset[str] = frozenset()

    def may_see(self, corp_id: str, user_id: str | None = None) -> bool:
        """Whether this corp, and this user of it, are the caller's to query.

        For a signed-in person and no ``user_id`` the answer is about the corp only: of its instances they may see those
        that concern them.
        """
        is_own = corp_id == self.corp_id and user_id in (None, self.user_id)
        return is_own or ALL_CORPS in self.corps or corp_id in self.corps

    def check(self, corp_id: str, user_id: str) -> None:
        """Refuse queries that the caller may not make: Forbidden does not depend on whether the user exists."""
        if not self.may_see(corp_id, user_id):
            raise Forbidden("this caller may not read this user of this corp")

    def check_own(self, corp_id: str, user_id: str) -> None:
        """Refuse what concerns nobody but this user: an operator may see the lists, not what the person marked."""
        self.check(corp_id, user_id)
        if self.mode == "sso" and not self.is_person(corp_id, user_id):
            raise Forbidden("marks are the person's own")

    def is_person(self, corp_id: str, user_id: str) -> bool:
        """Whether this user has signed in, and makes the request."""
        return self.mode == "sso" and (corp_id, user_id) == (self.corp_id, self.user_id)

    def check_in_person(self, corp_id: str, user_id: str) -> None:
        """Refuse what only people who signed in may do, in their own name: the holder of a token could name anybody."""
        if not self.is_person(corp_id, user_id):
            raise Forbidden("only people who signed in may do so, and only in their own name")

    @property
    def is_operator(self) -> bool:
        """Whether they may see how the bridge is doing, which shows something of every corp."""
        return ALL_CORPS in self.corps

    @property
    def is_auditor(self) -> bool:
        """Whether they may see who did what. Of people, not the operators, whom it is about."""
        return AUDITOR in self.roles or (self.mode != "sso" and self.is_operator)


class Members(NamedTuple):
    """Who has a role: these people, and the members of these groups at the identity provider or a proxy."""

    role: str
    people: Collection[Person]
    groups: Collection[str]


@dataclass(eq=False)
class Access:
    """Turns requests into callers, and refuses those of nobody known.

    Without tokens, single sign-on and sessions it is open: only for a service on loopback.
    """

    tokens: TokensFile | None
    sso: SingleSignOn | None = None
    sessions: Sessions | None = None
    audit: Audit | None = None
    members: Sequence[Members] = ()
    rate_per_s: float = 500.0

    def __post_init__(self) -> None:
        self._rate = Rate(self.rate_per_s * _BURST_S, per_s=_BURST_S)
        self._at_once = AtOnce(_AT_ONCE)

    @property
    def is_open(self) -> bool:
        return self.tokens is None and self.sso is None and self.sessions is None

    @asynccontextmanager
    async def entered(self, request: HTTPConnection, identify: Identify | None = None) -> AsyncGenerator[Caller]:
        """Who makes a request, while it is answered: the work in the block is the caller's.

        ``identify``: in place of the method, where callers prove who they are in another manner.

        Raises:
            Unauthorized, SignInRequired: nobody who is known here.
            Forbidden: a page elsewhere has the browser of a signed-in person change something.
            UnknownPerson, NotNow: somebody who signed in by another id than the user id.
            TooManyQueries: the rate is exceeded, or too many requests of the caller are under way.
        """
        with working_for(f"address {address_of(request)}"):
            caller = await (identify or self.identify)(request)
        key = caller.rate_key
        self._rate.check(key, _TOO_MANY)
        with self._at_once.of(key, _TOO_MANY), working_for(key):
            yield caller

    async def identify(self, connection: HTTPConnection) -> Caller:
        """As ``entered``, without limits."""
        caller: Caller | None = None
        if self.sso is not None and (person := await self.sso.person_of(connection)) is not None:
            caller = self.signed_in(person, groups=self.sso.groups_of(connection))
        elif self.sessions is not None and "authorization" not in connection.headers:
            token = connection.cookies.get(SESSION_COOKIE)
            session = None if token is None else await self.sessions.find(token)
            if session is None:
                raise SignInRequired("sign in, or send a valid bearer token")
            caller = self.signed_in((session.corp_id, session.user_id), session)
        if caller is not None:
            if connection.scope["method"] not in SAFE_METHODS and not is_from_own_page(connection):
                raise Forbidden("a signed-in person changes something from a page of the task center only")
            return caller
        return self.program(connection)

    def program(self, connection: HTTPConnection) -> Caller:
        """The holder of an API token, or anybody where the service is open. Raises Unauthorized."""
        if self.is_open:
            return Caller("open", corps=(ALL_CORPS,), rate_key=f"open {address_of(connection)}")
        entry = token_of(connection, self.tokens)
        return Caller(
            "token", name=entry.name, corps=entry.corps, rate_key=f"token {entry.name}", token_sha256=entry.sha256
        )

    def signed_in(self, person: Person, session: Session | None = None, *, groups: Collection[str] = ()) -> Caller:
        """The caller that a person is, with the roles of the person, of the session, and of these groups."""
        corp_id, user_id = person
        roles = frozenset(each.role for each in self.members if person in each.people) | self.roles_of(groups)
        if session is not None:
            roles |= session.roles
        return Caller(
            "sso",
            corps=(ALL_CORPS,) if OPERATOR in roles else (),
            corp_id=corp_id,
            user_id=user_id,
            rate_key=f"sso {person!r}",
            session=session,
            roles=roles,
        )

    def roles_of(self, groups: Collection[object]) -> set[str]:
        return {each.role for each in self.members if any(group in groups for group in each.groups)}

    async def record(self, request: HTTPConnection, caller: Caller, action: str, subject: Person | str = "") -> None:
        """Add to the audit trail what a caller is about to do. If it is about a person, give no text: it stays."""
        if self.audit is not None:
            await self.audit.add(caller, action, subject, address=address_of(request))

    async def check_read(self, request: HTTPConnection, caller: Caller, read: Person | str) -> None:
        """Refuse a query about a person that the caller may not make, and record it if it is about somebody else.

        ``read``: the person, or the id of an instance. Only signed-in people are recorded: programs read all the time.
        """
        if not isinstance(read, str):
            caller.check(*read)
        if caller.is_operator and read != (caller.corp_id, caller.user_id):
            await self.record_read(request, caller, read)

    async def record_read(self, request: HTTPConnection, caller: Caller, subject: Person | str) -> None:
        """Record that a signed-in person sees something of others."""
        if self.audit is not None and caller.mode == "sso":
            await self.audit.add_read(caller, subject, address=address_of(request))

    def lasting(self, caller: Caller, corp_id: str, user_id: str, *, now: float) -> Callable[[float], bool]:
        """Returns a check whether a stream that was opened at ``now`` for this user may continue.

        A token may have been revoked since, or its corps, and a session ended. Only a proxy knows whether somebody whom
        it named is still signed in, and it checks at each request only: so their streams end after a time, and they
        reconnect through the proxy.
        """
        if caller.session is not None and self.sessions is not None:
            return self.sessions.lasting(caller.session.token_sha256)
        if caller.mode == "sso":
            until = now + _PROXY_STREAM_S
            return lambda now: now < until
        tokens = self.tokens
        if caller.mode == "open" or tokens is None:
            return lambda _now: True
        sha256 = caller.token_sha256

        def may_go_on(_now: float) -> bool:
            entry = tokens.current.with_digest(sha256)
            return entry is not None and Caller("token", corps=entry.corps).may_see(corp_id, user_id)

        return may_go_on


def address_of(connection: HTTPConnection) -> str:
    """Of the client, or of the proxy in front; empty where the server does not know it."""
    return connection.client.host if connection.client is not None else ""


def build_access(
    settings: CenterSettings,
    users_of: UsersOf | None = None,
    sessions: Sessions | None = None,
    audit: Audit | None = None,
) -> Access:
    """The access that the settings define. ``users_of`` finds those who sign in by another id than the user id.

    Raises ConfigurationError if the tokens file is broken, or anybody could query it from outside.
    """
    if settings.api_tokens_file is None and not on_loopback(settings.host):
        raise ConfigurationError(
            f"CENTER_HOST={settings.host} is reachable from outside: set CENTER_API_TOKENS_FILE, or use 127.0.0.1"
        )
    return Access(
        tokens=None if settings.api_tokens_file is None else TokensFile(settings.api_tokens_file),
        sso=single_sign_on(settings, users_of),
        sessions=sessions,
        audit=audit,
        members=(
            Members(OPERATOR, settings.operators, settings.operator_groups),
            Members(AUDITOR, settings.auditors, settings.auditor_groups),
        ),
        rate_per_s=settings.query_rate_per_s,
    )
