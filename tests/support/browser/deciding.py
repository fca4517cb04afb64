"""People who decide tasks on a running bridge, and its DingTalk, whose callbacks come on request."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from typer.testing import CliRunner

from support.browser.company import Task
from support.browser.fake_task_center import TOKEN
from support.dingtalk import FaultyDingTalk
from support.edge.process import wait_until
from support.identity_provider import certified_provider, oidc_settings
from support.reconcile import assigned, happened
from taskbridge.cli.program import app
from taskbridge.dingtalk import wire
from taskbridge.local.company import CORP
from taskbridge.local.demo import APP
from taskbridge.local.fake_dingtalk import Company as FakeCompany
from taskbridge.local.fake_dingtalk import served
from taskbridge.local.host import free_ports
from taskbridge.runtime.clock import SystemClock
from taskbridge.runtime.tokens import digest_of
from taskbridge.schemas.events import Action, Person

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from support.browser.company import Company
    from taskbridge.schemas.events import TaskEvent

WANG, LI, HAN = "wang", "li", "han"
OPERATOR = "ops"
APPS = f"""
[[corps]]
corp_id = "{CORP}"
app_key = "key"
app_secret = "secret"
user_id = "manager"
corp_token = "fake-corp-token"

[[apps]]
app_type = "{APP}"
"""


class Deciding:
    """What people decided is at its ``dingtalk``."""

    company: Company
    """Set by ``works_for``."""

    def __init__(self) -> None:
        self._changes: list[TaskEvent] = []
        self.dingtalk = FaultyDingTalk(
            FakeCompany(),
            SystemClock(),
            system_tokens={},
            app_key="key",
            app_secret="secret",
            on_change=self._changes.append,
        )
        self._server = ExitStack()
        self.url = self._server.enter_context(served(self.dingtalk))

    def works_for(self, company: Company, people: Path) -> None:
        """Import its people, by a file at this path."""
        self.company = company
        self.dingtalk.system_tokens[APP] = company.token
        import_people(company, people)

    def close(self) -> None:
        self._server.close()

    @contextmanager
    def away(self) -> Generator[None]:
        """During the block nobody can connect to DingTalk."""
        self._server.close()
        yield
        self._server.enter_context(served(self.dingtalk, port=int(self.url.rpartition(":")[2])))

    @contextmanager
    def slow(self) -> Generator[None]:
        """During the block DingTalk answers no change, and carries none out."""
        faults = self.dingtalk.faults
        faults.held, faults.waiting = threading.Event(), 0
        try:
            yield
        finally:
            faults.held.set()
            faults.held = None

    def held(self, count: int) -> None:
        """Return once so many changes wait for their answer."""
        wait_until(lambda: self.dingtalk.faults.waiting == count)

    def create(self, title: str, assignee: str, *, by: str = "u-zhang", **form: str) -> Task:
        """``form``: its values, at DingTalk and in the callback."""
        task = self.company.create(title, assignee, originatorId=by, dataMap=form)
        ids: dict[str, Any] = {
            "instance_id": task.instance_id,
            "app_type": APP,
            "corp_id": CORP,
            "originator": Person(by),
        }
        self.dingtalk.company.happened(assigned(task.task_id, assignee, at=1, form_data=form, **ids))
        return task

    def decided_elsewhere(self, task: Task) -> None:
        """A second ago: its callback has not come yet."""
        event = happened(Action.COMPLETED, 2, instance_id=task.instance_id, task_id=task.task_id, actor_id="x")
        self.dingtalk.company.happened(event)

    def confirm(self) -> None:
        """Yida's callbacks of what was carried out."""
        while self._changes:
            event = self._changes.pop(0)
            assert event.task_id is not None
            if event.action is Action.CREATED:
                # The person who got it has a task of their own.
                its = {"formInstanceId": event.instance_id, "taskId": event.task_id, "createTime": event.occurred_at}
                self.company.create("转交的申请", event.recipient_ids[0], **its)
                continue
            self.company.complete(Task("", event.instance_id, event.task_id), event.actor_id or "")

    def sent(self, count: int) -> list[tuple[str, str, str]]:
        """Who decided what with which remark, once there are so many."""
        wait_until(lambda: len(self.dingtalk.changes) >= count)
        decisions = [each for each in self.dingtalk.changes if isinstance(each, wire.ExecuteTask)]
        return [(each.user_id, each.out_result, each.remark) for each in decisions]


def import_people(company: Company, file: Path) -> None:
    file.write_text(f"user_id,name\n{WANG},王伟\n{LI},李雷\n{HAN},韩梅\n{OPERATOR},运维\n")
    where = ["--bootstrap-servers", company.connection.bootstrap_servers]
    where += ["--registry-url", company.connection.registry_url]
    arguments = ["people", "import", str(file), "--corp", CORP, *where]
    # In a thread: the one of the browser has an event loop.
    with ThreadPoolExecutor(1) as threads:
        imported = threads.submit(CliRunner().invoke, app, arguments).result()
    assert imported.exit_code == 0, imported.output


@contextmanager
def deciding(folder: Path) -> Generator[tuple[Deciding, dict[str, str]]]:
    """DingTalk and a certified provider of identities during the block, and the settings of a task center for them.

    ``TOKEN`` may read all lists.
    """
    center, provider = free_ports(2)
    (folder / "apps.toml").write_text(APPS)
    (folder / "tokens.toml").write_text(f'[[tokens]]\nname = "all"\nsha256 = "{digest_of(TOKEN)}"\ncorps = ["*"]\n')
    found, url = Deciding(), f"http://127.0.0.1:{center}"
    settings = oidc_settings(provider, folder / "secret", CORP)
    settings |= {"CENTER_PORT": str(center), "CENTER_PUBLIC_URL": url, "CENTER_APPS_FILE": str(folder / "apps.toml")}
    settings["CENTER_OPERATORS"] = f"{CORP}/{OPERATOR}"
    settings |= {"CENTER_DINGTALK_API_URL": found.url, "CENTER_API_TOKENS_FILE": str(folder / "tokens.toml")}
    with certified_provider(provider, url):
        yield found, settings
    found.close()
