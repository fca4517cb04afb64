"""The credentials file is edited app by app: all else stays byte for byte, and a failure leaves the old file."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from taskbridge.reconcile.credentials_file import CredentialsText, NewEntry
from taskbridge.runtime.settings import FileBroken
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """\
# Our senders
[[apps]]
app_type = "APP_1"   # purchasing
system_tokens = [
  "one",  # until May
  "two",
]

# the engine
[[sources]]
name = "flowable"
corp_id = "ding1"
secrets = ["whsec_x"]

[[apps]]
app_type = "APP_2"
corp_id = "ding1"
system_token_files = ["token-2"]
# the end
"""
NEW = NewEntry("APP_3", "ding1", 'a "token"', "采购\n[[apps]]")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "credentials.toml"
    path.write_text(TEXT, "utf-8")
    path.chmod(0o600)
    return path


def test_only_the_tokens_of_the_app_change(path: Path) -> None:
    text = CredentialsText(path).edited({0: ["three", "one"]}, [])
    assert text == TEXT.replace('  "one",  # until May\n  "two",\n', '  "three",\n  "one",  # until May\n')


def test_tokens_are_added_next_to_those_in_files(path: Path) -> None:
    text = CredentialsText(path).edited({1: ["three"]}, [])
    assert [each for each in text.splitlines() if each not in TEXT] == ['system_tokens = ["three"]']


def test_new_apps_come_at_the_end_and_names_cannot_break_out_of_their_comment(path: Path) -> None:
    text = CredentialsText(path).edited({}, [NEW])
    assert text == TEXT + (
        '\n[[apps]]  # 采购[[apps]]\napp_type = "APP_3"\ncorp_id = "ding1"\nsystem_tokens = ["a \\"token\\""]\n'
    )


A = '[[apps]]\napp_type = "A"\nsystem_tokens = ["t"]\n'
OF_ANOTHER_CORP = 'name = "x"\ncorp_id = "ding2"\nsecrets = ["t"]\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[apps", "not TOML"),
        ('apps = [{app_type = "A", system_tokens = ["t"]}]', r"write each app as \[\[apps\]\]"),
        (A.replace('"t"', '"""\n[[apps]]\n"""'), r"write each app as \[\[apps\]\]"),
        (A + A, "an app_type occurs twice"),
        (A + "[[sources]]\n" + OF_ANOTHER_CORP, "corp_id is required"),
        (A, "it would be invalid: apps.0: corp_id is required"),
    ],
)
def test_a_file_that_cannot_be_edited_safely_is_an_error_without_secrets(path: Path, text: str, problem: str) -> None:
    path.write_text(text, "utf-8")
    with pytest.raises(FileBroken, match=problem) as raised:
        CredentialsText(path).edited({}, [NEW, NEW._replace(corp_id="ding2")])
    assert '"t"' not in str(raised.value)
    assert "token" not in str(raised.value).replace("tokens can be changed", "")
    assert path.read_text("utf-8") == text


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_the_file_is_replaced_whole_and_keeps_its_mode(path: Path, mode: int) -> None:
    path.chmod(mode)
    before = path.stat().st_ino
    CredentialsText(path).replace("# new\n")
    assert path.read_text() == "# new\n"
    assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_ino == before) == (mode, False)
    assert [*path.parent.iterdir()] == [path]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to any group")
def test_the_group_stays_in_a_folder_that_gives_its_own_to_new_files(path: Path) -> None:
    os.chown(path.parent, -1, 12_345)
    path.parent.chmod(0o2775)
    CredentialsText(path).replace("# new\n")
    assert (path.stat().st_gid, path.stat().st_uid) == (os.getegid(), os.geteuid())


def test_a_change_by_somebody_else_is_not_overwritten(path: Path) -> None:
    file = CredentialsText(path)
    path.write_text("# mine\n")
    with pytest.raises(OperatorError, match="changed meanwhile"):
        file.replace("# new\n")
    assert (path.read_text(), [*path.parent.iterdir()]) == ("# mine\n", [path])


@pytest.mark.parametrize("function", ["fsync", "fchmod", "replace"])
def test_after_a_failure_the_old_file_stays(path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OperatorError, match="No space left on device; the old file stays"):
        CredentialsText(path).replace("# new\n")
    monkeypatch.undo()
    assert (path.read_text("utf-8"), [*path.parent.iterdir()]) == (TEXT, [path])
