"""What people may do with tasks, and the other systems with an ``action_url``, from a file that is reloaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from taskbridge.runtime.settings import FileBroken, ReloadedFile, Senders, SourceEntry, parse_toml
from taskbridge.runtime.standard_webhooks import key_of

ActionName = Literal["agree", "refuse", "return", "hand_over", "withdraw"]
ACTIONS: tuple[ActionName, ...] = get_args(ActionName)
AGREE, REFUSE, RETURN, HAND_OVER, WITHDRAW = ACTIONS
RecordedName = ActionName | Literal["reassign"]
REASSIGN: Literal["reassign"] = "reassign"
"""An operator hands a person's task over to another one. Nobody else may: it is no action of a person."""
TalkName = Literal["comment", "urge"]
TALK: tuple[TalkName, ...] = get_args(TalkName)
COMMENT, URGE = TALK
"""Recorded and sent as actions are, and of no task."""
AgentName = Literal["agent", "agent_end"]
AGENTS: tuple[AgentName, ...] = get_args(AgentName)
AGENT, AGENT_END = AGENTS
"""A delegation becomes an agent at its system, or is taken back there: see ``actions.agents``."""
OF_NO_TASK = *TALK, *AGENTS
"""Of these, no topic says anything."""


class Possible(NamedTuple):
    """What may be done with tasks of an app, or of all apps of another system."""

    source: str
    app_type: str | None
    numeric_task_ids: bool = False
    """The system knows tasks by numbers: nothing is possible with other tasks."""
    actions: tuple[ActionName, ...] = ACTIONS


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Of another system. The repr does not show the key."""

    url: str
    key: bytes = field(repr=False)


class Endpoints(dict[tuple[str, str], Endpoint]):
    """By corp and source."""

    @property
    def count(self) -> int:
        return len(self)


class EndpointsFile(ReloadedFile[Endpoints]):
    """The edge's credentials file: its sources with an ``action_url``."""

    title = "credentials file"
    log_events = "action_targets_reloaded", "action_targets_broken"

    def parse(self, text: str) -> Endpoints:
        sources = parse_toml(text, Senders).sources
        return Endpoints(
            ((each.corp_id, each.name), Endpoint(each.action_url, self._key(each)))
            for each in sources
            if each.action_url is not None
        )

    def _key(self, source: SourceEntry) -> bytes:
        """Of the first secret, which is in use."""
        try:
            if source.secrets:
                return key_of(source.secrets[0].get_secret_value())
            return key_of(self.text_of(self.path.parent / (source.secret_files or ("",))[0]).strip())
        except ValueError as error:
            raise FileBroken(f"the first secret of {source.name}: {error}") from None
