"""By the administrator's rules an assistant decides without a confirmation: below an amount, as the form has it now."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from sqlalchemy import select

from support.acting import acting
from support.assistants import Assistant, token_of
from support.center_rows import state, unchecked
from support.reconcile import APP_TYPE, CORP_ID, NOW, assigned
from support.served_apps import serving
from support.sign_in import SAME_SITE, Served, signing_in
from taskbridge.center.access.access import Caller
from taskbridge.center.access.refusals import TooManyQueries
from taskbridge.center.actions.seen_form import digest_of
from taskbridge.center.actions.store import Action
from taskbridge.center.actions.systems import Away, FormRead
from taskbridge.center.actions.targets import Endpoint
from taskbridge.center.api.current_form import NewestForms
from taskbridge.center.assistants.proposals import CONFIRM, PROPOSED_AN_HOUR, Proposals
from taskbridge.center.assistants.rules import Rule, Rules, RulesFile
from taskbridge.center.tables import actions, audit
from taskbridge.runtime.settings import FileBroken, parse_toml
from taskbridge.schemas.events import SOURCE_YIDA, Status, TaskEntry

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from taskbridge.center.actions.systems import LoggedChange, Step
    from taskbridge.runtime.database import Database

RULE = """
[[rules]]
name = "small"
corp_id = "ours"
process_code = "P-1"
actions = ["agree"]
amount_field = "amount"
below = 1000.5
"""
ASKED = {"instance_id": "erp:1", "task_id": "T-1", "action": "agree", "remark": "fine"}
ANN = Caller("sso", "claude", corp_id=CORP_ID, user_id="ann")
BY = "[claude 按规则 small 直接处理 / decided directly by the assistant claude under the rule small]"


@dataclass
class Forms:
    """What reads forms."""

    values: dict[str, str | None] = field(default_factory=lambda: {"amount": "200"})
    is_away: bool = False
    reads: int = 0
    calls_per_day: int = 500

    async def read(self, instance_id: str) -> FormRead | None:
        del instance_id
        self.reads += 1
        if self.is_away:
            raise Away("it does not answer")
        return FormRead(dict(self.values), is_running=True)

    async def changes(
        self, instance_id: str, read: FormRead, fields: Sequence[str]
    ) -> dict[str, LoggedChange]:  # pragma: no cover
        raise NotImplementedError

    async def steps(self, instance_id: str, read: FormRead, here: Sequence[str]) -> list[Step]:  # pragma: no cover
        raise NotImplementedError


@dataclass
class World:
    """Ann has a task of the process, and an assistant."""

    served: Served
    provider: Any
    url: str
    forms: Forms

    def propose(self, **asked: Any) -> Any:
        return Assistant(self.url, token_of(self.provider))("propose_decision", **(ASKED | asked))

    @property
    def stored(self) -> list[Action]:
        with self.served.database.read() as connection:
            return [Action(*row) for row in connection.execute(select(actions))]

    @property
    def trail(self) -> list[tuple[str, str]]:
        with self.served.database.read() as connection:
            return [(row[0], row[1]) for row in connection.execute(select(audit.c.action, audit.c.subject))]


@contextmanager
def ruled(database: Database, folder: Path, text: str | None = RULE, **fields: Any) -> Generator[World]:
    files = dict[str, str]()
    if text is not None:
        (folder / "rules.toml").write_text(text)
        files["mcp_rules_file"] = str(folder / "rules.toml")
    with signing_in(database, folder, **files) as (served, provider), serving(served.http) as url:
        forms = Forms()
        served.rows.read_form = forms
        served.endpoints["ours", "erp"] = Endpoint("http://127.0.0.1:9", b"key")
        task = TaskEntry("T-1", Status.PENDING, ("ann",))
        fields = {"process_code": "P-1", "tasks": (task,), **fields}
        served.rows.store(state("erp:1", corp_id="ours", source="erp", **fields))
        yield World(served, provider, url, forms)


def test_below_the_amount_it_is_decided_and_says_so(database: Database, tmp_path: Path) -> None:
    with ruled(database, tmp_path) as world:
        tool = Assistant(world.url, token_of(world.provider)).tools()["propose_decision"]
        assert tool.annotations.destructive_hint
        found = world.propose()
        assert (found["status"], found["action_status"]) == ("CONFIRMED", "REQUESTED")
        [action] = world.stored
        assert (action.user_id, action.action, action.remark) == ("ann", "agree", f"fine {BY}")
        assert action.seen_form == digest_of({"amount": "200"})
        assert len(world.served.wakes) == 1
        number = found["proposal_id"]
        assert world.trail[-3:] == [
            ("decision_proposed", f"{number} claude"),
            ("agree", f"erp:1 T-1 {action.action_id}"),
            ("proposal_decided_by_rule", f"{number} claude small"),
        ]


def test_asked_again_it_is_the_same_decision(database: Database, tmp_path: Path) -> None:
    with ruled(database, tmp_path) as world:
        assert world.propose() == world.propose() == world.propose(remark="in other words")
        assert len(world.stored) == 1
        assert [what for what, _ in world.trail].count("proposal_decided_by_rule") == 1


def test_a_long_remark_makes_room_for_who_decided(database: Database, tmp_path: Path) -> None:
    with ruled(database, tmp_path) as world:
        world.propose(remark="\u597d" * 1000)
        [action] = world.stored
        assert len(action.remark) == 1000
        assert action.remark.endswith(f"\u597d {BY}")


def rule() -> Rule:
    [found] = parse_toml(RULE, Rules).rules
    return found


@pytest.mark.parametrize(
    "amount",
    [
        *("1000.5", "1e2", "1E2", "\uff11\uff10\uff10", " 5", "5 ", "-1", "+1", "NaN", "Infinity", "0x1", "1_0", "1,0"),
        *("", "[5]", '"5"', "true", "05", "5.", ".5", "5\n", "\u0665", "5.0000001", "9" * 16, None),
    ],
)
def test_what_is_no_plain_number_below_it_is_not_allowed(amount: str | None) -> None:
    assert not rule().allows({"amount": amount})


@pytest.mark.parametrize("amount", ["0", "5", "0.50", "1000.499999", "999.0"])
def test_a_plain_number_below_it_is_enough(amount: str) -> None:
    assert rule().allows({"amount": amount})


def test_what_is_not_allowed_is_proposed(database: Database, tmp_path: Path) -> None:
    with ruled(database, tmp_path) as world:
        world.forms.values["amount"] = "1000.5"
        assert world.propose(remark="the amount is 5")["status"] == "OPEN"
        assert (world.forms.reads, world.stored, world.served.wakes) == (1, [], [])


def test_an_amount_in_a_sub_form_or_of_another_field_is_none(database: Database, tmp_path: Path) -> None:
    with ruled(database, tmp_path) as world:
        world.forms.values = {"lines": '[{"amount":"5"}]', "amount_value": "5"}
        assert world.propose()["status"] == "OPEN"


@pytest.mark.parametrize(
    ("text", "fields", "asked"),
    [
        (None, {}, {}),
        ("", {}, {}),
        (RULE.replace("ours", "theirs"), {}, {}),
        (RULE, {"process_code": "P-2"}, {}),
        (RULE, {"process_code": None}, {}),
        (RULE, {}, {"action": "refuse"}),
        (RULE, {}, {"action": "return"}),
    ],
)
def test_without_a_rule_for_it_nothing_is_read_or_decided(
    database: Database, tmp_path: Path, text: str | None, fields: dict[str, Any], asked: dict[str, Any]
) -> None:
    with ruled(database, tmp_path, text, **fields) as world:
        assert world.propose(**asked)["status"] == "OPEN"
        assert (world.forms.reads, world.stored) == (0, [])


def test_while_the_form_cannot_be_read_it_is_proposed(database: Database, tmp_path: Path) -> None:
    with ruled(database, tmp_path) as world:
        world.forms.is_away = True
        proposed = world.propose()
        assert (proposed["status"], world.stored) == ("OPEN", [])
        world.forms.is_away = False
        assert world.propose()["proposal_id"] == proposed["proposal_id"]
        assert len(world.stored) == 1


def test_whom_the_person_said_no_to_cannot_decide(database: Database, tmp_path: Path) -> None:
    """Nor does it take the person's own decision for its own."""
    with ruled(database, tmp_path) as world:
        world.forms.is_away = True
        proposed = world.propose()
        world.forms.is_away = False
        browser = world.served.signed_in()
        path = f"/v1/me/proposals/{proposed['proposal_id']}"
        browser.post(path, json={"decision": "discard"}, headers=SAME_SITE)
        again = world.propose()
        assert (again["status"], world.stored) == ("OPEN", [])
        assert again["proposal_id"] != proposed["proposal_id"]


async def test_an_assistant_uses_up_no_calls_of_its_person() -> None:
    """Who must see the form before they confirm."""
    forms = NewestForms(lambda _corp, _source, _app: Forms(calls_per_day=10))
    assistant, person = (
        Caller("sso", corp_id="ours", user_id="ann", rate_key=f"{each} ann") for each in ("assistant", "sso")
    )
    for number in range(20):
        await forms.newest(state(f"I-{number}"), assistant)
    with pytest.raises(TooManyQueries, match="share"):
        await forms.newest(state("I-99"), assistant)
    found = await forms.newest(state("I-100"), person)
    assert found.read.values == {"amount": "200"}


async def test_a_decision_that_the_person_made_is_not_taken_for_it(database: Database) -> None:
    async with acting(database) as world:
        world.assign(("I-1", "11", "ann"))
        store = Proposals(world.database, world.store, world.systems, unchecked, lasts_ms=600_000)
        at: dict[str, Any] = {"address": "192.0.2.1", "now": world.clock.now_ms()}
        proposed = store.propose(ANN, "I-1", "11", "agree", "", None, **at)
        world.act("agree", ("I-1", "11"))
        found = store.decide(ANN, proposed.proposal_id, CONFIRM, rule="small", **at)
        assert (found["status"], [each.remark for each in world.stored]) == ("OPEN", ["ok"])
        assert "proposal_decided_by_rule" not in [what for _, what, _ in world.trail]


async def test_a_form_that_changed_after_it_was_read_is_refused(database: Database) -> None:
    """At Yida: with the form as it was read, one call; with another, none."""
    async with acting(database) as world:
        reader = world.systems.form_reader(CORP_ID, SOURCE_YIDA, APP_TYPE)
        assert reader is not None
        at: dict[str, Any] = {"address": "192.0.2.1", "now": world.clock.now_ms()}
        store = Proposals(world.database, world.store, world.systems, unchecked, lasts_ms=600_000)
        world.happens(replace(assigned("11", "ann", at=NOW - 1000, instance_id="I-1"), form_data={"amount": "200"}))
        for changes in (True, False):
            read = await reader.read("I-1")
            assert read is not None
            proposed = store.propose(ANN, "I-1", "11", "agree", "", None, **at)
            store.decide(ANN, proposed.proposal_id, CONFIRM, seen_form=digest_of(read.values), rule="small", **at)
            if changes:
                world.dingtalk.change_form("I-1", "u-zhang", amount="20000")
            await world.work()
        assert world.statuses == [("REFUSED", "changed"), ("ACCEPTED", "")]
        [sent] = world.dingtalk.changes
        assert sent.remark == BY  # pyright: ignore[reportAttributeAccessIssue]


def test_ten_an_hour_are_the_most(database: Database, tmp_path: Path) -> None:
    tasks = tuple(TaskEntry(f"T-{number}", Status.PENDING, ("ann",)) for number in range(PROPOSED_AN_HOUR + 1))
    with ruled(database, tmp_path, tasks=tasks) as world:
        answers = [world.propose(task_id=each.task_id) for each in tasks]
        assert [each["status"] for each in answers[:-1]] == ["CONFIRMED"] * PROPOSED_AN_HOUR
        assert "proposals in an hour are the most" in answers[-1]
        assert len(world.stored) == PROPOSED_AN_HOUR


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("below = 1000.5", "below = -1", "rules.0.below"),
        ("below = 1000.5", "below = nan", "rules.0.below"),
        ("below = 1000.5", "below = inf", "rules.0.below"),
        ("below = 1000.5", "", "rules.0.below"),
        ('["agree"]', '["hand_over"]', "rules.0.actions"),
        ('["agree"]', "[]", "rules.0.actions"),
        ('"small"', '"]"', "rules.0.name"),
        ("corp_id", "corp", "rules.0.corp: no such key"),
        ("[[rules]]", "[[rules]", "not TOML: .* line 2"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_its_place(tmp_path: Path, before: str, after: str, says: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(RULE.replace(before, after))
    with pytest.raises(FileBroken, match=rf"rules.toml: .*{says}"):
        RulesFile(path)
    path.write_text(RULE)
    assert RulesFile(path).current.count == 1


@pytest.mark.parametrize("text", [RULE.replace("below = 1000.5", "below = 100,5"), None])
def test_while_the_file_is_broken_or_missing_people_are_asked(
    database: Database, tmp_path: Path, text: str | None
) -> None:
    """An administrator who lowers an amount with a slip, or removes the file, has taken the rules back."""
    with ruled(database, tmp_path) as world:
        path = tmp_path / "rules.toml"
        path.unlink()
        if text is not None:
            path.write_text(text)
        file = world.served.assistants.rules
        assert file is not None
        file.reload_if_changed()
        assert (file.current.count, file.problem is None) == (0, False)
        assert (world.propose()["status"], world.stored) == ("OPEN", [])
        path.write_text(RULE)
        file.reload_if_changed()
        assert (world.propose()["status"], file.problem) == ("CONFIRMED", None)
