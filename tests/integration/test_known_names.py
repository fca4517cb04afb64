"""Imported people and forms in the task center: who signs in, and the names of people and fields."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from support import http_clients
from support.center_process import CenterProcess
from support.streams.lives import lives, produce
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


def get(center: CenterProcess, path: str, signed_in_as: str) -> httpx2.Response:
    headers = {"x-forwarded-user": signed_in_as}
    return http_clients.get(f"{center.url}{path}", headers=headers)


def test_who_signs_in_by_a_mapped_id_sees_people_by_names_and_fields_by_labels(
    connection: Connection, streams_service: Any, tmp_path: Path, eventually: Any
) -> None:
    corp_id, instance_id = f"ding-{uuid.uuid4()}", str(uuid.uuid4())
    people = f"corp_id,user_id,name,ldap\n{corp_id},u1,王芳,wang.fang\n{corp_id},u2,李雷,li.lei\n"
    imports(connection, "people", tmp_path / "people.csv", people)
    forms = f"corp_id,form_uuid,form_title,field_id,label\n{corp_id},F-1,合同审批,textField_x,合同方\n"
    imports(connection, "forms", tmp_path / "forms.csv", forms)
    some = next(each for each in lives(1, seed=1) if each.action is Action.CREATED)
    about = {"corp_id": corp_id, "instance_id": instance_id, "task_id": "T-1", "recipient_ids": ("u1", "u2")}
    form = {"form_uuid": "F-1", "form_data": {"textField_x": "蓝海传媒", "textField_y": "1"}}
    # The task center deletes old events of unknown instances, and may read this one before its state.
    event = replace(some, event_id=str(uuid.uuid4()), received_at=int(time.time() * 1000), **about, **form)
    produce(connection, [event])
    streams_service.start()
    with CenterProcess(
        tmp_path,
        connection,
        CENTER_SSO_PROXIES="127.0.0.0/8",
        CENTER_CORP_ID=corp_id,
        CENTER_MAPPED_ID="ldap",
    ) as center:
        center.start()
        eventually(center.is_ready, what="the lists are complete")
        path = f"/v1/instances/{instance_id}"
        eventually(lambda: get(center, path, "wang.fang").status_code == 200, what="the instance is shown")
        me = get(center, "/v1/me", "wang.fang").json()
        assert (me["corp_id"], me["user_id"]) == (corp_id, "u1")
        tasks = get(center, f"/v1/corps/{corp_id}/users/u1/tasks?view=pending", "wang.fang")
        assert tasks.status_code == 200
        assert get(center, f"/v1/corps/{corp_id}/users/u1/tasks?view=pending", "li.lei").status_code == 403
        assert get(center, "/v1/me", "u1").json()["type"].endswith("unknown-person")

        def labels() -> dict[str, str]:
            return get(center, f"{path}/history", "wang.fang").json()["form_labels"]

        assert eventually(labels, what="the forms are read") == {"textField_x": "合同方"}
        history = get(center, f"{path}/history", "wang.fang").json()
        assert (history["form_title"], history["form"]) == ("合同审批", form["form_data"])

        def names() -> dict[str, str]:
            people = get(center, f"{path}/history", "wang.fang").json()["people"]
            return {each["user_id"]: each["name"] for each in people}

        eventually(lambda: names() == {"u1": "王芳", "u2": "李雷"}, what="the people are read")
        imports(connection, "forms", tmp_path / "forms.csv", forms.replace("合同方", "对方"))
        eventually(lambda: labels() == {"textField_x": "对方"}, what="a new label is followed")
