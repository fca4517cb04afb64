"""The apps file: optional fields, errors, and secrets that are never shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from taskbridge.dingtalk.apps import App, AppsFile
from taskbridge.dingtalk.times import DAY_MS
from taskbridge.edge.verification.credentials import parse_credentials
from taskbridge.runtime.settings import FileBroken

if TYPE_CHECKING:
    from pathlib import Path

CORP = '[[corps]]\ncorp_id = "ding1"\napp_key = "key"\napp_secret = "the-app-secret"\nuser_id = "manager"\n'
APP = '[[apps]]\napp_type = "APP_1"\nsystem_token = "the-system-token"\n'


def read_apps(path: Path, credentials: Path | None = None) -> tuple[App, ...]:
    return AppsFile(path, credentials).current.apps


def written(folder: Path, text: str, name: str = "apps.toml") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def test_an_app_has_the_user_of_its_corp_by_default(tmp_path: Path) -> None:
    other = '[[apps]]\napp_type = "APP_2"\nsystem_token = "t"\nuser_id = "head"\nforms = ["FORM-1"]\nurl = "https://y.example/{instance_id}"\n'
    first, second = read_apps(written(tmp_path, CORP + APP + other))
    assert (first.corp_id, first.app_type, first.user_id, first.forms) == ("ding1", "APP_1", "manager", ())
    assert (first.url_of("I/1"), second.url_of("I/1")) == (None, "https://y.example/I%2F1")
    assert (second.user_id, second.forms) == ("head", ("FORM-1",))
    assert first.corp.env is None
    assert (first.corp.app_secret.get_secret_value(), first.system_token.get_secret_value()) == (
        "the-app-secret",
        "the-system-token",
    )


@pytest.mark.parametrize(
    ("more", "yida", "contact"),
    [
        ("", "", ""),
        ('yida_url = "http://yida.corp.example:8080/"\n', "http://yida.corp.example:8080", ""),
        ('yida_url = "https://y.example"\napi_url = "https://a.example"\n', "https://y.example", "https://a.example"),
        ('api_url = "https://a.example"\n', "https://a.example", "https://a.example"),
    ],
)
def test_calls_of_yida_go_to_the_cluster_of_the_corp(tmp_path: Path, more: str, yida: str, contact: str) -> None:
    [app] = read_apps(written(tmp_path, CORP + more + APP))
    assert app.corp.base_of("/v1.0/yida/forms") == app.corp.base_of("/v2.0/yida/processes/instances") == yida
    assert app.corp.base_of("/v1.0/contact/users/batch/get") == contact


@pytest.mark.parametrize(
    "wrong",
    [
        *('yida_url = "yida.corp.example"', 'yida_auth = "user"', "api_url = 8080"),
        *('yida_url = "http://h:18o80"', 'api_url = "http://h:99999"', 'yida_url = "http://[::1"'),
        *(
            'yida_url = "http://h?x=1"',
            'api_url = "http://h#f"',
            'api_url = "http://me:pw@h"',
            'yida_url = "http://h/a b"',
        ),
        *('yida_url = "https://:80"', 'api_url = "http://h/\\t"'),
    ],
)
def test_a_wrong_address_or_kind_of_token_is_named(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(FileBroken, match=wrong.partition(" ")[0]):
        read_apps(written(tmp_path, f"{CORP}{wrong}\n{APP}"))


def test_secrets_may_be_in_files_and_system_tokens_in_the_credentials_file(tmp_path: Path) -> None:
    written(tmp_path, "from-a-file\n", "secret")
    written(tmp_path, "tokens-file\n", "token")
    edges = written(
        tmp_path,
        '[[apps]]\napp_type = "APP_1"\ncorp_id = "ding2"\nsystem_tokens = ["of-another-corp"]\n'
        '[[apps]]\napp_type = "APP_1"\ncorp_id = "ding1"\nsystem_tokens = ["current", "previous"]\n'
        '[[apps]]\napp_type = "APP_2"\ncorp_id = "ding1"\nsystem_token_files = ["token"]\n'
        '[[sources]]\nname = "flow"\ncorp_id = "ding1"\nsecrets = ["whsec_x"]\n',
        "credentials.toml",
    )
    corp = CORP.replace('app_secret = "the-app-secret"', 'app_secret_file = "secret"')
    text = corp + '[[apps]]\napp_type = "APP_1"\n[[apps]]\napp_type = "APP_2"\n'
    first, second = read_apps(written(tmp_path, text), edges)
    assert first.corp.app_secret.get_secret_value() == "from-a-file"
    assert first.system_token.get_secret_value() == "current"
    assert second.system_token.get_secret_value() == "tokens-file"


def test_a_corp_token_stands_for_the_apps_of_the_credentials_file_unless_some_are_named(tmp_path: Path) -> None:
    entries = [
        f'[[apps]]\napp_type = "APP_{each}"\ncorp_id = "{corp}"\nsystem_tokens = ["token-{each}"]\n'
        for each, corp in ((1, "ding1"), (2, "ding1"), (3, "ding2"))
    ]
    edges = written(tmp_path, "".join(entries[:1]), "credentials.toml")
    path = written(tmp_path, CORP + 'corp_token_file = "corp-token"\n')
    written(tmp_path, "the-corp-token\n", "corp-token")
    file = AppsFile(path, edges)
    [organisation] = file.current.organisations
    assert organisation.corp_token is not None
    assert organisation.corp_token.get_secret_value() == "the-corp-token"
    assert [each.app_type for each in file.current.apps] == ["APP_1"]
    written(tmp_path, "".join(entries), "credentials.toml")
    file.reload_if_changed()
    assert [(each.app_type, each.system_token.get_secret_value()) for each in file.current.apps] == [
        ("APP_1", "token-1"),
        ("APP_2", "token-2"),
    ]
    written(tmp_path, path.read_text() + '[[apps]]\napp_type = "APP_2"\n')
    file.reload_if_changed()
    assert [each.app_type for each in file.current.apps] == ["APP_2"]
    assert "the-corp-token" not in repr(file.current)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (CORP + 'corp_token = " "\n', "corp_token is empty"),
        (CORP + 'corp_token = "t"\ncorp_token_file = "f"\n', "exclude each other"),
        ("corps = [", "not TOML"),
        (CORP, "apps: at least one is required, unless a corp has a corp_token"),
        (CORP + CORP + APP, "a corp_id occurs twice"),
        (CORP + APP + APP, "an app_type occurs twice"),
        (CORP + APP + 'corp_id = "ding2"\n', "corp_id must be the corp_id of one of"),
        (CORP + CORP.replace("ding1", "ding2") + APP, "corp_id must be the corp_id of one of"),
        (CORP + '[[apps]]\napp_type = "APP_1"\n', "system_token is required"),
        (CORP + APP.replace("the-system-token", " "), "system_token is required"),
        (CORP.replace("the-app-secret", " ") + APP, "app_secret is empty"),
        (CORP + 'app_secret_file = "secret"\n' + APP, "exactly one of"),
        (CORP.replace('app_secret = "the-app-secret"', 'app_secret_file = "absent"') + APP, "absent: No such file"),
        (CORP + APP + 'url = "https://y.example"\n', "apps.0.url"),
        (CORP + 'env = "abroad"\n' + APP, "corps.0.env"),
        (CORP + APP + 'typo = "the-other-secret"\n', "typo"),
    ],
)
def test_an_error_is_one_line_without_secrets(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(FileBroken, match=problem) as raised:
        read_apps(written(tmp_path, text))
    shown = repr(raised.value)
    assert "\n" not in str(raised.value)
    assert [each for each in ("the-app-secret", "the-system-token", "the-other-secret") if each in shown] == []


def test_forms_without_a_process_and_protected_fields_are_of_their_app(tmp_path: Path) -> None:
    text = CORP + APP + 'ordinary_forms = ["FORM-9"]\nomit_fields = ["id_*", "明细.电话"]\nhash_fields = ["姓名"]\n'
    [app] = read_apps(written(tmp_path, text))
    assert (app.ordinary_forms, app.omit_fields, app.hash_fields) == (("FORM-9",), ("id_*", "明细.电话"), ("姓名",))


def test_the_first_pattern_says_how_long_the_values_of_a_form_are_kept(tmp_path: Path) -> None:
    text = CORP + APP + 'keep_days = { "FORM-1*" = 2, "*" = 30 }\n'
    [app] = read_apps(written(tmp_path, text))
    assert [app.kept_since(each, now_ms=40 * DAY_MS) // DAY_MS for each in ("FORM-12", "FORM-9")] == [38, 10]
    [app] = read_apps(written(tmp_path, CORP + APP))
    assert app.kept_since("FORM-1", now_ms=40 * DAY_MS) == 0
    for days in (0, 36_501):
        with pytest.raises(FileBroken, match="keep_days"):
            read_apps(written(tmp_path, f'{CORP}{APP}keep_days = {{ "*" = {days} }}\n'))


def test_an_app_shows_no_secret(tmp_path: Path) -> None:
    shown = repr(read_apps(written(tmp_path, CORP + APP)))
    assert "APP_1" in shown
    assert [each for each in ("the-app-secret", "the-system-token") if each in shown] == []


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ('system_token = "the-system-token"', "apps.0.system_token: no such key"),
        ('system_tokens = [" ", "the-system-token"]', "apps.0.system_tokens: .* no empty token"),
        ("", "apps.0: .*is required"),
    ],
)
def test_an_error_in_the_credentials_file_names_it_with_the_text_of_the_edge(
    tmp_path: Path, wrong: str, problem: str
) -> None:
    text = f'[[apps]]\napp_type = "APP_1"\n{wrong}\n'
    with pytest.raises(FileBroken, match=problem) as raised:
        read_apps(
            written(tmp_path, CORP + '[[apps]]\napp_type = "APP_1"\n'), written(tmp_path, text, "credentials.toml")
        )
    assert "credentials file" in str(raised.value)
    assert "the-system-token" not in repr(raised.value)
    with pytest.raises(FileBroken, match=problem):
        parse_credentials(text)
