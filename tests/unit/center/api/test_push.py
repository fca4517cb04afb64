"""Who may get push messages on a device, and with which addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from support.push_service import FakeDevice
from support.sign_in import SAME_SITE, Served, signing_in, tokens_file
from taskbridge.center.api.push import push_router
from taskbridge.center.reminders.devices import Devices
from taskbridge.center.reminders.file import Reminders, RemindersFile
from taskbridge.center.reminders.web_push import new_key
from taskbridge.center.tables import push_devices
from taskbridge.runtime.tokens import new_token

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from taskbridge.runtime.database import Database

TOKEN = new_token()
ENDPOINT = "https://push.example/v2/4fa1"
FILE = '[push]\nkey = "file:key.pem"\nsubject = "mailto:it@company.example"\n'


class World:
    def __init__(self, served: Served, folder: Path) -> None:
        self.served, self.browser, self._folder = served, served.signed_in, folder
        (folder / "key.pem").write_text(new_key())
        self.reminders = self.read(FILE)
        devices = Devices(served.database, served.sessions.lives)
        served.http.include_router(
            push_router(served.rows.access, devices, served.rows.threads, lambda: self.reminders)
        )

    def read(self, text: str) -> Reminders:
        (self._folder / "reminders.toml").write_text(text)
        return RemindersFile(self._folder / "reminders.toml").current

    def rows(self) -> list[tuple[str, str]]:
        with self.served.database.read() as connection:
            found = connection.execute(select(push_devices.c.user_id, push_devices.c.endpoint).order_by("user_id"))
            return [(row[0], row[1]) for row in found]


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Generator[World]:
    with signing_in(database, tmp_path, api_tokens_file=tokens_file(tmp_path, all=TOKEN)) as (served, _):
        yield World(served, tmp_path)


def test_a_person_turns_it_on_for_a_device_and_off_with_the_session(world: World) -> None:
    ann, bob = world.browser("ann"), world.browser("bob")
    assert ann.get("/v1/me/push").json() == {"key": world.reminders.push_key and world.reminders.push_key.public}
    first, second = FakeDevice(ENDPOINT).given, FakeDevice(f"{ENDPOINT}/2").given
    for device in (first, first, second):
        assert ann.put("/v1/me/push", json=device, headers=SAME_SITE).status_code == 204
    assert world.rows() == [("ann", f"{ENDPOINT}/2")]
    assert bob.put("/v1/me/push", json=first, headers=SAME_SITE).status_code == 204
    assert bob.delete("/v1/me/push", headers=SAME_SITE).status_code == 204
    assert world.rows() == [("ann", f"{ENDPOINT}/2")]
    assert ann.post("/sign-out", headers=SAME_SITE).status_code == 200
    assert world.rows() == []


def test_only_people_who_signed_in_get_messages_and_from_a_page_of_ours(world: World) -> None:
    program = {"Authorization": f"Bearer {TOKEN}"}
    stranger, device = world.served.browser(), FakeDevice(ENDPOINT).given
    assert stranger.get("/v1/me/push", headers=program).json() == {"key": None}
    assert stranger.put("/v1/me/push", json=device, headers=program).status_code == 403
    assert stranger.put("/v1/me/push", json=device, headers=SAME_SITE).status_code == 401
    ann = world.browser("ann")
    assert ann.put("/v1/me/push", json=device, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    for text in ("", FILE + 'corps = ["theirs"]\n'):
        world.reminders = world.read(text)
        assert ann.get("/v1/me/push").json() == {"key": None}
        assert ann.put("/v1/me/push", json=device, headers=SAME_SITE).status_code == 403
    assert world.rows() == []


def test_what_is_no_subscription_is_refused(world: World) -> None:
    ann = world.browser("ann")
    wrong: list[dict[str, Any]] = [
        {"endpoint": "http://push.example/x"},
        {"endpoint": "http://10.0.0.1/x"},
        {"endpoint": "ftp://push.example/x"},
        {"endpoint": "https://user@push.example/x"},
        {"endpoint": "https://push.example:99999/x"},
        {"endpoint": "https://[/x"},
        {"endpoint": "https:///x"},
        {"endpoint": "https://push.example/\nx"},
        {"endpoint": f"https://push.example/{'x' * 1024}"},
        {"p256dh": "A" * 87},
        {"auth": "QUJD"},
        {"auth": "<b>"},
        {"more": 1},
    ]
    for each in wrong:
        given = FakeDevice(ENDPOINT).given | each
        assert ann.put("/v1/me/push", json=given, headers=SAME_SITE).status_code == 400, each
    assert world.rows() == []


def test_it_is_turned_on_and_off_so_often_in_an_hour(world: World) -> None:
    ann, device = world.browser("ann"), FakeDevice(ENDPOINT).given
    answers = [ann.put("/v1/me/push", json=device, headers=SAME_SITE).status_code for _ in range(61)]
    assert answers == [204] * 60 + [429]
    assert world.browser("bob").put("/v1/me/push", json=device, headers=SAME_SITE).status_code == 204
