"""DingTalk's open API for one app: its forms, their instances by time, the tasks and records of each, and decisions."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from datetime import date, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import msgspec
import structlog

from taskbridge.dingtalk import wire
from taskbridge.dingtalk.calls import Absent, NotOffered, Refused, TooMuch, Unexpected, Unreachable, Unsent, always

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from taskbridge.dingtalk.apps import App
    from taskbridge.dingtalk.calls import Allowed, Calls
    from taskbridge.runtime.clock import Clock

T = TypeVar("T")

_log = structlog.stdlib.get_logger(__name__)

IDS_PER_CALL = 50
"""The documents give no limit. A URL with so many ids has two kilobytes."""
_INCOMPLETE_RETRY_MS = 60_000
_REFUSED_MOST = 5
"""After so many ids that do not exist, refused lists are divided no more: each such id costs up to a dozen calls."""
_OPEN_MS = 60_000
_YIDA = "https://www.aliwork.com"
_AT_YIDA = re.compile(r"([a-z0-9-]+\.)*aliwork\.com")
_PATH = re.compile(r"/(ossFileHandle|fileHandle|o/[\w./-]+)", re.ASCII)
"""Of files, in the vendor's documents and in published forms."""
_NEVER = re.compile(r"""[ #"<>\\^`{|}]""")
_NO_APP = "default_tianshu_app"
"""In the place of an app, in published forms."""
_FIRST_DAY = "2015-01-01"
"""No instance of Yida is older."""
_SHRINKS = 5
"""How often one query may go back to a page that was read. Each time costs two more calls."""


class Days(NamedTuple):
    """Whole days, `yyyy-MM-dd`, both included."""

    first: str
    last: str


class Part(NamedTuple):
    """A query of the instances that were modified in these days, from a page on. It can be stored, as it is."""

    modified: Days
    created: Days | None = None
    page: int = 1
    total: int = 0
    """What DingTalk counted with the page before."""
    came: int = 0
    """Rows of the pages before."""
    shrunk: int = 0
    newest_first: bool = False
    """The oldest were read."""


class PartRead(NamedTuple):
    rows: list[wire.Instance]
    left: list[Part]
    """What is to be read instead of the part; the last one comes first."""
    problem: Unreachable | TooMuch | None = None
    """Why some rows did not come."""


class Task(NamedTuple):
    """An open task of a person."""

    instance_id: str
    task_id: int
    user_id: str


class YidaApi:
    """The API for one app. Every method may raise what ``Calls.get`` raises."""

    def __init__(self, calls: Calls, app: App, clock: Clock, *, allowed: Allowed = always) -> None:
        """``allowed``: whether a change may still be sent, as of ``Calls.change``."""
        self.app = app
        self._allowed = allowed
        self._calls = calls
        self._clock = clock
        self._rows_per_query = wire.QUERY_ROWS

    async def forms(self) -> list[wire.Form]:
        """The forms that start a process: those of the apps file, or else all of the app."""
        if self.app.forms:
            return [wire.Form(form_uuid=each, form_type=wire.PROCESS) for each in self.app.forms]
        found, total = await self._listed_forms(math.inf)
        if len(found) < total:
            raise self._incomplete(f"DingTalk returned {len(found)} of {total} forms")
        return found

    async def startable(self, most: int) -> tuple[list[wire.Form], bool]:
        """The forms of the app that start a process, also where the apps file names some; so many at most.

        And whether they are all that DingTalk counts.
        """
        found, total = await self._listed_forms(most)
        return found[:most], min(len(found), most) >= total

    async def _listed_forms(self, most: float) -> tuple[list[wire.Form], int]:
        """The pages up to the one that has so many forms, and how many DingTalk counts."""
        request = wire.GetFormListInApp(**self._credentials(), form_types=wire.PROCESS)
        found, total = dict[str, wire.Form](), 0
        async for answer in self._calls.pages(request, wire.FormList):
            total = answer.total_count
            found |= {each.form_uuid: each for each in answer.data}
            if len(found) >= most:
                break
        return [*found.values()], total

    async def instances(
        self, form_uuid: str, days: Days, *, is_process: bool = True
    ) -> AsyncIterator[list[wire.Instance]]:
        """The form's instances that were modified in these days, one page at a time, as of ``read_part``.

        Raises:
            Unreachable, TooMuch: After all others, if some did not come. Those that came are right.
        """
        left, problem = [Part(days)], None
        while left:
            read = await self.read_part(form_uuid, left.pop(), is_process=is_process)
            left += read.left
            problem = read.problem or problem
            if read.rows or not (read.left or read.problem):
                yield read.rows
        if problem is not None:
            raise problem

    async def read_part(self, form_uuid: str, part: Part, *, is_process: bool = True) -> PartRead:
        """Make one call: the rows of a page, and what is left to read instead of the part.

        An instance may come twice. DingTalk compares whole days of its own clock: request one day more at both ends,
        and check the times of each instance. Of more rows than a query returns, fewer days are read, then those that
        were created on fewer days, and of one such day the oldest and the newest.
        """
        try:
            answer = await self._page(self._query(form_uuid, part, is_process=is_process), part.page)
        except TooMuch as error:
            if part.page == 1:
                raise
            self._rows_per_query = wire.SEARCH_ROWS
            left = _narrower(part) or _newest(part)
            return PartRead([], left, None if left else error)
        if part.page == 1 and answer.total_count > self._rows_per_query and (left := _narrower(part)):
            return PartRead([], left)
        if answer.total_count < part.total:
            return self._again(part, answer.total_count)
        return self._rest(part, answer.data, answer.total_count)

    def _again(self, part: Part, total: int) -> PartRead:
        """Rows were deleted or modified meanwhile. Later rows moved up, onto pages that were read already."""
        if part.shrunk == _SHRINKS:
            return PartRead([], [], self._incomplete("rows disappeared while they were read"))
        page = max(1, part.page - math.ceil((part.total - total) / wire.PAGE_ROWS))
        came = min(part.came, (page - 1) * wire.PAGE_ROWS)
        return PartRead([], [part._replace(page=page, total=total, came=came, shrunk=part.shrunk + 1)])

    def _rest(self, part: Part, rows: list[wire.Instance], total: int) -> PartRead:
        # Rows that come twice push others behind the last page that DingTalk counts. So that page must be short.
        read, came = part.page * wire.PAGE_ROWS, part.came + len(rows)
        is_last = read >= min(total, self._rows_per_query) or (part.newest_first and came >= total)
        is_end = len(rows) < wire.PAGE_ROWS or read >= self._rows_per_query or part.newest_first
        if rows and not (is_last and is_end):
            return PartRead(rows, [part._replace(page=part.page + 1, total=total, came=came)])
        if came >= total:
            return PartRead(rows, [])
        problem = f"DingTalk returned {came} of {total} instances"
        if total <= self._rows_per_query:
            return PartRead(rows, [], self._incomplete(problem))
        left = _newest(part._replace(came=came))
        why = f"{self.app.app_type}: {problem} that were created on one day, and modified on one day"
        return PartRead(rows, left, None if left else TooMuch(why))

    async def count(self, form_uuid: str, days: Days, *, is_process: bool = True) -> int:
        """How many instances such a query returns. It costs one call."""
        return (await self._page(self._query(form_uuid, Part(days), is_process=is_process), 1)).total_count

    async def instance(self, instance_id: str) -> wire.Instance:
        """One instance.

        Raises:
            Absent: DingTalk says that there is none.
        """
        request = wire.GetInstanceById(**self._credentials())
        return await self._calls.get(request, wire.Instance, path_end=quote(instance_id, safe=""))

    async def instances_by_id(
        self, ids: Iterable[str], *, form_uuid: str = "", unread: set[str] | None = None
    ) -> dict[str, wire.Instance]:
        """The instances that DingTalk returns, without their times. An instance that is not returned may exist.

        ``form_uuid``: the form without a process that they belong to. ``unread`` gets the ids that were not asked for
        in the end, because too many others do not exist.
        """
        call = partial(self._form_rows, form_uuid) if form_uuid else self._listed_instances
        rows = await self._in_lists(call, [*dict.fromkeys(ids)], unread)
        return {each.process_instance_id: each for each in rows}

    async def exists(self, instance_id: str, *, form_uuid: str = "") -> bool:
        """False if DingTalk says that there is no such instance; ``form_uuid`` as of ``instances_by_id``."""
        try:
            if form_uuid:
                request, path_end = wire.GetFormDataById(**self._credentials()), quote(instance_id, safe="")
                await self._calls.get(request, wire.FormRowById, path_end=path_end)
            else:
                await self.instance(instance_id)
        except Absent:
            return False
        return True

    async def _form_rows(self, form_uuid: str, ids: Sequence[str]) -> list[wire.Instance]:
        request = wire.BatchGetFormDataByIdList(
            **self._credentials(), form_uuid=form_uuid, form_instance_id_list=[*ids], need_form_instance_value=False
        )
        return [each.as_instance() for each in (await self._calls.post(request, wire.FormRowList)).result]

    async def _listed_instances(self, ids: Sequence[str]) -> list[wire.Instance]:
        request = wire.GetInstancesByIdList(**self._credentials(), process_instance_ids=",".join(ids))
        try:
            return (await self._calls.get(request, wire.InstanceList)).result
        except NotOffered:
            found = list[wire.Instance]()
            for each in ids:
                with suppress(Absent):
                    found.append(await self.instance(each))
            return found

    async def running_tasks(self, instance_id: str) -> list[wire.RunningTask]:
        request = wire.GetRunningTasks(**self._credentials(), process_instance_id=instance_id)
        return (await self._calls.get(request, wire.RunningTaskList)).result

    async def running_tasks_of(self, ids: Sequence[str]) -> dict[str, list[wire.RunningTask]]:
        """The open tasks of several instances, as far as DingTalk returns them; for others use ``running_tasks``.

        Without steps. Nothing follows from an instance or a task that is not returned.
        """
        found: dict[str, list[wire.RunningTask]] = {}
        for each in await self._in_lists(self._listed_tasks, ids):
            found.setdefault(str(each.process_instance_id), []).append(each)
        return found

    async def _listed_tasks(self, ids: Sequence[str]) -> list[wire.ListedTask]:
        given = {"user_corp_id": self.app.corp_id, "process_instance_id_list": ",".join(ids)}
        request = wire.GetRunningTaskList(**self._credentials(), **given)
        try:
            return (await self._calls.post(request, wire.ListedTasks)).result
        except TooMuch:
            raise
        except (Refused, Unexpected):
            return []

    async def _in_lists(
        self, call: Callable[[Sequence[str]], Awaitable[list[T]]], ids: Sequence[str], unread: set[str] | None = None
    ) -> list[T]:
        """What the call returns for lists of these ids; nothing follows from an id that is not returned.

        A list is refused if one of its ids does not exist, or if there are too many: then its halves are tried.
        """
        found, refused = list[T](), 0
        lists = [ids[at : at + IDS_PER_CALL] for at in range(0, len(ids), IDS_PER_CALL)][::-1]
        while lists:
            some = lists.pop()
            try:
                found += await call(some)
            except (Absent, TooMuch) as error:
                if len(some) == 1:
                    refused += 1
                elif refused < _REFUSED_MOST:
                    half = len(some) // 2
                    lists += [some[half:], some[:half]]
                else:
                    (set[str]() if unread is None else unread).update(some)
                    _log.warning("ids_not_read", app_type=self.app.app_type, ids=len(some), problem=str(error))
        return found

    async def copies(self, user_id: str, since_ms: int) -> AsyncIterator[list[wire.TaskCopy]]:
        """The instances created since then of which this user has a copy, one page at a time."""
        credentials = {**self._credentials(), "user_id": user_id}
        request = wire.GetTaskCopies(**credentials, create_from_time=since_ms)
        async for answer in self._calls.pages(request, wire.TaskCopyPage):
            yield answer.data

    async def operation_records(self, instance_id: str) -> list[wire.OperationRecord]:
        """The past and open operations of the instance, in DingTalk's order."""
        request = wire.GetOperationRecords(**self._credentials(), process_instance_id=instance_id)
        return (await self._calls.get(request, wire.OperationRecordList)).result

    async def operation_logs(self, form_uuid: str, instance_id: str) -> Any:
        """The changes of the instance's form, in a shape that no document describes; None if there are none."""
        ids = [instance_id]
        request = wire.ListOperationLogs(**self._credentials(), form_uuid=form_uuid, form_instance_id_list=ids)
        found = await self._calls.post(request, wire.OperationLogs)
        return (found.operation_log_map or {}).get(instance_id)

    async def previewed_steps(
        self, form_uuid: str, data: dict[str, Any], *, process_code: str | None, user_id: str
    ) -> list[wire.PreviewedStep]:
        """All steps, in order, of a request of this user with these values."""
        given = {"form_uuid": form_uuid, "form_data_json": msgspec.json.encode(data).decode()}
        credentials = {**self._credentials(), "user_id": user_id}
        request = wire.PreviewPublishedProcess(**credentials, **given, process_code=process_code)
        return (await self._calls.post(request, wire.Preview)).result

    async def remarks(self, form_uuid: str, ids: Sequence[str]) -> list[wire.Remark]:
        """The comments on these instances of a form, as far as DingTalk returns them; each has its instance."""

        async def listed(some: Sequence[str]) -> list[wire.Remark]:
            request = wire.ListFormRemarks(**self._credentials(), form_uuid=form_uuid, form_instance_id_list=[*some])
            found = (await self._calls.post(request, wire.RemarkMap)).form_remark_vo_map or {}
            return [msgspec.structs.replace(each, form_inst_id=at) for at in found for each in found[at] or ()]

        return await self._in_lists(listed, ids)

    async def temporary_url(self, file: str, user_id: str | None) -> str | None:
        """An address where this user (None: the app's own) can open a file for a minute; None if there is no such file.

        ``file`` is what ``address_of`` returns: it is sent as a parameter, and nothing else.
        """
        token = self.app.system_token.get_secret_value()
        request = wire.GetOpenUrl(
            system_token=token, user_id=user_id or self.app.user_id, file_url=file, timeout=_OPEN_MS
        )
        try:
            found = await self._calls.get(request, wire.OpenUrl, path_end=quote(self.app.app_type, safe=""))
        except Absent:
            return None
        return found.result

    async def decide(self, task: Task, *, agrees: bool, remark: str) -> None:
        """Have the task's person agree or refuse. This and the following raise what ``Calls.change`` raises."""
        result = wire.AGREED if agrees else wire.DISAGREED
        await self._change(wire.ExecuteTask(**self._of(task), out_result=result, remark=remark))

    async def hand_over(self, task: Task, *, to: str, remark: str) -> None:
        await self._change(wire.RedirectTask(**self._of(task), now_action_executor_id=to, remark=remark))

    async def reassign(self, task: Task, *, to: str, remark: str) -> None:
        """Hand over the task of another person, as the user of the app, who must be its manager."""
        given: dict[str, Any] = {**self._of(task), "user_id": self.app.user_id, "by_manager": wire.BY_MANAGER}
        await self._change(wire.RedirectTask(**given, now_action_executor_id=to, remark=remark))

    async def return_to(self, task: Task, *, step_id: str, remark: str) -> None:
        """Have the task's person return the request to an earlier step, or without one to its originator.

        The other ids that DingTalk needs are read first.
        """
        try:
            form_uuid = (await self.instance(task.instance_id)).form_uuid
            running = await self.running_tasks(task.instance_id)
            records = [] if step_id else await self.operation_records(task.instance_id)
        except Unreachable as error:
            raise Unsent(str(error), retry_at_ms=error.retry_at_ms) from None
        here = next((each.activity_id for each in running if str(each.task_id) == str(task.task_id)), None)
        submitted = (each for each in records if wire.ACTIONS.get(each.action_exit or each.action or "") == wire.SUBMIT)
        target = step_id or next((each.activity_id for each in submitted), None)
        if form_uuid is None or here is None or target is None:
            raise Refused("DingTalk does not say from which step to which one it would be returned")
        steps = {"form_uuid": form_uuid, "current_activity_id": here, "target_activity_id": target}
        given = {**self._of(task), "task_id": str(task.task_id), **steps, "remark": remark}
        await self._change(wire.RestartInstance(**given))

    async def comment(self, instance_id: str, *, user_id: str, text: str, notify: str) -> None:
        """Have a person comment on an instance; ``notify``: whom DingTalk tells, or empty."""
        request = {**self._credentials(), "user_id": user_id, "form_instance_id": instance_id, "content": text}
        await self._change(wire.SaveFormRemark(**request, at_user_id=notify or None))

    async def withdraw(self, instance_id: str, *, user_id: str) -> None:
        request = {**self._credentials(), "user_id": user_id, "process_instance_id": instance_id}
        await self._change(wire.TerminateInstance(**request), method="PUT")

    async def _change(self, request: wire.Request, *, method: str = "POST") -> None:
        await self._calls.change(request, method=method, allowed=self._allowed)

    def _of(self, task: Task) -> dict[str, Any]:
        named = {"process_instance_id": task.instance_id, "task_id": task.task_id, "user_id": task.user_id}
        return {**self._credentials(), **named}

    async def _page(self, request: wire.ByTime, page: int) -> wire.InstancePage:
        if isinstance(request, wire.GetInstances):
            return await self._calls.post(request, wire.InstancePage, page=page)
        numbered = msgspec.structs.replace(request, page_number=page, page_size=wire.PAGE_ROWS)
        found = await self._calls.post(numbered, wire.FormRowPage)
        return wire.InstancePage([each.as_instance() for each in found.data], found.total_count)

    def _incomplete(self, why: str) -> Unreachable:
        retry_at_ms = self._clock.now_ms() + _INCOMPLETE_RETRY_MS
        return Unreachable(f"{self.app.app_type}: {why}", retry_at_ms=retry_at_ms)

    def _query(self, form_uuid: str, part: Part, *, is_process: bool = True) -> wire.ByTime:
        kind = wire.GetInstances if is_process else wire.SearchFormDataSecondGeneration
        return kind(
            **self._credentials(),
            form_uuid=form_uuid,
            create_from_time=part.created and part.created.first,
            create_to_time=part.created and part.created.last,
            modified_from_time=part.modified.first,
            modified_to_time=part.modified.last,
            order_config_json=wire.NEWEST_FIRST if part.newest_first else wire.OLDEST_FIRST,
        )

    def _credentials(self) -> dict[str, Any]:
        return {
            "app_type": self.app.app_type,
            "system_token": self.app.system_token.get_secret_value(),
            "user_id": self.app.user_id,
        }


def start_url(form_uuid: str, app: App) -> str:
    """Of the page at Yida where the form is filled in."""
    parts = (quote(each, safe="") for each in (app.app_type, form_uuid))
    return "/".join((app.corp.yida_url or _YIDA, next(parts), "submission", next(parts)))


def address_of(file: str, app: App) -> str | None:
    """The whole address of a file at Yida; None if this is none, or names another app.

    ``file`` is a form's value, which anybody may have written: another app's files are not for everybody who sees it.
    """
    try:
        parts = urlsplit(file)
    except ValueError:
        return None
    own, host = urlsplit(app.corp.yida_url).netloc.lower(), parts.netloc.lower()
    is_here = not host and not parts.scheme and file.startswith("/") and not file.startswith("//")
    is_there = parts.scheme == "https" and (_AT_YIDA.fullmatch(host) or (own and host == own))
    is_plain = file.isprintable() and not _NEVER.search(file) and file.count("?") <= 1
    if not (is_here or is_there) or not is_plain or not _PATH.fullmatch(parts.path) or ".." in parts.path:
        return None
    if not _names_only(app.app_type, file) or not _names_only(app.app_type, unquote(unquote(file))):
        return None
    return (app.corp.yida_url or _YIDA) + file if is_here else file


def _names_only(app_type: str, file: str) -> bool:
    """Whether it names no other app, as a parameter or in the name of the file."""
    others = "APP_" in re.sub(rf"{re.escape(app_type)}(?![A-Za-z0-9])", " ", file)
    named = {text for name, text in parse_qsl(urlsplit(file).query) if name.lower() == "apptype"}
    return not others and named <= {app_type, _NO_APP}


def _narrower(part: Part) -> list[Part]:
    """The same rows by fewer days of their modification, or else of their creation; none if these are single days."""
    if part.modified.first < part.modified.last:
        return [Part(each) for each in _halves(part.modified)]
    created = part.created or Days(_FIRST_DAY, part.modified.last)
    return [Part(part.modified, each) for each in _halves(created)] if created.first < created.last else []


def _newest(part: Part) -> list[Part]:
    """The other end of a query of which the oldest rows came."""
    return [] if part.newest_first else [Part(part.modified, part.created, came=part.came, newest_first=True)]


def _halves(days: Days) -> tuple[Days, Days]:
    """The later one is the first."""
    first, last = date.fromisoformat(days.first), date.fromisoformat(days.last)
    middle = first + (last - first) // 2
    return Days((middle + timedelta(days=1)).isoformat(), days.last), Days(days.first, middle.isoformat())
