"""Each reminder and each digest is sent once, by any replica, to who has an address, when it may be sent."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme
from sqlalchemy import delete, false, select, text
from standardwebhooks import Webhook

from support.center_rows import AnsweringCenter, state, unchecked
from support.plans import Plans
from support.receivers import Hook, Mailbox, http_server, smtp_server
from taskbridge.center.access.access import Access
from taskbridge.center.api.queries import PageQuery, Queries
from taskbridge.center.metrics import Metrics
from taskbridge.center.reminders.channels import robot_signature
from taskbridge.center.reminders.devices import Devices
from taskbridge.center.reminders.file import RemindersFile
from taskbridge.center.reminders.reminding import Reminding
from taskbridge.center.reminders.working_time import HOUR_MS
from taskbridge.center.tables import entries, reminders
from taskbridge.schemas.cloudevents import iso
from taskbridge.schemas.events import PersonRecord, Status, TaskEntry

if TYPE_CHECKING:
    import ssl
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from support.center import Databases
    from taskbridge.center.api.models import ItemOut
    from taskbridge.runtime.database import Database

MONDAY = 1_767_571_200_000
"""5 January 2026, 8 o'clock in Shanghai."""
SECRET = "whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldY"
RULES = """
language = "en"
quiet_hours = "20:00-08:00"
[calendar]
hours = ["09:00-18:00"]
[digest]
at = "09:30"
[[rules]]
app_type = "APP"
hours = 9
remind_hours_before = 2
"""
AT_REMINDER, AT_DUE = MONDAY + 8 * HOUR_MS, MONDAY + 10 * HOUR_MS
"""Of a task that was created on Monday morning."""


class World:
    """Replicas with one reminders file, and receivers."""

    def __init__(self, database: Database, folder: Path, mailbox: Mailbox, hook: Hook) -> None:
        self.database, self.mailbox, self.hook = database, mailbox, hook
        self.rows = AnsweringCenter(database, Access(tokens=None))
        self.path = folder / "reminders.toml"
        self.metrics = Metrics()
        self.email = (
            f"[email]\nhost='127.0.0.1'\nport={mailbox.port}\nsecurity='none'\nsender='tasks@company.example'\n"
        )
        self.robot = (
            f"[[robots]]\nname='group'\nurl='http://127.0.0.1:{hook.port}/robot?access_token=t0ken'\n"
            "secret='SEC1'\ncorps=['corp']\n"
        )
        self.webhook = (
            f"[[webhooks]]\nname='hook'\nurl='http://127.0.0.1:{hook.port}/hook'\nsecret='{SECRET}'\ncorps=['corp']\n"
        )

    def replica(
        self, channels: str | None = None, *, database: Database | None = None, rules: str = RULES
    ) -> Reminding:
        self.path.write_text(rules + (self.email if channels is None else channels))
        file = RemindersFile(self.path)
        found = database or self.database
        devices = Devices(found, lambda _: false())
        return Reminding(
            found,
            file,
            self.metrics.reminders,
            lambda: True,
            complete=unchecked,
            url="https://tasks.example",
            devices=devices,
            notify=lambda _: None,
        )

    def task(
        self,
        name: str,
        *users: str,
        app_type: str = "APP",
        corp_id: str = "corp",
        at: int = MONDAY,
        due_at: int | None = None,
        ended_at: int | None = None,
    ) -> None:
        task = TaskEntry("T", Status.PENDING, users, created_at=at, due_at=due_at)
        named = {"corp_id": corp_id, "app_type": app_type, "title": f"Title {name}"}
        self.rows.store(state(name, **named, tasks=(task,), finished_at=ended_at))

    def person(self, user: str, address: str | None = None, corp: str = "corp") -> None:
        ids = {} if address is None else {"email": address}
        self.rows.know(corp, PersonRecord(user, user.title(), other_ids=ids))

    def handle(self, name: str) -> None:
        with self.database.write() as connection:
            connection.execute(delete(entries).where(entries.c.instance_id == name))

    def pending(self, user: str, *, overdue: bool = False) -> Sequence[ItemOut]:
        """As the API shows them on Wednesday."""
        rules = RemindersFile(self.path).current.due
        queries = Queries(
            self.database, lambda: rules, lambda: MONDAY + 48 * HOUR_MS, complete=unchecked, all_people=unchecked
        )
        return queries.page(PageQuery("corp", user, "pending", overdue=overdue))["items"]

    def stored(self) -> list[Any]:
        with self.database.read() as connection:
            return list(connection.execute(select(reminders)))

    def count(self, channel: str, kind: str, result: str) -> float:
        labels = {"channel": channel, "kind": kind, "result": result}
        return self.metrics.registry.get_sample_value("taskbridge_center_reminders_total", labels) or 0

    @property
    def mails(self) -> list[tuple[str, str, str]]:
        """Recipient, subject and text."""
        return [
            (to, str(each["Subject"]), each.get_content().replace("\r\n", "\n").strip())
            for to, each in zip(self.mailbox.to, self.mailbox.received, strict=True)
        ]


@pytest.fixture
def receivers() -> Generator[tuple[Mailbox, Hook]]:
    with smtp_server(Mailbox()) as mailbox, http_server(Hook()) as hook:
        yield mailbox, hook


@pytest.fixture
def world(database: Database, tmp_path: Path, receivers: tuple[Mailbox, Hook]) -> Generator[World]:
    found = World(database, tmp_path, *receivers)
    yield found
    found.rows.close()


def test_the_reminder_is_as_long_before_the_time_that_the_source_states(world: World) -> None:
    world.person("ann", "ann@company.example")
    due_at = MONDAY + 24 * HOUR_MS + 2 * HOUR_MS
    world.task("I-late", "ann", due_at=due_at)
    world.task("I-past", "ann", due_at=MONDAY - 1)
    world.task("I-without-a-rule", "ann", app_type="OTHER", due_at=due_at)
    replica = world.replica()
    # Two working hours before 10 o'clock on Tuesday: one of Tuesday, and one of Monday.
    replica.tick(AT_DUE - HOUR_MS - 1)
    assert world.mails == []
    for now in (AT_DUE - HOUR_MS, due_at - 1):
        replica.tick(now)
    reminders = [text for _, subject, text in world.mails if "due soon" in subject]
    lines = "- Title I-late (due 06 Jan 10:00)\n  https://tasks.example/#pending/I-late"
    assert reminders == [f"{lines}\n\nTask center: https://tasks.example/#pending"]


def test_a_person_with_an_address_is_reminded_once_before_tasks_are_due(world: World) -> None:
    world.person("ann", "ann@company.example")
    world.person("bob")
    world.task("I-1", "ann", "bob", "eve")
    world.task("I-2", "ann")
    world.task("I-other", "ann", app_type="OTHER")
    replica = world.replica()
    replica.tick(AT_REMINDER - 1)
    assert world.mails == []
    for now in (AT_REMINDER, AT_REMINDER + 60_000, AT_DUE - 1):
        replica.tick(now)
    lines = "\n".join(
        f"- Title {each} (due 05 Jan 18:00)\n  https://tasks.example/#pending/{each}" for each in ("I-1", "I-2")
    )
    text = f"{lines}\n\nTask center: https://tasks.example/#pending"
    assert world.mails == [("ann@company.example", "Tasks that are due soon: 2", text)]
    sent = world.mailbox.received[0]
    assert (sent["From"], sent["To"], sent["Auto-Submitted"]) == (
        "tasks@company.example",
        "ann@company.example",
        "auto-generated",
    )
    assert world.count("email", "reminder", "sent") == 1
    world.person("bob", "bob@company.example")  # imported later, still in time
    replica.tick(AT_DUE - 1)
    assert [to for to, *_ in world.mails[1:]] == ["bob@company.example"]


def test_nobody_is_reminded_of_a_task_whose_instance_has_ended(world: World) -> None:
    for user in ("ann", "bob"):
        world.person(user, f"{user}@company.example")
    world.task("I-ended", "ann", "bob", ended_at=MONDAY + 1)
    world.task("I-ended-and-due", "ann", due_at=AT_DUE, ended_at=MONDAY + 1)
    replica = world.replica()
    for now in (MONDAY + 2 * HOUR_MS, AT_REMINDER, AT_DUE + HOUR_MS):
        replica.tick(now)
    assert (world.mails, world.stored()) == ([], [])
    world.task("I-open", "ann", at=AT_DUE)
    replica.tick(MONDAY + 26 * HOUR_MS)
    [(to, subject, digest)] = world.mails
    assert (to, "1" in subject, "I-open" in digest, "I-ended" in digest) == ("ann@company.example", True, True, False)
    [item] = [each for each in world.pending("ann") if each["instance_id"] == "I-ended"]
    assert (item["status"], item["finished_at"], item["due_at"]) == ("PENDING", iso(MONDAY + 1), None)
    assert [each["instance_id"] for each in world.pending("ann", overdue=True)] == ["I-open"]


def test_tasks_that_are_overdue_when_reminders_begin_are_left_to_the_digest(world: World) -> None:
    world.person("ann", "ann@company.example")
    world.task("I-1", "ann")
    world.replica().tick(AT_DUE)
    assert world.mails == []
    world.replica().tick(MONDAY + 24 * HOUR_MS + 90 * 60_000)
    ((_, subject, text),) = world.mails
    assert subject == "Pending tasks: 1, overdue: 1"
    assert "- Title I-1 (overdue since 05 Jan 18:00)" in text


def test_the_digest_comes_once_on_working_days_after_its_time(world: World) -> None:
    world.person("ann", "ann@company.example")
    world.person("bob", "bob@company.example")
    world.task("I-1", "ann", app_type="OTHER")
    saturday = MONDAY - 2 * 24 * HOUR_MS
    half_past_nine = MONDAY + 90 * 60_000
    for now in (saturday + 2 * HOUR_MS, half_past_nine - 1, MONDAY - 24 * HOUR_MS + 2 * HOUR_MS):
        world.replica().tick(now)
    assert world.mails == []
    for now in (half_past_nine, half_past_nine + HOUR_MS, half_past_nine + 6 * HOUR_MS):
        world.replica().tick(now)
    assert [(to, subject) for to, subject, _ in world.mails] == [
        ("ann@company.example", "Pending tasks: 1, overdue: 0")
    ]
    world.handle("I-1")
    world.replica().tick(half_past_nine + 24 * HOUR_MS)
    assert len(world.mails) == 1


def test_nothing_is_sent_in_quiet_hours(world: World) -> None:
    world.person("ann", "ann@company.example")
    world.task("I-1", "ann")
    quiet = RULES.replace("20:00-08:00", "16:00-16:30")
    world.replica(rules=quiet).tick(AT_REMINDER + 29 * 60_000)
    assert (world.mails, world.stored()) == ([], [])
    world.replica(rules=quiet).tick(AT_REMINDER + 30 * 60_000)
    assert len(world.mails) == 1


def test_a_task_that_is_handled_before_it_is_sent_is_not_named(world: World, receivers: tuple[Mailbox, Hook]) -> None:
    world.person("ann", "ann@company.example")
    world.task("I-1", "ann")
    mailbox, _ = receivers
    mailbox.refused.add("ann@company.example")
    replica = world.replica()
    replica.tick(AT_REMINDER)
    assert (world.mails, len(world.stored())) == ([], 1)
    mailbox.refused.clear()
    world.handle("I-1")
    replica.tick(AT_REMINDER + 60_000)
    assert (world.mails, world.stored()) == ([], [])


def test_a_failure_is_repeated_a_bounded_number_of_times_and_shown(
    world: World, receivers: tuple[Mailbox, Hook], capsys: pytest.CaptureFixture[str]
) -> None:
    mailbox, _ = receivers
    mailbox.refused.add("ann@company.example")
    rules = RULES.replace("remind_hours_before = 2", "remind_hours_before = 8").replace('[digest]\nat = "09:30"', "")
    world.person("ann", "ann@company.example")
    world.person("bob", "bob@company.example")
    world.task("I-1", "ann", "bob")
    for minute in range(0, 480, 10):
        world.replica(rules=rules).tick(MONDAY + 2 * HOUR_MS + minute * 60_000)
    assert [to for to, *_ in world.mails] == ["bob@company.example"], "another's address stops nobody"
    assert (world.count("email", "reminder", "failed"), world.count("email", "reminder", "given_up")) == (4, 1)
    ann, bob = sorted(world.stored(), key=lambda row: row.user_id)
    assert (ann.attempts, bob.attempts, bob.problem) == (5, 1, None)
    assert "550 nobody here" in ann.problem
    said = capsys.readouterr().out
    assert said.count("reminder_failed") == 4
    assert said.count("reminder_given_up") == 1


def test_a_channel_that_is_down_is_not_tried_for_every_person_and_the_others_go_on(world: World) -> None:
    world.task("I-1", *(f"user{number:03}" for number in range(150)))
    for number in range(150):
        world.person(f"user{number:03}", f"u{number}@company.example")
    port = world.mailbox.port
    down = world.email.replace(str(port), "1")
    world.replica(down + world.webhook).tick(AT_REMINDER)
    failed = [row for row in world.stored() if row.channel == "email" and row.attempts]
    assert (len(failed), len(world.hook.requests)) == (100, 150)
    assert "cannot connect to 127.0.0.1:1" in failed[0].problem
    world.replica().tick(AT_REMINDER + 60_000)
    assert sorted(set(world.mailbox.to)) == sorted(f"u{number}@company.example" for number in range(150))
    assert len(world.mailbox.to) == 150


@pytest.mark.parametrize("was_sent", [False, True])
def test_a_crash_between_claim_and_note_sends_once_more_with_the_same_id_after_the_claim(
    world: World, monkeypatch: pytest.MonkeyPatch, *, was_sent: bool
) -> None:
    class Crash(Exception): ...

    def crash(*_: object, **__: object) -> None:
        raise Crash

    world.person("ann", "ann@company.example")
    world.task("I-1", "ann")
    with monkeypatch.context() as patched:
        patched.setattr(Reminding, "_note" if was_sent else "_send_one", crash)
        with pytest.raises(Crash):
            world.replica().tick(AT_REMINDER)
    assert len(world.mails) == was_sent
    world.replica().tick(AT_REMINDER + 9 * 60_000)
    assert len(world.mails) == was_sent, "the claim holds"
    for minutes in (10, 30):
        world.replica().tick(AT_REMINDER + minutes * 60_000)
    assert len(world.mails) == was_sent + 1
    assert len({str(each["Message-ID"]) for each in world.mailbox.received}) == 1


def test_replicas_send_each_message_once(databases: Databases, tmp_path: Path, receivers: tuple[Mailbox, Hook]) -> None:
    url = databases.new_url("postgresql")
    world = World(databases.open(url), tmp_path, *receivers)
    world.task("I-1", *(f"user{number:03}" for number in range(300)))
    for number in range(300):
        world.person(f"user{number:03}", f"u{number}@company.example")
    replicas = [world.replica(database=databases.open(url)) for _ in range(3)]
    begin = threading.Barrier(3)

    def run(replica: Reminding) -> None:
        begin.wait()
        for now in (AT_REMINDER, AT_REMINDER, AT_REMINDER + 1):
            replica.tick(now)

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(run, replicas))
    assert sorted(world.mailbox.to) == sorted(f"u{number}@company.example" for number in range(300))
    world.rows.close()


def test_a_robot_names_people_in_one_message_to_the_group(world: World) -> None:
    world.person("ann")
    world.task("I-1", "ann", "bob")
    world.task("I-2", "ann")
    world.task("I-elsewhere", "ann", corp_id="other")
    world.replica(world.robot).tick(AT_REMINDER)
    ((path, _, _),) = world.hook.requests
    query = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
    assert query["access_token"] == "t0ken"
    assert query["sign"] == robot_signature(query["timestamp"], "SEC1")
    (body,) = world.hook.bodies
    assert body["at"] == {"atUserIds": ["ann", "bob"], "isAtAll": False}
    assert body["text"]["content"].splitlines()[:3] == [
        "These people have tasks that are due soon:",
        "Ann @ann: 2",
        "@bob: 1",
    ]
    assert "Title" not in body["text"]["content"], "not everybody may know what it is about"
    world.hook.answer = {"errcode": 310000, "errmsg": "sign not match"}
    world.replica(world.robot).tick(MONDAY + 24 * HOUR_MS + 90 * 60_000)
    assert "Ann @ann: 2, overdue: 2" in world.hook.bodies[1]["text"]["content"]
    (digest,) = [row for row in world.stored() if row.kind == "digest"]
    assert "sign not match (310000)" in digest.problem
    world.hook.answer = {"errcode": 0}
    world.replica(world.robot).tick(MONDAY + 24 * HOUR_MS + 95 * 60_000)
    assert world.count("group", "digest", "sent") == 1


def test_the_robots_signature_is_that_of_openssl() -> None:
    # printf '1577262236757\nthis is secret' | openssl dgst -sha256 -hmac 'this is secret' -binary | base64
    assert robot_signature("1577262236757", "this is secret") == "hmPWwU+7lVdm3ZZz0r9tSfx0L4Q26jWOZr9+Gs6EZQM="


def test_a_webhook_gets_a_signed_event_for_each_person(world: World) -> None:
    world.task("I-1", "ann")
    world.replica(world.webhook).tick(AT_REMINDER)
    ((_, headers, body),) = world.hook.requests
    data = Webhook(SECRET).verify(body, headers)
    assert data == {
        "type": "tasks.reminder",
        "timestamp": iso(AT_REMINDER),
        "data": {
            "corp_id": "corp",
            "user_id": "ann",
            "tasks": [
                {
                    "instance_id": "I-1",
                    "task_id": "T",
                    "title": "Title I-1",
                    "app_type": "APP",
                    "process_name": None,
                    "url": None,
                    "due_at": iso(AT_DUE),
                }
            ],
        },
    }
    world.hook.status = 503
    world.replica(world.webhook).tick(MONDAY + 24 * HOUR_MS + 90 * 60_000)
    (digest,) = [row for row in world.stored() if row.kind == "digest"]
    assert digest.problem == "it answered 503"
    assert world.hook.bodies[1]["data"]["overdue"] == 1


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize(("security", "password"), [("starttls", "s3cret"), ("starttls", "wrong"), ("tls", "s3cret")])
def test_mail_is_encrypted_and_a_refused_login_is_reported(
    sqlite_database: Database, tmp_path: Path, authority: trustme.CA, security: str, password: str
) -> None:
    import ssl as tls  # noqa: PLC0415 - for this test alone

    context: ssl.SSLContext = tls.SSLContext(tls.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with smtp_server(Mailbox(context, from_start=security == "tls", password="s3cret")) as mailbox:
        world = World(sqlite_database, tmp_path, mailbox, Hook())
        world.person("ann", "ann@company.example")
        world.task("I-1", "ann")
        secured = world.email.replace("'none'", f"'{security}'\nuser='tasks'\npassword='{password}'\nca_file='ca.pem'")
        world.replica(secured).tick(AT_REMINDER)
        if password == "s3cret":
            assert mailbox.encrypted == [True]
        else:
            (row,) = world.stored()
            assert (mailbox.received, row.problem) == ([], "127.0.0.1: 535 wrong password")
        world.rows.close()


def test_an_address_that_is_none_reaches_nobody(world: World) -> None:
    addresses = "a@b\r\nBcc: eve@x", "ann", "ann@x, eve@x", "<ann@x>"
    for number, address in enumerate(addresses):
        world.person(f"user{number}", address)
        world.task(f"I-{number}", f"user{number}")
    world.replica().tick(AT_REMINDER)
    problems = [row.problem for row in world.stored()]
    assert (world.mails, problems) == ([], ["the person's address is not valid"] * len(addresses))


def test_old_rows_are_deleted(world: World) -> None:
    world.person("ann", "ann@company.example")
    world.task("I-1", "ann")
    world.replica().tick(AT_REMINDER)
    for days, count in ((30, 1), (31, 0)):
        world.handle("I-1")
        world.replica().tick(AT_REMINDER + days * 24 * HOUR_MS)
        assert len(world.stored()) == count


def test_every_query_has_an_index(world: World) -> None:
    world.person("ann", "ann@company.example")
    for number in range(600):
        world.task(f"I-{number}", "ann", f"user{number}")
    with world.database.write() as connection:
        connection.execute(text("ANALYZE"))
    plans = Plans(world.database)
    world.replica(world.email + world.robot).tick(AT_REMINDER)
    world.replica(world.email + world.robot).tick(MONDAY + 24 * HOUR_MS + 90 * 60_000)
    assert len(plans) > 10
    for sql, plan in plans.items():
        scan = re.search(r"SCAN (entries|reminders)$|Seq Scan on (entries|reminders)\b", plan, re.MULTILINE)
        assert scan is None, f"{sql}\n{plan}"
