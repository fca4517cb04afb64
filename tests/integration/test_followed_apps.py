"""A new app, a renewed token, and a renamed field and person reach a running edge and the topics without a restart."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from support import http_clients
from support.dingtalk import FakeClock
from support.edge.process import RunningEdge
from support.kafka.records import quarantined
from taskbridge.cli.quarantine import replay_apps
from taskbridge.dingtalk.organisation import User
from taskbridge.edge.sender import encode_callback, signed
from taskbridge.local.fake_dingtalk import Company, FakeDingTalk, served
from taskbridge.reconcile.app import Service
from taskbridge.reconcile.assembly import open_calls, open_data, open_reconciler
from taskbridge.reconcile.settings import ReconcileSettings
from taskbridge.schemas.codec import form_codec, person_codec, task_event_codec
from taskbridge.schemas.events import form_key, notification_key
from taskbridge.schemas.topics import FORMS, PEOPLE, TASK_EVENTS
from taskbridge.streams.fold.instance import fold

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine
    from pathlib import Path

    from confluent_kafka import Message

    from taskbridge.cli.connection import Connection
    from taskbridge.reconcile.assembly import LocalData

pytestmark = pytest.mark.integration

CORP, FIRST, APP, FORM = "ding-followed", "APP_FIRST", "APP_FOLLOWED", "FORM-FOLLOWED"
DAY_S = 86_400


class Followed:
    """A running edge, a fake DingTalk, and the service of reconcile in the test's process, with a clock of its own."""

    def __init__(self, folder: Path, connection: Connection, read_topic: Callable[[str], list[Message]]) -> None:
        self._folder, self._connection, self._read = folder, connection, read_topic
        servers, registry = connection.bootstrap_servers, connection.registry_url
        own = {"EDGE_KAFKA_TIMEOUT_MS": "20000", "EDGE_LOG_LEVEL": "INFO"}
        self.edge = RunningEdge(folder, bootstrap_servers=servers, registry_url=registry, **own)
        self.edge.credentials.write_text(
            f'# by hand\n[[apps]]\napp_type = "{FIRST}"\ncorp_id = "{CORP}"\nsystem_tokens = ["first"]\n'
        )
        self.edge.credentials.chmod(0o600)
        # Behind the edge's clock, so that every callback comes after the names were read.
        self.clock = FakeClock(time.time_ns() // 1_000_000 - 2 * 3_600_000)
        self.dingtalk = FakeDingTalk(Company(), self.clock, system_tokens={FIRST: "first"})

    @asynccontextmanager
    async def service(self) -> AsyncGenerator[tuple[Callable[[], Coroutine[Any, Any, None]], ...]]:
        """What it does every hour, and every minute between passes."""
        apps = self._folder / "apps.toml"
        apps.write_text(
            f'[[corps]]\ncorp_id = "{CORP}"\napp_key = "dingfakekey"\napp_secret = "fake-app-secret"\n'
            'user_id = "manager"\ncorp_token = "fake-corp-token"\n'
        )
        with served(self.dingtalk.app) as url:
            settings = ReconcileSettings(
                kafka_bootstrap_servers=self._connection.bootstrap_servers,
                schema_registry_url=self._connection.registry_url,
                apps_file=apps,
                credentials_file=self.edge.credentials,
                data_dir=self._folder / "reconcile",
                api_url=url,
            )
            with open_data(settings, self.clock) as data:
                service = Service(settings, data, self._replay)
                async with open_calls(settings, data) as calls, open_reconciler(settings, data) as reconciler:
                    # The workers' part: that states are caught up with is shown elsewhere.
                    context = replace(reconciler.context, catch_up=partial(self._fold_events, data))
                    followed = replace(reconciler, context=context)
                    yield partial(service.sync_apps, calls), partial(service.read_names, followed)

    def send(self, token: str, instance_id: str) -> int:
        now_ms = time.time_ns() // 1_000_000
        task = {
            "appType": APP,
            "corpId": CORP,
            "formInstanceId": instance_id,
            "formUuid": FORM,
            "originatorId": "u-wang",
            "createTime": now_ms,
        }
        encoded = encode_callback(
            signed({"task": json.dumps(task), "dateTime": str(now_ms)}, system_token=token), "json"
        )
        return self.edge.post("/yida/tasks/create", encoded).status_code

    def is_ready(self) -> bool:
        with contextlib.suppress(httpx2.HTTPError):
            return http_clients.get(f"{self.edge.url}/readyz").status_code == 200
        return False

    def rejected(self, instance_id: str) -> bool:
        """Whether the callback of this instance is in the quarantine."""
        return any(instance_id.encode() in each.body for each in quarantined(self._connection, self._read))

    def events(self, instance_id: str) -> int:
        return sum(each.key() == instance_id.encode() for each in self._read(TASK_EVENTS.name))

    def label(self) -> str | None:
        records = [each for each in self._read(FORMS.name) if each.key() == form_key(CORP, FORM)]
        return form_codec(self._connection.registry).decode(records[-1].value()).labels["text_1"] if records else None

    def name(self) -> str | None:
        records = [each for each in self._read(PEOPLE.name) if each.key() == notification_key(CORP, "u-wang")]
        return person_codec(self._connection.registry).decode(records[-1].value()).name if records else None

    def _replay(self, app_types: Any) -> int:
        return replay_apps(self._connection, self.edge.credentials, self.edge.data_dir, app_types)

    async def _fold_events(self, data: LocalData) -> None:
        codec, instances = task_event_codec(self._connection.registry), dict[str, Any]()
        for each in self._read(TASK_EVENTS.name):
            if CORP.encode() in (each.value() or b""):
                event = codec.decode(each.value())
                instances[event.instance_id] = fold(instances.get(event.instance_id), event)
        for instance in instances.values():
            data.store.states.store(instance.state)


def test_a_running_edge_follows_a_new_app_a_renewed_token_and_new_names(
    tmp_path: Path, connection: Connection, read_topic: Callable[[str], list[Message]], eventually: Any
) -> None:
    found = Followed(tmp_path, connection, read_topic)
    before, later, last = (f"followed-{uuid.uuid4()}" for _ in range(3))

    async def follow() -> None:
        async with found.service() as (sync_apps, read_names):
            assert found.send("one", before) == 401
            await asyncio.to_thread(eventually, lambda: found.rejected(before), what="the callback is in quarantine")
            await sync_apps()
            assert found.events(before) == 0, "DingTalk does not list the app yet"

            found.dingtalk.system_tokens[APP] = "one"
            await sync_apps()
            assert found.events(before) == 1, "the rejected callback is replayed"
            accepted = partial(found.send, "one", later)
            await asyncio.to_thread(eventually, lambda: accepted() == 200, what="the edge accepts the new app")

            found.dingtalk.organisation.labels[FORM] = {"text_1": "金额"}
            found.dingtalk.organisation.people["u-wang"] = User("u-wang", "王芳")
            await read_names()
            assert (found.label(), found.name()) == ("金额", "王芳")

            found.dingtalk.system_tokens[APP] = "two"
            found.clock.pass_s(3600)
            await sync_apps()
            accepted = partial(found.send, "two", last)
            await asyncio.to_thread(eventually, lambda: accepted() == 200, what="the edge accepts the renewed token")
            assert found.send("one", f"{last}-old") == 200, "it accepts the old one for a day"

            found.dingtalk.organisation.labels[FORM] = {"text_1": "总金额"}
            found.dingtalk.organisation.people["u-wang"] = User("u-wang", "王芳华")
            found.clock.pass_s(DAY_S)
            await read_names()
            assert (found.label(), found.name()) == ("总金额", "王芳华")
            await sync_apps()
            refused = partial(found.send, "one", f"{last}-older")
            await asyncio.to_thread(eventually, lambda: refused() == 401, what="the edge refuses the old token")
            assert found.send("two", f"{last}-new") == 200

    found.edge.start()
    try:
        eventually(found.is_ready, what="the edge is ready")
        asyncio.run(follow())
        assert sum(each["event"] == "edge_started" for each in found.edge.log()) == 1
        shown = found.edge.log_path.read_text("utf-8")
        assert not [each for each in ('"one"', '"two"', "fake-corp-token") if each in shown]
    finally:
        found.edge.stop()
    text = found.edge.credentials.read_text("utf-8")
    assert text.startswith("# by hand\n[[apps]]\n")
    assert found.edge.credentials.stat().st_mode & 0o777 == 0o600
