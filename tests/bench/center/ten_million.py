"""Pages, counts and searches among ten million instances in PostgreSQL, and among a tenth of them.

``python -m tests.bench.center.ten_million [INSTANCES]`` needs 2 GB of disk for each million, in TMPDIR. Rows are made
by SQL: each instance has an entry of who created it, one of who handled it, and each hundredth one that is pending.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from sqlalchemy.schema import CreateIndex, DropIndex

from support.center import PostgresServer
from support.center_rows import fill, unchecked
from taskbridge.center.api.queries import PageQuery, Queries
from taskbridge.center.migrations import FOLDER
from taskbridge.center.tables import LIST_INDEXES
from taskbridge.runtime.database import open_database
from taskbridge.runtime.migrations import migrate
from taskbridge.schemas.topics import TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.runtime.database import Database

INSTANCES = 10_000_000
TIMES = 300
ENTRIES, BUSY_ENTRIES = 500, 10_000
"""Of each person in a list, and what the busy one has handled."""
BUSY = "busy"
BEGAN = 1_700_000_000_000
TITLE = "(ARRAY['采购申请', '费用报销', '合同审批', '用印申请', '访客预约'])[i % 5 + 1] || ' ' || i"
ITEM = """["' || {title} || '",null,"APP",null,null,"PENDING",null,"yida",1,1,null,null,null,null]"""
INSTANCE = """INSERT INTO instances (id, instance_id, partition, corp_id, state) SELECT i, 'I-' || i, i % 12, 'corp',
 convert_to(repeat(md5(i::text), 24), 'UTF8') FROM generate_series(1, {count}) AS i"""
ENTRY = f"""INSERT INTO entries (instance, number, corp_id, user_id, view, entered_at, instance_id, task_id, app_type,
 source, process_name, search, item) SELECT i, {{number}}, 'corp', {{user}}, {{view}}, {BEGAN} + i, 'I-' || i, 'T',
 'APP' || (i % 20), 'yida', 'P' || (i % 50), {TITLE}, convert_to('{ITEM.format(title=TITLE)}', 'UTF8')
 FROM generate_series(1, {{count}}) AS i {{where}}"""  # noqa: S608 - of ours


def generate(database: Database, count: int) -> None:
    people = count // ENTRIES
    entries = (
        (0, f"'u' || (i % {people})", 1, ""),
        (1, f"CASE i % {count // BUSY_ENTRIES} WHEN 0 THEN '{BUSY}' ELSE 'u' || (i * 7 % {people}) END", 3, ""),
        (2, f"'u' || (i / 100 % {people})", 2, "WHERE i % 100 = 0"),
    )
    dialect = database.engine.dialect
    statements = [
        *(str(DropIndex(each).compile(dialect=dialect)) for each in LIST_INDEXES),
        INSTANCE.format(count=count),
        *(
            ENTRY.format(number=number, user=user, view=view, count=count, where=where)
            for number, user, view, where in entries
        ),
        *(str(CreateIndex(each).compile(dialect=dialect)) for each in LIST_INDEXES),
    ]
    for statement in statements:
        started = time.monotonic()
        with database.write() as connection:
            connection.exec_driver_sql(statement.replace("%", "%%"))
        say(f"{time.monotonic() - started:6.0f} s  {' '.join(statement.split())[:60]}")
    fill(database, TASK_STATES.name, read=1, of=1)


def measure(database: Database, count: int) -> dict[str, tuple[float, float]]:
    """The 50th and 99th percentile of each query, in ms, each time of another person."""
    queries, rng = Queries(database, complete=unchecked, all_people=unchecked), random.Random(1)

    def anyone() -> str:
        return f"u{rng.randrange(count // ENTRIES)}"

    def page(user: str, view: str, q: str = "") -> Callable[[], object]:
        return lambda: queries.page(PageQuery("corp", user or anyone(), view, q=q))  # pyright: ignore[reportArgumentType]

    kinds: dict[str, Callable[[], object]] = {
        "a page of 50, of what anyone handled": page("", "handled"),
        "a page of 50, pending, of anyone": page("", "pending"),
        "counts, of anyone": lambda: queries.counts("corp", anyone()),
        "a page of 50, of the busy person": page(BUSY, "handled"),
        "counts, of the busy person": lambda: queries.counts("corp", BUSY),
        "search, many hits, of the busy person": page(BUSY, "handled", "申请"),
        "search, no hit, of the busy person": page(BUSY, "handled", "差旅申请"),
    }
    found = dict[str, tuple[float, float]]()
    for name, ask in kinds.items():
        took = list[float]()
        for _ in range(TIMES):
            started = time.perf_counter()
            ask()
            took.append((time.perf_counter() - started) * 1000)
        took.sort()
        found[name] = took[TIMES // 2], took[TIMES * 99 // 100]
    return found


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    most = int(sys.argv[1]) if len(sys.argv) > 1 else INSTANCES
    found = dict[int, tuple[float, dict[str, tuple[float, float]]]]()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        settings = {"shared_buffers": "2GB", "max_wal_size": "8GB", "maintenance_work_mem": "2GB", "fsync": "off"}
        server = PostgresServer(settings, folder=Path(folder))
        try:
            for count in (most // 10, most):
                with psycopg.connect(server.url(), autocommit=True) as connection:
                    connection.execute(f"CREATE DATABASE c{count}".encode())
                database = open_database(server.url(f"c{count}"), Path(folder))
                migrate(database, FOLDER)
                generate(database, count)
                with psycopg.connect(server.url(f"c{count}"), autocommit=True) as connection:
                    # As PostgreSQL does by itself after a while: counts read the index alone then.
                    connection.execute("VACUUM ANALYZE")
                with database.read() as connection:
                    size = connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one()
                found[count] = size / (1 << 30), measure(database, count)
                database.close()
        finally:
            server.stop()
    few, many = found
    say(
        f"| p50 / p99, ms | {few:,} instances, {found[few][0]:.1f} GiB | {many:,} instances, {found[many][0]:.1f} GiB |"
    )
    say("| -- | -- | -- |")
    for name in found[few][1]:
        say(f"| {name} | " + " | ".join("{:.1f} / {:.1f}".format(*found[each][1][name]) for each in (few, many)) + " |")


if __name__ == "__main__":
    main()
