"""Every path, parameter and field of our API module is in the vendor's SDK, by the source of that SDK.

The SDK is an oracle, not a dependency: six modules of its 41 MB of Python are read, and none is run. uv caches it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
import pytest

from support.wheels import uv
from taskbridge.dingtalk import organisation, wire, workflow
from taskbridge.schemas import events

if TYPE_CHECKING:
    from pathlib import Path

SDK = "alibabacloud-dingtalk==2.2.65"

REQUESTS: dict[type[msgspec.Struct], str] = {
    wire.GetInstances: "yida_2_0.GetInstances",
    wire.GetInstanceById: "yida_2_0.GetInstanceById",
    wire.GetInstancesByIdList: "yida_1_0.GetInstancesByIdList",
    wire.GetFormListInApp: "yida_1_0.GetFormListInApp",
    wire.GetRunningTasks: "yida_1_0.GetRunningTasks",
    wire.GetOperationRecords: "yida_1_0.GetOperationRecords",
    wire.ListOperationLogs: "yida_1_0.ListOperationLogs",
    wire.PreviewPublishedProcess: "yida_1_0.PreviewPublishedProcess",
    wire.ExecuteTask: "yida_1_0.ExecuteTask",
    wire.RedirectTask: "yida_1_0.RedirectTask",
    wire.RestartInstance: "yida_2_0.RestartInstance",
    wire.TerminateInstance: "yida_1_0.TerminateInstance",
    wire.GetRunningTaskList: "yida_1_0.GetRunningTaskList",
    wire.GetTaskCopies: "yida_1_0.GetTaskCopies",
    wire.GetOpenUrl: "yida_1_0.GetOpenUrl",
    wire.SearchFormDataSecondGeneration: "yida_1_0.SearchFormDataSecondGeneration",
    wire.BatchGetFormDataByIdList: "yida_1_0.BatchGetFormDataByIdList",
    wire.GetFormDataById: "yida_1_0.GetFormDataByID",
    wire.SaveFormRemark: "yida_1_0.SaveFormRemark",
    wire.ListFormRemarks: "yida_1_0.ListFormRemarks",
    wire.GetToken: "oauth2_1_0.GetToken",
    wire.GetAccessToken: "oauth2_1_0.GetAccessToken",
    organisation.ListApplication: "yida_1_0.ListApplication",
    organisation.GetAgentTasks: "yida_2_0.GetAgentTasks",
    organisation.CreateAgentTask: "yida_2_0.CreateAgentTask",
    organisation.CancelAgentTask: "yida_2_0.CancelAgentTask",
    organisation.GetNotifyMe: "yida_1_0.GetNotifyMe",
    organisation.GetFormComponentDefinitionList: "yida_1_0.GetFormComponentDefinitionList",
    organisation.BatchGetUser: "contact_1_0.BatchGetUser",
    organisation.GetCorpLevelByAccountId: "yida_1_0.GetCorpLevelByAccountId",
    workflow.GetProcessInstance: "workflow_1_0.GetProcessInstance",
    workflow.ListProcesses: "workflow_1_0.ListUserVisibleBpmsProcesses",
    workflow.ListProcessInstanceIds: "workflow_1_0.ListProcessInstanceIds",
    workflow.OpenConnection: "gateway_1_0.OpenConnection",
}
PATH_ENDS: dict[type[msgspec.Struct], str] = {
    wire.GetInstanceById: "{id}",
    wire.GetFormDataById: "{id}",
    wire.GetOpenUrl: "{app_type}",
    organisation.GetFormComponentDefinitionList: "{app_type}/{form_uuid}",
    organisation.GetNotifyMe: "{user_id}",
}
METHODS: dict[type[msgspec.Struct], str] = {
    **dict.fromkeys((wire.GetInstances, wire.GetToken, wire.ExecuteTask, wire.RedirectTask), "POST"),
    **dict.fromkeys((wire.RestartInstance, wire.GetRunningTaskList, workflow.OpenConnection), "POST"),
    **dict.fromkeys((wire.GetAccessToken, workflow.ListProcessInstanceIds), "POST"),
    **dict.fromkeys((wire.ListOperationLogs, wire.PreviewPublishedProcess), "POST"),
    **dict.fromkeys((wire.SearchFormDataSecondGeneration, wire.BatchGetFormDataByIdList), "POST"),
    **dict.fromkeys((wire.SaveFormRemark, wire.ListFormRemarks), "POST"),
    **dict.fromkeys((organisation.CreateAgentTask, organisation.CancelAgentTask), "POST"),
    wire.TerminateInstance: "PUT",
}
PAGED = (
    wire.GetInstances,
    wire.GetFormListInApp,
    wire.GetTaskCopies,
    organisation.ListApplication,
    organisation.GetAgentTasks,
    organisation.GetNotifyMe,
)
ANSWERS: dict[type[msgspec.Struct], tuple[str, ...]] = {
    wire.Token: ("oauth2_1_0.GetTokenResponseBody",),
    wire.AccessToken: ("oauth2_1_0.GetAccessTokenResponseBody",),
    wire.InstancePage: ("yida_2_0.GetInstancesResponseBody",),
    wire.Instance: ("yida_2_0.GetInstancesResponseBodyData", "yida_2_0.GetInstanceByIdResponseBody"),
    wire.Member: (
        "yida_2_0.GetInstancesResponseBodyDataOriginator",
        "yida_2_0.GetInstancesResponseBodyDataActionExecutor",
        "yida_2_0.GetInstanceByIdResponseBodyOriginator",
        "yida_1_0.GetInstancesByIdListResponseBodyResultOriginator",
    ),
    wire.Name: ("yida_2_0.GetInstancesResponseBodyDataOriginatorName",),
    wire.InstanceList: ("yida_1_0.GetInstancesByIdListResponseBody",),
    wire.FormList: ("yida_1_0.GetFormListInAppResponseBody",),
    wire.FormPage: ("yida_1_0.GetFormListInAppResponseBodyResult",),
    wire.Form: ("yida_1_0.GetFormListInAppResponseBodyResultData",),
    wire.FormTitle: ("yida_1_0.GetFormListInAppResponseBodyResultDataTitle",),
    wire.RunningTaskList: ("yida_1_0.GetRunningTasksResponseBody",),
    wire.RunningTask: ("yida_1_0.GetRunningTasksResponseBodyResult",),
    wire.ListedTasks: ("yida_1_0.GetRunningTaskListResponseBody",),
    wire.ListedTask: ("yida_1_0.GetRunningTaskListResponseBodyResult",),
    wire.TaskCopyPage: ("yida_1_0.GetTaskCopiesResponseBody",),
    wire.TaskCopy: ("yida_1_0.GetTaskCopiesResponseBodyData",),
    wire.OperationRecordList: ("yida_1_0.GetOperationRecordsResponseBody",),
    wire.OperationRecord: ("yida_1_0.GetOperationRecordsResponseBodyResult",),
    wire.OperationRecordPart: ("yida_1_0.GetOperationRecordsResponseBodyResultDomainList",),
    wire.OperationLogs: ("yida_1_0.ListOperationLogsResponseBody",),
    wire.Preview: ("yida_1_0.PreviewPublishedProcessResponseBody",),
    wire.PreviewedStep: ("yida_1_0.PreviewPublishedProcessResponseBodyResult",),
    wire.FormRowPage: ("yida_1_0.SearchFormDataSecondGenerationResponseBody",),
    wire.FormRowList: ("yida_1_0.BatchGetFormDataByIdListResponseBody",),
    wire.FormRow: (
        "yida_1_0.SearchFormDataSecondGenerationResponseBodyData",
        "yida_1_0.BatchGetFormDataByIdListResponseBodyResult",
    ),
    wire.FormRowById: ("yida_1_0.GetFormDataByIDResponseBody",),
    wire.RemarkMap: ("yida_1_0.ListFormRemarksResponseBody",),
    wire.OpenUrl: ("yida_1_0.GetOpenUrlResponseBody",),
    workflow.ApprovalAnswer: ("workflow_1_0.GetProcessInstanceResponseBody",),
    workflow.Approval: ("workflow_1_0.GetProcessInstanceResponseBodyResult",),
    workflow.ApprovalTask: ("workflow_1_0.GetProcessInstanceResponseBodyResultTasks",),
    workflow.ProcessAnswer: ("workflow_1_0.ListUserVisibleBpmsProcessesResponseBody",),
    workflow.ProcessPage: ("workflow_1_0.ListUserVisibleBpmsProcessesResponseBodyResult",),
    workflow.ProcessRow: ("workflow_1_0.ListUserVisibleBpmsProcessesResponseBodyResultProcessList",),
    workflow.IdAnswer: ("workflow_1_0.ListProcessInstanceIdsResponseBody",),
    workflow.IdPage: ("workflow_1_0.ListProcessInstanceIdsResponseBodyResult",),
    workflow.Subscription: ("gateway_1_0.OpenConnectionRequestSubscriptions",),
    workflow.Connection: ("gateway_1_0.OpenConnectionResponseBody",),
    organisation.CorpLevel: ("yida_1_0.GetCorpLevelByAccountIdResponseBody",),
    organisation.ApplicationPage: ("yida_1_0.ListApplicationResponseBody",),
    organisation.Application: ("yida_1_0.ListApplicationResponseBodyData",),
    wire.CopyNoticePage: ("yida_1_0.GetNotifyMeResponseBody",),
    wire.CopyNotice: ("yida_1_0.GetNotifyMeResponseBodyData",),
    wire.Outcome: ("yida_2_0.CreateAgentTaskResponseBody", "yida_2_0.CancelAgentTaskResponseBody"),
    organisation.AgentPage: ("yida_2_0.GetAgentTasksResponseBody",),
    organisation.Agent: ("yida_2_0.GetAgentTasksResponseBodyValues",),
    organisation.ComponentList: ("yida_1_0.GetFormComponentDefinitionListResponseBody",),
    organisation.Component: ("yida_1_0.GetFormComponentDefinitionListResponseBodyResult",),
    organisation.UserList: ("contact_1_0.BatchGetUserResponseBody",),
    organisation.User: ("contact_1_0.BatchGetUserResponseBodyUserList",),
}
NO_STEP: dict[type[msgspec.Struct], set[str]] = {wire.ListedTask: {"activityId"}}
"""Inherited from ``RunningTask``, and never in that answer."""
EXAMPLES: dict[type[msgspec.Struct], set[str]] = {
    wire.Remark: {
        *("creator", "replyUserId", "images", "formInstId", "replyId", "files", "id", "gmtCreate", "class"),
        *("atUserId", "content"),
    },
}
"""Without a type in the SDK: the fields of the example in the documentation of its Java source."""
NO_TIMES = {"createTimeGMT", "modifiedTimeGMT"}
"""The fields that the answer for several ids lacks."""


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("sdk")
    install = ["pip", "install", "--quiet", "--no-deps", "--target", str(target), SDK]
    try:
        uv(*install, "--offline")
    except AssertionError:  # uv's cache does not have it yet
        uv(*install)
    return target / "alibabacloud_dingtalk"


@pytest.fixture(scope="module")
def models(sdk: Path) -> dict[str, set[str]]:
    """By module and class, the names of a model's fields on the wire: those that its ``from_map`` reads."""
    found: dict[str, set[str]] = {}
    for module in ("yida_1_0", "yida_2_0", "oauth2_1_0", "contact_1_0", "workflow_1_0", "gateway_1_0"):
        # Their syntax trees take seconds.
        for each in (sdk / module / "models.py").read_text("utf-8").split("\nclass ")[1:]:
            name, _, reader = each.partition("(TeaModel)")[0], *each.partition("    def from_map")[1:]
            found[f"{module}.{name}"] = {*re.findall(r"\bm\.get\('(\w+)'\)", reader)}
    return found


def ours(model: type[msgspec.Struct]) -> set[str]:
    return {each.encode_name for each in msgspec.structs.fields(model)}


def test_our_requests_are_those_of_the_sdk(models: dict[str, set[str]], sdk: Path) -> None:
    clients = {each.parent.name: each.read_text("utf-8") for each in sdk.glob("*/client.py")}
    for request_type, place in REQUESTS.items():
        module, _, name = place.partition(".")
        theirs = models[f"{module}.{name}Request"]
        paging = {wire.PAGE_NUMBER, wire.PAGE_SIZE} if request_type in PAGED else set[str]()
        assert ours(request_type) | paging <= theirs, place
        assert {"env", "envProfile"} & theirs == {getattr(request_type, "site", None)} - {None}, place
        path = vars(request_type)["path"]
        pathname = path + PATH_ENDS.get(request_type, "")
        found = re.findall(rf"action='{name}',.*?pathname=f'([^']+)',\s+method='(\w+)'", clients[module], re.DOTALL)
        assert {*found} == {(pathname, METHODS.get(request_type, "GET"))}, place
    assert f"real_headers['{wire.TOKEN_HEADER}']" in clients["yida_2_0"]


def test_our_answers_are_those_of_the_sdk(models: dict[str, set[str]]) -> None:
    for answer, names in ANSWERS.items():
        for name in names:
            assert ours(answer) - NO_STEP.get(answer, set()) <= models[name], name
    for answer, fields in EXAMPLES.items():
        assert ours(answer) <= fields, answer
    theirs = models["yida_1_0.GetInstancesByIdListResponseBodyResult"]
    assert ours(wire.Instance) - theirs == NO_TIMES


def test_every_request_and_answer_is_compared() -> None:
    names = [value for module in (wire, organisation, workflow) for value in vars(module).values()]
    every = {each for each in names if isinstance(each, type) and issubclass(each, msgspec.Struct)}
    found = {each for each in every if each.__module__ != events.__name__}
    abstract = {msgspec.Struct, wire.Call, wire.Request, wire.ByTime, wire.Operation, organisation.Proved}
    assert found - abstract - {wire.Problem, wire.OldAnswer} == {*REQUESTS, *ANSWERS, *EXAMPLES}
