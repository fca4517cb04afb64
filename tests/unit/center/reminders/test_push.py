"""A phone learns once of a new task and of a decision, and so do users of DingTalk; nobody else learns of what."""

from __future__ import annotations

import threading
from base64 import urlsafe_b64decode
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import delete, select, update

from support.center_records import FakeTopic, Replica, encode_state
from support.center_rows import state, unchecked
from support.plans import Plans
from support.push_service import push_service
from taskbridge.center.metrics import Metrics
from taskbridge.center.reminders.channels import NotSent
from taskbridge.center.reminders.devices import Devices
from taskbridge.center.reminders.file import RemindersFile
from taskbridge.center.reminders.messages import DECIDED, NEW
from taskbridge.center.reminders.reminding import Reminding
from taskbridge.center.reminders.web_push import Device, decoded, encrypted, new_key
from taskbridge.center.reminders.working_time import HOUR_MS
from taskbridge.center.tables import push_devices, reminders, sessions
from taskbridge.runtime.bounded_http import GuardedTransport
from taskbridge.runtime.tokens import digest_of
from taskbridge.schemas.events import Person, Status, TaskEntry

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from support.push_service import PushService
    from taskbridge.center.reminders.messages import Notice
    from taskbridge.runtime.database import Database

MONDAY = 1_767_571_200_000 + 2 * HOUR_MS
"""5 January 2026, 10 o'clock in Shanghai."""
MINUTE_MS = 60_000
STANDARD_KEY = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNt" + "oIAiw4"
"""Of the example in RFC 8291, in two parts for who looks for mistakes in words."""
RULES = 'language = "en"\nquiet_hours = "20:00-08:00"\n'


class World:
    """Replicas with one database and one file, a push service, and a DingTalk that records notices."""

    def __init__(self, database: Database, folder: Path, service: PushService) -> None:
        self.database, self.service, self.path = database, service, folder / "reminders.toml"
        (folder / "key.pem").write_text(new_key())
        self.push = (
            '[push]\nkey = "file:key.pem"\nsubject = "mailto:it@company.example"\nallowed_networks = ["127.0.0.0/8"]\n'
        )
        self.work = '[work_notifications]\ncorps = ["corp"]\n'
        self.topic = FakeTopic(partitions=1)
        self.follower = Replica(database, self.topic)
        self.metrics = Metrics()
        self.devices = Devices(database, lambda _: sessions.c.used_at >= 0)
        self.notices: list[Notice] = []
        self.refusal: NotSent | None = None
        self.refused_corp = "corp"

    def replica(self, channels: str | None = None, *, rules: str = RULES) -> Reminding:
        self.path.write_text(rules + (self.push if channels is None else channels))
        return Reminding(
            self.database,
            RemindersFile(self.path),
            self.metrics.reminders,
            lambda: True,
            complete=unchecked,
            url="https://tasks.example",
            devices=self.devices,
            notify=self.notify,
        )

    def notify(self, notice: Notice) -> None:
        self.notices.append(notice)
        if self.refusal is not None and notice.corp_id == self.refused_corp:
            raise self.refusal

    def turn_on(self, user: str, name: str, corp: str = "corp") -> str:
        """On a device of this name, in a session whose digest it returns."""
        session = digest_of(f"{user} {name}")
        with self.database.write() as connection:
            row = {
                "token_sha256": session,
                "corp_id": corp,
                "user_id": user,
                "roles": "",
                "created_at": 0,
                "used_at": 0,
            }
            connection.execute(sessions.insert().values(row))
        self.devices.put((corp, user), Device(session, **self.service.device(name).given))
        return session

    def happens(
        self,
        instance_id: str,
        *tasks: TaskEntry,
        at: int = MONDAY,
        corp: str = "corp",
        title: str = "Title",
        **more: Any,
    ) -> None:
        made = state(instance_id, corp_id=corp, title=title, tasks=tasks, **more)
        self.topic.append(instance_id.encode(), encode_state(made), at=at)
        self.follower.follow()

    def shown(self) -> list[tuple[str, str]]:
        """Device and title of each message."""
        return [(name, content["title"]) for name, content in self.service.received]

    def rows(self) -> list[Any]:
        with self.database.read() as connection:
            return list(connection.execute(select(reminders)))

    def count(self, channel: str, kind: str, result: str) -> float:
        labels = {"channel": channel, "kind": kind, "result": result}
        return self.metrics.registry.get_sample_value("taskbridge_center_reminders_total", labels) or 0


@pytest.fixture
def service() -> Generator[PushService]:
    with push_service() as found:
        yield found


@pytest.fixture
def world(database: Database, tmp_path: Path, service: PushService) -> World:
    return World(database, tmp_path, service)


def pending(*users: str, at: int = MONDAY, task: str = "T-1") -> TaskEntry:
    return TaskEntry(task, Status.PENDING, users, created_at=at)


def decided(actor: str, at: int, task: str = "T-1") -> TaskEntry:
    return TaskEntry(task, Status.COMPLETED, ("bob",), created_at=MONDAY, actor_id=actor, decided_at=at)


def test_a_message_is_the_example_of_the_standard() -> None:
    """RFC 8291, appendix A."""
    key = ec.derive_private_key(
        int.from_bytes(decoded("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"), "big"), ec.SECP256R1()
    )
    device = Device(
        "",
        "",
        STANDARD_KEY,
        "BTBZMqHH6r4Tts7J_aSIgg",
    )
    found = encrypted(
        b"When I grow up, I want to be a watermelon", device, salt=decoded("DGv6ra1nlYgDCS1FRnbzlw"), key=key
    )
    assert found == urlsafe_b64decode(
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6Tlz"
        "AC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    )


def test_each_device_of_a_person_shows_a_new_task_once(world: World) -> None:
    world.turn_on("ann", "phone")
    world.turn_on("ann", "desk")
    world.turn_on("eve", "other")
    one, other = world.replica(), world.replica()
    world.happens("I-1", pending("ann", "bob"))
    for replica in (one, other, one):
        replica.tick(MONDAY + MINUTE_MS)
    assert sorted(world.shown()) == [("desk", "New tasks: 1"), ("phone", "New tasks: 1")]
    # Without what it is about.
    assert {str(content) for _, content in world.service.received if "Title" in str(content)} == set()
    assert world.service.received[0][1]["hash"] == "#pending"
    assert world.count("push", NEW, "sent") == 1
    assert [row.user_id for row in world.rows()] == ["ann"]
    # A later one, and several at once are one message.
    for number in (2, 3):
        world.happens(f"I-{number}", pending("eve", at=MONDAY + number), at=MONDAY + number)
    one.tick(MONDAY + 2 * MINUTE_MS)
    assert world.shown()[2:] == [("other", "New tasks: 2")]
    world.replica().tick(MONDAY + 3 * MINUTE_MS)
    assert len(world.shown()) == 3


def test_titles_are_shown_where_the_organisation_allows_them(world: World) -> None:
    world.push += 'titles = ["corp"]\n'
    world.turn_on("ann", "phone")
    world.turn_on("ann", "there", "theirs")
    world.happens("I/1", pending("ann"), title="Ann\n<b>")
    world.happens("I-2", pending("ann"), corp="theirs", title="Secret")
    world.replica().tick(MONDAY + MINUTE_MS)
    found = dict(world.service.received)
    assert found["phone"]["body"] == "Ann <b>"
    assert (found["phone"]["hash"], found["phone"]["tag"]) == ("#pending/I%2F1", "I/1 T-1")
    assert found["there"]["body"] == ""
    assert "Secret" not in str(found["there"])


def test_a_decision_is_told_to_who_started_it_unless_a_next_step_follows(world: World) -> None:
    ann = Person("ann", "Ann")
    for user in ("ann", "bob"):
        world.turn_on(user, f"{user}'s")
    replica, at = world.replica(), MONDAY + MINUTE_MS
    world.happens("I-1", pending("bob"), originator=ann)
    world.happens("I-own", pending("ann"), originator=ann)
    replica.tick(at)
    assert sorted(world.shown()) == [("ann's", "New tasks: 1"), ("bob's", "New tasks: 1")]
    world.happens("I-1", decided("bob", at), originator=ann, at=at)
    world.happens("I-own", decided("ann", at), originator=ann, at=at)
    replica.tick(at + MINUTE_MS)
    assert len(world.shown()) == 2
    # The next step came meanwhile: nothing is said before it is decided too.
    world.happens("I-1", decided("bob", at), pending("bob", at=at + 1, task="T-2"), originator=ann, at=at + 1)
    replica.tick(at + 3 * MINUTE_MS)
    assert world.shown()[2:] == [("bob's", "New tasks: 1")]
    later = at + 4 * MINUTE_MS
    world.happens("I-1", decided("bob", at), decided("bob", later, "T-2"), originator=ann, at=later)
    for minutes in range(1, 8):
        replica.tick(later + minutes * MINUTE_MS)
    assert world.shown()[3:] == [("ann's", "Your requests that were decided: 1")]
    assert world.count("push", DECIDED, "sent") == 1


def test_what_comes_in_quiet_hours_is_sent_after_them_if_it_is_still_true(world: World) -> None:
    world.turn_on("ann", "phone")
    night = MONDAY + 12 * HOUR_MS
    world.happens("I-1", pending("ann", at=night), at=night)
    world.happens("I-2", pending("ann", at=night), at=night)
    world.replica().tick(night + MINUTE_MS)
    assert world.shown() == []
    world.happens("I-2", decided("ann", night + HOUR_MS), at=night + HOUR_MS)
    # Another process: the one of before was stopped.
    replica = world.replica()
    for minutes in (0, 1, 2):
        replica.tick(night + 10 * HOUR_MS + minutes * MINUTE_MS)
    assert world.shown() == [("phone", "New tasks: 1")]


def test_history_is_no_news(world: World) -> None:
    world.turn_on("ann", "phone")
    world.happens("I-old", pending("ann", at=MONDAY - 48 * HOUR_MS), at=MONDAY)
    world.replica().tick(MONDAY + MINUTE_MS)
    assert (world.shown(), world.rows()) == ([], [])


def test_a_device_ends_with_its_session_and_by_its_push_service(world: World) -> None:
    for name in ("phone", "desk", "gone"):
        world.turn_on("ann", name)
    world.service.statuses["gone"] = 410
    with world.database.write() as connection:
        connection.execute(delete(sessions).where(sessions.c.token_sha256 == digest_of("ann phone")))
    world.happens("I-1", pending("ann"))
    world.replica().tick(MONDAY + MINUTE_MS)
    assert world.shown() == [("desk", "New tasks: 1")]
    with world.database.read() as connection:
        left = connection.execute(select(push_devices.c.endpoint)).scalars().all()
    assert left == [world.service.device("desk").endpoint]
    # A session that is idle for too long gets nothing, though its row is there.
    world.devices = Devices(world.database, lambda _: sessions.c.used_at > 0)
    world.happens("I-2", pending("ann", at=MONDAY + 1), at=MONDAY + 1)
    world.replica().tick(MONDAY + 2 * MINUTE_MS)
    assert len(world.shown()) == 1
    with world.database.write() as connection:
        connection.execute(update(sessions).values(used_at=1))
    world.happens("I-3", pending("ann", at=MONDAY + 2), at=MONDAY + 2)
    world.replica().tick(MONDAY + 3 * MINUTE_MS)
    assert len(world.shown()) == 2


def test_a_browser_belongs_to_who_signed_in_last(world: World) -> None:
    world.turn_on("ann", "phone")
    bob = world.turn_on("bob", "phone")
    world.happens("I-1", pending("ann"))
    world.happens("I-2", pending("bob"))
    world.replica().tick(MONDAY + MINUTE_MS)
    assert world.shown() == [("phone", "New tasks: 1")]
    world.devices.remove(bob)
    # A session that ended in the same moment has no device.
    with world.database.write() as connection:
        connection.execute(delete(sessions))
    world.devices.put(("corp", "bob"), Device(bob, **world.service.device("phone").given))
    with world.database.read() as connection:
        assert connection.execute(select(push_devices)).all() == []


def test_a_push_service_that_is_busy_is_tried_again_and_another_one_does_not_wait(world: World) -> None:
    world.turn_on("ann", "phone")
    world.turn_on("bob", "desk")
    world.service.statuses["phone"] = 429
    world.happens("I-1", pending("ann", "bob"))
    replica = world.replica()
    replica.tick(MONDAY + MINUTE_MS)
    assert world.shown() == [("desk", "New tasks: 1")]
    replica.tick(MONDAY + MINUTE_MS + 1000)
    assert len(world.service.headers) == 2
    del world.service.statuses["phone"]
    replica.tick(MONDAY + 3 * MINUTE_MS)
    assert world.shown()[1:] == [("phone", "New tasks: 1")]
    assert (world.count("push", NEW, "failed"), world.count("push", NEW, "sent")) == (1, 2)


@pytest.mark.parametrize("kind", ["push", "work"])
def test_a_kill_while_it_is_sent_sends_nothing_twice(world: World, kind: str) -> None:
    class Killed(BaseException): ...

    world.turn_on("ann", "phone")
    world.happens("I-1", pending("ann"))
    replica = world.replica(world.push if kind == "push" else world.work)

    def killed(*_: object) -> None:
        """After the other side had it."""
        raise Killed

    with pytest.MonkeyPatch.context() as patched:
        if kind == "push":
            patched.setattr("taskbridge.center.reminders.channels._Pushing.send", killed)
        else:
            patched.setattr(world, "notify", killed)
            replica = world.replica(world.work)
        for _ in range(kind == "work"):
            replica.tick(MONDAY + MINUTE_MS)
        with pytest.raises(Killed):
            replica.tick(MONDAY + 6 * MINUTE_MS)
    for minutes in (7, 30, 90):
        world.replica(world.push if kind == "push" else world.work).tick(MONDAY + minutes * MINUTE_MS)
    assert (world.shown(), world.notices) == ([], [])


def test_an_address_of_this_network_is_not_called(world: World) -> None:
    addresses = "https://127.0.0.1:1/x", "https://localhost/x", "https://[::ffff:10.0.0.1]/x"
    for number, address in enumerate(addresses):
        session = world.turn_on(f"user{number}", f"phone{number}")
        device = Device(session, **{**world.service.device(f"phone{number}").given, "endpoint": address})
        world.devices.put(("corp", f"user{number}"), device)
        world.happens(f"I-{number}", pending(f"user{number}"))
    world.replica(world.push.replace('allowed_networks = ["127.0.0.0/8"]\n', "")).tick(MONDAY + MINUTE_MS)
    assert len(world.rows()) == len(addresses)
    for row in world.rows():
        assert "is not a public address; allowed_networks of [push] can allow it" in row.problem
        assert row.done_at is None
    assert world.service.headers == []


def test_work_notifications_of_five_minutes_are_one_call_for_all_people(world: World) -> None:
    replica = world.replica(world.work)
    for number, user in enumerate(("ann", "bob", "cai")):
        world.happens(f"I-{number}", pending(user), title="Secret")
    world.happens("I-theirs", pending("dan"), corp="theirs")
    replica.tick(MONDAY + 1000)
    replica.tick(MONDAY + 4 * MINUTE_MS)
    assert world.notices == []
    world.happens("I-4", pending("ann", at=MONDAY + 3 * MINUTE_MS), at=MONDAY + 3 * MINUTE_MS)
    for minutes in (4, 5, 6):
        replica.tick(MONDAY + minutes * MINUTE_MS)
        world.replica(world.work).tick(MONDAY + minutes * MINUTE_MS)
    (notice,) = world.notices
    assert (notice.corp_id, notice.user_ids) == ("corp", ["ann", "bob", "cai"])
    # DingTalk delivers the same text to a person once a day.
    assert notice.text == "You have new tasks (01-05 10:05)"
    assert (notice.title, notice.link, notice.url) == (
        "You have new tasks",
        "Open",
        "https://tasks.example/#pending",
    )
    assert "Secret" not in str(notice)
    assert world.count("work_notifications", NEW, "sent") == 1


@pytest.mark.parametrize(("is_unclear", "calls", "result"), [(False, 2, "failed"), (True, 1, "given_up")])
def test_a_work_notification_is_repeated_only_if_dingtalk_has_not_got_it(
    world: World, calls: int, result: str, *, is_unclear: bool
) -> None:
    replica = world.replica(world.work)
    world.happens("I-1", pending("ann"))
    world.refusal = NotSent("DingTalk says no", is_final=is_unclear)
    for minutes in (0, 5, 6):
        replica.tick(MONDAY + minutes * MINUTE_MS)
    world.refusal = None
    for minutes in (12, 60, 240):
        replica.tick(MONDAY + minutes * MINUTE_MS)
    assert world.count("work_notifications", NEW, result) == calls
    assert len(world.notices) == (1 if is_unclear else calls + 1)


@pytest.mark.parametrize("is_unclear", [False, True])
def test_an_organisation_without_work_notifications_costs_others_nothing(world: World, *, is_unclear: bool) -> None:
    replica = world.replica('[work_notifications]\ncorps = ["*"]\n')
    for corp in ("corp-a", "corp-b", "corp-c"):
        world.happens(f"I-{corp}", pending("ann"), corp=corp)
    world.refused_corp, world.refusal = "corp-a", NotSent("not offered", is_final=is_unclear)
    for minutes in range(0, 400, 10):
        replica.tick(MONDAY + minutes * MINUTE_MS)
    called = [each.corp_id for each in world.notices]
    assert called[:3] == ["corp-a", "corp-b", "corp-c"]
    assert called[3:] == ["corp-a"] * (0 if is_unclear else 4)
    assert [(row.corp_id, row.problem) for row in world.rows() if row.problem] == [("corp-a", "not offered")]
    assert {row.attempts for row in world.rows() if not row.problem} == {1}


@pytest.mark.parametrize("ending", ["no source says", "terminated"])
def test_who_withdraws_a_request_is_not_told_that_it_was_decided(world: World, ending: str) -> None:
    ann, at, later = Person("ann", "Ann"), MONDAY + MINUTE_MS, MONDAY + 10 * MINUTE_MS
    replica = world.replica(world.work)
    step = TaskEntry("T-2", Status.PENDING, ("carl",), created_at=at)
    world.happens("I-1", decided("bob", at), step, originator=ann)
    replica.tick(MONDAY + 2 * MINUTE_MS)
    ended: dict[str, Any] = {} if ending == "no source says" else {"finished_at": later, "result": "TERMINATED"}
    cancelled = TaskEntry("T-2", Status.CANCELLED, ("carl",), created_at=at, decided_at=later)
    world.happens("I-1", decided("bob", at), cancelled, originator=ann, at=later, **ended)
    for minutes in range(10, 40):
        replica.tick(MONDAY + minutes * MINUTE_MS)
    assert [each for each in world.notices if "ann" in each.user_ids] == []


@pytest.mark.parametrize("ended", [{}, {"finished_at": MONDAY + MINUTE_MS, "result": "disagree"}])
def test_a_decision_that_cancels_other_tasks_is_told(world: World, ended: dict[str, Any]) -> None:
    """One of several approvers is enough, or one of them refuses."""
    ann, at = Person("ann", "Ann"), MONDAY + MINUTE_MS
    replica = world.replica(world.work)
    other = TaskEntry("T-2", Status.CANCELLED, ("carl",), created_at=MONDAY, decided_at=at + 1000)
    world.happens("I-1", decided("bob", at), other, originator=ann, at=at + 1000, **ended)
    for minutes in range(2, 15):
        replica.tick(MONDAY + minutes * MINUTE_MS)
    assert [each.user_ids for each in world.notices] == [["ann"]]


def test_devices_of_a_person_are_called_side_by_side(world: World) -> None:
    both = threading.Barrier(2)
    for name in ("phone", "desk"):
        world.turn_on("ann", name)
    world.service.on_request = lambda: both.wait(10)
    world.happens("I-1", pending("ann"))
    world.replica().tick(MONDAY + MINUTE_MS)
    assert sorted(name for name, _ in world.shown()) == ["desk", "phone"]


def test_a_device_that_does_not_answer_is_left_alone_for_some_minutes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    async def unanswered(_: object, request: httpx2.Request) -> httpx2.Response:
        calls.append(str(request.url))
        raise httpx2.ConnectTimeout("no connection", request=request)

    monkeypatch.setattr(GuardedTransport, "handle_async_request", unanswered)
    world.turn_on("ann", "phone")
    world.happens("I-1", pending("ann"))
    replica, at = world.replica(), MONDAY + MINUTE_MS
    for minutes in range(0, 240, 1):
        replica.tick(at + minutes * MINUTE_MS)
        assert len(calls) == (1 if minutes < 36 else 2 if minutes < 156 else 3)
    (row,) = world.rows()
    assert (row.attempts, row.problem.partition(": ")[2]) == (5, "cannot connect")


def test_a_browser_that_is_put_twice_at_once_has_one_row(world: World) -> None:
    """Two tabs that load together, and a browser whose next person signs in meanwhile."""
    world.turn_on("ann", "phone")
    bob = world.turn_on("bob", "desk")
    ann = digest_of("ann phone")
    for sessions_of in ((ann, ann), (ann, bob)):
        for _ in range(20):
            with world.database.write() as connection:
                connection.execute(delete(push_devices))
            together = threading.Barrier(2)

            def put(session: str, together: threading.Barrier) -> None:
                together.wait()
                user = "ann" if session == ann else "bob"
                world.devices.put(("corp", user), Device(session, **world.service.device("phone").given))

            with ThreadPoolExecutor(2) as threads:
                for each in [threads.submit(put, session, together) for session in sessions_of]:
                    each.result()
            with world.database.read() as connection:
                assert len(connection.execute(select(push_devices)).all()) == 1


def test_changes_that_are_read_again_write_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.turn_on("ann", "phone")
    replica = world.replica()
    world.happens("I-1", pending("ann"))
    replica.tick(MONDAY + MINUTE_MS)

    def put(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(world.database, "put", put)
    replica.tick(MONDAY + 2 * MINUTE_MS)
    assert len(world.shown()) == 1


def test_what_push_reads_has_an_index(world: World) -> None:
    for number in range(300):
        world.turn_on(f"user{number}", f"phone{number}")
        world.happens(f"I-{number}", pending(f"user{number}", at=MONDAY - 20 * HOUR_MS), at=MONDAY - 20 * HOUR_MS)
    world.happens("I-new", pending("user1"))
    with world.database.write() as connection:
        connection.exec_driver_sql("ANALYZE")
    plans = Plans(world.database)
    world.replica().tick(MONDAY + MINUTE_MS)
    assert world.shown() == [("phone1", "New tasks: 1")]
    assert any("push_devices" in sql for sql in plans)
    for sql, plan in plans.items():
        for table in ("changes", "push_devices", "sessions"):
            assert f"SCAN {table}\n" not in f"{plan}\n", f"{sql}\n{plan}"
            assert f"Seq Scan on {table} " not in plan, f"{sql}\n{plan}"
