"""What was imported of people and forms, through a worker: who signs in, how people and fields are called."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from support import http_clients
from support.streams.lives import lives, produce
from support.streams.processes import Worker
from taskbridge.cli.program import app
from taskbridge.schemas.events import Action

if TYPE_CHECKING:
    from pathlib import Path

    import httpx2

    from taskbridge.cli.connection import Connection

pytestmark = pytest.mark.integration


def imports(connection: Connection, what: str, file: Path, lines: str) -> None:
    file.write_text(lines, "utf-8")
    where = ["--bootstrap-servers", connection.bootstrap_servers, "--registry-url", connection.registry_url]
    result = CliRunner().invoke(app, [what, "import", str(file), *where])
    assert result.exit_code == 0, result.output


def get(worker: Worker, path: str, signed_in_as: str) -> httpx2.Response:
    headers = {"x-forwarded-user": signed_in_as}
    return http_clients.get(f"http://127.0.0.1:{worker.port}{path}", headers=headers, timeout=10)


def test_who_signs_in_by_a_mapped_id_sees_people_by_names_and_fields_by_labels(
    connection: Connection, tmp_path: Path, eventually: Any
) -> None:
    corp_id, instance_id = f"ding-{uuid.uuid4()}", str(uuid.uuid4())
    people = f"corp_id,user_id,name,ldap\n{corp_id},u1,王芳,wang.fang\n{corp_id},u2,李雷,li.lei\n"
    imports(connection, "people", tmp_path / "people.csv", people)
    forms = f"corp_id,form_uuid,form_title,field_id,label\n{corp_id},F-1,合同审批,textField_x,合同方\n"
    imports(connection, "forms", tmp_path / "forms.csv", forms)
    some = next(each for each in lives(1, seed=1) if each.action is Action.CREATED)
    about = {"corp_id": corp_id, "instance_id": instance_id, "task_id": "T-1", "recipient_ids": ("u1", "u2")}
    form = {"form_uuid": "F-1", "form_data": {"textField_x": "蓝海传媒", "textField_y": "1"}}
    produce(connection, [replace(some, event_id=str(uuid.uuid4()), **about, **form)])
    worker = Worker(
        tmp_path,
        connection,
        STREAMS_SSO_PROXIES="127.0.0.0/8",
        STREAMS_SSO_CORP_ID=corp_id,
        STREAMS_SSO_MAPPED_ID="ldap",
    )
    try:
        worker.start()
        eventually(worker.is_ready, what="the worker is ready")
        path = f"/v1/instances/{instance_id}"
        eventually(lambda: get(worker, path, "wang.fang").status_code == 200, what="the instance is shown")
        me = get(worker, "/v1/me", "wang.fang").json()
        assert (me["corp_id"], me["user_id"]) == (corp_id, "u1")
        tasks = get(worker, f"/v1/corps/{corp_id}/users/u1/tasks?view=pending", "wang.fang")
        assert tasks.status_code == 200
        assert get(worker, f"/v1/corps/{corp_id}/users/u1/tasks?view=pending", "li.lei").status_code == 403
        assert get(worker, "/v1/me", "u1").json()["type"].endswith("unknown-person")

        def labels() -> dict[str, str]:
            return get(worker, f"{path}/history", "wang.fang").json()["form_labels"]

        assert eventually(labels, what="the forms are read") == {"textField_x": "合同方"}
        history = get(worker, f"{path}/history", "wang.fang").json()
        assert (history["form_title"], history["form"]) == ("合同审批", form["form_data"])
        assert {each["user_id"]: each["name"] for each in history["people"]} == {"u1": "王芳", "u2": "李雷"}
        imports(connection, "forms", tmp_path / "forms.csv", forms.replace("合同方", "对方"))
        eventually(lambda: labels() == {"textField_x": "对方"}, what="a new label is followed")
    finally:
        worker.kill_if_running()
        worker.show_log()


def test_a_worker_with_a_limit_of_no_people_reads_none_of_them(
    connection: Connection, tmp_path: Path, eventually: Any
) -> None:
    corp_id = f"ding-{uuid.uuid4()}"
    imports(connection, "people", tmp_path / "people.csv", f"corp_id,user_id,name\n{corp_id},u1,王芳\n")
    worker = Worker(tmp_path, connection, STREAMS_PEOPLE_MAX="0")
    try:
        worker.start()
        eventually(lambda: worker.metrics().get("taskbridge_streams_labels_age_seconds"), what="it reads the forms")
        eventually(worker.is_ready, what="the worker is ready")
        metrics = worker.metrics()
        known = ("people", "people_left_out", "people_age_seconds")
        assert [metrics[f"taskbridge_streams_{each}"] for each in known] == [0, 0, 0]
        assert "people_" not in worker.log_path.read_text(), "not even that there is a topic"
    finally:
        worker.kill_if_running()
        worker.show_log()
