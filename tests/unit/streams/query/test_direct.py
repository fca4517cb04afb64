"""A page and the counts are answered before the framework as it would answer them, to the byte, for any query."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.streams.api_context import PARTITIONS, AnsweringWorker, notification
from taskbridge.schemas.events import Change, Person, PersonRecord, Status, View
from taskbridge.streams.api.access import Access
from taskbridge.streams.query.direct import page_query

if TYPE_CHECKING:
    from collections.abc import Generator

    from fastapi import FastAPI
    from hypothesis.strategies import SearchStrategy

    from taskbridge.schemas.events import TaskNotification

ODD = ("ann", "an n", "王", "a%2Fb", "a+b", "a\0b", '"<\\>', "\n", "x" * 256)
IDS = st.just("ann") | st.sampled_from(ODD)
_NEVER = ("", "a/b", "x" * 257)

_VALUES = {
    "view": ("pending", "pending", "pending", "handled", "copied", "created", "PENDING", "", "all"),
    "limit": ("1", "2", "50", "200", "201", "0", "01", "+3", " 3", "3.0", "-1", "", "ten", "٣"),
    "q": ("", " ", "leave", "ＬＥＡＶＥ", "王", "小", "q" * 200, "q" * 201),  # noqa: RUF001 - full-width on purpose
    "app_type": ("APP", "Äpp", "", "a" * 257),
    "source": ("yida", "other", "", "s" * 257),
    "cursor": ("", "nonsense", "A" * 2001),
    "unknown": ("1",),
}
_PLAIN = {
    "view": _VALUES["view"][:6],
    "limit": _VALUES["limit"][:4],
    "q": _VALUES["q"][:6],
    "app_type": ("APP", "Äpp"),
    "source": ("yida", "other"),
}


class Asked(NamedTuple):
    path: str
    query: bytes


class Answer(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    measured: list[tuple[str, int]]


def _parameters(values: dict[str, tuple[str, ...]], *, at_most: int) -> SearchStrategy[bytes]:
    one = st.sampled_from([(name, value) for name, known in values.items() for value in known])
    many = st.lists(one, min_size=1, max_size=at_most).map(lambda given: [("view", "pending"), *given])
    return many.map(lambda given: urlencode(given).encode())


QUERIES = (
    _parameters(_PLAIN, at_most=2)
    | _parameters(_VALUES, at_most=4)
    | st.text(st.characters(max_codepoint=127), max_size=30).map(lambda text: b"view=pending&" + text.encode())
    | st.just(b"")
)
PATHS = st.tuples(
    st.sampled_from(("corp",) * 20 + _NEVER),
    IDS | IDS | IDS | st.sampled_from(_NEVER),
    st.sampled_from(("tasks", "tasks", "tasks", "counts", "counts\n", "tasks/", "apps")),
).map(lambda parts: f"/v1/corps/{parts[0]}/users/{parts[1]}/{parts[2]}")
ASKED = st.builds(Asked, PATHS, QUERIES)
CHANGES = st.lists(
    st.builds(
        notification,
        st.sampled_from((Change.ADDED, Change.ADDED, Change.UPDATED, Change.REMOVED)),
        user=IDS,
        view=st.sampled_from((View.PENDING, View.PENDING, View.CREATED)),
        instance_id=st.sampled_from(("I-1", "I-2", "I-3", "I\0\u2028")),
        task_id=st.none() | st.sampled_from(("T-1", "T/2")),
        occurred_at=st.integers(1, 6) | st.sampled_from((-62_135_596_800_000, 253_402_300_799_999)),
        title=st.none() | st.sampled_from(("Leave", "请假", '\x1f\x7f\u2028"\\</script>')) | st.text(max_size=8),
        process_name=st.none() | st.just("Leave of absence"),
        app_type=st.sampled_from(("APP", "Äpp")),
        source=st.sampled_from(("yida", "other")),
        originator=st.none() | st.builds(Person, IDS, st.none() | st.just("王小明")),
        status=st.sampled_from(list(Status)),
        finished_at=st.none() | st.integers(1, 6),
        outcome=st.none() | st.text(max_size=3),
    ),
    max_size=12,
)


class Asking:
    """One worker, behind both."""

    def __init__(self, worker: AnsweringWorker) -> None:
        self.worker = worker
        self.direct, self.framework = worker.http(), worker.http(directly=False)

    def both(self, asked: Asked, *, method: str = "GET") -> Answer:
        """The answer, which is the same."""
        direct = ask(self.worker, self.direct, asked, method=method)
        assert direct == ask(self.worker, self.framework, asked, method=method)
        return direct


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Generator[Asking]:
    worker = AnsweringWorker(tmp_path_factory.mktemp("worker"), Access(tokens=None, rate_per_s=1e9))
    for user_id in ("王", "ann"):
        worker.people.know("corp", PersonRecord(user_id, name=f'{user_id} "李"'))
    yield Asking(worker)
    worker.close()


def ask(worker: AnsweringWorker, app: FastAPI, asked: Asked, *, method: str = "GET") -> Answer:
    messages: list[Any] = []
    measured: list[tuple[str, int]] = []
    worker.metrics.query = lambda route, status, _seconds: measured.append((route, status))  # type: ignore[method-assign]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": asked.path,
        "raw_path": quote(asked.path).encode(),
        "query_string": asked.query,
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1:8500")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8500),
        "state": {},
    }
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    start, *parts = messages
    return Answer(start["status"], list(start["headers"]), b"".join(each.get("body", b"") for each in parts), measured)


@settings(max_examples=3 * settings().max_examples)
@given(
    changes=CHANGES, asked=st.lists(ASKED, min_size=1, max_size=4), is_here=st.sampled_from((True, True, True, False))
)
def test_what_is_answered_is_what_the_framework_answers(
    asking: Asking, changes: list[TaskNotification], asked: list[Asked], *, is_here: bool
) -> None:
    asking.worker.apply(changes)
    asking.worker.actives = set(range(PARTITIONS)) if is_here else set()
    for each in asked:
        answer = asking.both(each)
        if b'"next_cursor":"' in answer.body:
            cursor = answer.body.rpartition(b'"next_cursor":"')[2].partition(b'"')[0]
            asking.both(Asked(each.path, each.query + b"&cursor=" + cursor))


@pytest.mark.parametrize("query", ["view=pending", "view=handled&limit=200&q=%E6%8A%A5&app_type=APP&source=yida&x=1"])
def test_what_is_asked_plainly_is_answered_before_the_framework(
    context: AnsweringWorker, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = context.http()
    monkeypatch.setattr(app.router, "routes", [])  # any query that reaches the framework's routes fails
    assert ask(context, app, Asked("/v1/corps/corp/users/王/tasks", query.encode())).status == 200
    assert ask(context, app, Asked("/v1/corps/corp/users/王/counts", b"")).status == 200


@pytest.mark.parametrize("method", ["HEAD", "POST", "OPTIONS"])
def test_other_methods_are_the_frameworks(asking: Asking, method: str) -> None:
    assert asking.both(Asked("/v1/corps/corp/users/ann/counts", b""), method=method).status == 405


@pytest.mark.parametrize(
    "query",
    [
        "",
        "view=all",
        "view=pending&limit=201",
        "view=pending&limit=007",
        "view=pending&limit=",
        f"view=pending&cursor={'A' * 2001}",
    ],
)
def test_what_is_wrong_is_left_to_the_framework(query: str) -> None:
    assert page_query("corp", "ann", query.encode()) is None
