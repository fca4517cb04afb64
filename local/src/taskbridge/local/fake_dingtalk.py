"""A fake DingTalk: the open API's shapes, pages, limits and errors, and the company that it serves.

Nothing of it was observed at DingTalk. It follows the vendor's documents, its SDK and answers that people published;
where these leave something open, it does what is worst for the caller.
"""

from __future__ import annotations

import secrets
import socket
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import uvicorn
from msgspec.structs import asdict
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from taskbridge.dingtalk import wire
from taskbridge.dingtalk.organisation import (
    CancelAgentTask,
    CreateAgentTask,
    GetAgentTasks,
    GetNotifyMe,
    ListApplication,
)
from taskbridge.dingtalk.times import day_of, month_of
from taskbridge.dingtalk.work import SendWorkNotification
from taskbridge.local.fake_answers import Given, Refused, by_minute
from taskbridge.local.fake_organisation import FakeOrganisation
from taskbridge.local.host import LOOPBACK
from taskbridge.schemas.events import AUTOMATIC, DELEGATE, PERSON, SOURCE_YIDA, Action, TaskEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from starlette.requests import Request

    from taskbridge.runtime.clock import Clock
    from taskbridge.schemas.events import Person

Change = wire.ExecuteTask | wire.RedirectTask | wire.RestartInstance | wire.TerminateInstance
R = TypeVar("R", bound=wire.Request)
_TOKEN_S = 7200
_NO_TASK = "null"
_START, _NO_STEP = "sid-restartevent", "node-null"
_EXECUTED: dict[str | None, str] = {PERSON: wire.NORMAL, DELEGATE: wire.NORMAL, AUTOMATIC: wire.AUTO}


_OPEN_MOST_MS = 86_400_000
_OPEN_REQUESTS_S, _END_S = 1, 5.0
"""How long requests that are open at the end may take, and the whole server."""


@contextmanager
def served(app: Any, *, host: str = LOOPBACK, port: int = 0) -> Generator[str]:
    """Serve an ASGI application in a thread, during the block; yields its URL. 0 is a free port.

    The block ends within seconds, also while a request is open.
    """
    listening = socket.create_server((host, port))
    config = uvicorn.Config(
        app, log_level="critical", lifespan="off", ws="none", timeout_graceful_shutdown=_OPEN_REQUESTS_S
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="fake-dingtalk", kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        # Clients that connect before the server is up wait in the socket's queue.
        yield f"http://{host}:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(_END_S)
        listening.close()


@dataclass(frozen=True, slots=True)
class TrueTask:
    task_id: str
    assignee_ids: tuple[str, ...]
    created_ms: int
    decided_ms: int | None = None
    actor_id: str | None = None
    word: str | None = None
    """The actor's choice, in the API's words."""
    remark: str | None = None
    step_name: str | None = None
    step_id: str | None = None
    decided_by: str | None = None


@dataclass(frozen=True, slots=True)
class TrueInstance:
    """An instance at one time."""

    corp_id: str
    app_type: str
    instance_id: str
    created_ms: int
    modified_ms: int
    form_uuid: str | None = None
    process_code: str | None = None
    process_name: str | None = None
    title: str | None = None
    originator: Person | None = None
    status: str = wire.RUNNING
    result: str | None = None
    form_data: dict[str, str | None] = field(default_factory=dict[str, "str | None"])
    tasks: tuple[TrueTask, ...] = ()
    copied: tuple[tuple[str, int], ...] = ()
    """Recipients, and when they were copied in."""
    is_deleted: bool = False

    @property
    def open_tasks(self) -> list[TrueTask]:
        return [each for each in self.tasks if each.decided_ms is None]


class Company:
    """The events of a company, and the state of its instances at any time.

    Pass events of dropped callbacks too: they happened.
    """

    def __init__(self, events: Iterable[TaskEvent] = ()) -> None:
        self._happened: dict[str, tuple[TaskEvent, ...]] = {}
        """By time."""
        self._known: dict[str, tuple[tuple[TaskEvent, ...], TrueInstance]] = {}
        """Each instance after these events, as it was read last: lists read all of them each time."""
        for event in events:
            self.happened(event)

    def happened(self, event: TaskEvent) -> None:
        """Record an event, which happened at ``occurred_at``."""
        events = (*self._happened.get(event.instance_id, ()), event)
        self._happened[event.instance_id] = tuple(sorted(events, key=lambda each: each.occurred_at))

    def instance(self, instance_id: str, *, at_ms: int) -> TrueInstance | None:
        """The instance at that time; None before its first event and after its deletion."""
        events = tuple(each for each in self._happened.get(instance_id, ()) if each.occurred_at <= at_ms)
        if not events:
            return None
        before, known = self._known.get(instance_id, ((), None))
        if known is None or events[: len(before)] != before:
            before, known = (), _first(events[0])
        for event in events[len(before) :]:
            known = _after(known, event)
        self._known[instance_id] = events, known
        return None if known.is_deleted else known

    def instances(self, *, at_ms: int) -> Iterator[TrueInstance]:
        # A copy: while DingTalk answers, another thread may record events.
        for instance_id in list(self._happened):
            known = self.instance(instance_id, at_ms=at_ms)
            if known is not None:
                yield known


def _first(event: TaskEvent) -> TrueInstance:
    created = event.occurred_at if event.created_at is None else min(event.created_at, event.occurred_at)
    return TrueInstance(event.corp_id, event.app_type, event.instance_id, created, event.occurred_at)


def _after(known: TrueInstance, event: TaskEvent) -> TrueInstance:
    known = replace(known, modified_ms=max(known.modified_ms, event.occurred_at))
    if event.action is Action.DELETED:
        return replace(known, is_deleted=True)
    if event.action is Action.COPIED:
        return replace(known, copied=known.copied + tuple((each, event.occurred_at) for each in event.recipient_ids))
    if event.action is Action.CREATED:
        return _described(_assigned(known, event) if event.task_id is not None else known, event)
    return _decided(known, event)


def _described(known: TrueInstance, event: TaskEvent) -> TrueInstance:
    status = event.instance_status or known.status
    known = replace(
        known,
        form_uuid=event.form_uuid or known.form_uuid,
        process_code=event.process_code or known.process_code,
        process_name=event.process_name or known.process_name,
        title=event.title or known.title,
        originator=event.originator or known.originator,
        form_data={**known.form_data, **event.form_data},
        status=status,
        result=event.approved_result or known.result if status in wire.ENDED else None,
    )
    if known.result != wire.DISAGREE:
        return known
    # A complete does not carry the decision; the result of the instance is that of its last task.
    last = max(
        (each for each in known.tasks if each.decided_ms is not None),
        key=lambda each: each.decided_ms or 0,
        default=None,
    )
    tasks = (replace(each, word=wire.DISAGREE) if each is last else each for each in known.tasks)
    return replace(known, tasks=tuple(tasks))


def _assigned(known: TrueInstance, event: TaskEvent) -> TrueInstance:
    task_id = str(event.task_id)
    others = tuple(each for each in known.tasks if each.task_id != task_id)
    before = next((each for each in known.tasks if each.task_id == task_id), None)
    created = event.occurred_at if event.created_at is None else event.created_at
    task = before or TrueTask(task_id, (), created)
    ids = tuple(dict.fromkeys((*task.assignee_ids, *event.recipient_ids)))
    return replace(known, tasks=(*others, replace(_at_step(task, event), assignee_ids=ids)))


def _decided(known: TrueInstance, event: TaskEvent) -> TrueInstance:
    word = event.outcome or (wire.AGREE if event.action is Action.COMPLETED else wire.REVOKED)
    task_id = str(event.task_id)
    before = next((each for each in known.tasks if each.task_id == task_id), TrueTask(task_id, (), event.occurred_at))
    decided = replace(
        _at_step(before, event),
        decided_ms=event.occurred_at,
        actor_id=event.actor_id,
        word=word,
        remark=event.remark or before.remark,
        decided_by=event.decided_by,
    )
    return replace(known, tasks=(*(each for each in known.tasks if each.task_id != task_id), decided))


def _at_step(task: TrueTask, event: TaskEvent) -> TrueTask:
    return replace(task, step_name=event.step_name or task.step_name, step_id=event.step_id or task.step_id)


def instance_answer(known: TrueInstance, shown: Callable[[int], str]) -> wire.Instance:
    executors = dict.fromkeys(each for task in known.open_tasks for each in task.assignee_ids)
    return wire.Instance(
        process_instance_id=known.instance_id,
        form_uuid=known.form_uuid,
        process_code=known.process_code,
        title=known.title,
        instance_status=known.status,
        approved_result=known.result,
        create_time=shown(known.created_ms),
        modified_time=shown(known.modified_ms),
        originator=_member(known),
        action_executor=[wire.Member(each) for each in executors],
        data=dict(known.form_data),
    )


def running_tasks_answer(known: TrueInstance, shown: Callable[[int], str]) -> list[wire.RunningTask]:
    """One for each assignee."""
    return [
        wire.RunningTask(
            process_instance_id=known.instance_id,
            task_id=task.task_id,
            activity_id=_step(task),
            actual_actioner_id=user_id,
            create_time=shown(task.created_ms),
            active_time=shown(task.created_ms),
        )
        for task in known.open_tasks
        for user_id in task.assignee_ids
    ]


def operation_records_answer(known: TrueInstance, shown: Callable[[int], str]) -> list[wire.OperationRecord]:
    """Past operations by time, then open ones."""
    done: list[tuple[int, wire.OperationRecord]] = []
    if known.originator is not None:
        submitted = _record(known, user_id=known.originator.user_id, word=wire.SUBMIT)
        done.append((known.created_ms, submitted))
    done += [
        (task.decided_ms, _record(known, user_id=task.actor_id, word=task.word, task=task))
        for task in known.tasks
        if task.decided_ms is not None
    ]
    for user_id, at_ms in known.copied:
        done.append((at_ms, _record(known, user_id=user_id, word=wire.CARBON)))
    done.sort(key=lambda each: each[0])
    to_do = [
        wire.OperationRecord(
            process_instance_id=known.instance_id,
            task_id=task.task_id,
            activity_id=_step(task),
            show_name=task.step_name,
            operator_user_id=user_id,
            action_exit=wire.DOING,
            active_time=shown(task.created_ms),
        )
        for task in known.open_tasks
        for user_id in task.assignee_ids
    ]
    return [_at(record, shown(at_ms)) for at_ms, record in done] + to_do


def _record(
    known: TrueInstance, *, user_id: str | None, word: str | None, task: TrueTask | None = None
) -> wire.OperationRecord:
    record = wire.OperationRecord(
        process_instance_id=known.instance_id,
        task_id=_NO_TASK if task is None else task.task_id,
        activity_id=_step(task) if task is not None else _START if word == wire.SUBMIT else _NO_STEP,
        show_name=None if task is None else task.step_name,
        task_execute_type=wire.NORMAL if task is None else _EXECUTED.get(task.decided_by),
        operator_user_id=user_id,
        action_exit=word,
        remark=(task and task.remark) or "",
        domain_list=[],
    )
    if task is None or task.decided_by != DELEGATE:
        return record
    # Only parts of a common step have agents.
    part = wire.OperationRecordPart(
        task_id=record.task_id,
        activity_id=record.activity_id,
        show_name=record.show_name,
        task_execute_type=record.task_execute_type,
        operator=user_id,
        operator_agent_id_list=[{"userId": "agent"}],
        action=word,
        remark=record.remark,
    )
    return msgspec.structs.replace(record, domain_list=[part])


def _at(record: wire.OperationRecord, operate_time: str) -> wire.OperationRecord:
    parts = [msgspec.structs.replace(each, operate_time=operate_time) for each in record.domain_list or ()]
    return msgspec.structs.replace(record, operate_time=operate_time, domain_list=parts)


def _member(known: TrueInstance) -> wire.Member | None:
    if known.originator is None:
        return None
    return wire.Member(known.originator.user_id, wire.Name(known.originator.name, known.originator.name))


class FakeDingTalk:
    """Serves one organisation. ``app`` is the ASGI application; ``calls`` counts requests by path."""

    calls_per_second = 20
    """Of one app to one API."""
    calls_per_month = 5000
    ids_per_call = 50
    search_rows = wire.QUERY_ROWS + wire.PAGE_ROWS
    lacks = frozenset[str]()
    """Paths that it does not have."""

    def __init__(
        self,
        company: Company,
        clock: Clock,
        *,
        system_tokens: dict[str, str],
        on_change: Callable[[TaskEvent], None] = lambda _: None,
        app_key: str = "dingfakekey",
        app_secret: str = "fake-app-secret",  # noqa: S107 - of this fake only
        user_id: str = "manager",
    ) -> None:
        """``system_tokens``: the secret of each app. ``on_change`` gets what happens when somebody acts here."""
        self.on_change = on_change
        self.company, self.system_tokens, self.user_id = company, system_tokens, user_id
        self.app_key, self.app_secret = app_key, app_secret
        self.organisation = FakeOrganisation(system_tokens, user_id, clock.now_ms, self._answer_change)
        self.calls: Counter[str] = Counter()
        self.remarks: list[wire.Remark] = []
        """Comments on instances, oldest first."""
        self.ordinary_forms: set[str] = set()
        """Forms without a process. Calls for processes do not return their instances."""
        self.changes: list[wire.Request] = []
        """What it carried out, in this order."""
        self.opened: list[tuple[str, str]] = []
        """The files of which it gave an address, each with its user."""
        self.notified: dict[str, list[dict[str, Any]]] = {}
        """By user: the work notifications that it accepted."""
        self.previews: dict[str, list[wire.PreviewedStep]] = {}
        """The steps of a request, by its form."""
        self.form_logs: dict[str, list[dict[str, Any]]] = {}
        """The records of changed forms, by instance."""
        self._clock = clock
        self._open_until_ms: dict[str, int] = {}
        self._tokens: dict[str, int] = {}
        self._months: Counter[str] = Counter()
        self._seconds: Counter[tuple[str, str, int]] = Counter()
        self.app = Starlette(
            routes=[
                self._route(wire.GetToken.path, self._token_by_corp, "POST", is_counted=False),
                self._route(wire.GetAccessToken.path, self._token_by_app, "POST", is_counted=False),
                self._route(wire.GetInstances.path, self._instances, "POST"),
                self._route(f"{wire.GetInstanceById.path}{{id:path}}", self._instance, "GET"),
                self._route(wire.GetInstancesByIdList.path, self._instances_by_id, "GET"),
                self._route(wire.GetFormListInApp.path, self._forms, "GET"),
                self._route(wire.GetRunningTasks.path, self._running_tasks, "GET"),
                self._route(wire.GetRunningTaskList.path, self._listed_tasks, "POST"),
                self._route(wire.GetTaskCopies.path, self._copies, "GET"),
                self._route(f"{GetNotifyMe.path}{{id:path}}", self._notices, "GET"),
                self._route(wire.GetOperationRecords.path, self._operation_records, "GET"),
                self._route(wire.ListOperationLogs.path, self._operation_logs, "POST"),
                self._route(wire.PreviewPublishedProcess.path, self._preview, "POST"),
                self._route(wire.ExecuteTask.path, self._execute, "POST"),
                self._route(wire.RedirectTask.path, self._redirect, "POST"),
                self._route(wire.RestartInstance.path, self._restart, "POST"),
                self._route(wire.TerminateInstance.path, self._terminate, "PUT"),
                self._route(wire.SearchFormDataSecondGeneration.path, self._search_form, "POST"),
                self._route(wire.BatchGetFormDataByIdList.path, self._form_rows, "POST"),
                self._route(f"{wire.GetFormDataById.path}{{id:path}}", self._form_row_by_id, "GET"),
                self._route(wire.SaveFormRemark.path, self._save_remark, "POST"),
                self._route(wire.ListFormRemarks.path, self._list_remarks, "POST"),
                self._route(f"{wire.GetOpenUrl.path}{{id:path}}", self._open_url, "GET"),
                *self.organisation.routes(self._route),
                Route(SendWorkNotification.path, self._notify, methods=["POST"]),
            ]
        )

    def _route(self, path: str, answer: Callable[[Any], Any], method: str, *, is_counted: bool = True) -> Route:
        name = path.removesuffix("{id:path}")

        async def respond(request: Request) -> Response:
            self.calls[name] += 1
            body = await request.body()
            try:
                self._check(name, request.headers.get(wire.TOKEN_HEADER), is_counted=is_counted)
                fields = msgspec.json.decode(body, type=dict[str, Any]) if body else dict[str, Any]()
                given = Given({**request.query_params, **fields}, request.path_params.get("id", ""), bool(body))
                return _json(200, answer(given))
            except Refused as refused:
                problem = {"code": refused.code, "message": refused.message, "requestid": secrets.token_hex(8)}
                return _json(refused.status, problem)

        return Route(path, respond, methods=[method])

    async def _notify(self, request: Request) -> Response:
        """As the older API: the token is in the query, and an error in an answer of status 200."""
        self.calls[SendWorkNotification.path] += 1
        body = await request.body()
        try:
            self._check(SendWorkNotification.path, request.query_params.get(wire.OLD_TOKEN), is_counted=True)
            found = msgspec.json.decode(body, type=SendWorkNotification)
        except msgspec.ValidationError as error:
            return _json(200, {"errcode": 400_002, "errmsg": str(error)})
        except Refused as refused:
            if refused.status in {404, 503}:
                return _json(refused.status, {})
            codes = {**dict.fromkeys(wire.CODE_TOKEN, 40_014), **dict.fromkeys(wire.CODE_QPS, 90_018)}
            return _json(200, {"errcode": codes.get(refused.code, 88), "errmsg": refused.message or refused.code})
        for user in found.userid_list.split(","):
            self.notified.setdefault(user, []).append(found.msg)
        return _json(200, {"errcode": 0, "errmsg": "ok", "task_id": self.calls[SendWorkNotification.path]})

    def _check(self, name: str, token: str | None, *, is_counted: bool) -> None:
        now = self._clock.now_ms()
        if name in self.lacks:
            raise Refused(404, wire.CODE_NOT_OFFERED, "Specified api is not found")
        if not is_counted:
            return
        if self._tokens.get(token or "", 0) <= now:
            raise Refused(400, "InvalidAuthentication", f"不合法的access_token {token}")
        self._seconds[self.app_key, name, now // 1000] += 1
        if self._seconds[self.app_key, name, now // 1000] > self.calls_per_second:
            raise Refused(403, "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi", "qps")
        if self._months[month_of(now)] >= self.calls_per_month:
            raise Refused(403, wire.CODE_MONTH, "quota")
        self._months[month_of(now)] += 1

    def _token_by_corp(self, given: Given) -> wire.Token:
        request = given.read(wire.GetToken)
        return wire.Token(self._access_token(request.client_id, request.client_secret), _TOKEN_S)

    def _token_by_app(self, given: Given) -> wire.AccessToken:
        request = given.read(wire.GetAccessToken)
        return wire.AccessToken(self._access_token(request.app_key, request.app_secret), _TOKEN_S)

    def _access_token(self, app_key: str, app_secret: str) -> str:
        if (app_key, app_secret) != (self.app_key, self.app_secret):
            raise Refused(400, "invalid.client", f"无效的clientId或者clientSecret {app_secret}")
        token = secrets.token_hex(16)
        self._tokens[token] = self._clock.now_ms() + _TOKEN_S * 1000
        return token

    def _forms(self, given: Given) -> wire.FormList:
        request = self._read(given, wire.GetFormListInApp)
        names = {each.form_uuid: each.process_name for each in self._processes(request.app_type) if each.form_uuid}
        rows = [wire.Form(each, wire.PROCESS, wire.FormTitle(name)) for each, name in sorted(names.items())]
        return wire.FormList(wire.FormPage(self._cut(rows, given), len(rows)))

    def _instances(self, given: Given) -> wire.InstancePage:
        request = self._read(given, wire.GetInstances)
        rows = [instance_answer(each, self._time) for each in self._found(request)]
        return wire.InstancePage(self._cut(rows, given), len(rows))

    def _found(self, request: wire.ByTime) -> list[TrueInstance]:
        """The instances of the form that were created and modified in these days."""
        first, last = request.create_from_time or "", request.create_to_time or "9"
        modified_first, modified_last = request.modified_from_time or "", request.modified_to_time or "9"
        known = [
            each
            for each in self._listed(request.app_type)
            if each.form_uuid == request.form_uuid
            and (each.form_uuid in self.ordinary_forms) != isinstance(request, wire.GetInstances)
            and first <= day_of(each.created_ms) <= last
            and modified_first <= day_of(each.modified_ms) <= modified_last
        ]
        newest_first = request.order_config_json == wire.NEWEST_FIRST
        return sorted(known, key=lambda each: (each.created_ms, each.instance_id), reverse=newest_first)

    def _instance(self, given: Given) -> wire.Instance:
        request = self._read(given, wire.GetInstanceById)
        return instance_answer(self._one(request.app_type, given.path_end), self._time)

    def _instances_by_id(self, given: Given) -> wire.InstanceList:
        request = self._read(given, wire.GetInstancesByIdList)
        known = {each.instance_id: each for each in self._processes(request.app_type)}
        ids = [each for each in request.process_instance_ids.split(",") if each in known]
        found = [instance_answer(known[each], self._time) for each in ids]
        return wire.InstanceList(
            [msgspec.structs.replace(each, create_time=None, modified_time=None) for each in found]
        )

    def _search_form(self, given: Given) -> wire.FormRowPage:
        request = self._read(given, wire.SearchFormDataSecondGeneration)
        rows = [self._form_row(each) for each in self._found(request)]
        return wire.FormRowPage(self._cut(rows, given), len(rows))

    def _form_rows(self, given: Given) -> wire.FormRowList:
        request = self._read(given, wire.BatchGetFormDataByIdList)
        if len(request.form_instance_id_list) > self.ids_per_call:
            raise Refused(400, "invalidParameter.parameter.arrayLengthExceed", "ARRAY类型超长")
        known = {each.instance_id: each for each in self._known(request.app_type)}
        rows = [known[each] for each in request.form_instance_id_list if each in known]
        return wire.FormRowList([self._form_row(each) for each in rows if each.form_uuid == request.form_uuid])

    def _form_row_by_id(self, given: Given) -> wire.FormRowById:
        request = self._read(given, wire.GetFormDataById)
        return wire.FormRowById(self._one(request.app_type, given.path_end).instance_id)

    def _form_row(self, known: TrueInstance) -> wire.FormRow:
        modified = self._time(known.modified_ms)
        return wire.FormRow(known.instance_id, known.form_uuid, modified, dict(known.form_data))

    def _processes(self, app_type: str) -> list[TrueInstance]:
        return [each for each in self._known(app_type) if each.form_uuid not in self.ordinary_forms]

    def _running_tasks(self, given: Given) -> wire.RunningTaskList:
        request = self._read(given, wire.GetRunningTasks)
        known = self._one(request.app_type, request.process_instance_id)
        return wire.RunningTaskList(running_tasks_answer(known, self._time))

    def _listed_tasks(self, given: Given) -> wire.ListedTasks:
        request = self._read(given, wire.GetRunningTaskList)
        ids = request.process_instance_id_list.split(",")
        if len(ids) > self.ids_per_call:
            raise Refused(400, "invalidParameter.parameter.arrayLengthExceed", "ARRAY类型超长")
        # One missing instance fails the whole call: no document says what happens.
        found = [self._one(request.app_type, each) for each in ids]
        tasks = [asdict(each) for known in found for each in running_tasks_answer(known, self._time)]
        return wire.ListedTasks([wire.ListedTask(**{**each, "activity_id": None}) for each in tasks])

    def _copies(self, given: Given) -> wire.TaskCopyPage:
        request = self._read(given, wire.GetTaskCopies, anybody=True)
        rows = [
            wire.TaskCopy(each.instance_id, self._time(each.created_ms), self._time(each.modified_ms))
            for each in self._known(request.app_type)
            if each.created_ms >= (request.create_from_time or 0) and request.user_id in dict(each.copied)
        ]
        return wire.TaskCopyPage(self._cut(rows, given), len(rows))

    def _notices(self, given: Given) -> wire.CopyNoticePage:
        request, user_id = given.read(GetNotifyMe), given.path_end
        self.organisation.check_token(request, user_id)
        rows = [
            wire.CopyNotice(each.instance_id, self._time(at_ms), f"https://yida.example/copies/{each.instance_id}")
            for app_type in msgspec.json.decode(request.app_types, type=list[str])
            for each in self._known(app_type)
            for copied_id, at_ms in each.copied
            if copied_id == user_id and each.created_ms >= request.instance_create_from_time
        ]
        return wire.CopyNoticePage(self._cut(rows, given), len(rows))

    def _operation_records(self, given: Given) -> wire.OperationRecordList:
        request = self._read(given, wire.GetOperationRecords)
        known = self._one(request.app_type, request.process_instance_id)
        return wire.OperationRecordList(operation_records_answer(known, self._time))

    def _operation_logs(self, given: Given) -> wire.OperationLogs:
        request = self._read(given, wire.ListOperationLogs)
        return wire.OperationLogs({each: self.form_logs.get(each, []) for each in request.form_instance_id_list})

    def _preview(self, given: Given) -> wire.Preview:
        request = self._read(given, wire.PreviewPublishedProcess, anybody=True)
        msgspec.json.decode(request.form_data_json, type=dict[str, Any])
        return wire.Preview(self.previews.get(request.form_uuid, []))

    def change_form(self, instance_id: str, user_id: str, **values: str) -> None:
        """Somebody changes values at DingTalk: recorded there, and no callback says it."""
        now = self._clock.now_ms()
        known = self.company.instance(instance_id, at_ms=now)
        if known is None:
            raise LookupError(instance_id)
        record = {
            "operator": user_id,
            "operateTime": self._time(now),
            "changes": [{"fieldId": each} for each in values],
        }
        self.form_logs.setdefault(instance_id, []).append(record)
        event = TaskEvent(
            *(secrets.token_hex(16), SOURCE_YIDA, Action.CREATED, known.corp_id, known.app_type, instance_id),
            occurred_at=now,
            received_at=now,
            form_data=values,
        )
        self.company.happened(event)

    def _open_url(self, given: Given) -> wire.OpenUrl:
        """For the app's user, or one whom an instance with the file concerns."""
        request, app_type = given.read(wire.GetOpenUrl), given.path_end
        self._check_app(app_type, request.system_token)
        if not 0 < request.timeout <= _OPEN_MOST_MS:
            raise Refused(400, "invalidParameter.timeout", "超时时间不合法")
        scheme, _, rest = request.file_url.partition("://")
        if scheme not in ("http", "https") or "/" not in rest:
            raise Refused(400, "invalidParameter.fileUrl", "文件地址不合法")
        path = rest[rest.index("/") :]
        with_file = [
            each for each in self._known(app_type) if any(path in (text or "") for text in each.form_data.values())
        ]
        if not any(request.user_id in {self.user_id, *_people(each)} for each in with_file):
            raise Refused(400, "failure.file.noPermission", f"没有权限:{request.file_url}")
        url = f"https://files.yida.example/{secrets.token_hex(8)}?Signature={secrets.token_hex(8)}"
        self.opened.append((request.file_url, request.user_id))
        self._open_until_ms[url] = self._clock.now_ms() + request.timeout
        return wire.OpenUrl(url)

    def _save_remark(self, given: Given) -> int:
        """By the app's user, or one whom the instance concerns; no document says who may."""
        request = self._read(given, wire.SaveFormRemark, anybody=True)
        known = self._one(request.app_type, request.form_instance_id)
        if request.user_id not in {self.user_id, *_people(known)} or not request.content:
            raise Refused(400, "failure.form.noPermission", "没有权限")
        number = len(self.remarks) + 1
        its = number, known.instance_id, request.user_id, request.content
        self.remarks.append(wire.Remark(*its, self._clock.now_ms(), request.at_user_id))
        self.changes.append(request)
        self._answer_change()
        return number

    def _list_remarks(self, given: Given) -> wire.RemarkMap:
        request = self._read(given, wire.ListFormRemarks)
        if len(request.form_instance_id_list) > self.ids_per_call:
            raise Refused(400, "invalidParameter.parameter.arrayLengthExceed", "ARRAY类型超长")
        # One missing instance fails the whole call, and the newest comes first: no document says what happens.
        found = {self._one(request.app_type, each).instance_id for each in request.form_instance_id_list}
        its = {at: [each for each in self.remarks[::-1] if each.form_inst_id == at] for at in found}
        return wire.RemarkMap({at: some or None for at, some in its.items()})

    def _answer_change(self) -> None:
        """A change was carried out."""

    def is_open(self, url: str) -> bool:
        """Whether this address still opens its file."""
        return self._clock.now_ms() < self._open_until_ms.get(url, 0)

    def _execute(self, given: Given) -> None:
        request = self._read(given, wire.ExecuteTask, anybody=True)
        self._check_assigned(request, request.task_id)
        word = wire.AGREE if request.out_result == wire.AGREED else wire.DISAGREE
        self._carry_out(request, Action.COMPLETED, str(request.task_id), outcome=word, remark=request.remark)
        self._answer_change()

    def _redirect(self, given: Given) -> None:
        request = self._read(given, wire.RedirectTask, anybody=True)
        self._check_assigned(request, request.task_id, is_manager=self._is_manager(request))
        self._carry_out(request, Action.COMPLETED, str(request.task_id), outcome=wire.FORWARD, remark=request.remark)
        to = (request.now_action_executor_id,)
        self._happened(request, Action.CREATED, f"{request.task_id}0", recipient_ids=to)
        self._answer_change()

    def _restart(self, given: Given) -> None:
        request = self._read(given, wire.RestartInstance, anybody=True)
        task = self._check_assigned(request, request.task_id)
        known = self._one(request.app_type, request.process_instance_id)
        earlier = {_step(each): each.actor_id for each in known.tasks if each.decided_ms is not None}
        if known.originator is not None:
            earlier[_START] = known.originator.user_id
        to = earlier.get(request.target_activity_id)
        if to is None or request.current_activity_id != _step(task):
            raise Refused(400, "failure.process.restartError", "节点不存在")
        self._carry_out(request, Action.COMPLETED, request.task_id, outcome=wire.RESTART, remark=request.remark)
        self._happened(request, Action.CREATED, f"{request.task_id}1", recipient_ids=(to,))
        self._answer_change()

    def _terminate(self, given: Given) -> None:
        request = self._read(given, wire.TerminateInstance, anybody=True)
        known = self._one(request.app_type, request.process_instance_id)
        if known.originator is None or known.originator.user_id != request.user_id or known.status != wire.RUNNING:
            raise Refused(400, "failure.process.terminateError", "没有权限撤销该流程")
        self._carry_out(request, Action.CREATED, None, instance_status=wire.TERMINATED)
        for task in known.open_tasks:
            self._happened(request, Action.CANCELLED, task.task_id)
        self._answer_change()

    def _is_manager(self, request: wire.RedirectTask) -> bool:
        if request.by_manager is not None and (request.by_manager, request.user_id) != (wire.BY_MANAGER, self.user_id):
            raise Refused(400, "failure.task.noPermission", "没有权限转交该任务")
        return request.by_manager is not None

    def _check_assigned(self, request: Change, task_id: int | str, *, is_manager: bool = False) -> TrueTask:
        for each in self._one(request.app_type, request.process_instance_id).open_tasks:
            if each.task_id == str(task_id) and (is_manager or request.user_id in each.assignee_ids):
                return each
        raise Refused(400, "failure.task.notExistOrFinished", "任务不存在或已被处理")

    def _carry_out(self, request: Change, action: Action, task_id: str | None, **fields: Any) -> None:
        self.changes.append(request)
        self._happened(request, action, task_id, **fields)

    def _happened(self, request: Change, action: Action, task_id: str | None, **fields: Any) -> None:
        now = self._clock.now_ms()
        known = self._one(request.app_type, request.process_instance_id)
        event = TaskEvent(
            event_id=secrets.token_hex(16),
            source=SOURCE_YIDA,
            action=action,
            corp_id=known.corp_id,
            app_type=known.app_type,
            instance_id=known.instance_id,
            task_id=task_id,
            actor_id=None if action is Action.CREATED else request.user_id,
            occurred_at=now,
            received_at=now,
            **fields,
        )
        self.company.happened(event)
        self.on_change(event)

    def _read(self, given: Given, kind: type[R], *, anybody: bool = False) -> R:
        """The request. Everybody may act in their own name: the caller says whose it is."""
        request = given.read(kind)
        self._check_app(request.app_type, request.system_token)
        if request.user_id != self.user_id and not anybody:
            raise Refused(400, "failure.user.userNotExist", "用户不存在")
        return request

    def _check_app(self, app_type: str, system_token: str) -> None:
        if self.system_tokens.get(app_type) != system_token:
            raise Refused(400, "invalidParameter.parameter.accessKeyNotMatch", f"接入密钥不匹配:{system_token}")

    def _known(self, app_type: str, *, late_ms: int = 0) -> list[TrueInstance]:
        found = self.company.instances(at_ms=self._clock.now_ms() - late_ms)
        return [each for each in found if each.app_type == app_type]

    def _listed(self, app_type: str) -> list[TrueInstance]:
        """The instances that a query by time finds."""
        return self._known(app_type)

    def _one(self, app_type: str, instance_id: str) -> TrueInstance:
        known = self.company.instance(instance_id, at_ms=self._clock.now_ms())
        if known is None or known.app_type != app_type:
            raise Refused(400, "invalidState.form.dataDoesNotExistOrIsDeleted", "数据不存在或已删除")
        return known

    def _cut(self, rows: list[Any], given: Given) -> list[Any]:
        """The rows of the requested page."""
        page, size = int(given.fields.get(wire.PAGE_NUMBER, 1)), int(given.fields.get(wire.PAGE_SIZE, 10))
        if not 0 < size <= wire.PAGE_ROWS or page < 1 or page * size > wire.QUERY_ROWS + size:
            raise Refused(400, "failure.operation.numberOfQueryDataExceed", "单次查询超过条数限制")
        if (page - 1) * size >= self.search_rows:
            raise Refused(400, "invalidState.openSearch.cursorExceedFiveThousand", "搜索接口翻页不能超过5000")
        return rows[(page - 1) * size : page * size]

    def _time(self, at_ms: int) -> str:
        return by_minute(at_ms)


class FakeCluster(FakeDingTalk):
    """A dedicated cluster (专属版): its tokens are those of applications, and it lacks newer calls."""

    lacks = frozenset(
        {
            *(wire.GetToken.path, wire.GetRunningTaskList.path, wire.GetTaskCopies.path),
            *(ListApplication.path, GetAgentTasks.path, CreateAgentTask.path, CancelAgentTask.path),
        }
    )


def _people(known: TrueInstance) -> set[str]:
    """Whom an instance concerns."""
    originator = set[str]() if known.originator is None else {known.originator.user_id}
    acted = {each.actor_id for each in known.tasks if each.actor_id is not None}
    return (
        originator | acted | {user_id for each in known.tasks for user_id in each.assignee_ids} | {*dict(known.copied)}
    )


def _step(task: TrueTask) -> str:
    return task.step_id or f"node-{task.task_id}"


def _json(status: int, answer: Any) -> Response:
    if answer is None:
        return Response(status_code=status)
    return Response(msgspec.json.encode(answer), status, media_type="application/json")
