"""The administrator's TOML file: which decisions an assistant may make without a confirmation, below which amount.

It is reloaded when it changes. While it is broken or missing, that is reported, and people confirm everything.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from taskbridge.center.assistants.proposals import ProposedName  # noqa: TC001 - pydantic reads it
from taskbridge.center.reminders.file import Name  # noqa: TC001 - as above
from taskbridge.runtime.settings import FileModel, NotBlank, ReloadedFile, parse_toml

if TYPE_CHECKING:
    from taskbridge.center.actions.seen_form import Values
    from taskbridge.schemas.events import TaskState

_AMOUNT = re.compile(r"(0|[1-9][0-9]{0,14})(\.[0-9]{1,6})?")


class Rule(FileModel):
    name: Name
    corp_id: NotBlank
    process_code: NotBlank
    actions: Annotated[frozenset[ProposedName], Field(min_length=1)]
    amount_field: NotBlank
    below: Annotated[Decimal, Field(gt=0, max_digits=30)]

    def is_about(self, state: TaskState, action: str) -> bool:
        its = self.corp_id, self.process_code
        return its == (state.corp_id, state.process_code) and action in self.actions

    def allows(self, values: Values) -> bool:
        """Whether the amount is below the rule's: what is no plain number is not."""
        amount = values.get(self.amount_field) or ""
        return _AMOUNT.fullmatch(amount) is not None and Decimal(amount) < self.below


class Rules(FileModel):
    rules: Annotated[tuple[Rule, ...], Field(max_length=200)] = ()

    @property
    def count(self) -> int:
        return len(self.rules)


class RulesFile(ReloadedFile[Rules]):
    title = "rules file for assistants"
    log_events = "mcp_rules_reloaded", "mcp_rules_broken"

    def parse(self, text: str) -> Rules:
        return parse_toml(text, Rules)

    def refresh(self) -> bool:
        """As of ``ReloadedFile``; but what the administrator may have taken back does not stay in use."""
        is_new = super().refresh()
        if self.broken is not None:
            self.current = Rules()
        return is_new
