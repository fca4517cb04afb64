"""Where decisions are sent: the apps of Yida and other systems with an ``action_url``, from files that are reloaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from taskbridge.dingtalk.apps import App, Apps, Organisation, parse_apps, secret_in
from taskbridge.runtime.settings import FileBroken, ReloadedFile, Senders, SourceEntry, parse_toml
from taskbridge.runtime.standard_webhooks import key_of
from taskbridge.schemas.events import SOURCE_YIDA

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


AGREE, REFUSE, RETURN, HAND_OVER, WITHDRAW = ACTIONS = ("agree", "refuse", "return", "hand_over", "withdraw")


class Possible(NamedTuple):
    """What may be done with tasks of an app, or of all apps of another system."""

    source: str
    app_type: str | None
    numeric_task_ids: bool = False
    """DingTalk's API knows tasks by numbers: nothing is possible with other tasks."""
    actions: tuple[str, ...] = ACTIONS


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Of another system. The repr does not show the key."""

    url: str
    key: bytes = field(repr=False)


class Targets:
    """The apps by corp and type, the endpoints by corp and source, and the organisations with a corp token."""

    def __init__(
        self,
        apps: Iterable[App] = (),
        endpoints: Mapping[tuple[str, str], Endpoint] | None = None,
        organisations: Iterable[Organisation] = (),
    ) -> None:
        self.apps = {(each.corp_id, each.app_type): each for each in apps}
        self.endpoints = dict(endpoints or {})
        self.organisations = {each.corp_id: each for each in organisations if each.corp_token is not None}
        self.count = len(self.apps) + len(self.endpoints)

    def of(self, corp_id: str, source: str, app_type: str) -> App | Endpoint | None:
        """Where decisions on tasks of this app go; None if they are made elsewhere only."""
        if source == SOURCE_YIDA:
            return self.apps.get((corp_id, app_type))
        return self.endpoints.get((corp_id, source))

    def possible(self, corp_id: str) -> list[Possible]:
        apps = [
            Possible(SOURCE_YIDA, app_type, numeric_task_ids=True) for corp, app_type in self.apps if corp == corp_id
        ]
        return apps + [Possible(source, None) for corp, source in self.endpoints if corp == corp_id]


class TargetsFile(ReloadedFile[Targets]):
    """The apps file, the edge's credentials file, or both."""

    title = "file"
    log_events = "action_targets_reloaded", "action_targets_broken"

    def __init__(self, apps: Path | None, credentials: Path | None) -> None:
        """At least one of them is given; raises as ``ReloadedFile``."""
        self._apps, self._credentials = apps, credentials
        path = apps or credentials
        assert path is not None
        super().__init__(path)

    def parse(self, text: str) -> Targets:
        found = Apps((), ())
        if self._apps is not None:
            found = parse_apps(text, self._apps, self._credentials, read=self.text_of)
        if self._credentials is None:
            return Targets(found.apps, None, found.organisations)
        senders = parse_toml(self.text_of(self._credentials), Senders)
        endpoints = {
            (each.corp_id, each.name): Endpoint(each.action_url, self._key(each, self._credentials))
            for each in senders.sources
            if each.action_url is not None
        }
        return Targets(found.apps, endpoints, found.organisations)

    def _key(self, source: SourceEntry, path: Path) -> bytes:
        """Of the first secret, which is in use."""
        try:
            if source.secrets:
                return key_of(source.secrets[0].get_secret_value())
            return key_of(secret_in(path, (source.secret_files or ("",))[0], self.text_of).get_secret_value())
        except ValueError as error:
            raise FileBroken(f"the first secret of {source.name}: {error}") from None
