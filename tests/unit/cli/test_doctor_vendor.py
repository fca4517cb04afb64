"""The doctor asks a fake DingTalk: each answer is a line that says what to do, also when calls are refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from support.dingtalk import FakeClock, FaultyDingTalk
from support.edge.fakes import SOURCE_SECRET
from support.fake_gateway import FakeGateway, Listed
from support.reconcile import APP_SECRET, MINUTE_MS, NOW, SYSTEM_TOKEN, filed
from taskbridge.cli import doctor_vendor
from taskbridge.cli.doctor_checks import State
from taskbridge.cli.program import app
from taskbridge.dingtalk import organisation, wire, workflow
from taskbridge.local.fake_dingtalk import Company, FakeCluster, served
from taskbridge.reconcile.settings import ReconcileSettings
from taskbridge.runtime.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from taskbridge.cli.doctor_checks import Finding

APPS = """
[[corps]]
corp_id = "ding1"
app_key = "{key}"
app_secret = "{secret}"
user_id = "manager"
{more}
[[apps]]
app_type = "APP_1"
[[apps]]
app_type = "APP_2"
system_token = "{second}"
"""
CALLS_LEFT = (
    "calls: ding1: 17 calls today, 17 this month, by reconcile's count; 233 left today"
    " (RECONCILE_CALLS_PER_DAY=250, RECONCILE_CALLS_PER_MONTH=2500). Only DingTalk's console tells what DingTalk counts"
)
APPROVAL_CALLS = workflow.ListProcesses, workflow.ListProcessInstanceIds, workflow.GetProcessInstance
CORP_TOKEN = 'corp_token = "fake-corp-token"'


class Vendor:
    """The fake, and the files with credentials for it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, FakeClock(NOW)
        self.dingtalk = FaultyDingTalk(
            Company([filed(at=NOW - 60 * MINUTE_MS)]),
            self.clock,
            system_tokens={"APP_1": SYSTEM_TOKEN, "APP_2": "second"},
            app_key="key-1",
            app_secret=APP_SECRET,
        )
        (folder / "credentials.toml").write_text(
            f'[[apps]]\napp_type = "APP_1"\nsystem_tokens = ["{SYSTEM_TOKEN}"]\n'
            '[[apps]]\napp_type = "APP_2"\nsystem_tokens = ["second"]\n'
        )
        self.environment = {
            "RECONCILE_APPS_FILE": str(folder / "apps.toml"),
            "RECONCILE_CREDENTIALS_FILE": str(folder / "credentials.toml"),
            "RECONCILE_DATA_DIR": str(folder / "kept"),
            "RECONCILE_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
            "RECONCILE_SCHEMA_REGISTRY_URL": "http://127.0.0.1:9",
        }
        self.apps()

    def apps(self, *, key: str = "key-1", second: str = "second", more: str = CORP_TOKEN) -> None:
        text = APPS.format(key=key, secret=APP_SECRET, second=second, more=more)
        (self.folder / "apps.toml").write_text(text)

    def findings(self) -> list[Finding]:
        found: list[Finding] = []
        doctor_vendor.examine(self.environment, found.append, clock=self.clock)
        return found

    def of(self, check: str) -> list[Finding]:
        return [each for each in self.findings() if each.check == check]


@pytest.fixture
def vendor(tmp_path: Path) -> Generator[Vendor]:
    found = Vendor(tmp_path)
    with served(found.dingtalk) as url:
        found.environment["RECONCILE_API_URL"] = url
        yield found


def test_each_question_has_an_answer(vendor: Vendor) -> None:
    found = {f"{each.check}: {each.says}" for each in vendor.findings() if each.state is State.OK}
    assert found == {
        "app: APP_1: accepted, 1 form starts a process",
        "app: APP_2: accepted, 0 forms start a process",
        "permissions: ding1: may read forms, instances, open tasks, operation records",
        "edition: ding1: Yida calls the edition EXCLUSIVE",
        "unnamed-apps: ding1: every app has credentials (2 listed)",
        CALLS_LEFT,
    }
    assert {each.state for each in vendor.findings()} == {State.OK}


def test_calls_that_a_cluster_lacks_are_named_with_what_does_not_work(vendor: Vendor) -> None:
    vendor.dingtalk.lacks = FakeCluster.lacks
    vendor.apps(more=f"{CORP_TOKEN}\nyida_url = {vendor.environment['RECONCILE_API_URL']!r}\n")
    vendor.environment["RECONCILE_API_URL"] = "http://127.0.0.1:1"
    found = vendor.findings()
    assert {each.says for each in found if each.check == "offered"} == {
        f"ding1: this DingTalk does not offer {path}: {effect}"
        for path, effect in {
            wire.GetRunningTaskList.path: "open tasks are read one instance at a time",
            wire.GetTaskCopies.path: "lost copies are not found",
            organisation.ListApplication.path: "taskbridge apps sync has no list: enter apps and tokens by hand",
            organisation.GetAgentTasks.path: "agents at Yida are neither shown nor written",
        }.items()
    }
    assert [each.check for each in found if each.state is State.FAILED] == ["access"], "its people are at no address"


def test_nothing_is_changed_at_dingtalk(vendor: Vendor) -> None:
    vendor.findings()
    assert vendor.dingtalk.changes == []


def test_apps_without_credentials_are_named(vendor: Vendor) -> None:
    vendor.dingtalk.organisation.unknown_apps = tuple(f"APP_X{each}" for each in range(7))
    [finding] = vendor.of("unnamed-apps")
    assert finding.state is State.WARNING
    assert "7 of 9 apps have no credentials: APP_X0 (" in finding.says
    assert finding.says.endswith(" and 2 more")
    assert "credentials.toml" in finding.do


def test_without_a_corp_token_the_apps_are_not_listed(vendor: Vendor) -> None:
    vendor.apps(more="")
    [finding] = vendor.of("unnamed-apps")
    assert finding.state is State.WARNING
    assert "corp_token" in finding.do
    assert vendor.dingtalk.calls[organisation.ListApplication.path] == 0


@pytest.mark.parametrize(
    ("path", "check", "state"),
    [
        (wire.GetFormListInApp.path, "app", State.FAILED),
        (wire.GetInstances.path, "permissions", State.FAILED),
        (wire.GetRunningTasks.path, "permissions", State.FAILED),
        (wire.GetOperationRecords.path, "permissions", State.FAILED),
        (organisation.ListApplication.path, "unnamed-apps", State.FAILED),
        (organisation.GetCorpLevelByAccountId.path, "edition", State.WARNING),
    ],
)
def test_a_missing_permission_is_named_and_the_other_questions_are_asked(
    vendor: Vendor, path: str, check: str, state: State
) -> None:
    vendor.dingtalk.faults.denied = {path: "Yida.Some.Read"}
    found = vendor.findings()
    refused = [each for each in found if "Yida.Some.Read" in each.says]
    assert {(each.check, each.state) for each in refused} == {(check, state)}
    assert all("权限管理" in each.do for each in refused)
    assert [each.check for each in found if each.check == "edition"]
    assert found[-1].check == "calls"


def test_a_wrong_system_token_is_of_its_app_alone(vendor: Vendor) -> None:
    vendor.apps(second="wrong-token")
    [first, second] = vendor.of("app")
    assert (first.state, second.state) == (State.OK, State.FAILED)
    assert "system_token" in second.do
    assert "wrong-token" not in second.says


def test_without_an_access_token_nothing_else_is_asked(vendor: Vendor) -> None:
    vendor.apps(key="another")
    found = vendor.findings()
    assert [(each.check, each.state) for each in found] == [("access", State.FAILED), ("calls", State.OK)]
    assert "app_key" in found[0].do
    assert APP_SECRET not in found[0].says


def test_a_dingtalk_that_is_away_is_one_line(vendor: Vendor) -> None:
    vendor.dingtalk.faults.is_down = True
    assert next((each.check, each.do) for each in vendor.findings()) == ("access", "ask again later")


def test_used_up_calls_are_said_and_nothing_is_asked(vendor: Vendor) -> None:
    vendor.environment["RECONCILE_CALLS_PER_DAY"] = "1"
    assert [each.check for each in vendor.findings()] == ["app", "access", "calls"]
    found = vendor.findings()
    assert [each.check for each in found] == ["access", "calls"]
    assert "RECONCILE_CALLS_PER_DAY" in found[0].do
    assert found[1].state is State.WARNING


def test_without_an_instance_the_permissions_are_unknown(vendor: Vendor) -> None:
    vendor.clock.pass_s(40 * 24 * 3600)
    [finding] = vendor.of("permissions")
    assert finding.state is State.WARNING
    assert "start a process" in finding.do


def test_forms_of_the_file_are_proved_by_a_query(vendor: Vendor) -> None:
    (vendor.folder / "apps.toml").write_text((vendor.folder / "apps.toml").read_text("utf-8") + 'forms = ["FORM-9"]\n')
    vendor.dingtalk.faults.denied = {wire.GetInstances.path: "Yida.Process.Read"}
    assert [each.state for each in vendor.of("app")] == [State.OK, State.FAILED]


def test_no_credentials_are_a_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECONCILE_APPS_FILE", raising=False)
    ended = CliRunner().invoke(app, ["doctor", "--vendor", "--json"])
    assert ended.exit_code == 1
    assert json.loads(ended.stdout) == {
        "check": "settings",
        "state": "failed",
        "says": "RECONCILE_APPS_FILE: is required",
        "do": "set RECONCILE_APPS_FILE to the file of apps; docs/how-to/find-what-was-missed.md",
    }


def test_the_command_prints_lines_and_takes_the_credentials_file(vendor: Vendor) -> None:
    environment = {**vendor.environment, "RECONCILE_CREDENTIALS_FILE": ""}
    credentials = str(vendor.folder / "credentials.toml")
    ended = CliRunner().invoke(app, ["doctor", "--vendor", "--credentials", credentials], env=environment)
    assert "ok    app          APP_1: accepted" in ended.stdout
    assert SYSTEM_TOKEN not in ended.stdout
    assert APP_SECRET not in ended.stdout
    assert load_settings(ReconcileSettings, environment).credentials_file is None


async def approvals(gateway: FakeGateway, **more: str) -> list[Finding]:
    found: list[Finding] = []
    async with gateway.serving() as url:
        given = {
            "APPROVALS_APP_KEY": "dingfakekey",
            "APPROVALS_APP_SECRET": "fake-app-secret",
            "APPROVALS_API_URL": url,
        }
        source = {"APPROVALS_SOURCE_SECRET": SOURCE_SECRET, "APPROVALS_EDGE_URL": "http://127.0.0.1:1"}
        await doctor_vendor.about_approvals({**given, **source, **more}, found.append, FakeClock(NOW))
    return found


async def test_the_calls_for_dingtalks_own_approvals_are_made_once_each() -> None:
    gateway = FakeGateway()
    gateway.listed["A-1"] = Listed("PROC-1", NOW - MINUTE_MS, workflow.Approval(status="RUNNING"))
    [finding] = await approvals(gateway)
    says = "the application of APPROVALS_APP_KEY sees 1 process, and lists and reads approvals of PROC-1"
    assert (finding.state, finding.says) == (State.OK, says)
    assert gateway.calls == [each.path for each in APPROVAL_CALLS]
    gateway.listed["A-1"] = gateway.listed["A-1"]._replace(created_ms=NOW - 90 * 86_400_000)
    [finding] = await approvals(gateway)
    assert "the last 30 days have none" in finding.says
    gateway.listed.clear()
    [finding] = await approvals(gateway)
    assert (finding.state, "0 processes" in finding.says) == (State.WARNING, True)


@pytest.mark.parametrize("call", APPROVAL_CALLS)
async def test_a_permission_for_approvals_that_lacks_is_named(call: type[wire.Call]) -> None:
    gateway = FakeGateway()
    gateway.listed["A-1"] = Listed("PROC-1", NOW - MINUTE_MS, workflow.Approval(status="RUNNING"))
    gateway.refuses = {call.path}
    [finding] = await approvals(gateway)
    assert finding.state is State.FAILED
    assert call.path in finding.says
    assert "what the connection loses is not found" in finding.says
    assert "权限管理" in finding.do


async def test_approvals_that_cannot_be_asked_about_are_one_line() -> None:
    [finding] = await approvals(FakeGateway(), APPROVALS_API_URL="http://127.0.0.1:1")
    assert (finding.state, finding.do) == (State.FAILED, "ask again later")
    [finding] = await approvals(FakeGateway(), APPROVALS_EDGE_URL="")
    assert "APPROVALS_EDGE_URL" in finding.says
    assert "fake-app-secret" not in finding.says


def test_of_a_company_with_approvals_alone_nothing_else_is_asked() -> None:
    found: list[Finding] = []
    doctor_vendor.examine({"APPROVALS_APP_KEY": "dingfakekey"}, found.append, clock=FakeClock(NOW))
    assert [each.check for each in found] == ["approvals"]


def test_without_settings_of_approvals_nothing_is_said_of_them(vendor: Vendor) -> None:
    assert vendor.of("approvals") == []
    vendor.environment |= {"APPROVALS_APP_KEY": "dingfakekey", "APPROVALS_APP_SECRET": ""}
    assert [each.state for each in vendor.of("approvals")] == [State.FAILED]
    assert vendor.of("app"), "the other questions are asked all the same"
