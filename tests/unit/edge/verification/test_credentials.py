"""The credentials in force are those of the newest right version of the file, and no token is ever shown."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from support.edge.fakes import APP_TYPE, CORP_ID, write_credentials
from taskbridge.edge.verification.credentials import (
    CredentialsFile,
    Token,
    TokenUse,
    parse_credentials,
    read_use,
    use_folder,
)
from taskbridge.runtime.settings import FileBroken

if TYPE_CHECKING:
    from pathlib import Path

    from support.edge.client import EdgeClient
    from taskbridge.edge.settings import EdgeSettings

SECRET = "s3cret-token"
WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SYSTEM = f'[[sources]]\nname = "flow"\ncorp_id = "c"\nsecrets = ["{WEBHOOK_SECRET}"]\n'
APP = f'[[apps]]\napp_type = "A"\nsystem_tokens = ["{SECRET}"]\n'


def tokens_in_force(file: CredentialsFile) -> list[str]:
    return [token.secret.get_secret_value() for app in file.current.apps(APP_TYPE) for token in app.tokens]


def test_the_documented_file_is_read() -> None:
    credentials = parse_credentials(f"""
[[apps]]
app_type = "APP_RY60OCRF33Z7534"
corp_id = "ding5d17e3add038d445"      # optional; when given, it must match
system_tokens = ["{SECRET}", "previous"]
""")
    (app,) = credentials.apps("APP_RY60OCRF33Z7534")
    assert (app.corp_id, len(app.tokens), credentials.count) == ("ding5d17e3add038d445", 2, 1)
    assert credentials.apps("APP_OTHER") == ()
    assert SECRET not in repr(app)


@pytest.mark.parametrize("text", ["", "apps = []"])
def test_a_file_without_apps_is_right_at_start(text: str) -> None:
    assert parse_credentials(text).count == 0


@pytest.mark.parametrize(
    "text",
    [
        "not toml",
        f'apps = "{SECRET}"',
        f'[[apps]]\nsystem_tokens = ["{SECRET}"]',
        f'[[apps]]\napp_type = " "\nsystem_tokens = ["{SECRET}"]',
        f'[[apps]]\napp_type = "A"\ncorp_id = ""\nsystem_tokens = ["{SECRET}"]',
        '[[apps]]\napp_type = "A"\nsystem_tokens = []',
        f'[[apps]]\napp_type = "A"\nsystem_tokens = ["{SECRET}", ""]',
        f'[[apps]]\napp_type = "A"\nsystem_tokens = ["{SECRET}", " \\t"]',
        f'[[apps]]\napp_type = "A"\nsystem_tokens = "{SECRET}"',
        '[[apps]]\napp_type = "A"\nsystem_tokens = [1]',
        f'{APP}system_token = "{SECRET}"',
        f'app = "{SECRET}"\n{APP}',
        APP + APP,
        f'{APP}corp_id = "c"\n{APP}corp_id = "c"',
        f'{APP}corp_id = "{SECRET}',
        f'[[sources]]\nname = "flow"\ncorp_id = "c"\nsecrets = ["{SECRET}"]',
        '[[sources]]\nname = "flow"\ncorp_id = "c"\nsecrets = []',
        SYSTEM + 'bearer_tokens = ["' + "x" * 31 + '"]',
        '[[sources]]\nname = "flow"\ncorp_id = "c"',
        f'[[sources]]\nname = "flow"\nsecrets = ["{WEBHOOK_SECRET}"]',
        f'[[sources]]\nname = "flow"\ncorp_id = " "\nsecrets = ["{WEBHOOK_SECRET}"]',
        f'[[sources]]\nname = "flow"\ncorp_id = "c"\nsecrets = ["{WEBHOOK_SECRET}", "{SECRET}"]',
        *(
            SYSTEM.replace("flow", name)
            for name in ("", "Flow", "1flow", "fl ow", "fl/ow", "f" * 33, "yida", "taskbridge")
        ),
        f'{SYSTEM}extra = "{SECRET}"',
        SYSTEM + SYSTEM.replace('"c"', '"d"'),
        APP + SYSTEM + SYSTEM.replace("flow", "other").replace('"c"', '"d"'),
    ],
)
def test_a_broken_file_is_refused_in_one_line_without_its_tokens(text: str) -> None:
    with pytest.raises(FileBroken) as caught:
        parse_credentials(text)
    assert SECRET not in str(caught.value)
    assert WEBHOOK_SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_systems_are_in_the_file_of_the_apps_with_secrets_here_or_in_files() -> None:
    files = {"current": WEBHOOK_SECRET, "wrong": SECRET}
    text = APP + SYSTEM.replace("flow", "f-2") + 'secret_files = ["current"]\n'
    credentials = parse_credentials(text, read_token=files.__getitem__)
    source = credentials.source("f-2")
    assert source is not None
    assert (source.corp_id, [each.place for each in source.tokens]) == ("c", ["sources.0.secrets.0", "current"])
    assert (credentials.source("flow"), credentials.source("A"), credentials.count) == (None, None, 2)
    assert [each.app_type for each in credentials.tokens] == ["A", "f-2", "f-2"]
    assert WEBHOOK_SECRET not in repr(source)
    with pytest.raises(FileBroken, match=r"^wrong: must be whsec_"):
        parse_credentials(text.replace('"current"', '"wrong"'), read_token=files.__getitem__)


def test_one_app_may_stand_with_several_organisations() -> None:
    assert len(parse_credentials(f'{APP}corp_id = "c"\n{APP}corp_id = "d"\n{APP}corp_id = "e"').apps("A")) == 3


def test_a_missing_or_broken_file_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "credentials.toml"
    with pytest.raises(FileBroken, match=r"credentials\.toml: No such file"):
        CredentialsFile(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(FileBroken, match=r"credentials\.toml: not UTF-8"):
        CredentialsFile(path)


def test_a_new_version_is_put_in_force_however_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "credentials.toml"
    write_credentials(path, "first")
    file = CredentialsFile(path)
    write_credentials(path, "other")  # replaced by a rename
    file.reload_if_changed()
    assert tokens_in_force(file) == ["other"]
    path.write_text(path.read_text().replace("other", "third"))  # written in place, of the same size
    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns + 1))
    file.reload_if_changed()
    assert tokens_in_force(file) == ["third"]


@pytest.mark.parametrize("broken", [None, "", "apps = []", "not toml", f'[[apps]]\napp_type = "{SECRET}"'])
def test_a_broken_new_version_is_reported_once_and_the_old_one_stays(tmp_path: Path, broken: str | None) -> None:
    path = tmp_path / "credentials.toml"
    write_credentials(path, SECRET)
    file = CredentialsFile(path)
    path.unlink()
    if broken is not None:
        path.write_text(broken)
    with capture_logs() as lines:
        file.reload_if_changed()
        file.reload_if_changed()
    assert [line["event"] for line in lines] == ["credentials_broken"]
    assert SECRET not in repr(lines)
    assert (tokens_in_force(file), file.broken is None) == ([SECRET], False)
    write_credentials(path, "fixed")
    file.reload_if_changed()
    assert (tokens_in_force(file), file.broken) == (["fixed"], None)


ENTRY = f'[[apps]]\napp_type = "{APP_TYPE}"\nsystem_tokens = ["{SECRET}"]\n'
OTHERS = '\n[[apps]]\napp_type = "OTHER"\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (ENTRY + "[[apps\n" + ENTRY, "not TOML: Expected ']]'"),
        (f'[[apps]]\napp_type = "A"\nsystem_tokens = ["{SECRET}"\n\n{ENTRY}', "not TOML: Unclosed array"),
        (f'[[apps]]\napp_type = "A"\nsystem_tokens = ["{SECRET}",\n\n{ENTRY}', "not TOML: Invalid value"),
        (ENTRY + 'corp_id = """\nding1\n', "not TOML: Unterminated string"),
        (ENTRY.replace("\n", "\r\n") + "x = [", "not TOML: Invalid value"),
        (ENTRY + 'app_type = "A"\n', "not TOML: Cannot overwrite a value"),
        (ENTRY + OTHERS + "system_tokens = []", "apps.1.system_tokens: "),
        (ENTRY + OTHERS, "apps.1: "),
        (ENTRY + OTHERS + 'system_token = "x"', "apps.1.system_token: no such key"),
        (
            ENTRY + OTHERS + 'corp_id = "o"\nsystem_tokens = ["x"]\n[[sources]]\nname = "s"\n',
            "sources.0.corp_id: ",
        ),
        (ENTRY.replace("[[apps", "[[app"), "app: no such key"),
        (ENTRY + ENTRY, "apps: an app_type occurs twice"),
        (f'apps = [{{app_type = "A", system_tokens = ["{SECRET}"]}}, {{app_type = "B"}}]', "apps.1: "),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "credentials.toml"
    path.write_text(text, newline="")
    with pytest.raises(FileBroken) as caught:
        CredentialsFile(path)
    assert str(caught.value).startswith(f"credentials file {path}: {problem}")
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_running_edge_keeps_up_with_the_file(client: EdgeClient, settings: EdgeSettings) -> None:
    def status() -> str:
        return client.get("/readyz").json()["credentials"]

    assert status() == "ok"
    settings.credentials_file.write_text("broken")
    deadline = time.monotonic() + 60
    while status() == "ok":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (200, True)
    assert "not in use" in answer.json()["credentials"]
    assert "taskbridge_edge_credentials_broken 1.0" in client.get("/metrics").text
    write_credentials(settings.credentials_file, "new", corp_id=CORP_ID)
    while status() != "ok":
        assert time.monotonic() < deadline
        time.sleep(0.05)


FILES = f'[[apps]]\napp_type = "{APP_TYPE}"\nsystem_token_files = ["one", "secrets/two"]\n'


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "one").write_text("first\n")
    (tmp_path / "secrets" / "two").write_text("second")
    path = tmp_path / "credentials.toml"
    path.write_text(FILES)
    return path


def test_tokens_may_stand_in_files_of_their_own(mounted: Path) -> None:
    mounted.write_text(FILES + 'system_tokens = ["inline"]')
    file = CredentialsFile(mounted)
    assert tokens_in_force(file) == ["inline", "first", "second"]
    assert [token.place for token in file.current.tokens] == ["apps.0.system_tokens.0", "one", "secrets/two"]


@pytest.mark.parametrize(
    ("content", "token"), [("t\n", "t"), ("t\r\n", "t"), ("t", "t"), ("t\n\n", "t\n"), (" t ", " t ")]
)
def test_one_line_end_is_no_part_of_a_token(mounted: Path, content: str, token: str) -> None:
    (mounted.parent / "one").write_bytes(content.encode())
    assert tokens_in_force(CredentialsFile(mounted))[0] == token


@pytest.mark.parametrize("broken", [None, b"", b"\n", b" \n", b"\xff"])
def test_a_broken_token_file_leaves_the_old_tokens_until_it_is_fixed(mounted: Path, broken: bytes | None) -> None:
    file = CredentialsFile(mounted)
    two = mounted.parent / "secrets" / "two"
    two.unlink()
    if broken is not None:
        two.write_bytes(broken)
    with capture_logs() as lines:
        file.reload_if_changed()
        file.reload_if_changed()
    assert len(lines) == 1
    assert tokens_in_force(file) == ["first", "second"]
    assert "token file secrets/two: " in (file.broken or "")
    two.write_text("fixed")
    file.reload_if_changed()
    assert (tokens_in_force(file), file.broken) == (["first", "fixed"], None)
    two.write_text("again")
    file.reload_if_changed()
    assert tokens_in_force(file) == ["first", "again"]


def test_token_files_are_refused_where_none_can_be_read() -> None:
    with pytest.raises(FileBroken, match="system_token_files"):
        parse_credentials(FILES)


def test_a_secret_as_kubernetes_swaps_it_is_noticed(tmp_path: Path) -> None:
    # The files are links into ..data, which is itself a link to a folder of the present version.
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "app1").write_text(f"token-{version}\n")
        (tmp_path / version / "credentials.toml").write_text(
            f'[[apps]]\napp_type = "{APP_TYPE}"\nsystem_token_files = ["app1"]\n'
        )
    (tmp_path / "..data").symlink_to("v1")
    for name in ("app1", "credentials.toml"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    file = CredentialsFile(tmp_path / "credentials.toml")
    assert tokens_in_force(file) == ["token-v1"]
    (tmp_path / "..data_tmp").symlink_to("v2")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    file.reload_if_changed()
    assert tokens_in_force(file) == ["token-v2"]


@pytest.mark.parametrize(
    "line", ["system_token_files = []", 'system_token_files = ["one", " "]', 'system_token_files = ["a\\u0000b"]', ""]
)
def test_an_app_without_tokens_or_with_blank_names_is_broken(mounted: Path, line: str) -> None:
    mounted.write_text(f'[[apps]]\napp_type = "{APP_TYPE}"\n{line}\n')
    with pytest.raises(FileBroken, match=r"apps\.0"):
        CredentialsFile(mounted)


def test_with_several_organisations_every_app_names_its_own(tmp_path: Path) -> None:
    """A token of one would else be good for the apps of all."""
    path = tmp_path / "credentials.toml"
    one = f'{APP}corp_id = "one"\n'
    unsaid = '[[apps]]\napp_type = "B"\nsystem_tokens = ["b"]\n'
    path.write_text(one + unsaid)
    file = CredentialsFile(path)
    other = '[[apps]]\napp_type = "C"\ncorp_id = "other"\nsystem_tokens = ["c"]\n'
    path.write_text(one + unsaid + other)
    file.reload_if_changed()
    assert file.broken is not None
    assert "apps.1: corp_id is required, because the file has apps of several corps" in file.broken
    assert file.current.count == 2
    with pytest.raises(FileBroken):
        CredentialsFile(path)
    path.write_text(one + unsaid + other.replace("other", "one"))
    file.reload_if_changed()
    assert (file.broken, file.current.count) == (None, 3)


ONE, TWO = parse_credentials('[[apps]]\napp_type = "A"\nsystem_tokens = ["s3cret-1", "s3cret-2"]').tokens


def worker(tmp_path: Path, *used: Token) -> None:
    use = TokenUse(tmp_path)
    for each in used:
        use.note(each)
    use.flush()


def test_the_latest_use_by_any_worker_counts(tmp_path: Path) -> None:
    before = time.time()
    late = TokenUse(tmp_path)
    late.note(ONE)
    middle = time.time()
    worker(tmp_path, ONE)
    assert read_use(tmp_path).last[ONE.fingerprint] >= middle
    late.flush()
    use = read_use(tmp_path)
    assert set(use.last) == {ONE.fingerprint}
    assert before <= use.since <= time.time()
    assert middle <= use.last[ONE.fingerprint] == late.last()[ONE.fingerprint]
    worker(tmp_path, ONE)
    assert read_use(tmp_path).last[ONE.fingerprint] > use.last[ONE.fingerprint]


def test_it_outlives_restarts(tmp_path: Path) -> None:
    worker(tmp_path, TWO)
    before = read_use(tmp_path)
    worker(tmp_path, ONE)
    after = read_use(tmp_path)
    assert (after.since, after.last[TWO.fingerprint]) == (before.since, before.last[TWO.fingerprint])
    assert TokenUse(tmp_path).last() == after.last


def test_no_token_is_written_down(tmp_path: Path) -> None:
    worker(tmp_path, ONE, TWO)
    written = [(path.name, path.read_text()) for path in use_folder(tmp_path).iterdir()]
    assert sorted(written) == sorted((name, "") for name in ("since", ONE.fingerprint, TWO.fingerprint))


def test_a_record_that_cannot_be_written_is_reported_once_and_tried_again(tmp_path: Path) -> None:
    use_folder(tmp_path).write_text("in the way")
    use = TokenUse(tmp_path)
    use.note(ONE)
    with capture_logs() as lines:
        use.flush()
        use.flush()
    assert [line["event"] for line in lines] == ["token_use_not_stored"]
    assert ONE.fingerprint in use.last()
    use_folder(tmp_path).unlink()
    use.flush()
    assert ONE.fingerprint in read_use(tmp_path).last
