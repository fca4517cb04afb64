"""DingTalk's open API for an organisation: its apps with their system tokens, people and their copies, labels of forms.

The names are those of the vendor's SDK (``yida_1_0``, ``contact_1_0``), compared by the same test as ``wire``.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

import msgspec
from msgspec import Struct, field

from taskbridge.dingtalk import wire
from taskbridge.dingtalk.calls import Unexpected
from taskbridge.schemas.events import Form, FormField

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taskbridge.dingtalk.apps import App, Organisation
    from taskbridge.dingtalk.calls import Allowed, Calls

IN_FORCE, LATER_IN_FORCE, ON_TASKS = "EFF", "DIS", "EXECUTE"
"""Of what is asked about agents: their status, and what they do. The documents' other words are of no use here."""
NORMAL, ALL_FORMS = "NORMAL", "ALL"
"""Of an agent for a time, for all forms; DEPARTURE is one of a person who has left."""
_FIELD, _TABLE = "Field", "TableField"
"""The end of the names of components that have values, and the one that has lines of them."""
_LANGUAGES = ("zh_CN", "en_US")
_AGENTS_MOST = 1000
"""Of a list that is read to its end: each hundred is a call."""
PEOPLE_PER_CALL = 50
"""No document gives a limit. A URL with so many ids has two kilobytes."""


class Proved(wire.Call, frozen=True, kw_only=True):
    """The fields of every call that needs a corp token. The repr does not show the proof."""

    corp_id: str
    token: str
    """See ``token_of``."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.corp_id})"


class ListApplication(Proved, frozen=True, kw_only=True):
    """GET: the apps of an organisation."""

    path: ClassVar[str] = "/v1.0/yida/organizations/applications"
    site = "env"

    user_id: str


class GetAgentTasks(Proved, frozen=True, kw_only=True):
    """GET: who has whom act for them."""

    path: ClassVar[str] = "/v2.0/yida/forms/resources/agents"

    user_id: str
    keywords: str
    """The id of a person who acts, or has somebody act."""
    status: str


class CreateAgentTask(Proved, frozen=True, kw_only=True):
    """POST: a person, the principal, has another one act for them. Times are in ms."""

    path: ClassVar[str] = "/v2.0/yida/forms/resources/agents/insert"

    user_id: str
    """An administrator of Yida, for principals who are not their subordinates."""
    agent_user_id: str
    principal_user_id: str
    agent_type: str
    agent_category: str
    agent_range_type: str
    start_timestamp: str
    end_timestamp: str
    need_notice_principal: str


class CancelAgentTask(Proved, frozen=True, kw_only=True):
    """POST: ends what ``CreateAgentTask`` began."""

    path: ClassVar[str] = "/v2.0/yida/forms/resources/agents/cancel"

    user_id: str
    agent_uuid: str
    agent_type: str


class GetNotifyMe(Proved, frozen=True, kw_only=True):
    """GET: the instances that were copied to a person, of any app. The path ends with the person's id."""

    path: ClassVar[str] = "/v1.0/yida/corpNotifications/"
    site = "env"

    app_types: str
    """A list as JSON text."""
    instance_create_from_time: int = field(name="instanceCreateFromTimeGMT")
    """In ms."""


class GetFormComponentDefinitionList(wire.Call, frozen=True, kw_only=True):
    """GET: the fields of a form. The path ends with the app and the form."""

    path: ClassVar[str] = "/v1.0/yida/forms/definitions/"

    system_token: str
    user_id: str

    def __repr__(self) -> str:
        return "GetFormComponentDefinitionList()"


class BatchGetUser(wire.Call, frozen=True, kw_only=True):
    """GET: several people of the organisation."""

    path: ClassVar[str] = "/v1.0/contact/users/batch/get"

    user_id_list: str
    """A list as JSON text."""


class GetCorpLevelByAccountId(wire.Call, frozen=True, kw_only=True):
    """GET: the edition of an organisation."""

    path: ClassVar[str] = "/v1.0/yida/apps/corpLevel"

    account_id: str


class Application(Struct, frozen=True, rename="camel", omit_defaults=True):
    """An app. The repr does not show its token."""

    app_type: str
    name: str | None = None
    system_token: str | None = None

    def __repr__(self) -> str:
        return f"Application({self.app_type})"


class ApplicationPage(Struct, frozen=True, rename="camel"):
    data: list[Application]
    total_count: int


class Agent(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Somebody who acts for another person, the principal."""

    agent_user_id: str
    principal_user_id: str
    agent_name: str | None = None
    principal_name: str | None = None
    starts: str | None = field(default=None, name="agentStartGMT")
    ends: str | None = field(default=None, name="agentEndGMT")
    agent_category: str | None = None
    agent_range_value: str | None = None
    """The forms as JSON text, if they are not all."""
    agent_uuid: str | None = None
    agent_type: str | None = None
    status: str | None = None

    @property
    def is_on_tasks(self) -> bool:
        return self.agent_category in (None, ON_TASKS)


class AgentPage(Struct, frozen=True, rename="camel"):
    data: list[Agent] = field(name="values")
    total_count: int


class Component(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A field of a form, or something else on it."""

    field_id: str | None = None
    label: str | None = None
    component_name: str | None = None
    parent_id: str | None = None
    """The table that the field is in."""


class ComponentList(Struct, frozen=True):
    result: list[Component]


class User(Struct, frozen=True, omit_defaults=True):
    userid: str
    name: str | None = None
    job_number: str | None = None


class UserList(Struct, frozen=True, rename="camel", omit_defaults=True):
    user_list: list[User]
    unauthorized_user_id_list: list[str] = []
    """Those whom the application may not see."""


class CorpLevel(Struct, frozen=True):
    result: str


def label_of(given: str) -> str:
    """A label in one language: some are JSON with one text for each."""
    with suppress(msgspec.MsgspecError):
        texts = msgspec.json.decode(given, type=dict[str, Any])
        found = (texts.get(each) for each in (*_LANGUAGES, *texts))
        return next((each for each in found if isinstance(each, str) and each), "")
    return given


def fields_of(components: Sequence[Component]) -> tuple[FormField, ...]:
    """The components that have values, each with the table around it, between which may be parts of a layout."""
    by_id = {each.field_id: each for each in components if each.field_id}
    found: dict[str, FormField] = {}
    for each in components:
        if each.field_id and (each.component_name or "").endswith(_FIELD):
            above, passed = by_id.get(each.parent_id or ""), {each.field_id}
            while above is not None and above.component_name != _TABLE and above.field_id not in passed:
                passed |= {above.field_id or ""}
                above = by_id.get(above.parent_id or "")
            table = None if above is None or above.component_name != _TABLE else above.field_id
            found[each.field_id] = FormField(each.field_id, each.component_name or "", table)
    return tuple(found.values())


def token_of(corp_id: str, user_id: str, corp_token: str) -> str:
    """Proof that the caller has the corp token, which some documents call the code of the enterprise.

    DingTalk's document ``connection/yida-parameter-description`` says that they are one, and that MD5 is in upper case.
    """
    return hashlib.md5(f"{corp_id}{user_id}{corp_token}".encode(), usedforsecurity=False).hexdigest().upper()


class OrganisationApi:
    """Every method may raise what ``Calls.get`` raises."""

    def __init__(self, calls: Calls, organisation: Organisation) -> None:
        self.organisation = organisation
        self._calls = calls

    async def applications(self) -> list[Application]:
        """All apps. The organisation has a corp token.

        Raises:
            Unexpected: DingTalk returned fewer than it counts.
        """
        request = ListApplication(user_id=self.organisation.user_id, **self._proof(self.organisation.user_id))
        found: dict[str, Application] = {}
        total = 0
        async for answer in self._calls.pages(request, ApplicationPage):
            total = answer.total_count
            found |= {each.app_type: each for each in answer.data}
        if len(found) < total:
            raise Unexpected(f"{request.path}: DingTalk returned {len(found)} of {total} apps")
        return [*found.values()]

    async def copies(self, app_type: str, user_id: str, since_ms: int) -> dict[str, wire.CopyNotice]:
        """A person's copies of the app's instances created since then, by instance.

        The organisation has a corp token.
        """
        app_types = msgspec.json.encode([app_type]).decode()
        request = GetNotifyMe(app_types=app_types, instance_create_from_time=since_ms, **self._proof(user_id))
        pages = self._calls.pages(request, wire.CopyNoticePage, path_end=quote(user_id, safe=""))
        return {str(each.form_instance_id): each async for answer in pages for each in answer.data}

    async def edition(self) -> str:
        """The organisation's edition in Yida's word. Whether a user's id is the account id is not documented."""
        request = GetCorpLevelByAccountId(account_id=self.organisation.user_id)
        return (await self._calls.get(request, CorpLevel)).result

    async def agents(self, user_id: str) -> list[Agent]:
        """Who acts for this person on tasks, and for whom this person does, at present: of the first page.

        The organisation has a corp token.
        """
        answer = await self._calls.get(self._agents_of(user_id, IN_FORCE), AgentPage, page=1)
        # Documents do not say that the id must match as a whole.
        return [
            each for each in answer.data if each.is_on_tasks and user_id in (each.agent_user_id, each.principal_user_id)
        ]

    async def find_agent(self, user_id: str, status: str, is_it: Callable[[Agent], bool]) -> Agent | None:
        """The first of a person's agents of this status that is it; None if surely none is.

        Raises:
            Unexpected: Not all pages could be read.
        """
        request = self._agents_of(user_id, status)
        seen: set[Agent] = set()
        total = 0
        async for answer in self._calls.pages(request, AgentPage):
            if (found := next(filter(is_it, answer.data), None)) is not None:
                return found
            seen |= {*answer.data}
            total = max(total, answer.total_count)
            if len(seen) >= _AGENTS_MOST:
                break
        if len(seen) < total:
            raise Unexpected(f"{request.path}: DingTalk returned {len(seen)} of {total} agents")
        return None

    async def add_agent(self, principal_id: str, agent_id: str, times: tuple[int, int], *, allowed: Allowed) -> None:
        """Have a person act for another one, from and until these times. It may raise what ``Calls.change`` raises."""
        starts, ends = map(str, times)
        request = CreateAgentTask(
            user_id=self.organisation.user_id,
            agent_user_id=agent_id,
            principal_user_id=principal_id,
            agent_type=NORMAL,
            agent_category=ON_TASKS,
            agent_range_type=ALL_FORMS,
            start_timestamp=starts,
            end_timestamp=ends,
            need_notice_principal="y",
            **self._proof(self.organisation.user_id),
        )
        await self._calls.change(request, answer=wire.Outcome, allowed=allowed)

    async def remove_agent(self, agent_uuid: str, *, allowed: Allowed) -> None:
        """End what ``add_agent`` began; as there."""
        caller = self.organisation.user_id
        request = CancelAgentTask(user_id=caller, agent_uuid=agent_uuid, agent_type=NORMAL, **self._proof(caller))
        await self._calls.change(request, answer=wire.Outcome, allowed=allowed)

    def _agents_of(self, user_id: str, status: str) -> GetAgentTasks:
        caller = self.organisation.user_id
        return GetAgentTasks(user_id=caller, keywords=user_id, status=status, **self._proof(caller))

    def _proof(self, user_id: str) -> dict[str, str]:
        corp_id = self.organisation.corp_id
        assert self.organisation.corp_token is not None
        return {
            "corp_id": corp_id,
            "token": token_of(corp_id, user_id, self.organisation.corp_token.get_secret_value()),
        }

    async def form(self, app: App, form_uuid: str, title: str | None) -> Form:
        """The form's labels and fields, also those within tables."""
        request = GetFormComponentDefinitionList(system_token=app.system_token.get_secret_value(), user_id=app.user_id)
        path_end = f"{quote(app.app_type, safe='')}/{quote(form_uuid, safe='')}"
        answer = await self._calls.get(request, ComponentList, path_end=path_end)
        labels = {each.field_id: label_of(each.label) for each in answer.result if each.field_id and each.label}
        known = {name: label for name, label in labels.items() if label}
        return Form(form_uuid, title, known, fields_of(answer.result))

    async def people(self, user_ids: Sequence[str]) -> list[User]:
        """Those of these people whom the application may see, ``PEOPLE_PER_CALL`` at most."""
        request = BatchGetUser(user_id_list=msgspec.json.encode(user_ids).decode())
        return (await self._calls.get(request, UserList)).user_list
