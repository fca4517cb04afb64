"""The endpoints file: what it may contain, and which notifications an endpoint gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from taskbridge.runtime.settings import FileBroken
from taskbridge.schemas.events import Change, View
from taskbridge.webhooks.endpoints import EndpointsFile
from taskbridge.webhooks.operations import example
from unit.webhooks.receivers import SECRET, endpoint_of

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://erp.example/hooks/tasks"
HEAD = f'[[endpoints]]\nname = "erp"\nurl = "{URL}"\ncorps = ["corp"]\nsecrets = ["{SECRET}"]\n'

BROKEN = {
    "no secrets": (HEAD.replace(f'secrets = ["{SECRET}"]', ""), "secrets is required"),
    "weak secret": (HEAD.replace(SECRET, "whsec_c2hvcnQ="), r"endpoints\.0\.secrets: must be whsec_"),
    "no corps": (HEAD.replace('corps = ["corp"]', ""), "corps: Field required"),
    "empty corps": (HEAD.replace('["corp"]', "[]"), "corps"),
    "twice": (HEAD * 2, r"endpoints\.1\.name: occurs twice"),
    "unknown key": (HEAD + "retries = 3\n", "retries"),
    "unknown view": (HEAD + 'views = ["INBOX"]\n', "views"),
    "no web address": (HEAD.replace(URL, "ftp://erp.example"), "must be https"),
    "password in the address": (HEAD.replace(URL, "https://a:b@erp.example"), "without user, password"),
    "name": (HEAD.replace('"erp"', '"ERP Prod"'), "name"),
    "environment": (HEAD.replace(SECRET, "env:MISSING"), "MISSING is not in the environment"),
    "file": (HEAD.replace(SECRET, "file:missing"), "No such file"),
    "certificates": (HEAD + 'ca_file = "missing.pem"\n', "ca_file"),
    "options": (HEAD + "options = {a = 1}\n", "options: this format has none"),
    "template": (HEAD + 'format = "template"\noptions = {template = "{{ nothing }}"}\n', "template"),
    "template is no JSON": (HEAD + 'format = "template"\noptions = {template = "{{ title }}"}\n', "not JSON"),
    "template reaches out": (
        HEAD + 'format = "template"\noptions = {template = "{{ \'\'.__class__.__mro__ }}"}\n',
        "template",
    ),
    **{
        f"template raises {error}": (
            HEAD + f'format = "template"\noptions = {{template = """{template}"""}}\n',
            rf"endpoints\.0\.options: template.*{error}",
        )
        for error, template in {
            "KeyError": "{{ '{x}'.format() }}",
            "IndexError": "{{ '{0}'.format() }}",
            "RecursionError": "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
            "recursion": "{{ " + "(" * 300 + "1" + ")" * 300 + " }}",
        }.items()
    },
    "to-do without system": (HEAD + 'format = "flat-todo"\n', "options: system: Field required"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_in_words(tmp_path: Path, name: str) -> None:
    text, problem = BROKEN[name]
    (tmp_path / "endpoints.toml").write_text(text)

    with pytest.raises(FileBroken, match=problem) as caught:
        EndpointsFile(tmp_path / "endpoints.toml", {})

    assert SECRET not in str(caught.value)


def test_a_broken_change_leaves_the_old_version_in_use(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.toml"
    path.write_text(HEAD)
    file = EndpointsFile(path, {})

    path.write_text(HEAD + "retries = 3")
    file.reload_if_changed()

    assert file.current.by_name.keys() == {"erp"}
    assert file.problem is not None
    assert "retries" in file.problem


def test_secrets_come_from_files_and_the_environment(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    path = tmp_path / "endpoints.toml"
    path.write_text(HEAD.replace(f'"{SECRET}"', '"file:secret", "env:HOOK"'))

    [endpoint] = EndpointsFile(path, {"HOOK": SECRET}).current.by_name.values()

    assert len(set(endpoint.keys)) == 1
    assert len(endpoint.keys) == 2
    assert "keys" not in repr(endpoint)


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ('corps = ["corp"]', {"corp_id": "other"}),
        ('views = ["PENDING"]', {"view": View.HANDLED}),
        ('views = ["pending"]', {"view": View.HANDLED}),
        ('changes = ["ADDED"]', {"change": Change.REMOVED}),
        ('changes = ["added", "Updated"]', {"change": Change.REMOVED}),
        ('apps = ["APP"]', {"app_type": "OTHER"}),
        ('sources = ["yida"]', {"source": "other"}),
        ('people = ["ann"]', {"recipient_id": "bob"}),
    ],
)
def test_each_filter_excludes(tmp_path: Path, line: str, changes: dict[str, object]) -> None:
    endpoint = endpoint_of(tmp_path, URL, *([] if line.startswith("corps") else [line]))
    notification = replace(example(endpoint), app_type="APP", recipient_id="ann")

    assert endpoint.wants(notification)
    assert not endpoint.wants(replace(notification, **changes))


def test_endpoints_with_the_same_certificates_share_what_is_loaded_of_them(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.toml"
    path.write_text(HEAD + HEAD.replace("erp", "other", 1))
    file = EndpointsFile(path, {})
    first, second = file.current.by_name.values()
    path.write_text(HEAD)
    file.reload_if_changed()

    assert first.tls is second.tls
    assert file.current.by_name["erp"].tls is first.tls
