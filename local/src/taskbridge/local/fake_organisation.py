"""The part of the fake DingTalk that knows its organisation: apps with their tokens, people, and labels of forms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from taskbridge.dingtalk import organisation, wire
from taskbridge.local.fake_answers import Given, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.routing import Route

    MakeRoute = Callable[[str, Callable[[Given], Any], str], Route]


class FakeOrganisation:
    """Its contents may be changed at any time."""

    corp_token = "fake-corp-token"  # noqa: S105 - of this fake only

    def __init__(self, system_tokens: dict[str, str], user_id: str) -> None:
        """``system_tokens``: the secret of each app."""
        self.people: dict[str, organisation.User] = {}
        self.hidden: set[str] = set()
        """People whom the application may not see."""
        self.labels: dict[str, dict[str, str]] = {}
        """Form → field → label."""
        self.app_names: dict[str, str] = {}
        self.agents: list[organisation.Agent] = []
        self.gives_system_tokens = True
        """Whether the list of apps has their tokens."""
        self.edition = "EXCLUSIVE"
        self.unknown_apps: tuple[str, ...] = ()
        """Apps besides those with a secret here."""
        self.missing_permissions: set[str] = set()
        self._system_tokens, self._user_id = system_tokens, user_id

    def routes(self, route: MakeRoute) -> list[Route]:
        return [
            route(organisation.ListApplication.path, self._applications, "GET"),
            route(f"{organisation.GetFormComponentDefinitionList.path}{{id:path}}", self._fields, "GET"),
            route(organisation.BatchGetUser.path, self._people, "GET"),
            route(organisation.GetCorpLevelByAccountId.path, self._edition, "GET"),
            route(organisation.GetAgentTasks.path, self._agents, "GET"),
        ]

    def _applications(self, given: Given) -> organisation.ApplicationPage:
        self._check("Yida.App.Read")
        self.check_token(given.read(organisation.ListApplication), self._user_id)
        rows = [
            organisation.Application(each, self.app_names.get(each), token if self.gives_system_tokens else None)
            for each, token in {**self._system_tokens, **dict.fromkeys(self.unknown_apps)}.items()
        ]
        page, size = int(given.fields.get(wire.PAGE_NUMBER, 1)), int(given.fields.get(wire.PAGE_SIZE, 10))
        return organisation.ApplicationPage(rows[(page - 1) * size : page * size], len(rows))

    def _edition(self, given: Given) -> organisation.CorpLevel:
        given.read(organisation.GetCorpLevelByAccountId)
        return organisation.CorpLevel(self.edition)

    def _fields(self, given: Given) -> organisation.ComponentList:
        self._check("Yida.Form.Read")
        app_type, _, form_uuid = given.path_end.partition("/")
        request = given.read(organisation.GetFormComponentDefinitionList)
        if self._system_tokens.get(app_type) != request.system_token:
            raise Refused(400, "invalidParameter.parameter.accessKeyNotMatch", f"接入密钥不匹配:{request.system_token}")
        if form_uuid not in self.labels:
            raise Refused(400, "invalidState.form.pageInstanceNotFound", "表单不存在")
        found = [organisation.Component(*each) for each in self.labels[form_uuid].items()]
        return organisation.ComponentList([*found, organisation.Component(component_name="Divider")])

    def _people(self, given: Given) -> organisation.UserList:
        self._check("qyapi_get_member")
        ids = msgspec.json.decode(given.read(organisation.BatchGetUser).user_id_list, type=list[str])
        found = [self.people[each] for each in ids if each in self.people and each not in self.hidden]
        return organisation.UserList(found, [each for each in ids if each in self.hidden])

    def _agents(self, given: Given) -> organisation.AgentPage:
        self._check("Yida.PlatformResource.Read")
        request = given.read(organisation.GetAgentTasks)
        self.check_token(request, self._user_id)
        ids = [(each.agent_user_id, each.principal_user_id, each) for each in self.agents]
        found = [each for agent, principal, each in ids if request.keywords in agent or request.keywords in principal]
        return organisation.AgentPage(found, len(found))

    def check_token(self, request: organisation.Proved, user_id: str) -> None:
        if request.token != organisation.token_of(request.corp_id, user_id, self.corp_token):
            raise Refused(400, "invalidParameter.parameter.accessKeyNotMatch", f"接入密钥不匹配:{request.token}")

    def _check(self, permission: str) -> None:
        if permission in self.missing_permissions:
            raise Refused(403, wire.CODE_PERMISSION, f"应用尚未开通所需的权限:[{permission}]")
