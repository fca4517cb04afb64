"""With many rows, no query of the task center reads a whole table, or a person's whole view to find one entry.

TASKBRIDGE_PLANS_INSTANCES=500000 has as many instances as a large company; the plans are the same.
"""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from support.center_rows import fill, unchecked
from support.plans import Plans
from taskbridge.center.access.access import Caller
from taskbridge.center.access.delegations import is_delegated
from taskbridge.center.actions.agents import Agents
from taskbridge.center.actions.store import ActionRequest, Actions
from taskbridge.center.actions.systems import Systems
from taskbridge.center.actions.targets import Endpoint, Endpoints
from taskbridge.center.api.marks import MarkChange, MarksStore
from taskbridge.center.api.queries import PageQuery, Queries
from taskbridge.center.assistants.clients import Clients
from taskbridge.center.assistants.proposals import CONFIRM, Proposals
from taskbridge.center.erasure import Erasure
from taskbridge.center.follow.records import purge
from taskbridge.center.operations.records import Records
from taskbridge.center.reminders.due import DueRules, Rule
from taskbridge.center.reminders.waiting import corps, counts_of, people_after, waiting
from taskbridge.center.reminders.working_time import HOUR_MS, WorkingTime
from taskbridge.center.tables import metadata
from taskbridge.runtime.database import Threads
from taskbridge.schemas.topics import TASK_STATES

if TYPE_CHECKING:
    from support.center import Databases
    from taskbridge.runtime.database import Database

INSTANCES = int(os.environ.get("TASKBRIDGE_PLANS_INSTANCES", "20000"))
BEGAN = 1_700_000_000_000
U0 = ("corp", "u0")
"""Has started all instances."""
DUE = DueRules(WorkingTime(ZoneInfo("UTC"), [(0, 1440)], weekdays=range(7)), [Rule("APP1", None, HOUR_MS)])
STATE = '{"instance_id":"","corp_id":"corp","app_type":"APP","updated_at":1,"revision":1}'
ITEM = '["t",null,"APP",null,null,"PENDING",null,"yida",1,1,null,null,null,null]'
ROWS = f"""
instances (id, instance_id, partition, corp_id, state): i, 'I-'||i, i % 12, 'corp', '{STATE}'
entries (instance, number, corp_id, user_id, view, entered_at, instance_id, task_id, app_type, source, process_name,
 unnamed_originator, search, item): i, 0, 'corp', 'u0', 1, {BEGAN} + i, 'I-'||i, '', 'APP'||(i % 20), 'yida',
 'P'||(i % 50),
 'u'||(i % 100), 'title '||i, '{ITEM}'
entries (instance, number, corp_id, user_id, view, entered_at, instance_id, task_id, app_type, source, process_name,
 due_at, search, item): i, 1, 'corp', 'u'||(i % 1000), 2, {BEGAN} + i, 'I-'||i, '7', 'APP'||(i % 20), 'yida',
 'P'||(i % 50),
 {BEGAN} + i, 'title '||i, '{ITEM}'
events (instance_id, event_id, corp_id, action, occurred_at, received_at, partition, "offset", data):
 'I-'||i, 'E-'||i, 'corp', 'CREATED', {BEGAN} + i, {BEGAN} + i, 0, i, '{{}}'
changes (corp_id, user_id, seq, at, instance_id, data): 'corp', 'u'||(i % 1000), i, {BEGAN} + i, 'I-'||i, '{{}}'
marks (corp_id, user_id, view, kind, instance_id, task_id, value): 'corp', 'u0', 1,
 CASE i % 9 WHEN 0 THEN 'pinned' WHEN 1 THEN 'hidden' ELSE 'read' END, 'I-'||i, '', {BEGAN}
people (corp_id, user_id, partition, name, search): 'corp', 'u'||i, 0, 'n'||i, 'n'||i||LINE_FEED
actions (action_id, corp_id, user_id, actor_id, instance_id, task_id, source, app_type, action, recipient_id, remark,
 status, detail, attempts, requested_at, due_at): 'A-'||i, 'corp', 'u'||(i % 1000), 'u'||(i % 1000), 'I-'||i, '7',
 'yida',
 'APP', 'agree', '', '', CASE i % 99 WHEN 0 THEN 'ACCEPTED' ELSE 'DONE' END, '', 1, {BEGAN} + i,
 CASE i % 99 WHEN 0 THEN {BEGAN} + i END
set_aside (kind, entry_id, at, reason, search, summary): 'quarantine', 'Q-'||i, {BEGAN} + i, 'bad-sign', 'id='||i,
 '{{}}'
assistants (corp_id, user_id, client, used_at, refused_before): 'corp', 'u'||i, 'c'||(i % 50), {BEGAN} + i, 0
proposals (proposal_id, corp_id, user_id, client, instance_id, task_id, action, remark, revision, proposed_at,
 expires_at, decision, action_id, detail): 'P-'||i, 'corp', 'u'||(i % 1000), 'c'||(i % 50), 'I-'||i, '7', 'agree', '',
 1, {BEGAN} + i, {BEGAN} + i, '', '', ''
delegations (delegation_id, corp_id, user_id, delegate_id, app_type, process_name, starts_at, ends_at): 'D-'||i, 'corp',
 'u'||i, 'u'||(i % 1000), '', '', 0, {BEGAN} * 2
"""
TABLES = "assistants|proposals|instances|entries|events|changes|marks|people|actions|delegations|set_aside"


def generate(database: Database) -> None:
    """Some statements, which takes a second for the default number of instances."""
    is_sqlite = database.is_sqlite
    recursive = "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < {0}) SELECT i FROM s"
    numbers = recursive if is_sqlite else "SELECT generate_series(1, {0}) AS i"
    with database.write() as connection:
        for line in ROWS.strip().replace("\n ", " ").splitlines():
            table, columns, values = re.fullmatch(r"(\w+) (\(.*?\)): *(.*)", line).groups()  # pyright: ignore[reportOptionalMemberAccess]
            for data in (STATE, ITEM, "{}"):
                values = values.replace(f"'{data}'", f"CAST('{data}' AS BLOB)" if is_sqlite else f"'{data}'::bytea")
            values = values.replace("LINE_FEED", "char(10)" if is_sqlite else "chr(10)")
            sql = f"INSERT INTO {table} {columns} SELECT {values} FROM ({numbers.format(INSTANCES)}) AS numbers"  # noqa: S608 - of ours
            connection.exec_driver_sql(sql if is_sqlite else sql.replace("%", "%%"))
    fill(database, TASK_STATES.name, read=1, of=1)


def ask_everything(database: Database) -> None:
    """What readers, deciders, reminders and purges ask."""
    queries = Queries(database, complete=unchecked, all_people=unchecked)
    marks, acting = MarksStore(database, unchecked), Actions(database, unchecked)
    pages: list[dict[str, Any]] = [{}, {"app_type": "APP1"}, {"q": "title 77"}, {"marks": True}]
    for further in (*pages, {"view": "pending", "overdue": True}):
        given: dict[str, Any] = {"view": "created", **further}
        queries.page(PageQuery(*U0, **given))
    queries.counts(*U0)
    queries.apps(*U0)
    caller = Caller("sso", corp_id="corp", user_id="u7")
    queries.people("n1", ["corp"], 20)
    queries.marked(U0, "created")
    marks.change(U0, [MarkChange("created", f"I-{each}", None, {"read": 1, "pinned": None}) for each in range(200)])
    marks.purge()
    acting.request(caller, [ActionRequest("u8", "I-8", "7", "agree", "", "")], Systems(), address="", now=BEGAN)
    operator = Caller("sso", corp_id="corp", user_id="u7", corps=("*",))
    erp = Systems(endpoints=lambda: Endpoints({("corp", "yida"): Endpoint("http://127.0.0.1:1/x", b"key")}))
    wanted = acting.to_reassign(operator, ("corp", "u8"), "u6", "", erp, now=BEGAN)
    assert acting.reassign(operator, wanted, erp, address="", now=BEGAN)
    acting.leaving(("corp", "u8"), erp, now=BEGAN)
    clients, proposals = Clients(database, Threads(1)), Proposals(database, acting, erp, unchecked, lasts_ms=1)
    asyncio.run(clients.check(("corp", "u7"), "c7", BEGAN * 2))
    clients.shown("corp")
    clients.purge()
    made = proposals.propose(operator, "I-7", "7", "agree", "", None, address="", now=BEGAN * 2)
    proposals.decide(operator, made.proposal_id, CONFIRM, rule="small", address="", now=BEGAN * 2)
    proposals.purge(BEGAN)
    Agents(database, erp).shown(("corp", "u7"), now=BEGAN)
    acting.found_out(acting.due(now=BEGAN * 2)[0])
    acting.shown(("corp", "u7"), now=BEGAN)
    acting.purge(now=BEGAN)
    with database.read() as connection:
        is_delegated(connection, "I-7", ("corp", "u7"), now=BEGAN)
        corps(connection)
        waiting(connection, DUE, BEGAN, "corp")
        people_after(connection, ("corp", "u3"), 500)
        counts_of(connection, DUE, BEGAN, U0)
    purge(database, now_ms=BEGAN)
    Records(database).callbacks("I-0", Caller("token", name="operator", corps=("*",)), BEGAN)
    with suppress(LookupError):
        Erasure(database).find(("corp", "u9"))


@pytest.mark.parametrize("kind", ["sqlite", "sqlite without statistics", "postgresql"])
def test_no_query_reads_a_whole_table_or_a_whole_view_for_one_entry(databases: Databases, kind: str) -> None:
    database = databases.new(kind.partition(" ")[0])
    generate(database)
    if "without" not in kind:
        with database.write() as connection:
            database.analyze(connection, metadata.sorted_tables)
    plans = Plans(database)
    ask_everything(database)
    assert len(plans) > 30
    for sql, plan in plans.items():
        scanned = set(re.findall(rf"(?:SCAN|Seq Scan on) ({TABLES})\b(?! VIRTUAL)", plan))
        # A purge looks at every mark and every client, and PostgreSQL may compare all marks with all entries at once.
        purged = re.match("DELETE FROM (marks|assistants)", sql)
        assert scanned <= (set() if purged is None else {purged[1]}), f"{sql}\n{plan}"
        if purged is None and ("FROM instances" in sql or "JOIN instances" in sql or ", instances" in sql):
            assert "entries_page" not in plan, f"{sql}\n{plan}"
            assert "entries_waiting" not in plan, f"{sql}\n{plan}"
