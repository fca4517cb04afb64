"""The checks of ``taskbridge doctor --vendor``: what DingTalk's API lets reconcile read, and what it says."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from taskbridge.cli.doctor_checks import failed, ok, warning
from taskbridge.cli.terminal import counted
from taskbridge.dingtalk import wire, workflow
from taskbridge.dingtalk.api import Days, YidaApi
from taskbridge.dingtalk.approvals.settings import ApprovalsSettings
from taskbridge.dingtalk.apps import Corp
from taskbridge.dingtalk.calls import Absent, Calls, Later, NotOffered, Pace, Refused, Spent, Unexpected
from taskbridge.dingtalk.organisation import (
    BatchGetUser,
    GetAgentTasks,
    GetCorpLevelByAccountId,
    GetFormComponentDefinitionList,
    GetNotifyMe,
    ListApplication,
    OrganisationApi,
)
from taskbridge.dingtalk.times import DAY_MS, day_of
from taskbridge.reconcile.assembly import CALL_TIMEOUT_S, open_data
from taskbridge.reconcile.settings import ReconcileSettings
from taskbridge.runtime.bounded_http import open_http
from taskbridge.runtime.clock import SystemClock
from taskbridge.runtime.logs import configure_logs
from taskbridge.runtime.settings import FileBroken, Senders, load_settings, parse_toml
from taskbridge.schemas.errors import ConfigurationError, OperatorError, TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
    from pathlib import Path

    from taskbridge.cli.doctor_checks import Finding
    from taskbridge.dingtalk.apps import App, Organisation
    from taskbridge.dingtalk.organisation import Application
    from taskbridge.reconcile.assembly import LocalData
    from taskbridge.reconcile.budget import Budget
    from taskbridge.runtime.clock import Clock

    Report = Callable[[Finding], None]

T = TypeVar("T")

_ATTEMPTS = 2
_CALLS_PER_SECOND = 5.0
_FORMS = 5
"""In how many forms an instance is looked for: each costs a call."""
_SINCE_MS = 30 * DAY_MS
_NAMES = 5
_TOKENS = "/v1.0/oauth2/"
_GRANT = "grant it to the application in DingTalk's developer console (权限管理); docs/how-to/find-what-was-missed.md"
_WITHOUT = {
    wire.GetFormListInApp.path: "the apps file must name the forms (forms = [...]), and there is no start page",
    wire.GetInstances.path: "reconcile finds nothing that was missed",
    wire.GetInstanceById.path: "tasks that ended unseen are not repaired, forms are not read again, and nobody can "
    "withdraw a request",
    wire.GetInstancesByIdList.path: "instances are read one by one",
    wire.GetRunningTasks.path: "open tasks are not repaired, and nobody can return a request",
    wire.GetRunningTaskList.path: "open tasks are read one instance at a time",
    wire.GetTaskCopies.path: "lost copies are not found",
    wire.GetOperationRecords.path: "decisions are not repaired",
    wire.ListOperationLogs.path: "the details do not say who changed a form, and when",
    wire.PreviewPublishedProcess.path: "the details do not show the steps to come",
    wire.ListFormRemarks.path: "comments are neither shown nor written in the task center, and nobody is urged",
    wire.SearchFormDataSecondGeneration.path: "values of forms without a process are not read",
    wire.GetFormDataById.path: "deletions in forms without a process are not found",
    wire.BatchGetFormDataByIdList.path: "deletions in forms without a process are not found",
    ListApplication.path: "taskbridge apps sync has no list: enter apps and tokens by hand",
    GetAgentTasks.path: "agents at Yida are neither shown nor written",
    GetNotifyMe.path: "recovered copies have no time and no page",
    GetFormComponentDefinitionList.path: "fields of forms are shown by their ids",
    BatchGetUser.path: "people are shown by their ids",
    GetCorpLevelByAccountId.path: "the edition is not read: set RECONCILE_CALLS_PER_MONTH",
}
"""Read-only calls, and what does not work where DingTalk lacks them. Changes are not tried."""
_FILE = "set RECONCILE_APPS_FILE to the file of apps; docs/how-to/find-what-was-missed.md"


def examine(environment: Mapping[str, str], report: Report, *, clock: Clock | None = None) -> None:
    """Ask DingTalk with the credentials that reconcile uses; each call counts in reconcile's budget."""
    configure_logs("text", "ERROR")
    if environment.get("APPROVALS_APP_KEY"):
        asyncio.run(about_approvals(environment, report, clock or SystemClock()))
        if not environment.get("RECONCILE_APPS_FILE"):
            return
    try:
        settings = load_settings(ReconcileSettings, environment)
        with open_data(settings, clock or SystemClock()) as data, asyncio.Runner() as runner:
            for organisation in data.organisations:
                runner.run(_organisation(settings, data, organisation, report))
    except TaskbridgeError as error:
        report(failed("settings", str(error), _FILE))


async def about_approvals(environment: Mapping[str, str], report: Report, clock: Clock) -> None:
    """Make the calls by which the service for DingTalk's own approvals finds what it missed: three at most."""
    do = f"{_GRANT}; docs/how-to/add-a-source.md"
    try:
        settings = load_settings(ApprovalsSettings, environment)
        corp = Corp("", settings.app_key, settings.app_secret)
        async with open_http(settings.api_url, timeout_s=CALL_TIMEOUT_S) as http:
            calls = Calls(http, corp, Pace(_CALLS_PER_SECOND, clock), clock, attempts=_ATTEMPTS)
            named = await calls.get(workflow.ListProcesses(next_token=0), workflow.ProcessAnswer)
            codes = [each.process_code for each in named.result.process_list]
            says = f"the application of APPROVALS_APP_KEY sees {counted(len(codes), 'process', 'processes')}"
            if not codes:
                report(warning("approvals", says, "enable a process (审批模板) in DingTalk, and ask again"))
                return
            now = clock.now_ms()
            query = workflow.ListProcessInstanceIds(
                process_code=codes[0],
                start_time=now - _SINCE_MS,
                end_time=now,
                next_token=0,
                max_results=workflow.IDS_PER_PAGE,
            )
            listed = (await calls.post(query, workflow.IdAnswer)).result.ids
            for each in listed[:1]:
                await calls.get(workflow.GetProcessInstance(process_instance_id=each), workflow.ApprovalAnswer)
            does = "lists and reads approvals" if listed else "lists approvals, of which the last 30 days have none,"
            report(ok("approvals", f"{says}, and {does} of {codes[0]}"))
    except Later as error:
        report(failed("approvals", str(error), "ask again later"))
    except ConfigurationError as error:
        report(failed("approvals", str(error), "correct it; docs/how-to/add-a-source.md"))
    except TaskbridgeError as error:
        report(failed("approvals", f"what the connection loses is not found: {error}", do))


async def _organisation(
    settings: ReconcileSettings, data: LocalData, organisation: Organisation, report: Report
) -> None:
    corp_id = organisation.corp_id
    apps = [each for each in data.apps if each.corp_id == corp_id]
    async with open_http(settings.api_url, timeout_s=CALL_TIMEOUT_S) as http:
        calls = Calls(http, organisation.corp, data.budget, data.clock, attempts=_ATTEMPTS)
        try:
            await _Questions(calls, organisation, apps, data.clock, report).ask_all(settings.credentials_file)
        except Later as error:
            do = "raise RECONCILE_CALLS_PER_DAY, or ask again then" if isinstance(error, Spent) else "ask again later"
            report(failed("access", f"{corp_id}: {error}", do))
        except OperatorError as error:
            # Of the access token: without one nothing can be asked.
            report(failed("access", f"{corp_id}: {error}", "correct app_key and app_secret in the file of apps"))
    report(_calls_left(data.budget, corp_id))


class _Sample(NamedTuple):
    api: YidaApi
    form_uuid: str
    instance_id: str


class _Questions:
    def __init__(
        self, calls: Calls, organisation: Organisation, apps: Sequence[App], clock: Clock, report: Report
    ) -> None:
        self._calls, self._apps, self._clock, self._report = calls, apps, clock, report
        self._corp_id = organisation.corp_id
        self._organisation = OrganisationApi(calls, organisation)

    async def ask_all(self, credentials: Path | None) -> None:
        """Raises ``Later``, or what refuses the access token: then nothing else would be answered."""
        sample: _Sample | None = None
        for app in self._apps:
            api = YidaApi(self._calls, app, self._clock)
            forms = await self._ask("app", self._forms(api), "correct its system_token and user_id in the file of apps")
            if forms is not None:
                count = counted(len(forms), "form starts", "forms start")
                self._report(ok("app", f"{app.app_type}: accepted, {count} a process"))
                sample = sample or await self._sample(api, forms)
        await self._about_instance(sample)
        await self._about_organization(credentials)
        try:
            await self._about_other_calls(sample)
        finally:
            for path in self._calls.not_offered():
                says = f"{self._corp_id}: this DingTalk does not offer {path}: {_WITHOUT[path]}"
                self._report(warning("offered", says, "nothing; a later release of the cluster may have it"))

    async def _about_instance(self, sample: _Sample | None) -> None:
        if sample is None:
            says = f"{self._corp_id}: no instance of the last 30 days is visible, so that none can be read"
            do = "start a process in Yida and ask again; user_id must be a person who may see all data"
            self._report(warning("permissions", says, do))
            return
        api, _, instance_id = sample
        may = ["forms", "instances"]
        for name, read in {"open tasks": api.running_tasks, "operation records": api.operation_records}.items():
            if await self._ask("permissions", read(instance_id), _GRANT) is not None:
                may.append(name)
        self._report(ok("permissions", f"{self._corp_id}: may read {', '.join(may)}"))

    async def _about_organization(self, credentials: Path | None) -> None:
        do = "see the administration of Yida (平台管理), and set RECONCILE_CALLS_PER_MONTH"
        edition = await self._ask("edition", self._organisation.edition(), do, is_needed=False)
        if edition is not None:
            self._report(ok("edition", f"{self._corp_id}: Yida calls the edition {edition}"))
        if self._organisation.organisation.corp_token is None:
            says = f"{self._corp_id}: DingTalk lists the apps of an organisation only with its corp token"
            do = "with the dedicated edition, get it from Yida's support and set corp_token in [[corps]]"
            self._report(warning("unnamed-apps", says, do))
            return
        listed = await self._ask("unnamed-apps", self._organisation.applications(), "correct corp_token in [[corps]]")
        if listed is not None:
            self._report(_unnamed(listed, self._corp_id, self._apps, credentials))

    async def _about_other_calls(self, sample: _Sample | None) -> None:
        """Make the calls that no other question makes. Only a call that is not offered is of interest."""
        organisation, now_ms = self._organisation, self._clock.now_ms()
        user_id, has_corp_token = organisation.organisation.user_id, organisation.organisation.corp_token is not None
        calls: list[Callable[[], Awaitable[object]]] = []
        if has_corp_token:
            calls.append(partial(organisation.agents, user_id))
        if sample is not None:
            api, form_uuid, instance_id = sample
            calls += [partial(api.instances_by_id, [instance_id]), partial(api.running_tasks_of, [instance_id])]
            calls += [
                partial(anext, api.copies(user_id, now_ms), None),
                partial(organisation.form, api.app, form_uuid, None),
                partial(api.operation_logs, form_uuid, instance_id),
                partial(api.previewed_steps, form_uuid, {}, process_code=None, user_id=user_id),
                partial(api.remarks, form_uuid, [instance_id]),
            ]
            for each in api.app.ordinary_forms[:1]:
                calls.append(partial(api.count, each, self._days(), is_process=False))
                calls.append(partial(api.instances_by_id, [instance_id], form_uuid=each))
                calls.append(partial(api.exists, instance_id, form_uuid=each))
            if has_corp_token:
                calls.append(partial(organisation.copies, api.app.app_type, user_id, now_ms))
        # Last: people may be at another address.
        for call in (*calls, partial(organisation.people, [user_id])):
            with suppress(Refused, Unexpected, Absent):
                await call()

    async def _forms(self, api: YidaApi) -> list[wire.Form]:
        forms = await api.forms()
        if api.app.forms:
            # Forms of the file cost no call, so they prove nothing.
            await api.count(forms[0].form_uuid, self._days())
        return forms

    async def _sample(self, api: YidaApi, forms: Sequence[wire.Form]) -> _Sample | None:
        for form in forms[:_FORMS]:
            if instance_id := await self._ask("permissions", self._instance(api, form.form_uuid), _GRANT):
                return _Sample(api, form.form_uuid, instance_id)
        return None

    async def _instance(self, api: YidaApi, form_uuid: str) -> str:
        rows = await anext(api.instances(form_uuid, self._days()), None)
        return rows[-1].process_instance_id if rows else ""

    async def _ask(self, check: str, call: Coroutine[Any, Any, T], do: str, *, is_needed: bool = True) -> T | None:
        try:
            return await call
        except Later:
            raise
        except NotOffered:
            return None
        except TaskbridgeError as error:
            if str(error).startswith(_TOKENS):
                raise
            lacks = wire.CODE_PERMISSION in str(error)
            self._report((failed if is_needed else warning)(check, str(error), _GRANT if lacks else do))
            return None

    def _days(self) -> Days:
        now = self._clock.now_ms()
        return Days(day_of(now - _SINCE_MS), day_of(now))


def _unnamed(listed: Sequence[Application], corp_id: str, apps: Sequence[App], credentials: Path | None) -> Finding:
    try:
        named = _credentialed(credentials, corp_id) if credentials else {each.app_type for each in apps}
    except (OSError, ValueError, FileBroken) as error:
        return failed("unnamed-apps", f"{credentials}: {error}", "correct RECONCILE_CREDENTIALS_FILE")
    unnamed = [f"{each.app_type} ({each.name})" for each in listed if each.app_type not in named]
    if not unnamed:
        return ok("unnamed-apps", f"{corp_id}: every app has credentials ({len(listed)} listed)")
    more = f" and {len(unnamed) - _NAMES} more" if len(unnamed) > _NAMES else ""
    return warning(
        "unnamed-apps",
        f"{corp_id}: {len(unnamed)} of {len(listed)} apps have no credentials: {', '.join(unnamed[:_NAMES])}{more}",
        f"run taskbridge apps sync, or add them to {credentials or 'the credentials files'}",
    )


def _credentialed(credentials: Path, corp_id: str) -> set[str]:
    file = parse_toml(credentials.read_text("utf-8"), Senders)
    return {each.app_type for each in file.apps if each.corp_id in (None, corp_id)}


def _calls_left(budget: Budget, corp_id: str) -> Finding:
    """By reconcile's own count: no call of DingTalk tells how many are left."""
    used = budget.used(corp_id)
    says = f"{corp_id}: {used.day} calls today, {used.month} this month, by reconcile's count"
    try:
        budget.check(corp_id)
    except OperatorError as error:
        return warning("calls", f"{says}; none left: {error}", "wait, or raise the limit")
    day, month = budget.allowance.per_day, budget.allowance.per_month
    of = f"RECONCILE_CALLS_PER_DAY={day}, RECONCILE_CALLS_PER_MONTH={month}"
    return ok(
        "calls", f"{says}; {budget.left(corp_id)} left today ({of}). Only DingTalk's console tells what DingTalk counts"
    )
