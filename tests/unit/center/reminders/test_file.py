"""The reminders file: the documented example is read, and a wrong one is refused in words without a secret."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.sign_in import settings_of
from taskbridge.center.app import Center
from taskbridge.center.reminders.file import Email, Push, Reminders, RemindersFile, Robot, Webhook, Work
from taskbridge.center.reminders.web_push import new_key
from taskbridge.center.reminders.working_time import HOUR_MS
from taskbridge.runtime.settings import FileBroken

if TYPE_CHECKING:
    from taskbridge.runtime.database import Database

DOCUMENT = Path(__file__).parents[4] / "docs/how-to/remind-people.md"
SECRET = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldY"


def read(folder: Path, text: str) -> Reminders:
    path = folder / "reminders.toml"
    path.write_text(text)
    return RemindersFile(path).current


def test_the_documented_example_is_read(tmp_path: Path) -> None:
    for name, text in (("smtp-password", "s3cret\n"), ("robot-url", "https://x"), ("robot-secret", "SEC1")):
        (tmp_path / name).write_text(text)
    (tmp_path / "webhook-secret").write_text(SECRET)
    (tmp_path / "push-key.pem").write_text(new_key())
    example = DOCUMENT.read_text().partition("```toml\n")[2].partition("```")[0]
    found = read(tmp_path, example)
    assert found.count == 3
    assert {name: type(each) for name, each in found.channels.items()} == {
        "email": Email,
        "finance": Robot,
        "portal": Webhook,
        "push": Push,
        "work_notifications": Work,
    }
    email = found.channels["email"]
    assert isinstance(email, Email)
    assert email.password is not None
    assert email.password.get_secret_value() == "s3cret"
    assert found.apps_of(("ding5d17e3add038d445", "manager02")) == ["APP_RY60OCRF33Z7534"]
    assert found.digest_at == 9 * 60


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[rules]]\nprocess = 'x'\nhours = 1", "process requires app_type"),
        ("[[rules]]\nhours = 1\n[[rules]]\nhours = 2", "occur twice"),
        ("[[rules]]\nhours = 0", "greater than 0"),
        ("[[rules]]\nhours = 1\nunknown = 1", "unknown"),
        ("[calendar]\ntime_zone = '../etc'", "time zone of the IANA database"),
        ("[calendar]\nhours = ['18:00-09:00']", "in order"),
        ("[calendar]\nhours = ['09:00-12:00', '11:00-18:00']", "in order"),
        ("[calendar]\nhours = ['9-18']", "time of day"),
        ("[calendar]\nhours = ['09:00-24:30']", "time of day"),
        ("[calendar]\ndays = []", "at least 1"),
        ("[calendar]\nholidays = ['2026-10-07/2026-10-01']", "ends before"),
        ("[calendar]\nholidays = ['2026-10-01/9999-12-31']", "more than"),
        ("[calendar]\nholidays = ['soon']", "holidays.0"),
        ("[owners]\nAPP = ['ann']", "corp/user"),
        ("quiet_hours = '20:00-08:00'\n[digest]\nat = '07:00'", "within quiet_hours"),
        ("[email]\nhost = 'h'\nsender = 'a@b'\nuser = 'u'", "required together"),
        ("[email]\nhost='h'\nsender='a@b'\nsecurity='none'\nuser='u'\npassword='s3cret'", "requires security"),
        ("[email]\nhost='h'\nsender='a@b'\nuser='u'\npassword='file:none'", "email.password: No such file"),
        ("[email]\nhost='h'\nsender='a@b c'", "email.sender"),
        ("[[robots]]\nname='r'\nurl='s3cret'\ncorps=['c']", "must be https"),
        ("[[webhooks]]\nname='w'\nurl='https://x'\nsecret='s3cret'\ncorps=['c']", "webhooks.0.secret: must be whsec_"),
        (
            "[[robots]]\nname='email'\nurl='https://x'\ncorps=['c']\n[email]\nhost='h'\nsender='a@b'",
            "of another channel",
        ),
        (
            "[[robots]]\nname='push'\nurl='https://x'\ncorps=['c']\n[push]\nkey='k'\nsubject='https://x'",
            "another channel",
        ),
        ("[push]\nkey='s3cret'\nsubject='mailto:it@x.example'", "push.key: must be what 'taskbridge token push' made"),
        ("[push]\nkey='s3cret'\nsubject='it@x.example'", "push.subject"),
        ("[push]\nkey='s3cret'\nsubject='https://x'\nallowed_networks=['10.0.0.1/8']", "push.allowed_networks.0"),
        ("[work_notifications]\ncorps=[]", "work_notifications.corps"),
    ],
)
def test_a_wrong_file_is_refused_without_its_secrets(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(FileBroken, match="reminders file") as refused:
        read(tmp_path, text)
    assert problem in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_quiet_hours_last_over_midnight(tmp_path: Path) -> None:
    found = read(tmp_path, "quiet_hours = '20:00-08:00'\n[calendar]\ntime_zone = 'UTC'")
    assert [found.is_quiet(hour * HOUR_MS) for hour in (7, 8, 19, 20, 23, 0)] == [True, False, False, True, True, True]
    assert not read(tmp_path, "").is_quiet(0)


def test_a_broken_new_version_is_reported_and_the_old_one_stays(sqlite_database: Database, tmp_path: Path) -> None:
    path = tmp_path / "reminders.toml"
    path.write_text("[[rules]]\nhours = 8")
    center = Center(settings_of(reminders_file=str(path), data_dir=str(tmp_path)), sqlite_database)
    file = center.reminders_file
    assert file is not None

    def seen() -> tuple[int, float | None, list[Any]]:
        file.reload_if_changed()
        usable = center.metrics.registry.get_sample_value("taskbridge_center_reminders_file_usable")
        problems = [each for each in asyncio.run(center.readiness())["problems"] if "reminders file" in each]
        return file.current.count, usable, problems

    assert seen() == (1, 1, [])
    path.write_text("[[rules]]\nhours = 8\n[[rules]]\nhours = 9")
    os.utime(path, ns=(1, 1))
    count, usable, problems = seen()
    assert (count, usable, len(problems)) == (1, 0, 1)
    path.write_text("[[rules]]\nhours = 8\n[[rules]]\napp_type = 'A'\nhours = 9")
    assert seen() == (2, 1, [])
