"""A task center in memory with the JSON of the real one: what the pages are developed and tested against."""
# ruff: noqa: RUF001 - Chinese text

from __future__ import annotations

import asyncio
import itertools
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from support.browser.fake_operations import callbacks, overview
from taskbridge.center.access.refusals import Filling
from taskbridge.center.api.events import HoldsStreams
from taskbridge.center.api.form_files import FormFile, files_of
from taskbridge.center.web.routes import let_portals_in, pages_router
from taskbridge.runtime.operation import listen, make_server
from taskbridge.runtime.problems import answer_with_problems, problem
from taskbridge.runtime.refusals import answer_refusals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

    from starlette.types import ASGIApp

CORP = "ding5d17e3add038d44535c2f4657eb6378f"
ME = "0169-li-lei"

PEOPLE = {
    ME: "李雷",
    "0169-han-mei": "韩梅梅",
    "0169-wang-wei": "王伟",
    "0169-zhang-hong": "张红",
    "0169-ouyang": "欧阳静怡",
    "0169-chen-chen": "陈晨",
    "0169-smith": "Ann-Marie Smith",
}
DEPARTMENTS = {ME: "研发部", "0169-han-mei": "财务部", "0169-smith": "财务部"}
OTHERS = [{"user_id": user, "name": name} for user, name in PEOPLE.items() if user != ME]

APPS = [
    ("APP_RY60OCRF33Z7534", "访客申请"),
    ("APP_FNXK2201QW8810", "费用报销"),
    ("APP_HRLV77A0PP1292", "请假申请"),
    ("APP_PROC55TT3301XX", "采购审批"),
]

MARKUP = '<script>document.title="owned"</script><img src=x onerror="document.title=\'owned\'"><b>加粗</b>&amp;'
LONG = (
    "关于二〇二六年第四季度华东大区渠道合作伙伴联合市场推广活动专项经费预算调整及跨部门资源协调的申请"
    "（含附件三份，请财务、法务、市场三个部门会签后返回）"
)
RIGHT_TO_LEFT = "طلب إجازة سنوية ‎(Omar)‎ — تجديد"

# Title, app, originator.
TITLES: list[tuple[str | None, int, int]] = [
    ("张红的1位访客申请", 0, 2),
    ("差旅费报销：上海—深圳，¥3,482.00", 1, 1),
    ("韩梅梅的年假申请（3天）", 2, 0),
    (LONG, 3, 4),
    (MARKUP, 0, 5),
    (RIGHT_TO_LEFT, 2, 5),
    (None, 3, 1),
    ("采购：27英寸显示器 × 12", 3, 3),
    ("Laptop replacement for the Hangzhou office", 3, 5),
    ("欧阳静怡的转正申请", 2, 3),
    ("会议室投影仪维修", 1, 4),
]

VIEWS = ("pending", "handled", "created", "copied")
TOKEN = "let-me-in"
_LINES_A_SEARCH = 300


@dataclass(slots=True)
class FakeTaskCenter:
    """What the service answers, and how it fails; both may be changed while a browser looks."""

    mode: str = "open"
    corps: list[str] = field(default_factory=lambda: ["*"])
    operator: bool = True
    owned_apps: list[str] = field(default_factory=list[str])
    proposal: dict[str, Any] | None = None
    assistants: list[dict[str, Any]] | None = None
    """None where none are served."""
    start_forms: dict[str, Any] | None = None
    """What ``/forms`` answers."""
    fails: dict[str, int] = field(default_factory=dict[str, int])
    """End of a path → the status that it is answered with."""
    delay_s: float = 0.0
    filled: float | None = None
    """The share that the lists contain, while they are being filled."""
    streams_refused: bool = False
    dead_workers: int = 0
    missed: dict[str, Any] | None = None
    webhooks: dict[str, Any] | None = None
    rejected: int = 5
    not_in_force: str | None = None
    """Why the last change of a file is not in force, as an edge and a worker say it."""
    names: dict[str, str] = field(default_factory=lambda: dict(PEOPLE))
    """The directory of people, in addition to the originators in the entries."""
    labels: dict[str, str] = field(default_factory=dict[str, str])
    """What fields of the form are called."""
    form: dict[str, str] = field(default_factory=dict[str, str])
    """Values of each form besides those of ``history``."""
    current: dict[str, Any] | None = None
    """Of what ``/form`` says of each instance, what differs from ``history``; None where forms are not read."""
    opens_files: bool = True
    opened: list[tuple[str, str, int]] = field(default_factory=list[tuple[str, str, int]])
    """Instance, place and number of the files that were opened."""
    comments: dict[str, Any] = field(
        default_factory=lambda: {
            "items": list[Any](),
            "reason": "not-offered",
            "said": list[Any](),
            "may_comment": False,
            "may_urge": list[str](),
        }
    )
    """As ``/comments`` says them, of every instance."""
    said: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """What was said, as it was sent: the action, and the text."""
    marks: dict[tuple[str, str, str, str | None], dict[str, Any]] = field(
        default_factory=dict[tuple[str, str, str, "str | None"], dict[str, Any]]
    )
    """By user, view, instance and task: as they were sent."""
    possible: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """What may be decided, as ``/actions`` says it."""
    acted: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """What was decided, as it was sent."""
    left: dict[str, list[dict[str, Any]]] = field(default_factory=dict[str, "list[dict[str, Any]]"])
    """User → their pending tasks by process, as an operator hands them over."""
    handed: dict[str, int] = field(default_factory=dict[str, int])
    leaving_fails: int = 0
    """How often the answer about a person who leaves fails."""
    refused: dict[str, str] = field(default_factory=dict[str, str])
    """Instance → why an action on it is refused at once."""
    actions: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """Actions as ``/actions`` says them, the latest first."""
    delegations: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    at_yida: dict[str, Any] | None = None
    """What becomes of delegations at Yida; None if they cannot be written there."""
    preferences: dict[str, Any] = field(default_factory=lambda: dict.fromkeys(("language", "theme", "notifications")))
    allowed_origins: str = ""
    port: int = 0
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    items: dict[tuple[str, str], list[dict[str, Any]]] = field(
        default_factory=dict[tuple[str, str], list[dict[str, Any]]]
    )
    sent: list[tuple[str, dict[str, Any]]] = field(default_factory=list[tuple[str, dict[str, Any]]])
    """(user, notification): an event's id is its place in here."""
    queries: list[str] = field(default_factory=list[str])
    last_event_ids: list[str | None] = field(default_factory=list["str | None"])
    _epoch: int = 0
    _broken_at: int = 0
    _resets: int = 0
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def page_of(self, user: str = ME, more: str = "") -> str:
        return f"{self.url}/?corp_id={CORP}&user_id={user}{more}"

    # What happens

    def fill(self, *, handled: int = 1000) -> None:
        """A person with a day's work: titles of every kind, and a long history."""
        for index, (title, app, who) in reversed(list(enumerate(TITLES))):
            minutes = 3 + 37 * index if index < 8 else 1500 * (index - 6)
            self._put(ME, "pending", title, index=app, minutes=minutes, originator=OTHERS[who]["user_id"])
        for number in reversed(range(handled)):
            title = f"{APPS[number % len(APPS)][1]} 第{number + 1}号"
            self._put(ME, "handled", title, index=number, minutes=20 + 95 * number, status="COMPLETED")
        for number, status in enumerate(("PENDING", "COMPLETED", "CANCELLED", "ACTIVE")):
            title = f"李雷的{APPS[number][1]}"
            self._put(ME, "created", title, index=number, minutes=400 - 90 * number, status=status, originator=ME)
        for number in reversed(range(3)):
            self._put(ME, "copied", f"{OTHERS[number]['name']}的周报", index=number, minutes=50 + 700 * number)

    def add(self, title: str | None, *, view: str = "pending", user: str = ME, **more: Any) -> dict[str, Any]:
        """Add an entry to a view now, and publish it."""
        item = self._put(user, view, title, index=next(self._numbers), minutes=0, **more)
        self._publish(user, "ADDED", item)
        return item

    def change(self, item: dict[str, Any], **fields: Any) -> None:
        """Change an entry now, and publish it."""
        item.update(fields, updated_at=_iso(datetime.now(UTC)))
        self._publish(ME, "UPDATED", item)

    def remove(self, item: dict[str, Any], *, user: str = ME) -> None:
        self.items[user, item["view"]].remove(item)
        self._publish(user, "REMOVED", item)

    def complete(self, item: dict[str, Any], *, user: str = ME) -> dict[str, Any]:
        """From pending to handled."""
        self.remove(item, user=user)
        done = {**item, "view": "handled", "status": "COMPLETED", "created_at": _iso(datetime.now(UTC))}
        self.items.setdefault((user, "handled"), []).insert(0, done)
        self._publish(user, "ADDED", done)
        return done

    def break_streams(self, *, refuse: bool = False) -> None:
        """End every open stream after what was published; with ``refuse`` no new one is let in until it is set back."""
        self.streams_refused = refuse
        self._broken_at = len(self.sent)
        self._epoch += 1

    def reset_streams(self) -> None:
        """Tell all listeners that they missed something, as after a pause longer than the topic's retention."""
        self._resets += 1

    def _put(
        self,
        user: str,
        view: str,
        title: str | None,
        *,
        index: int,
        minutes: int,
        status: str = "PENDING",
        originator: str | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        app, process = APPS[index % len(APPS)]
        number = next(self._numbers)
        per_task = view in {"pending", "handled"}
        at = _iso(self.now - timedelta(minutes=minutes) if minutes else datetime.now(UTC))
        item = {
            "instance_id": f"inst-{number:05d}",
            "task_id": f"TASK-{number:05d}" if per_task else None,
            "view": view,
            "title": title,
            "url": f"https://yida.example/{app}/processDetail?procInsId=inst-{number:05d}",
            "app_type": app,
            "source": "yida",
            "process_name": process,
            "originator": {"user_id": originator, "name": PEOPLE[originator]}
            if originator
            else OTHERS[index % len(OTHERS)],
            "status": status,
            "created_at": at,
            "updated_at": at,
            "outcome": None,
            "finished_at": None,
            "result": None,
            **more,
        }
        self.items.setdefault((user, view), []).insert(0, item)
        return item

    def _publish(self, user: str, change: str, item: dict[str, Any]) -> None:
        fields = {name: item[name] for name in item if name not in {"created_at", "updated_at"}}
        notification = {**fields, "change": change, "corp_id": CORP, "recipient_id": user, "actor_id": None}
        self.sent.append(
            (user, {**notification, "occurred_at": _iso(datetime.now(UTC)), "event_id": f"e{len(self.sent)}"})
        )

    # Answers

    def app(self) -> ASGIApp:
        api = APIRouter(dependencies=[Depends(self._fail_on_demand)])
        api.get("/v1/me")(self._me)
        api.get("/v1/people", response_model=None)(self._people_found)
        api.get("/v1/corps/{corp}/users/{user}/tasks")(self._tasks)
        api.get("/v1/corps/{corp}/users/{user}/tasks.csv")(self._spreadsheet)
        api.get("/v1/corps/{corp}/users/{user}/marked")(self._marked)
        api.put("/v1/corps/{corp}/users/{user}/marks", status_code=204)(self._mark)
        api.put("/v1/me/preferences", status_code=204)(self._prefer)
        api.get("/v1/corps/{corp}/users/{user}/counts")(self._counts)
        api.get("/v1/corps/{corp}/users/{user}/actions")(self._actions)
        api.post("/v1/corps/{corp}/users/{user}/actions")(self._act)
        api.get("/v1/corps/{corp}/users/{user}/colleagues")(self._colleagues)
        api.get("/v1/corps/{corp}/users/{user}/delegations")(self._delegations)
        api.post("/v1/corps/{corp}/users/{user}/delegations")(self._delegate)
        for path in ("delegated-tasks", "yida-agents"):
            api.get(f"/v1/corps/{{corp}}/users/{{user}}/{path}")(self._nothing)
        api.get("/v1/corps/{corp}/users/{user}/apps")(self._apps)
        api.get("/v1/corps/{corp}/users/{user}/forms")(self._start_forms)
        api.get("/v1/corps/{corp}/users/{user}/events", response_model=None)(self._events)
        api.get("/v1/corps")(self._corps)
        api.get("/v1/corps/{corp}/waiting")(self._waiting)
        api.get("/v1/instances/{instance:path}/history")(self._history)
        api.get("/v1/instances/{instance:path}/form")(self._current_form)
        api.get("/v1/instances/{instance:path}/files")(self._open_file)
        api.get("/v1/instances/{instance:path}/comments")(self._comments)
        api.post("/v1/instances/{instance:path}/comments", response_model=None)(self._say)
        api.get("/v1/instances/{instance:path}")(self._instance)
        api.get("/v1/ops/overview")(self._overview)
        api.get("/v1/ops/callbacks")(self._callbacks)
        api.post("/v1/ops/webhooks/{endpoint}/{action}")(self._acted)
        api.get("/v1/ops/corps/{corp}/users/{user}/hand-over")(self._leaving)
        api.post("/v1/ops/corps/{corp}/users/{user}/hand-over")(self._hand_over)
        api.get("/v1/ops/corps/{corp}/assistants")(self._assistants)
        api.put("/v1/ops/corps/{corp}/assistants")(self._refuse_assistant)
        api.get("/v1/me/proposals/{proposal}")(self._proposal)
        api.post("/v1/me/proposals/{proposal}")(self._decide_proposal)
        app = FastAPI()
        app.get("/readyz")(self._ready)
        app.get("/temporary")(self._file)
        answer_with_problems(app)
        answer_refusals(app, lambda: None)
        app.include_router(pages_router())
        app.include_router(api)
        return let_portals_in(app, self.allowed_origins)

    async def _fail_on_demand(self, request: Request) -> None:
        path = request.url.path
        self.queries.append(f"{path}?{request.url.query}")
        if self.delay_s and "events" not in path:
            await asyncio.sleep(self.delay_s)
        if self.filled is not None and path.startswith("/v1/corps/") and not path.endswith("/events"):
            raise Filling("They are being filled on demand.", retry_after_s=0)
        for end, status in self.fails.items():
            if path.endswith(end):
                headers = {"Retry-After": "0"} if status == 503 else None
                raise HTTPException(status, "It fails on demand.", headers=headers)
        if self.mode == "token" and request.headers.get("authorization") != f"Bearer {TOKEN}":
            raise HTTPException(401, "A bearer token is needed.")

    async def _ready(self) -> dict[str, Any]:
        return {"ready": self.filled is None, "lists": {"filled": 1.0 if self.filled is None else self.filled}}

    async def _me(self) -> dict[str, Any]:
        sso = self.mode == "sso"
        return {
            "mode": self.mode,
            "name": "portal" if self.mode == "token" else None,
            "corps": [CORP] if sso else self.corps,
            "corp_id": CORP if sso else None,
            "user_id": ME if sso else None,
            "user_name": self.names.get(ME) if sso else None,
            "operator": self.operator,
            "preferences": self.preferences if sso else None,
            "owned_apps": self.owned_apps,
            "start_forms": self.start_forms is not None,
        }

    async def _start_forms(self) -> dict[str, Any] | None:
        return self.start_forms

    async def _prefer(self, request: Request) -> None:
        self.preferences = await request.json()

    async def _people_found(self, q: str = "", limit: int = 20) -> Any:
        if self.mode == "sso":
            return problem(403, "Only for those who may query about everybody.")
        found = [
            {"corp_id": CORP, "user_id": user, "name": name, "department": DEPARTMENTS.get(user)}
            for user, name in self.names.items()
            if q.lower() in f"{user} {name} {DEPARTMENTS.get(user)}".lower()
        ]
        return {"items": sorted(found, key=lambda each: each["user_id"] != q)[:limit]}

    async def _tasks(  # noqa: PLR0917 - the query's parameters
        self,
        corp: str,
        user: str,
        view: str,
        app_type: str = "",
        source: str = "",
        q: str = "",
        overdue: str = "",
        limit: int = 50,
        cursor: str = "0",
        *,
        marks: bool = False,
    ) -> Any:
        if corp != CORP:
            return problem(403, "This token may not see this corp.")
        # As the real one: a search looks at so many lines at a time, and goes on with the next page.
        lines = self.items.get((user, view), [])
        start = int(cursor)
        end = start + (_LINES_A_SEARCH if q or app_type or source or overdue else limit)
        found = [
            item
            for item in lines[start:end]
            if (not app_type or item["app_type"] == app_type)
            and (not source or item["source"] == source)
            and (not overdue or (item.get("due_at") or "Z") <= _iso(datetime.now(UTC)))
            and (not q or q.lower() in f"{item['title']} {item['process_name']} {item['originator']['name']}".lower())
        ]
        items = [{**item, "waits_for": self._waits_for(item)} for item in found]
        if marks:
            items = [each | {"marks": self._marks_of(user, each)} for each in items]
        return {"items": items, "next_cursor": str(end) if end < len(lines) else None}

    def _waits_for(self, item: dict[str, Any]) -> dict[str, Any] | None:
        people: list[str] = item.get("waits_for", []) if item["view"] == "created" else []
        return {"user_id": people[0], "name": self.names.get(people[0]), "others": len(people) - 1} if people else None

    def _marks_of(self, user: str, item: dict[str, Any]) -> dict[str, Any]:
        given = self.marks.get((user, item["view"], item["instance_id"], item["task_id"]), {})
        read = given.get("read", item["updated_at"] if item["view"] == "handled" else None) == item["updated_at"]
        return {"read": read, "pinned": given.get("pinned", False), "hidden_until": given.get("hidden_until")}

    async def _marked(self, user: str, view: str) -> dict[str, Any]:
        marked = [each | {"marks": self._marks_of(user, each)} for each in self.items.get((user, view), [])]
        return {"items": [each for each in marked if each["marks"]["pinned"] or each["marks"]["hidden_until"]]}

    async def _mark(self, user: str, request: Request) -> None:
        for each in (await request.json())["items"]:
            key = user, each.pop("view"), each.pop("instance_id"), each.pop("task_id")
            self.marks.setdefault(key, {}).update(each)

    async def _actions(self) -> dict[str, Any]:
        reason = None if self.possible else "not-possible" if self.mode == "sso" else "not-signed-in"
        return {"possible": self.possible, "reason": reason, "items": self.actions}

    async def _act(self, user: str, request: Request) -> dict[str, Any]:
        wanted = await request.json()
        self.acted.append(wanted)
        for each in wanted["items"]:
            whose, why = each["user_id"] or user, self.refused.get(each["instance_id"])
            about = {**each, "user_id": whose, "actor_id": user, "action": wanted["action"]}
            about["requested_at"] = _iso(datetime.now(UTC))
            self.actions.insert(0, about | {"status": "REFUSED" if why else "REQUESTED", "detail": why})
        return await self._actions()

    async def _delegations(self) -> dict[str, Any]:
        found = {"items": list(self.delegations), "may_be_at_yida": self.at_yida is not None, "ended_at_yida": []}
        # What is under way is over the next time.
        for at, each in enumerate(self.delegations):
            self.delegations[at] = {**each, "at_yida": each["at_yida"] and self.at_yida}
        return found

    async def _delegate(self, request: Request) -> dict[str, Any]:
        wanted = await request.json()
        delegate = {"user_id": wanted.pop("delegate_id"), "name": None}
        wanted["at_yida"] = {"status": "SENDING", "detail": None} if wanted["at_yida"] else None
        self.delegations.append({"delegation_id": str(len(self.delegations)), "delegate": delegate, **wanted})
        return await self._delegations()

    async def _nothing(self) -> dict[str, Any]:
        return {"items": []}

    async def _colleagues(self, q: str = "", limit: int = 20) -> dict[str, Any]:
        found = [{"corp_id": CORP, "user_id": user, "name": name, "department": None} for user, name in PEOPLE.items()]
        return {"items": [each for each in found if q in str(each["name"])][:limit]}

    async def _spreadsheet(self, user: str, view: str) -> Response:
        lines = "".join(f"{item['title']}\r\n" for item in self.items.get((user, view), []))
        return Response(f"\ufeffTitle\r\n{lines}", media_type="text/csv")

    async def _corps(self) -> dict[str, Any]:
        return {"items": [CORP, "ding0000another"]}

    async def _waiting(self, corp: str, app_type: str = "", process_name: str | None = None) -> Any:
        if corp != CORP:
            return {"processes": [], "people": [], "complete": True}
        now = _iso(datetime.now(UTC))
        counts: dict[str, dict[tuple[str, ...], list[dict[str, Any]]]] = {"processes": {}, "people": {}}
        for (user, view), lines in self.items.items():
            for item in lines if view == "pending" else ():
                if app_type in {"", item["app_type"]} and process_name in {None, item["process_name"]}:
                    counts["processes"].setdefault((item["app_type"], item["process_name"]), []).append(item)
                    counts["people"].setdefault((user, self.names.get(user, "")), []).append(item)

        def shown(names: tuple[str, str], key: str) -> list[dict[str, Any]]:
            found = [
                dict(zip(names, each, strict=True))
                | {
                    "pending": len(lines),
                    "overdue": sum((line.get("due_at") or "Z") <= now for line in lines),
                    "oldest_at": min(line["created_at"] for line in lines),
                }
                for each, lines in counts[key].items()
            ]
            return sorted(found, key=lambda each: -each["overdue"])

        processes = shown(("app_type", "process_name"), "processes")
        return {"processes": processes, "people": shown(("user_id", "name"), "people"), "complete": True}

    async def _counts(self, user: str) -> dict[str, int]:
        return {view: len(self.items.get((user, view), [])) for view in VIEWS}

    async def _apps(self, user: str) -> dict[str, Any]:
        lines = (item for view in VIEWS for item in self.items.get((user, view), []))
        named = ("app_type", "process_name", "source")
        found = sorted({tuple(item[name] for name in named) for item in lines}, key=str)
        return {"items": [dict(zip(named, each, strict=True)) for each in found]}

    async def _events(self, request: Request, user: str) -> Response:
        if self.streams_refused:
            return problem(503, "It refuses on demand.", headers={"Retry-After": "0"})
        given = request.headers.get("last-event-id")
        self.last_event_ids.append(given)
        start = len(self.sent) if given is None else int(given.split("-")[1]) + 1
        return StreamingResponse(self._stream(user, start, self._epoch), media_type="text/event-stream")

    async def _stream(self, user: str, place: int, epoch: int) -> AsyncIterator[bytes]:
        yield b"retry: 1000\n\n"
        yield f": alive\nid: 0-{place - 1}\n\n".encode() if place else b": alive\n\n"
        resets = self._resets
        while True:
            broken = epoch != self._epoch
            end = self._broken_at if broken else len(self.sent)
            if resets != self._resets:
                resets = self._resets
                yield b'event: reset\ndata: {"reason": "on demand"}\n\n'
            for number in range(place, end):
                recipient, notification = self.sent[number]
                if recipient == user:
                    body = JSONResponse(notification).body
                    yield b"id: 0-%d\nevent: notification\ndata: %b\n\n" % (number, bytes(body))
            if broken:
                return
            place = end
            await asyncio.sleep(0.02)

    def _found(self, instance: str) -> list[dict[str, Any]]:
        return [item for items in self.items.values() for item in items if item["instance_id"] == instance]

    async def _instance(self, instance: str) -> Any:
        found = self._found(instance)
        return self._state(found[0]) if found else problem(404, "There is no such instance.")

    def _state(self, item: dict[str, Any]) -> dict[str, Any]:
        return {
            "instance_id": item["instance_id"],
            "corp_id": CORP,
            "app_type": item["app_type"],
            "source": item["source"],
            "updated_at": item["updated_at"],
            "revision": 3,
            "title": item["title"],
            "url": item["url"],
            "originator": item["originator"],
            "process_code": "TPROC--9BC6687125N9XAJ8873I",
            "process_name": item["process_name"],
            "lifecycle": "ACTIVE",
            "created_at": history(item)["events"][0]["occurred_at"],
            "finished_at": item["updated_at"] if item["result"] else None,
            "result": item["result"],
            "tasks": [
                self._task(item, item["task_id"] or f"TASK-of-{item['instance_id']}", item["status"]),
                *(self._task(item, f"TASK-of-{user}", "PENDING", user) for user in item.get("waits_for", ())),
                *item.get("earlier", ()),
            ],
            "copied": [{"user_id": "0169-wang-wei", "at": item["created_at"]}],
            "people": self._people(ME, "0169-han-mei", "0169-wang-wei"),
        }

    def _task(self, item: dict[str, Any], task_id: str, status: str, *assignees: str) -> dict[str, Any]:
        decided = status in {"COMPLETED", "CANCELLED"}
        return {
            "task_id": task_id,
            "status": "PENDING" if status == "ACTIVE" else status,
            "assignee_ids": assignees or [ME, "0169-han-mei"],
            "actor_id": ME if decided else None,
            "url": item["url"],
            "created_at": item["created_at"],
            "decided_at": item["updated_at"] if decided else None,
            "outcome": item["outcome"] if decided else None,
            "remark": None,
            "step_name": item.get("step_name"),
            "decided_by": item.get("decided_by") if decided else None,
        }

    async def _history(self, instance: str) -> Any:
        found = self._found(instance)
        if not found:
            return problem(404, "There is no such instance.")
        people = self._people(ME, "0169-han-mei", "0169-wang-wei", found[0]["originator"]["user_id"])
        title = "采购申请" if self.labels else None
        answer = history(found[0])
        answer["form"] |= self.form
        files = {place: [_shown(each) for each in found] for place, found in files_of(answer["form"]).items()}
        more = {"files": files, "opens_files": self.opens_files, "reads_form": self.current is not None}
        return {**answer, **more, "people": people, "form_title": title, "form_labels": self.labels}

    async def _current_form(self, instance: str) -> Any:
        if self.current is None:
            return problem(404, "Forms are not read here.")
        answer = await self._history(instance)
        form = answer["form"] | self.current.get("form", {})
        found: dict[str, Any] = {
            "read_at": _iso(datetime.now(UTC)),
            "digest": str(sorted(form.items()))[:64],
            "changed": [],
            "to_come": [],
        }
        return {**found, "files": answer["files"], "people": answer["people"], **self.current, "form": form}

    async def _open_file(self, instance: str, place: str, number: int) -> Response:
        self.opened.append((instance, place, number))
        return RedirectResponse("/temporary", 303)

    async def _comments(self) -> dict[str, Any]:
        return {**self.comments, "people": self._people(*self.names)}

    async def _say(self, request: Request) -> Any:
        wanted = await request.json()
        action, text = wanted["action"], wanted["text"]
        if action == "urge" and any(each == "urge" for each, _ in self.said):
            return problem(429, "They were urged already.")
        self.said.append((action, text))
        for to in self.comments["may_urge"] if action == "urge" else [None]:
            about = {"action": action, "text": text or "请尽快处理。", "recipient_id": to, "detail": None}
            number = str(len(self.comments["said"]))
            said = {**about, "action_id": number, "status": "REQUESTED", "at": _iso(self.now)}
            self.comments["said"] = [*self.comments["said"], said]
        return await self._comments()

    async def _file(self) -> Response:
        return Response("the file", media_type="text/plain")

    def _people(self, *users: str) -> list[dict[str, str]]:
        return [{"user_id": each, "name": self.names[each]} for each in users if each in self.names]

    async def _overview(self) -> Any:
        if not self.operator:
            return problem(403, "Not an operator.")
        found = overview(
            self.now, dead_workers=self.dead_workers, rejected=self.rejected, not_in_force=self.not_in_force
        )
        if self.filled is not None:
            found["center"]["filled"] = self.filled
        return {**found, "missed": self.missed, "webhooks": self.webhooks}

    async def _acted(self, endpoint: str) -> dict[str, Any]:
        return {"id": endpoint, "delivered": True, "status": 204, "problem": None}

    async def _leaving(self, user: str) -> dict[str, Any]:
        """What is under way is done the next time."""
        if self.leaving_fails:
            self.leaving_fails -= 1
            raise HTTPException(500)
        stays = sum(each["pending"] for each in self.left.get(user, []) if not each["is_possible"])
        answer = {
            "processes": self.left.get(user, []),
            "handed": dict(self.handed),
            "staying": {"not-possible": stays} if stays else {},
            "recorded": 0,
        }
        done = self.handed.pop("REQUESTED", 0) + self.handed.pop("DONE", 0)
        self.handed |= {"DONE": done} if done else {}
        return answer

    async def _hand_over(self, user: str, request: Request) -> dict[str, Any]:
        wanted = await request.json()
        self.acted.append({"action": "reassign", "of": user, "recipient_id": wanted["recipient_id"]})
        possible = [each for each in self.left.get(user, []) if each["is_possible"]]
        self.handed["REQUESTED"] = sum(each["pending"] for each in possible)
        self.left[user] = [each for each in self.left.get(user, []) if not each["is_possible"]]
        return {**await self._leaving(user), "recorded": self.handed.get("DONE", 0)}

    async def _assistants(self) -> dict[str, Any]:
        if self.assistants is None:
            raise HTTPException(404)
        return {"items": self.assistants}

    async def _refuse_assistant(self, request: Request) -> dict[str, Any]:
        wanted = await request.json()
        self.assistants = [
            {**each, "refused": wanted["refused"]} if each["client"] == wanted["client"] else each
            for each in self.assistants or []
        ]
        return await self._assistants()

    async def _proposal(self) -> dict[str, Any]:
        """What was sent is carried out the next time."""
        if self.proposal is None:
            raise HTTPException(404)
        found = dict(self.proposal)
        if found["action_status"] == "REQUESTED":
            self.proposal["action_status"] = "DONE"
        return found

    async def _decide_proposal(self, request: Request) -> dict[str, Any]:
        wanted = await request.json()
        self.acted.append(wanted)
        confirmed = {"status": "CONFIRMED", "action_status": "REQUESTED"}
        self.proposal = {
            **(self.proposal or {}),
            **(confirmed if wanted["decision"] == "confirm" else {"status": "DISCARDED"}),
        }
        return dict(self.proposal)

    async def _callbacks(self, instance_id: str) -> Any:
        found = self._found(instance_id)
        state = self._state(found[0]) if found else None
        return callbacks(instance_id, state, history(found[0]) if found else None, self.now)


def _shown(file: FormFile) -> dict[str, Any]:
    return {"name": file.name, "size": file.size}


def history(item: dict[str, Any]) -> dict[str, Any]:
    """Created, assigned, copied; and handled and ended where it was."""
    start = datetime.fromisoformat(item["created_at"]) - timedelta(minutes=4)
    steps: list[tuple[str, int, str | None, list[str], int]] = [
        ("CREATED", 0, item["originator"]["user_id"], [], 1),
        ("CREATED", 4, None, [ME, "0169-han-mei"], 95),
        ("COPIED", 5, None, ["0169-wang-wei"], 0),
    ]
    if item["status"] == "COMPLETED":
        steps.append(("COMPLETED", 30, ME, [], 0))
    # Yida describes the instance once more: its process has ended.
    ended = len(steps) if item["result"] else None
    if ended is not None:
        steps.append(("CREATED", 31, None, [], 0))
    return {
        "instance_id": item["instance_id"],
        "corp_id": CORP,
        "form": {
            "申请事由": f"{item['title'] or '—'}\n请于本周五之前批复, 谢谢。",
            "textField_l4s57vm9": "<img src=x onerror=alert(1)>",
            "numberField_l4s57vma": "1280.50",
            "employeeField_l5": '["王伟","韩梅梅"]',
            "tableField_l4s57vmb": '[{"物品":"显示器","数量":"2","单价":"1,299.00"},'
            '{"物品":"键盘","数量":"2","单价":"399.00"}]',
            "radioField_l6": "否",
            "textareaField_l4s57vmf": "",
            "cascadeDateField_l4sbkqco": None,
        },
        "form_of": "e-1",
        "events": [
            {
                "event_id": f"e-{number}",
                "action": action,
                "occurred_at": _iso(start + timedelta(minutes=minutes)),
                "received_at": _iso(start + timedelta(minutes=minutes, seconds=late_s)),
                "task_id": item["task_id"],
                "step_name": item.get("step_name") if action == "COMPLETED" else None,
                "decided_by": item.get("decided_by") if action == "COMPLETED" else None,
                "actor_id": actor,
                "recipient_ids": recipients,
                "title": item["title"],
                "app_type": item["app_type"],
                "instance_status": "COMPLETED" if number == ended else "RUNNING",
                "approved_result": item["result"] if number == ended else None,
                "finished_at": _iso(start + timedelta(minutes=minutes)) if number == ended else None,
                "partition": 3,
                "offset": 100 + number,
            }
            for number, (action, minutes, actor, recipients, late_s) in enumerate(steps)
        ],
        "complete": True,
    }


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@contextmanager
def serving(fake: FakeTaskCenter) -> Generator[FakeTaskCenter]:
    """The fake on a free port of this machine, in a thread."""
    server = make_server(HoldsStreams(fake.app()))
    listening = listen("127.0.0.1", fake.port, prefix="CENTER")
    fake.port = listening.getsockname()[1]
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        fake.break_streams()
        server.should_exit = True
        thread.join(60)


def main() -> None:
    """For developing the pages: ``PYTHONPATH=tests uv run python -m support.browser.fake_task_center``."""
    fake = FakeTaskCenter(port=8599)
    fake.fill()
    with serving(fake):
        print(fake.page_of(), f"{fake.url}/ops")  # noqa: T201 - for people
        for number in itertools.count():
            threading.Event().wait(8)
            fake.add(f"新到的申请 {number}")


if __name__ == "__main__":
    main()
