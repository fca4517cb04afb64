"""The systems that carry out decisions: those of extensions by source, others by a signed request."""

from __future__ import annotations

import asyncio
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import httpx2
import msgspec

from taskbridge.center.actions.targets import HAND_OVER, REASSIGN, TALK, Endpoint, Endpoints, EndpointsFile, Possible
from taskbridge.runtime import extensions
from taskbridge.runtime.bounded_http import NOT_JSON, UNSENT_ERRORS, open_http
from taskbridge.runtime.standard_webhooks import signed_headers
from taskbridge.schemas.cloudevents import iso
from taskbridge.schemas.errors import ConfigurationError, OperatorError
from taskbridge.schemas.events import SOURCE_YIDA

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from taskbridge.center.actions.store import Action
    from taskbridge.center.reminders.messages import Notice
    from taskbridge.center.settings import CenterSettings
    from taskbridge.center.tables import Person
    from taskbridge.runtime.settings import ReloadedFile

    Allowed = Callable[[], Awaitable[bool]]
    """Whether a change may still be sent."""
    Open = Callable[[str | None], Awaitable[str | None]]
    """A temporary https address of a file, for the user who opens it (None: one who may see all); None without a file.

    May raise OperatorError: Away if it passes.
    """
    OpenFile = Callable[[str], Open | None]
    """What opens a file, by its form value, which is sent nowhere but to the system's own API; None if it is no file
    of the app."""
    ReadComments = Callable[[str, str], Awaitable[Sequence["Comment"] | None]]
    """The comments on an instance of an app, by form and instance, oldest first; None where the system lacks the call.

    May raise OperatorError: Away if it passes, and Busy if nothing was requested.
    """
    CountCall = Callable[[str, str, str, int], Awaitable[bool]]
    """Counts one more call of a corp, for a purpose and in a day, unless so many were made; whether it may be made.

    May raise OperatorError.
    """
    SystemExtension = Callable[[Any], "Connected | None"]
    """What an entry point of the group ``taskbridge.systems`` names.

    It gets the task center's settings with those of extensions. It returns None if they do not ask for it, and raises
    ConfigurationError if they are wrong.
    """

CALL_S = 20.0
OPEN_S = 10.0
"""For what a person waits for at a page."""
_DETAIL_CHARACTERS = 300
_TOO_EARLY = (408, 425, 429)

T = TypeVar("T")


class Away(OperatorError):
    """A system does not answer for the moment."""


async def answered(call: Awaitable[T], within_s: float | None = None) -> T:
    """What a system answers to a person who waits. Raises Away after OPEN_S or ``within_s``, or as the call."""
    within_s = within_s or OPEN_S
    try:
        async with asyncio.timeout(within_s):
            return await call
    except TimeoutError as error:
        raise Away(str(error) or f"no answer in {within_s:.0f} s") from None


class Busy(Away):
    """Nothing was requested: too much is under way here."""


class Received(Enum):
    """What is known of a request after it was sent."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNSENT = "unsent"
    """Or answered that it was not looked at: nothing was done."""
    UNCLEAR = "unclear"


class Answer(NamedTuple):
    """``detail``: the other system's words for the person, or empty."""

    received: Received
    detail: str = ""


class System(Protocol):
    """A system that carries out actions. Neither method raises."""

    @property
    def repeats(self) -> bool:
        """Whether the same action may be sent again without being carried out twice."""
        ...

    async def send(self, action: Action, *, now: int) -> Answer: ...

    async def read_back(self, action: Action) -> str | None:
        """DONE, OVERTAKEN, or empty if it is still to be done; None if that is not known."""
        ...


class Agent(NamedTuple):
    """Somebody who acts for another person at a system. Times in ms; without one there is no limit."""

    agent: tuple[str, str | None]
    """User id and name, as of ``principal``."""
    principal: tuple[str, str | None]
    is_for_all: bool
    starts_at: int | None
    ends_at: int | None


class FormRead(NamedTuple):
    """The form of an instance at the moment of a call. ``about`` is for the reader that returned it."""

    values: Mapping[str, str | None]
    is_running: bool
    about: Any = None


class LoggedChange(NamedTuple):
    """Who changed a field the last time, and when in ms; None where the system does not say it."""

    user_id: str | None
    at: int | None


class Step(NamedTuple):
    """A step to come. ``people``: who will have it, user ids and names."""

    name: str
    people: Sequence[tuple[str, str | None]]


class FormReader(Protocol):
    """Reads the forms of an app. Each method costs calls, and may raise OperatorError: Away if it passes."""

    @property
    def calls_per_day(self) -> int:
        """Of the corp, by all replicas."""
        ...

    async def read(self, instance_id: str) -> FormRead | None:
        """None if there is no such instance."""
        ...

    async def changes(self, instance_id: str, read: FormRead, fields: Sequence[str]) -> Mapping[str, LoggedChange]:
        """Of these fields, those of which the system says it."""
        ...

    async def steps(self, instance_id: str, read: FormRead, here: Sequence[str]) -> Sequence[Step]:
        """The steps after these, where the instance is now; if they are not known, the reader finds them out."""
        ...


class Comment(NamedTuple):
    comment_id: str
    user_id: str
    """Who wrote it, or empty."""
    text: str
    written_at: int
    """In ms, or 0 if that is not known."""
    notified_id: str | None
    """Whom the system was to notify of it."""


class StartForm(NamedTuple):
    """A form with which a person starts a request at a system."""

    form_uuid: str
    title: str | None
    title_en: str | None
    url: str


class Start(Protocol):
    """Lists the forms of a corp's apps. Its methods may raise OperatorError: Away if it passes, as for ReadComments.

    ``again``: it failed the last time. These calls are counted apart, so that they are not at the others' expense.
    """

    @property
    def app_types(self) -> Sequence[str]: ...

    @property
    def has_names(self) -> bool:
        """Whether ``names`` can be called."""
        ...

    async def forms(self, app_type: str, *, again: bool = False) -> tuple[Sequence[StartForm], bool]:
        """Those of one of these apps, and whether they are all."""
        ...

    def named(self, app_type: str) -> Sequence[StartForm]:
        """Those that the operator named, for as long as ``forms`` never answered."""
        ...

    async def names(self, *, again: bool = False) -> Mapping[str, str]:
        """What apps are called, by their type, as far as it is known."""
        ...


class Connected(Protocol):
    """All apps of one source, of which an extension carries out decisions."""

    source: str
    """As in the events of its tasks."""

    @property
    def files(self) -> Sequence[ReloadedFile[Any]]:
        """What it reads. The task center reloads them and reports their problems."""
        ...

    def possible(self) -> Sequence[tuple[str, Possible]]:
        """What may be done, each with its corp."""
        ...

    def system(self, corp_id: str, app_type: str, allowed: Allowed) -> System | None:
        """The system for tasks of this app; None if they are decided elsewhere only.

        ``allowed`` is called right before a change is sent: if it says no, the change is UNSENT. An empty ``app_type``:
        the system for the actions of AGENTS.
        """
        ...

    def file_opener(self, corp_id: str, app_type: str) -> OpenFile | None:
        """What opens files in the forms of this app; None if they are opened elsewhere only."""
        ...

    def form_reader(self, corp_id: str, app_type: str) -> FormReader | None:
        """What reads the forms of this app as they are now; None if nothing does."""
        ...

    def comments(self, corp_id: str, app_type: str) -> ReadComments | None:
        """What reads comments on instances of this app; None if they are written elsewhere only.

        If it is not None, the app's ``system`` carries out the actions of TALK too: it writes ``remark`` in the name of
        ``actor_id``, and notifies ``recipient_id``.
        """
        ...

    async def agents(self, person: Person) -> Sequence[Agent]:
        """Whom the person has act for them there, and for whom they act. May raise OperatorError."""
        ...

    def writes_agents(self, corp_id: str) -> bool:
        """Whether delegations may become agents there. Those that did are removed also if it is False."""
        ...

    def start(self, corp_id: str) -> Start | None:
        """What lists the forms that people may start; None if nothing does."""
        ...

    def count_by(self, count: CountCall) -> None:
        """Count the calls that people cause with this, before they are made: all replicas share it."""
        ...

    async def notify(self, notice: Notice) -> Answer | None:
        """Send a notice in one call; None if its corp is not known here. Does not raise."""
        ...

    async def close(self) -> None: ...


async def always() -> bool:
    return True


class Systems:
    """Where decisions go. It follows its files."""

    def __init__(
        self,
        connected: Sequence[Connected] = (),
        endpoints: Callable[[], Endpoints] = Endpoints,
        files: Sequence[ReloadedFile[Any]] = (),
    ) -> None:
        self._connected = {each.source: each for each in connected}
        if len(self._connected) < len(connected):
            sources = ", ".join(sorted(each.source for each in connected))
            raise ConfigurationError(f"{extensions.SYSTEMS}: two extensions have one source ({sources}); uninstall one")
        self._endpoints = endpoints
        self.files = [*(file for each in connected for file in each.files), *files]

    def of(self, corp_id: str, source: str, app_type: str, *, allowed: Allowed = always) -> System | None:
        """Where decisions on tasks of this app go; None if they are made elsewhere only.

        Before ``source`` there is a space if it is of an action that the release before would not know.
        """
        source = source.strip()
        if (connected := self._connected.get(source)) is not None:
            return connected.system(corp_id, app_type, allowed)
        endpoint = self._endpoints().get((corp_id, source))
        return None if endpoint is None else OtherSystem(self._http, endpoint)

    def possible(self, corp_id: str) -> list[Possible]:
        return [each for corp, each in self._possible() if corp == corp_id]

    @property
    def count(self) -> int:
        """The apps and other systems, of all corps."""
        return len(self._possible())

    def file_opener(self, corp_id: str, source: str, app_type: str) -> OpenFile | None:
        """As of ``Connected``."""
        connected = self._connected.get(source)
        return None if connected is None else connected.file_opener(corp_id, app_type)

    def form_reader(self, corp_id: str, source: str, app_type: str) -> FormReader | None:
        """As of ``Connected``."""
        connected = self._connected.get(source)
        return None if connected is None else connected.form_reader(corp_id, app_type)

    def comments(self, corp_id: str, source: str, app_type: str) -> ReadComments | None:
        """As of ``Connected``."""
        connected = self._connected.get(source)
        return None if connected is None else connected.comments(corp_id, app_type)

    def accepts_comments(self, corp_id: str, source: str, app_type: str) -> bool:
        is_other = source not in self._connected and (corp_id, source) in self._endpoints()
        return is_other or self.comments(corp_id, source, app_type) is not None

    def writes_agents(self, corp_id: str) -> bool:
        """Whether delegations can be agents at Yida."""
        yida = self._connected.get(SOURCE_YIDA)
        return yida is not None and yida.writes_agents(corp_id)

    async def agents(self, person: Person) -> list[Agent]:
        """As of ``Connected``, at all systems."""
        return [agent for each in self._connected.values() for agent in await each.agents(person)]

    def starts(self, corp_id: str) -> dict[str, Start]:
        """As of ``Connected``, of all systems, by source."""
        found = {source: each.start(corp_id) for source, each in self._connected.items()}
        return {source: each for source, each in found.items() if each is not None}

    def count_by(self, count: CountCall) -> None:
        """As of ``Connected``, at all systems."""
        for each in self._connected.values():
            each.count_by(count)

    async def notify(self, notice: Notice) -> Answer:
        """As of ``Connected``, by the first that knows the corp."""
        for each in self._connected.values():
            if (answer := await each.notify(notice)) is not None:
                return answer
        return Answer(Received.REFUSED, f"no application of {notice.corp_id} can notify: see agent_id in the apps file")

    async def close(self) -> None:
        for each in self._connected.values():
            await each.close()
        await self._http.aclose()

    def _possible(self) -> list[tuple[str, Possible]]:
        others = [(corp_id, Possible(source, None)) for corp_id, source in self._endpoints()]
        return [found for each in self._connected.values() for found in each.possible()] + others

    @cached_property
    def _http(self) -> httpx2.AsyncClient:
        return open_http("", timeout_s=CALL_S, reuse=False)


def systems_of(settings: CenterSettings) -> Systems:
    """The systems that the settings name. Raises ConfigurationError, also if a file is broken."""
    found: list[SystemExtension] = extensions.load_all(extensions.SYSTEMS)
    connected = [each for each in (extension(settings) for extension in found) if each is not None]
    if settings.credentials_file is None:
        return Systems(connected)
    file = EndpointsFile(settings.credentials_file)
    return Systems(connected, lambda: file.current, [file])


class OtherSystem:
    """An ``action_url``: a POST signed by Standard Webhooks, with the action's id as its idempotency key."""

    repeats = True

    def __init__(self, http: httpx2.AsyncClient, endpoint: Endpoint) -> None:
        self._http, self._endpoint = http, endpoint

    async def send(self, action: Action, *, now: int) -> Answer:
        kind, data = ("action", _data(action)) if action.action not in TALK else (action.action, _talk(action))
        body = msgspec.json.encode({"type": f"task.{kind}.v1", "timestamp": iso(action.requested_at), "data": data})
        keys = [self._endpoint.key]
        headers = {
            "content-type": "application/json",
            **signed_headers(action.action_id, str(now // 1000), body, keys=keys),
        }
        try:
            response = await self._http.post(self._endpoint.url, content=body, headers=headers)
        except UNSENT_ERRORS:
            return Answer(Received.UNSENT)
        except httpx2.HTTPError:
            return Answer(Received.UNCLEAR)
        if response.is_success:
            return Answer(Received.ACCEPTED)
        if response.is_client_error and response.status_code not in _TOO_EARLY:
            return Answer(Received.REFUSED, _detail(response))
        return Answer(Received.UNCLEAR)

    async def read_back(self, action: Action) -> str | None:  # noqa: ARG002 - as System
        return ""


def _data(action: Action) -> dict[str, str | None]:
    return {
        "action_id": action.action_id,
        "action": HAND_OVER if action.action == REASSIGN else action.action,
        "corp_id": action.corp_id,
        "instance_id": action.instance_id.removeprefix(f"{action.system}:"),
        "task_id": action.task_id or None,
        "user_id": action.user_id,
        "actor_id": action.actor_id,
        "recipient_id": action.recipient_id or None,
        "remark": action.remark,
    }


def _talk(action: Action) -> dict[str, str | None]:
    same = "action_id", "corp_id", "instance_id", "actor_id", "recipient_id"
    return {**{name: value for name, value in _data(action).items() if name in same}, "text": action.remark}


def _detail(response: httpx2.Response) -> str:
    """The ``detail`` of a problem document (RFC 9457)."""
    try:
        said = msgspec.json.decode(response.content, type=dict[str, object]).get("detail")
    except NOT_JSON:
        said = None
    return said[:_DETAIL_CHARACTERS] if isinstance(said, str) else f"HTTP {response.status_code}"
