"""DingTalk's open API for an organisation: its apps with their system tokens, people's names, and labels of forms.

The names are those of the vendor's SDK (``yida_1_0``, ``contact_1_0``), compared by the same test as ``wire``.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote

import msgspec
from msgspec import Struct, field

from taskbridge.runtime.dingtalk import wire
from taskbridge.runtime.dingtalk.calls import Unexpected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskbridge.runtime.dingtalk.apps import App, Organisation
    from taskbridge.runtime.dingtalk.calls import Calls

IN_FORCE, ON_TASKS = "EFF", "EXECUTE"
"""Of what is asked about agents: their status, and what they do. The documents' other words are of no use here."""
PEOPLE_PER_CALL = 50
"""No document gives a limit. A URL with so many ids has two kilobytes."""


class ListApplication(wire.Call, frozen=True, kw_only=True):
    """GET: the apps of an organisation."""

    path: ClassVar[str] = "/v1.0/yida/organizations/applications"

    corp_id: str
    user_id: str
    token: str
    """See ``token_of``."""

    def __repr__(self) -> str:
        return f"ListApplication({self.corp_id})"


class GetAgentTasks(wire.Call, frozen=True, kw_only=True):
    """GET: who has whom act for them."""

    path: ClassVar[str] = "/v2.0/yida/forms/resources/agents"

    corp_id: str
    user_id: str
    token: str
    """See ``token_of``."""
    keywords: str
    """The id of a person who acts, or has somebody act."""
    status: str

    def __repr__(self) -> str:
        return f"GetAgentTasks({self.corp_id})"


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
    page_number: int = 1


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


class AgentPage(Struct, frozen=True, rename="camel"):
    values: list[Agent]
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
    user_list: list[User] = []
    unauthorized_user_id_list: list[str] = []
    """Those whom the application may not see."""


class CorpLevel(Struct, frozen=True):
    result: str


def token_of(corp_id: str, user_id: str, corp_token: str) -> str:
    """Proof that the caller has the corp token. Documents say MD5 and its input; upper case is a published caller's."""
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
        request = ListApplication(**self._proof())
        found: dict[str, Application] = {}
        page = 0
        while True:
            page += 1
            answer = await self._calls.get(request, ApplicationPage, page=page)
            found |= {each.app_type: each for each in answer.data}
            if page * wire.PAGE_ROWS >= answer.total_count:
                break
        if len(found) < answer.total_count:
            raise Unexpected(f"{request.path}: DingTalk returned {len(found)} of {answer.total_count} apps")
        return [*found.values()]

    async def edition(self) -> str:
        """The organisation's edition in Yida's word. Whether a user's id is the account id is not documented."""
        request = GetCorpLevelByAccountId(account_id=self.organisation.user_id)
        return (await self._calls.get(request, CorpLevel)).result

    async def agents(self, user_id: str) -> list[Agent]:
        """Who acts for this person on tasks, and for whom this person does, at present: a hundred at most.

        The organisation has a corp token.
        """
        request = GetAgentTasks(**self._proof(), keywords=user_id, status=IN_FORCE)
        found = (await self._calls.get(request, AgentPage, page=1)).values
        # Documents do not say that the id must match as a whole.
        return [
            each
            for each in found
            if user_id in (each.agent_user_id, each.principal_user_id) and each.agent_category in (None, ON_TASKS)
        ]

    def _proof(self) -> dict[str, str]:
        corp_id, user_id = self.organisation.corp_id, self.organisation.user_id
        assert self.organisation.corp_token is not None
        token = token_of(corp_id, user_id, self.organisation.corp_token.get_secret_value())
        return {"corp_id": corp_id, "user_id": user_id, "token": token}

    async def labels(self, app: App, form_uuid: str) -> dict[str, str]:
        """Field id → label, also of fields within tables."""
        request = GetFormComponentDefinitionList(system_token=app.system_token.get_secret_value(), user_id=app.user_id)
        path_end = f"{quote(app.app_type, safe='')}/{quote(form_uuid, safe='')}"
        answer = await self._calls.get(request, ComponentList, path_end=path_end)
        return {each.field_id: each.label for each in answer.result if each.field_id and each.label}

    async def people(self, user_ids: Sequence[str]) -> list[User]:
        """Those of these people whom the application may see, ``PEOPLE_PER_CALL`` at most."""
        request = BatchGetUser(user_id_list=msgspec.json.encode(user_ids).decode())
        return (await self._calls.get(request, UserList)).user_list
