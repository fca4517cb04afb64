"""The names of DingTalk's open API: paths, parameters, fields, words and codes.

Only ``organisation`` and ``workflow`` have more of them. They are those of the vendor's documents of 2026 and of its
SDK. A test compares every name with the SDK. See docs/how-to/find-what-was-missed.md for differences from published
answers.
"""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import quote

from msgspec import Struct, field, json, to_builtins

from taskbridge.schemas import outcomes

TOKEN_HEADER = "x-acs-dingtalk-access-token"  # noqa: S105 - the name of a header
API_HOST, OLD_API, OLD_TOKEN = "api.dingtalk.com", "https://oapi.dingtalk.com", "access_token"
FILE_URL = "fileUrl"
SECRETS = frozenset(
    {
        *(TOKEN_HEADER, "systemToken", "token", "client_id", "client_secret", "clientSecret", "appSecret"),
        OLD_TOKEN,
        FILE_URL,
    }
)
"""The names of all credentials, and of the address of a file."""
PAGE_NUMBER, PAGE_SIZE = "pageNumber", "pageSize"
PAGE_ROWS = 100
QUERY_ROWS = 30_000
"""Maximum rows of one query, all pages together."""
SEARCH_ROWS = 5000
"""Maximum rows of one query, once DingTalk has refused a page with ``cursorExceedFiveThousand``."""
PROCESS = "process"
"""The type of a form that starts a process."""

OLDEST_FIRST, NEWEST_FIRST = '{"gmt_create":"+"}', '{"gmt_create":"-"}'
"""By creation, so that a change of an instance never moves it to another page."""

BY_MANAGER = "y"
RUNNING, COMPLETED, TERMINATED = outcomes.RUNNING, outcomes.COMPLETED, outcomes.TERMINATED
ERROR, ENDED = outcomes.ERROR, outcomes.ENDED

Id = str | int | None
"""The documents say that ids are strings. Some answers have numbers."""


class Call(Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    path: ClassVar[str]
    site: ClassVar[str | None] = None
    """The name of the field for ``Corp.env``, if the call has one."""


class Request(Call, frozen=True, kw_only=True, omit_defaults=True):
    """The fields of every call of Yida's API for an app. The repr does not show the app's secret."""

    app_type: str
    system_token: str
    user_id: str
    """A user who may see the data of the app."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.app_type})"


class ByTime(Request, frozen=True, kw_only=True, omit_defaults=True):
    """The fields of every call for the instances of a form. Times are whole days, `yyyy-MM-dd`, both included."""

    form_uuid: str
    create_from_time: str | None = field(default=None, name="createFromTimeGMT")
    create_to_time: str | None = field(default=None, name="createToTimeGMT")
    modified_from_time: str | None = field(default=None, name="modifiedFromTimeGMT")
    modified_to_time: str | None = field(default=None, name="modifiedToTimeGMT")
    order_config_json: str | None = None


class GetInstances(ByTime, frozen=True, kw_only=True, omit_defaults=True):
    """POST: the instances of a form with a process."""

    path: ClassVar[str] = "/v2.0/yida/processes/instances"


class GetInstanceById(Request, frozen=True, kw_only=True, omit_defaults=True):
    """GET: one instance. Its id is the end of the path."""

    path: ClassVar[str] = "/v2.0/yida/processes/instancesInfos/"
    site = "env"


class GetInstancesByIdList(Request, frozen=True, kw_only=True, omit_defaults=True):
    """GET: several instances. The answer has no times."""

    path: ClassVar[str] = "/v1.0/yida/processes/instances/searchWithIds"
    site = "env"

    process_instance_ids: str
    """Comma-separated."""


class GetFormListInApp(Request, frozen=True, kw_only=True, omit_defaults=True):
    """GET: the forms of an app."""

    path: ClassVar[str] = "/v1.0/yida/forms"

    form_types: str


class GetRunningTasks(Request, frozen=True, kw_only=True, omit_defaults=True):
    """GET: the open tasks of an instance."""

    path: ClassVar[str] = "/v1.0/yida/processes/tasks/getRunningTasks"
    site = "env"

    process_instance_id: str


class GetRunningTaskList(Request, frozen=True, kw_only=True, omit_defaults=True):
    """POST: the open tasks of several instances. The documents give no limit for their number."""

    path: ClassVar[str] = "/v1.0/yida/tasks/runningTasks/query"

    user_corp_id: str
    process_instance_id_list: str
    """Comma-separated."""


class GetTaskCopies(Request, frozen=True, kw_only=True, omit_defaults=True):
    """GET: the instances that were copied to ``user_id``."""

    path: ClassVar[str] = "/v1.0/yida/tasks/taskCopies"
    site = "env"

    create_from_time: int | None = field(default=None, name="createFromTimeGMT")
    """In ms."""


class GetOperationRecords(Request, frozen=True, kw_only=True, omit_defaults=True):
    """GET: the operations of an instance."""

    path: ClassVar[str] = "/v1.0/yida/processes/operationRecords"
    site = "env"

    process_instance_id: str


class ListOperationLogs(Request, frozen=True, kw_only=True, omit_defaults=True):
    """POST: the changes of forms."""

    path: ClassVar[str] = "/v1.0/yida/forms/operationsLogs/query"

    form_uuid: str
    form_instance_id_list: list[str]


class PreviewPublishedProcess(Request, frozen=True, kw_only=True, omit_defaults=True):
    """POST: the steps that a request of ``user_id`` with these values would have. It starts nothing."""

    path: ClassVar[str] = "/v1.0/yida/processes/preview"
    site = "env"

    form_uuid: str
    form_data_json: str
    process_code: str | None = None


class ExecuteTask(Request, frozen=True, kw_only=True, omit_defaults=True):
    """POST: ``user_id`` decides a task. Answered without a body, as all changes."""

    path: ClassVar[str] = "/v1.0/yida/tasks/execute"
    site = "env"

    process_instance_id: str
    task_id: int
    out_result: str
    """AGREED or DISAGREED."""
    remark: str


class RedirectTask(Request, frozen=True, kw_only=True, omit_defaults=True):
    """POST: ``user_id`` hands a task over: their own, or anybody's as a manager."""

    path: ClassVar[str] = "/v1.0/yida/tasks/redirect"
    site = "env"

    process_instance_id: str
    task_id: int
    now_action_executor_id: str
    """Who gets it."""
    remark: str
    by_manager: str | None = None
    """BY_MANAGER, or left out."""


class RestartInstance(Request, frozen=True, kw_only=True, omit_defaults=True):
    """POST: ``user_id`` returns an instance from the step of a task to an earlier one."""

    path: ClassVar[str] = "/v2.0/yida/processes/instances/restartInstance"
    site = "envProfile"

    process_instance_id: str = field(name="procInstanceId")
    form_uuid: str
    task_id: str
    current_activity_id: str
    target_activity_id: str
    remark: str


class TerminateInstance(Request, frozen=True, kw_only=True, omit_defaults=True):
    """PUT: ``user_id`` withdraws an instance."""

    path: ClassVar[str] = "/v1.0/yida/processes/instances/terminate"
    site = "env"

    process_instance_id: str


class SaveFormRemark(Request, frozen=True, kw_only=True, omit_defaults=True):
    """POST: ``user_id`` comments on an instance."""

    path: ClassVar[str] = "/v1.0/yida/forms/remarks"
    site = "env"

    form_instance_id: str
    content: str
    at_user_id: str | None = None
    """Whom DingTalk notifies of it."""


class SearchFormDataSecondGeneration(ByTime, frozen=True, kw_only=True, omit_defaults=True):
    """POST: the instances of a form without a process, with their sub-forms."""

    path: ClassVar[str] = "/v1.0/yida/forms/instances/advances/queryAll"

    page_number: int = 0
    page_size: int = 0
    """In the body, unlike those of other lists."""


class BatchGetFormDataByIdList(Request, frozen=True, kw_only=True, omit_defaults=True):
    """POST: several instances of a form without a process. The documents give no limit for their number."""

    path: ClassVar[str] = "/v1.0/yida/forms/instances/ids/query"

    form_uuid: str
    form_instance_id_list: list[str]
    need_form_instance_value: bool
    """Whether to return the values once more, as components."""


class GetFormDataById(Request, frozen=True, kw_only=True, omit_defaults=True):
    """GET: an instance of a form without a process. The path ends with its id."""

    path: ClassVar[str] = "/v1.0/yida/forms/instances/"


class ListFormRemarks(Request, frozen=True, kw_only=True, omit_defaults=True):
    """POST: the comments on several instances of a form. The documents give no limit for their number."""

    path: ClassVar[str] = "/v1.0/yida/forms/remarks/query"
    site = "env"

    form_uuid: str
    form_instance_id_list: list[str]


class GetOpenUrl(Call, frozen=True, kw_only=True):
    """GET: a temporary address of a file. The path ends with the app."""

    path: ClassVar[str] = "/v1.0/yida/apps/temporaryUrls/"

    system_token: str
    user_id: str
    file_url: str
    timeout: int
    """In ms."""

    def __repr__(self) -> str:
        return "GetOpenUrl()"


class OpenUrl(Struct, frozen=True):
    """The repr does not show the address, which anybody may open."""

    result: str | None = None

    def __repr__(self) -> str:
        return "OpenUrl()"


class GetToken(Struct, frozen=True):
    """POST: a token for all other calls."""

    path: ClassVar[str] = "/v1.0/oauth2/{corp_id}/token"

    client_id: str
    client_secret: str
    grant_type: str = "client_credentials"

    def __repr__(self) -> str:
        return "GetToken()"


class GetAccessToken(Struct, frozen=True, rename="camel"):
    """POST: the same, for an application of one organisation. A dedicated cluster has only this one."""

    path: ClassVar[str] = "/v1.0/oauth2/accessToken"

    app_key: str
    app_secret: str

    def __repr__(self) -> str:
        return "GetAccessToken()"


def token_request(corp_id: str, client_id: str, client_secret: str) -> tuple[str, dict[str, str]]:
    """Path and body of the POST that is answered with a ``Token``."""
    request = GetToken(client_id, client_secret)
    return request.path.format(corp_id=quote(corp_id, safe="")), to_builtins(request)


class Token(Struct, frozen=True):
    access_token: str
    expires_in: int
    """Seconds."""

    def __repr__(self) -> str:
        return f"Token(expires_in={self.expires_in})"


class AccessToken(Struct, frozen=True, rename="camel"):
    access_token: str
    expire_in: int
    """Seconds."""

    def __repr__(self) -> str:
        return f"AccessToken(expire_in={self.expire_in})"


class Outcome(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Of a change that may be refused in an answer of status 200: then it has the fields of a ``Problem``."""

    success: bool
    error_code: Any = None
    error_msg: Any = None


class OldAnswer(Struct, frozen=True):
    """Of the older API."""

    errcode: int
    errmsg: str | None = None


class Name(Struct, frozen=True, rename="camel", omit_defaults=True):
    name_in_chinese: str | None = None
    name_in_english: str | None = None


class Member(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A person who started an instance, or has an open task in it."""

    user_id: Id = None
    name: Name | str | None = None


_EXACT = json.Encoder(decimal_format="number")


def _text_of(value: Any) -> str | None:
    """JSON has the digits that DingTalk sent. None if it is nested too deeply."""
    if value is None or isinstance(value, str):
        return value
    try:
        return _EXACT.encode(value).decode()
    except RecursionError:
        return None


class Instance(Struct, frozen=True, rename="camel", omit_defaults=True):
    process_instance_id: str
    form_uuid: str | None = None
    process_code: str | None = None
    title: str | None = None
    instance_status: str | None = None
    approved_result: str | None = None
    create_time: str | int | None = field(default=None, name="createTimeGMT")
    modified_time: str | int | None = field(default=None, name="modifiedTimeGMT")
    originator: Member | None = None
    action_executor: list[Member] | None = None
    """The people with an open task."""
    data: dict[str, Any] | None = None
    """The form."""

    def texts(self) -> dict[str, str | None]:
        """The form's values as callbacks have them: texts and nulls as they are, all others as JSON text."""
        return {name: _text_of(value) for name, value in (self.data or {}).items()}


class InstancePage(Struct, frozen=True, rename="camel"):
    data: list[Instance]
    total_count: int


class InstanceList(Struct, frozen=True):
    result: list[Instance]


class FormRow(Struct, frozen=True, rename="camel", omit_defaults=True):
    """An instance of a form without a process."""

    form_instance_id: str
    form_uuid: str | None = None
    modified_time: str | int | None = field(default=None, name="modifiedTimeGMT")
    form_data: dict[str, Any] | None = None

    def as_instance(self) -> Instance:
        its = self.modified_time, self.form_data
        return Instance(self.form_instance_id, self.form_uuid, modified_time=its[0], data=its[1])


class FormRowById(Struct, frozen=True, rename="camel"):
    form_inst_id: str


class FormRowPage(Struct, frozen=True, rename="camel"):
    data: list[FormRow]
    total_count: int


class FormRowList(Struct, frozen=True):
    result: list[FormRow]


class FormTitle(Struct, frozen=True, omit_defaults=True):
    in_chinese: str | None = field(default=None, name="zhCN")
    in_english: str | None = field(default=None, name="enUS")


class Form(Struct, frozen=True, rename="camel", omit_defaults=True):
    form_uuid: str
    form_type: str | None = None
    title: FormTitle | None = None


class FormPage(Struct, frozen=True, rename="camel"):
    data: list[Form]
    total_count: int


class FormList(Struct, frozen=True):
    result: FormPage

    @property
    def data(self) -> list[Form]:
        return self.result.data

    @property
    def total_count(self) -> int:
        return self.result.total_count


class RunningTask(Struct, frozen=True, rename="camel", omit_defaults=True):
    process_instance_id: Id = None
    task_id: Id = None
    activity_id: str | None = None
    """Its step."""
    actual_actioner_id: Id = None
    create_time: str | int | None = field(default=None, name="createTimeGMT")
    active_time: str | int | None = field(default=None, name="activeTimeGMT")


class RunningTaskList(Struct, frozen=True):
    result: list[RunningTask]


class ListedTask(RunningTask, frozen=True, rename="camel", omit_defaults=True):
    """A ``RunningTask`` in the answer for several instances, without its step."""

    actual_actioner_id: Id = field(default=None, name="actualActionExecutorId")


class ListedTasks(Struct, frozen=True):
    result: list[ListedTask]


class TaskCopy(Struct, frozen=True, rename="camel", omit_defaults=True):
    """An instance that was copied to a person; no field names the time of the copy."""

    process_instance_id: Id = None
    create_time: str | int | None = field(default=None, name="createTimeGMT")
    modified_time: str | int | None = field(default=None, name="modifiedTimeGMT")


class TaskCopyPage(Struct, frozen=True, rename="camel"):
    data: list[TaskCopy]
    total_count: int


class CopyNotice(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A copy in the answer for all apps: when it came to the person, and the page on which they read it."""

    form_instance_id: Id = None
    """The process instance, by the documents."""
    create_time: str | int | None = field(default=None, name="createTimeGMT")
    url: str | None = None


class CopyNoticePage(Struct, frozen=True, rename="camel"):
    data: list[CopyNotice]
    total_count: int


class Operation(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a record and its parts have."""

    task_id: Id = None
    """The text `null` if the record is about no task."""
    activity_id: str | None = None
    """Its step, and the step's name."""
    show_name: str | None = None
    task_execute_type: str | None = None
    action: str | None = None
    operate_time: str | int | None = field(default=None, name="operateTimeGMT")
    """None for an open task."""
    active_time: str | int | None = field(default=None, name="activeTimeGMT")
    remark: str | None = None


class OperationRecordPart(Operation, frozen=True, rename="camel", omit_defaults=True):
    """The operation of one of several people at a common step. Its person and word have other names."""

    operator: Id = None
    operator_agent_id_list: list[Any] | None = None
    """People whom the operator has made agents, as objects."""
    format_action: str | None = None


class OperationRecord(Operation, frozen=True, rename="camel", omit_defaults=True):
    process_instance_id: Id = None
    operator_user_id: Id = None
    action_exit: str | None = None
    domain_list: list[OperationRecordPart] | None = None


class OperationRecordList(Struct, frozen=True):
    result: list[OperationRecord]


class OperationLogs(Struct, frozen=True, rename="camel"):
    """By instance. No document says what is in it."""

    operation_log_map: dict[str, Any] | None = None


class PreviewedStep(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A step, or one of several people at a step."""

    activity_id: str | None = None
    show_name: str | None = None
    operator_user_id: Id = None
    operator_display_name: str | None = None


class Preview(Struct, frozen=True):
    result: list[PreviewedStep]


class Remark(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A comment, by the example in the SDK's documentation: the SDK has no type for it."""

    id: Id = None
    form_inst_id: Id = None
    creator: Id = None
    content: str | None = None
    gmt_create: str | int | None = None
    at_user_id: Id = None


class RemarkMap(Struct, frozen=True, rename="camel"):
    form_remark_vo_map: dict[str, list[Remark] | None] | None = None
    """By instance."""


class Problem(Struct, frozen=True, rename="lower"):
    """The body of a refusal: texts, if an answer has them."""

    code: Any = None
    message: Any = None
    requestid: Any = None
    error_code: Any = field(default=None, name="errorCode")
    error_msg: Any = field(default=None, name="errorMsg")


AGREED, DISAGREED = "AGREE", "DISAGREE"
"""The words in a request. Those of records are in other cases."""
AGREE, DISAGREE, FORWARD, RESTART = outcomes.AGREE, outcomes.DISAGREE, outcomes.FORWARD, outcomes.RESTART
REVOKED, REDIRECT, RECALL = "revoked", "redirect", "recall"
NORMAL, FILTERED, AUTO = "NORMAL", "FILTERED", "AUTO"
"""How a task was executed: by a person; or not, because a rule left the step out or decided it."""
SUBMIT, DOING, CARBON, NEXT = "submit", "doing", "carbon", "next"
ACTIONS = {
    **outcomes.OUTCOMES,
    **{
        each: each
        for each in (REVOKED, REDIRECT, RECALL, SUBMIT, DOING, CARBON, NEXT, "append", "beforeAppend", "afterAppend")
    },
    "撤销": REVOKED,
    "已撤销": REVOKED,
    "节点流转": REDIRECT,
    "已收回": RECALL,
    "提交申请": SUBMIT,
    "处理中": DOING,
    "等待审批": NEXT,
}
"""The words of a record, in both of its fields and both languages → the API's word."""

CODE_QPS = frozenset(
    {
        *("Forbidden.AccessDenied.QpsLimitForAppkeyAndApi", "Forbidden.AccessDenied.QpsLimitForApi"),
        *("failure.operation.requestTooFast", "failure.operation.operatingFrequencyTooFast"),
        *("failure.operation.tooManyVisitors",),
    }
)
"""Too many calls in this second."""
CODE_MONTH = "Forbidden.AccessDenied.ApiCountLimitForOrg"
"""The corp's calls of this month are used up."""
CODE_TOKEN = frozenset({"InvalidAuthentication", "invalidAccessToken", "accesstoken.expired"})
CODE_TOO_MUCH = frozenset(
    {
        *("invalidState.openSearch.cursorExceedFiveThousand", "failure.form.dataAmountExceedFiveThousand"),
        *("failure.operation.numberOfQueryDataExceed", "invalidParameter.parameter.arrayLengthExceed"),
    }
)
"""The request covers more rows or ids than DingTalk answers for."""
CODE_PERMISSION = "Forbidden.AccessDenied.AccessTokenPermissionDenied"
"""The application lacks a permission, which the message names. From published answers; the SDK has no codes."""
OLD_QPS, OLD_TOKEN_REFUSED = frozenset({*range(90_002, 90_019)}), frozenset({40_014, 42_001})
"""``errcode`` of the older API."""
CODE_NOT_OFFERED = "InvalidAction.NotFound"
"""There is no such call. From published answers."""
CODE_ABSENT = frozenset({"invalidState.form.dataDoesNotExistOrIsDeleted", "invalidState.form.pageInstanceNotFound"})
