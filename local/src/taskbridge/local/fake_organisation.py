"""The part of the fake DingTalk that knows its organisation: apps with their tokens, people, and labels of forms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from taskbridge.dingtalk import organisation, wire
from taskbridge.dingtalk.times import span_of
from taskbridge.local.fake_answers import Given, Refused, by_minute

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.routing import Route

    MakeRoute = Callable[[str, Callable[[Given], Any], str], Route]


CANCELLED = "CANCEL"
"""The status of an agent."""


class FakeOrganisation:
    """Its contents may be changed at any time."""

    corp_token = "fake-corp-token"  # noqa: S105 - of this fake only

    def __init__(
        self, system_tokens: dict[str, str], user_id: str, now: Callable[[], int], changed: Callable[[], None]
    ) -> None:
        """``system_tokens``: the secret of each app. ``changed`` is called when a change was carried out."""
        self.people: dict[str, organisation.User] = {}
        self.hidden: set[str] = set()
        """People whom the application may not see."""
        self.labels: dict[str, dict[str, str]] = {}
        self.components: dict[str, list[organisation.Component]] = {}
        """By form; of others, components are named after the ids of ``labels``."""
        """Form → field → label."""
        self.app_names: dict[str, str] = {}
        self.agents: list[organisation.Agent] = []
        self.gives_system_tokens = True
        """Whether the list of apps has their tokens."""
        self.edition = "EXCLUSIVE"
        self.unknown_apps: tuple[str, ...] = ()
        """Apps besides those with a secret here."""
        self.missing_permissions: set[str] = set()
        self._system_tokens, self._user_id, self._now, self._changed = system_tokens, user_id, now, changed

    def routes(self, route: MakeRoute) -> list[Route]:
        return [
            route(organisation.ListApplication.path, self._applications, "GET"),
            route(f"{organisation.GetFormComponentDefinitionList.path}{{id:path}}", self._fields, "GET"),
            route(organisation.BatchGetUser.path, self._people, "GET"),
            route(organisation.GetCorpLevelByAccountId.path, self._edition, "GET"),
            route(organisation.GetAgentTasks.path, self._agents, "GET"),
            route(organisation.CreateAgentTask.path, self._add_agent, "POST"),
            route(organisation.CancelAgentTask.path, self._remove_agent, "POST"),
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
        if form_uuid in self.components:
            return organisation.ComponentList(self.components[form_uuid])
        if form_uuid not in self.labels:
            raise Refused(400, "invalidState.form.pageInstanceNotFound", "表单不存在")
        labels = self.labels[form_uuid].items()
        found = [organisation.Component(each, label, _component_of(each)) for each, label in labels]
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
        found = [
            each
            for each in self.agents
            if (request.keywords in each.agent_user_id or request.keywords in each.principal_user_id)
            and self._status(each) == request.status
        ]
        page, size = int(given.fields.get(wire.PAGE_NUMBER, 1)), int(given.fields.get(wire.PAGE_SIZE, 10))
        return organisation.AgentPage(found[(page - 1) * size : page * size], len(found))

    def _status(self, agent: organisation.Agent) -> str:
        starts, ends = (span_of(each) for each in (agent.starts, agent.ends))
        if agent.status is not None or agent.agent_uuid is None or starts is None or ends is None:
            return agent.status or organisation.IN_FORCE
        if ends.first <= self._now():
            return "OUT"
        return organisation.IN_FORCE if starts.first <= self._now() else organisation.LATER_IN_FORCE

    def _add_agent(self, given: Given) -> wire.Outcome:
        self._check("Yida.PlatformResource.Write")
        request = given.read(organisation.CreateAgentTask)
        self.check_token(request, self._user_id)
        starts, ends = (by_minute(int(each)) for each in (request.start_timestamp, request.end_timestamp))
        found = organisation.Agent(
            *(request.agent_user_id, request.principal_user_id, None, None, starts, ends, request.agent_category),
            agent_uuid=f"Agent--{len(self.agents)}",
            agent_type=request.agent_type,
        )
        if any(msgspec.structs.replace(each, agent_uuid=found.agent_uuid) == found for each in self.agents):
            # No document says how it refuses this.
            return wire.Outcome(success=False, error_code="failure.agent.exists", error_msg="已存在相同的代理关系")
        self.agents.append(found)
        self._changed()
        return wire.Outcome(success=True)

    def _remove_agent(self, given: Given) -> wire.Outcome:
        self._check("Yida.PlatformResource.Write")
        request = given.read(organisation.CancelAgentTask)
        self.check_token(request, self._user_id)
        for at, each in enumerate(self.agents):
            if each.agent_uuid == request.agent_uuid and each.status != CANCELLED:
                self.agents[at] = msgspec.structs.replace(each, status=CANCELLED)
                self._changed()
                return wire.Outcome(success=True)
        return wire.Outcome(success=False, error_code="failure.agent.notExist", error_msg="代理关系不存在")

    def check_token(self, request: organisation.Proved, user_id: str) -> None:
        if request.token != organisation.token_of(request.corp_id, user_id, self.corp_token):
            raise Refused(400, "invalidParameter.parameter.accessKeyNotMatch", f"接入密钥不匹配:{request.token}")

    def _check(self, permission: str) -> None:
        if permission in self.missing_permissions:
            raise Refused(403, wire.CODE_PERMISSION, f"应用尚未开通所需的权限:[{permission}]")


def _component_of(field_id: str) -> str:
    kind = field_id.partition("_")[0]
    return kind[:1].upper() + kind[1:]
