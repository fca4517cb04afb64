"""``taskbridge land`` against the real Kafka and registry: what is on the topics is in the tables, once."""

from __future__ import annotations

import os
import sqlite3
import uuid
from typing import TYPE_CHECKING

import duckdb
import pytest
from confluent_kafka import Producer

from support.forked import COMMAND, run_forked
from taskbridge.landing.app import run
from taskbridge.runtime.kafka import client_config
from taskbridge.schemas.codec import form_codec, form_data_codec
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.schemas.events import Form, FormData, FormField, form_key
from taskbridge.schemas.topics import FORM_DATA, FORMS

if TYPE_CHECKING:
    from pathlib import Path

    from taskbridge.cli.connection import Connection

pytestmark = pytest.mark.integration


def test_a_folder_of_files_is_for_single_runs(tmp_path: Path) -> None:
    connected = {"LAND_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "LAND_SCHEMA_REGISTRY_URL": "http://127.0.0.1:1"}
    with pytest.raises(ConfigurationError, match="needs --once"):
        run({**connected, "LAND_TO": f"parquet:{tmp_path / 'new'}"})
    assert list(tmp_path.iterdir()) == []


def land(connection: Connection, target: str) -> None:
    where = ["--bootstrap-servers", connection.bootstrap_servers, "--registry-url", connection.registry_url]
    arguments = ["land", "--to", target, "--once", *where]
    done = run_forked(
        COMMAND, environment={**os.environ, "LAND_PORT": "0"}, arguments=["taskbridge", *arguments], timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_what_is_on_the_topics_lands_once(connection: Connection, tmp_path: Path) -> None:
    corp_id, form_uuid, instance_id = f"ding-{uuid.uuid4()}", f"FORM-{uuid.uuid4().hex.upper()}", str(uuid.uuid4())
    form = Form(form_uuid, "采购", {"amount": "金额"}, (FormField("amount", "NumberField"),))
    values = FormData(corp_id, "APP_1", form_uuid, instance_id, 1_700_000_000_000, "scan", data={"amount": "12.5"})
    producer = Producer(client_config(connection.bootstrap_servers))
    producer.produce(FORMS.name, form_codec(connection.registry).encode(form), form_key(corp_id, form_uuid))
    encode = form_data_codec(connection.registry).encode
    producer.produce(FORM_DATA.name, encode(values), instance_id.encode())
    producer.flush()
    target = tmp_path / "target.db"
    for _ in range(2):
        land(connection, f"sqlite:///{target}")
    with sqlite3.connect(target) as database:
        [table] = database.execute("SELECT table_name FROM forms WHERE form_uuid = ?", (form_uuid,)).fetchone()
        assert database.execute(f'SELECT instance_id, "金额" FROM "v_{table}"').fetchall() == [(instance_id, 12.5)]  # noqa: S608
        # As if the database had refused it until now.
        database.execute(f'DELETE FROM "{table}"')  # noqa: S608
        database.execute("INSERT INTO waiting VALUES (?, ?, 'APP_1', 'refused')", (corp_id, form_uuid))
        database.commit()
        land(connection, f"sqlite:///{target}")
        assert database.execute(f'SELECT instance_id FROM "{table}"').fetchall() == [(instance_id,)]  # noqa: S608
        assert database.execute("SELECT * FROM waiting").fetchall() == []
    database.close()
    folder = tmp_path / "for ?analysts"
    land(connection, f"parquet:{folder}")
    [made] = [each for each in folder.iterdir() if each.is_dir()]
    found = duckdb.read_parquet(str(made / f"{table}.parquet"))
    assert found.select("instance_id", "amount").fetchall() == [(instance_id, 12.5)]
