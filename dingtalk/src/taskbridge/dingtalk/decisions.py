"""Decisions in the task center on tasks of Yida, by DingTalk's API: a system of the group ``taskbridge.systems``."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import structlog

from taskbridge.center.actions.conclusions import is_meant, is_said
from taskbridge.center.actions.seen_form import digest_of
from taskbridge.center.actions.store import ACCEPTED, CHANGED, DONE, OVERTAKEN
from taskbridge.center.actions.systems import CALL_S, OPEN_S, Agent, Answer, Comment, Received
from taskbridge.center.actions.targets import (
    AGENT,
    AGREE,
    HAND_OVER,
    REASSIGN,
    REFUSE,
    RETURN,
    TALK,
    WITHDRAW,
    Possible,
)
from taskbridge.dingtalk import wire
from taskbridge.dingtalk.api import Task, YidaApi, address_of
from taskbridge.dingtalk.apps import AppsFile
from taskbridge.dingtalk.calls import (
    Absent,
    AddressLimited,
    Later,
    NotOffered,
    Pace,
    Refused,
    Spent,
    TooFast,
    Unexpected,
    Unreachable,
    Unsent,
    always,
    calls_by_corp,
)
from taskbridge.dingtalk.current_form import YidaForms
from taskbridge.dingtalk.daily import CountedHere, DailyPace, passing
from taskbridge.dingtalk.organisation import IN_FORCE, LATER_IN_FORCE, NORMAL, GetAgentTasks, OrganisationApi
from taskbridge.dingtalk.remarks import Remarks, written_at
from taskbridge.dingtalk.settings import DingTalkSettings
from taskbridge.dingtalk.start import YidaStart
from taskbridge.dingtalk.times import span_of
from taskbridge.dingtalk.work import SendWorkNotification, message_of
from taskbridge.runtime.bounded_http import open_http
from taskbridge.runtime.clock import Clock, SystemClock
from taskbridge.schemas.events import SOURCE_YIDA

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from httpx2 import AsyncClient

    from taskbridge.center.actions.store import Action
    from taskbridge.center.actions.systems import CountCall, Open, OpenFile, ReadComments
    from taskbridge.center.reminders.messages import Notice
    from taskbridge.center.settings import CenterSettings
    from taskbridge.center.tables import Person
    from taskbridge.dingtalk import organisation
    from taskbridge.dingtalk.apps import App, Apps, Corp, Organisation
    from taskbridge.dingtalk.calls import Allowed, Calls

_CALLS_PER_SECOND = 10.0
"""Of one corp. DingTalk allows 20 for an app and an API."""
_NOTICES_A_DAY, _FILES_A_DAY, _START_A_DAY, _START_AGAIN_A_DAY = 400, 500, 40, 24
"""Work notifications, files that are opened, lists of forms to start, and those that failed the last time, of one corp:
its calls are counted, and decisions need them."""
_REMARKS = {AGREE: "同意", REFUSE: "拒绝", RETURN: "退回", HAND_OVER: "转交", REASSIGN: "转交"}
"""DingTalk's API requires a remark."""
_COMMENTS_A_DAY = 500
"""Readings of comments."""
_OF_CLUSTER = 40
"""So many times as many comments and lists of a corp with a dedicated cluster, for which no limit is documented."""
_SKEW_MS = 60_000
_LISTED_MS = 10_000
"""How long after the end of a delegation its agent may be too new for Yida's list."""

log = structlog.get_logger(__name__)


class YidaApps:
    """The apps of the apps file, at one pace for each corp."""

    source = SOURCE_YIDA

    def __init__(
        self,
        apps: Callable[[], Apps],
        url: str,
        *,
        files: Sequence[AppsFile] = (),
        clock: Clock | None = None,
        form_calls_per_day: int = 0,
    ) -> None:
        self._apps, self.files = apps, files
        self._http = open_http(url, timeout_s=CALL_S, reuse=False)
        self._clock = clock or SystemClock()
        pace = Pace(_CALLS_PER_SECOND, self._clock)
        self._calls_of = calls_by_corp(self._http, pace, self._clock, attempts=2)
        # Connections of their own: decisions do not wait for clicks.
        self._files_http = open_http(url, timeout_s=OPEN_S)
        self._count: CountCall = CountedHere()

        def calls_for(purpose: str, most: Callable[[str], int], http: AsyncClient) -> Callable[[Corp], Calls]:
            daily = DailyPace(purpose, most, lambda: self._count, self._clock, pace)
            return calls_by_corp(http, daily, self._clock, attempts=1)

        self._form_calls_per_day = form_calls_per_day
        self._notices_calls_of = calls_for("notices", lambda _: _NOTICES_A_DAY, self._http)
        self._files_calls_of = calls_for("files", lambda _: _FILES_A_DAY, self._files_http)
        self._forms_calls_of = calls_for("forms", lambda _: form_calls_per_day, self._files_http)
        self._comments_calls_of = calls_for("comments", self.comments_a_day, self._files_http)
        self._start_calls_of = calls_for("start", self.start_a_day, self._files_http)
        self._start_again_calls_of = calls_for("start again", self.start_again_a_day, self._files_http)
        self._remarks = Remarks()

    @classmethod
    def of(cls, settings: CenterSettings) -> YidaApps | None:
        """None without an apps file. Raises FileBroken."""
        if not isinstance(settings, DingTalkSettings) or settings.apps_file is None:
            return None
        file = AppsFile(settings.apps_file, settings.credentials_file)
        per_day = settings.form_calls_per_day
        return cls(lambda: file.current, settings.dingtalk_api_url, files=[file], form_calls_per_day=per_day)

    def possible(self) -> list[tuple[str, Possible]]:
        apps = self._apps().apps
        return [(each.corp_id, Possible(SOURCE_YIDA, each.app_type, numeric_task_ids=True)) for each in apps]

    def system(self, corp_id: str, app_type: str, allowed: Allowed) -> YidaApp | YidaAgents | None:
        if not app_type:
            return self._agents_of(corp_id, allowed)
        app = self._app(corp_id, app_type)
        return None if app is None else YidaApp(self._api(app, allowed))

    def file_opener(self, corp_id: str, app_type: str) -> OpenFile | None:
        app = self._app(corp_id, app_type)
        if app is None:
            return None
        api = YidaApi(self._files_calls_of(app.corp), app, self._clock)

        def opens(file: str) -> Open | None:
            address = address_of(file, app)
            return None if address is None else lambda user_id: _opened(api, address, user_id)

        return opens

    def form_reader(self, corp_id: str, app_type: str) -> YidaForms | None:
        per_day = self._form_calls_per_day
        app = self._app(corp_id, app_type) if per_day > 0 else None
        return None if app is None else YidaForms(YidaApi(self._forms_calls_of(app.corp), app, self._clock), per_day)

    def comments(self, corp_id: str, app_type: str) -> ReadComments | None:
        app = self._app(corp_id, app_type)
        if app is None:
            return None
        api = YidaApi(self._comments_calls_of(app.corp), app, self._clock)

        async def read(form_uuid: str, instance_id: str) -> list[Comment] | None:
            with suppress(NotOffered), passing():
                return [_comment(each) for each in await self._remarks.of(api, form_uuid, instance_id)]
            return None

        return read

    def start(self, corp_id: str) -> YidaStart | None:
        found = self._apps()
        apps = [each for each in found.apps if each.corp_id == corp_id]
        proven = (each for each in found.organisations if each.corp_id == corp_id and each.corp_token is not None)
        calls_of = self._start_calls_of, self._start_again_calls_of
        return YidaStart(apps, next(proven, None), *calls_of, self._clock) if apps else None

    def count_by(self, count: CountCall) -> None:
        self._count = count

    async def agents(self, person: Person) -> list[Agent]:
        """None without a corp token, or where DingTalk lacks the call; raises what ``Calls.get`` raises."""
        corp_id, user_id = person
        for each in self._apps().organisations:
            if each.corp_id == corp_id and each.corp_token is not None:
                with suppress(NotOffered):
                    found = await OrganisationApi(self._calls_of(each.corp), each).agents(user_id)
                    return [_agent(one) for one in found]
        return []

    async def notify(self, notice: Notice) -> Answer | None:
        """What may have been received is UNCLEAR, because DingTalk would deliver another text again."""
        for each in self._apps().organisations:
            if each.corp_id == notice.corp_id and each.agent_id is not None:
                return await self._notify(each, each.agent_id, notice)
        return None

    async def _notify(self, organisation: Organisation, agent_id: int, notice: Notice) -> Answer:
        message = message_of(notice.title, notice.text, notice.link, notice.url)
        request = SendWorkNotification(agent_id=agent_id, userid_list=",".join(notice.user_ids), msg=message)
        try:
            calls = self._notices_calls_of(organisation.corp)
            await calls.change_by_old_api(request.path, msgspec.to_builtins(request))
        except (TooFast, AddressLimited, Unsent, Spent) as error:
            return Answer(Received.UNSENT, str(error))
        except Refused as error:
            return Answer(Received.REFUSED, str(error))
        except (Later, Unexpected, Absent) as error:
            return Answer(Received.UNCLEAR, str(error))
        return Answer(Received.ACCEPTED)

    def writes_agents(self, corp_id: str) -> bool:
        writing = any(each.corp_id == corp_id and each.write_agents for each in self._apps().organisations)
        return writing and self._agents_of(corp_id, always) is not None

    async def close(self) -> None:
        await self._http.aclose()
        await self._files_http.aclose()

    def _app(self, corp_id: str, app_type: str) -> App | None:
        found = (each for each in self._apps().apps if (each.corp_id, each.app_type) == (corp_id, app_type))
        return next(found, None)

    def _agents_of(self, corp_id: str, allowed: Allowed) -> YidaAgents | None:
        for each in self._apps().organisations:
            calls = self._calls_of(each.corp)
            # Without the list, none could be removed.
            is_proven = each.corp_token is not None and GetAgentTasks.path not in calls.not_offered()
            if each.corp_id == corp_id and is_proven:
                return YidaAgents(OrganisationApi(calls, each), allowed)
        return None

    def comments_a_day(self, corp_id: str) -> int:
        return _COMMENTS_A_DAY * self._scale(corp_id)

    def start_a_day(self, corp_id: str) -> int:
        """Enough to list each app with 100 forms once."""
        apps = sum(each.corp_id == corp_id for each in self._apps().apps)
        return max(_START_A_DAY, apps + 1) * self._scale(corp_id)

    def start_again_a_day(self, corp_id: str) -> int:
        return _START_AGAIN_A_DAY * self._scale(corp_id)

    def _scale(self, corp_id: str) -> int:
        return _OF_CLUSTER if any(each.corp_id == corp_id and each.corp.yida_url for each in self._apps().apps) else 1

    def _api(self, app: App, allowed: Allowed) -> YidaApi:
        return YidaApi(self._calls_of(app.corp), app, self._clock, allowed=allowed)


async def _opened(api: YidaApi, address: str, user_id: str | None) -> str | None:
    with passing():
        return await api.temporary_url(address, user_id)


def _comment(remark: wire.Remark) -> Comment:
    user_id, notified = (None if each is None else str(each) for each in (remark.creator, remark.at_user_id))
    return Comment(str(remark.id), user_id or "", remark.content or "", written_at(remark), notified or None)


def _agent(agent: organisation.Agent) -> Agent:
    starts, ends = (span_of(each) for each in (agent.starts, agent.ends))
    return Agent(
        agent=(agent.agent_user_id, agent.agent_name),
        principal=(agent.principal_user_id, agent.principal_name),
        is_for_all=not agent.agent_range_value,
        starts_at=None if starts is None else starts.first,
        ends_at=None if ends is None else ends.first,
    )


def read_reassigned(
    action: Action, running: Sequence[wire.RunningTask], past: Sequence[wire.OperationRecord]
) -> str | None:
    """What became of a task that a manager hands over, and that its person does not hold any more.

    DONE only if Yida said yes, or if it reached the recipient, who may have had it before too. What the person did with
    it themself is not ours, also if the recipient has the next task.
    """
    of_task = [each for each in past if str(each.task_id) == action.task_id]
    by_recipient = [each for each in past if str(each.operator_user_id) == action.recipient_id]
    meant = {is_meant(REASSIGN, each.action_exit or each.action) for each in of_task if each not in by_recipient}
    if action.status == ACCEPTED and of_task and meant <= {True}:
        return DONE
    if False in meant or any(str(each.operator_user_id) == action.user_id for each in of_task):
        return OVERTAKEN
    times = [each.create_time for each in running if str(each.actual_actioner_id) == action.recipient_id]
    times += [each.operate_time for each in by_recipient if meant or each not in of_task]
    spans = map(span_of, times)
    if any(each is not None and each.end > action.requested_at - _SKEW_MS for each in spans):
        return DONE
    # Somebody handed it over, it is not known to whom, or the recipient decided it, perhaps in their own right.
    return None if of_task else OVERTAKEN


async def _sent(action: Action, call: Awaitable[None]) -> Answer:
    """What is known of an action after this call. Does not raise."""
    try:
        await call
    except (TooFast, AddressLimited, Unsent, Spent) as error:
        log.warning("action_not_sent", action_id=action.action_id, problem=str(error))
        return Answer(Received.UNSENT)
    except Refused as error:
        log.warning("action_refused", action_id=action.action_id, problem=str(error))
        return Answer(Received.REFUSED, error.reason)
    except Absent:
        return Answer(Received.REFUSED)
    except (Later, Unexpected) as error:
        log.warning("action_unclear", action_id=action.action_id, problem=str(error))
        return Answer(Received.UNCLEAR)
    return Answer(Received.ACCEPTED)


class YidaAgents:
    """Delegations as agents at Yida. As ``YidaApp``: what may have been received is read back, never sent again."""

    repeats = False

    def __init__(self, api: OrganisationApi, allowed: Allowed) -> None:
        self._api, self._allowed = api, allowed

    async def send(self, action: Action, *, now: int) -> Answer:
        return await _sent(action, self._send(action, now))

    async def _send(self, action: Action, now: int) -> None:
        if action.action == AGENT:
            if not self._api.organisation.write_agents:
                raise Unsent("write_agents is not set any more", retry_at_ms=now)
            people = action.user_id, action.recipient_id
            await self._api.add_agent(*people, _times(action), allowed=self._allowed)
            return
        try:
            found = await self._find(action, now)
        except (Unreachable, Unexpected) as error:
            raise Unsent(str(error), retry_at_ms=now) from None
        if found is not None:
            await self._api.remove_agent(found, allowed=self._allowed)
        elif now < action.requested_at + _LISTED_MS:
            raise Unsent("the agent is not listed", retry_at_ms=now)

    async def read_back(self, action: Action) -> str | None:
        try:
            found = await self._find(action, action.requested_at)
        except (Later, Refused, Unexpected, Absent) as error:
            log.warning("action_not_read_back", action_id=action.action_id, problem=str(error))
            return None
        return DONE if (found is not None) == (action.action == AGENT) else ""

    async def _find(self, action: Action, now: int) -> str | None:
        """The agent's id at Yida."""
        # First where it may leave: it may start between the two calls.
        starts_later = _times(action)[0] > now
        for status in (LATER_IN_FORCE, IN_FORCE) if starts_later else (IN_FORCE, LATER_IN_FORCE):
            found = await self._api.find_agent(action.user_id, status, lambda each: _is_of(each, action))
            if found is not None:
                return found.agent_uuid
        return None


def _is_of(agent: organisation.Agent, action: Action) -> bool:
    """Whether an agent is the one that the action wrote. The list has minutes."""
    people = agent.principal_user_id, agent.agent_user_id
    is_same = people == (action.user_id, action.recipient_id) and agent.agent_type in (None, NORMAL)
    is_same = is_same and agent.agent_uuid is not None and agent.is_on_tasks
    spans = zip(map(span_of, (agent.starts, agent.ends)), _times(action), strict=True)
    are_near = (span and span.first - _SKEW_MS <= at < span.end + _SKEW_MS for span, at in spans)
    return is_same and not agent.agent_range_value and all(are_near)


def _times(action: Action) -> tuple[int, int]:
    starts, _, ends = action.remark.partition(" ")
    return int(starts), int(ends)


class YidaApp:
    """An app of Yida. Its API has no idempotency key: what may have been received is read back, never sent again."""

    repeats = False

    def __init__(self, api: YidaApi) -> None:
        self._api = api

    async def send(self, action: Action, *, now: int) -> Answer:  # noqa: ARG002 - as System
        return await _sent(action, self._send(action))

    async def _send(self, action: Action) -> None:
        if action.action == WITHDRAW:
            await self._api.withdraw(action.instance_id, user_id=action.user_id)
            return
        if action.action in TALK:
            said = {"text": action.remark, "notify": action.recipient_id}
            await self._api.comment(action.instance_id, user_id=self._writer(action), **said)
            return
        if action.seen_form:
            await self._check_unchanged(action)
        task = Task(action.instance_id, int(action.task_id), action.user_id)
        remark = action.remark or _REMARKS[action.action]
        if action.actor_id != action.user_id:
            # There it looks as if the person had decided.
            remark += f" ({action.actor_id} 代办)"
        if action.action == REASSIGN:
            await self._api.reassign(task, to=action.recipient_id, remark=remark)
        elif action.action == HAND_OVER:
            await self._api.hand_over(task, to=action.recipient_id, remark=remark)
        elif action.action == RETURN:
            await self._api.return_to(task, step_id=action.recipient_id, remark=remark)
        else:
            await self._api.decide(task, agrees=action.action == AGREE, remark=remark)

    async def _check_unchanged(self, action: Action) -> None:
        """Raise Refused if the form is not the one that the person saw. It may change between this and the decision."""
        try:
            found = await self._api.instance(action.instance_id)
        except (Unreachable, Unexpected) as error:
            retry_at_ms = error.retry_at_ms if isinstance(error, Unreachable) else 0
            raise Unsent(str(error), retry_at_ms=retry_at_ms) from None
        if digest_of(found.texts()) != action.seen_form:
            raise Refused("the form has changed since the person saw it", CHANGED)

    async def read_back(self, action: Action) -> str | None:
        try:
            return await self._read_back(action)
        except Absent:
            return OVERTAKEN
        except (Later, Refused, Unexpected) as error:
            log.warning("action_not_read_back", action_id=action.action_id, problem=str(error))
            return None

    async def _read_back(self, action: Action) -> str | None:
        if action.action == WITHDRAW:
            status = (await self._api.instance(action.instance_id)).instance_status
            return {wire.RUNNING: "", wire.TERMINATED: DONE}.get(status or "", OVERTAKEN)
        if action.action in TALK:
            return await self._find_comment(action)
        running = await self._api.running_tasks(action.instance_id)
        holders = {str(each.actual_actioner_id) for each in running if str(each.task_id) == action.task_id}
        if action.user_id in holders:
            return ""
        if action.action == HAND_OVER and action.recipient_id in holders:
            return DONE
        records = await self._api.operation_records(action.instance_id)
        past = [each for each in records if each.operate_time is not None]
        if action.action == REASSIGN:
            return read_reassigned(action, running, past)
        found = [
            is_meant(action.action, each.action_exit or each.action)
            for each in past
            if str(each.task_id) == action.task_id and str(each.operator_user_id) == action.user_id
        ]
        is_done = True in found or (None in found and action.action in (AGREE, REFUSE))
        return DONE if is_done else None if None in found else OVERTAKEN

    def _writer(self, action: Action) -> str:
        """In whose name a comment is written: the app's user's for people whom the instance does not concern."""
        return action.actor_id if action.actor_id == action.user_id else self._api.app.user_id

    async def _find_comment(self, action: Action) -> str | None:
        form_uuid = (await self._api.instance(action.instance_id)).form_uuid
        if form_uuid is None:
            return None
        for each in await self._api.remarks(form_uuid, [action.instance_id]):
            is_same = str(each.creator) == self._writer(action) and is_said(action.remark, each.content or "")
            is_to = str(each.at_user_id or "") == action.recipient_id
            if is_same and is_to and written_at(each) >= action.requested_at - _SKEW_MS:
                return DONE
        return ""
