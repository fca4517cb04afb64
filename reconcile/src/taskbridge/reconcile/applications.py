"""Keeps the edge's credentials file up to date with DingTalk's list of apps and their system tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import structlog
from msgspec import Struct

from taskbridge.dingtalk.calls import NotOffered, Refused, Unexpected
from taskbridge.dingtalk.times import DAY_MS
from taskbridge.reconcile.credentials_file import CredentialsText, NewEntry
from taskbridge.reconcile.rows import Rows
from taskbridge.runtime.settings import fingerprint

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from taskbridge.dingtalk.organisation import Application, OrganisationApi
    from taskbridge.runtime.clock import Clock

ADDED, RENEWED, DROPPED, ABSENT, WITHOUT_TOKEN = "added", "renewed", "old-token-dropped", "absent", "without-token"
_OLD_TOKEN_MS = DAY_MS
"""How long the token before a renewal is accepted."""
_TABLES = """
CREATE TABLE IF NOT EXISTS app_tokens (
    corp_id TEXT NOT NULL, app_type TEXT NOT NULL, fingerprint TEXT NOT NULL, replaced_ms INTEGER,
    is_replayed INTEGER NOT NULL, PRIMARY KEY (corp_id, app_type, fingerprint)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS app_syncs (corp_id TEXT PRIMARY KEY, ended_ms INTEGER NOT NULL, report BLOB NOT NULL);
"""

_log = structlog.stdlib.get_logger(__name__)


class Change(Struct, frozen=True):
    """One app, by ADDED, RENEWED, DROPPED (of its old token), ABSENT (in DingTalk) or WITHOUT_TOKEN."""

    change: str
    app_type: str
    name: str | None = None


class Report(Struct, frozen=True):
    corp_id: str
    listed: int
    """The apps in DingTalk's list."""
    changes: tuple[Change, ...]

    def of(self, *changes: str) -> list[str]:
        return [each.app_type for each in self.changes if each.change in changes]


class AppTokens(Rows):
    """The tokens that DingTalk listed, by fingerprint, and since when they are replaced. Survives restarts."""

    tables = _TABLES

    def old(self, corp_id: str, app_type: str, *, now_ms: int) -> set[str]:
        """The fingerprints of tokens that were replaced more than a day ago."""
        query = "SELECT fingerprint FROM app_tokens WHERE (corp_id, app_type) = (?, ?) AND replaced_ms <= ?"
        return {*self._firsts(query, (corp_id, app_type, now_ms - _OLD_TOKEN_MS))}

    def expect(self, report: Report, current: Sequence[Application]) -> None:
        """Call this before the file has new tokens: their callbacks are to be checked again, also after a kill."""
        new = {*report.of(ADDED, RENEWED)}
        self._database.executemany(
            "INSERT INTO app_tokens VALUES (?, ?, ?, NULL, 0) ON CONFLICT DO UPDATE SET is_replayed = 0",
            [(report.corp_id, each.app_type, _fingerprint(each)) for each in current if each.app_type in new],
        )

    def record(self, report: Report, current: Sequence[Application], *, now_ms: int) -> None:
        """Record what is in the file now. A token that DingTalk listed before is replaced now."""
        with self.transaction():
            for each in current:
                key = report.corp_id, each.app_type, _fingerprint(each)
                self._database.execute(
                    "INSERT INTO app_tokens VALUES (?, ?, ?, NULL, 1) ON CONFLICT DO UPDATE SET replaced_ms = NULL", key
                )
                self._database.execute(
                    "UPDATE app_tokens SET replaced_ms = ?"
                    " WHERE (corp_id, app_type) = (?, ?) AND fingerprint <> ? AND replaced_ms IS NULL",
                    (now_ms, *key),
                )
            self._database.execute(
                "INSERT OR REPLACE INTO app_syncs VALUES (?, ?, ?)",
                (report.corp_id, now_ms, msgspec.msgpack.encode(report)),
            )

    def to_replay(self) -> set[str]:
        """Apps with a token that came after their callbacks may have been rejected."""
        return {*self._firsts("SELECT app_type FROM app_tokens WHERE NOT is_replayed")}

    def replayed(self, app_types: Collection[str]) -> None:
        """Their rejected callbacks were checked again."""
        self._database.executemany(
            "UPDATE app_tokens SET is_replayed = 1 WHERE app_type = ?", [(each,) for each in app_types]
        )

    def last(self) -> list[tuple[int, Report]]:
        """By corp, the time and the outcome of the last sync."""
        rows = self._database.execute("SELECT ended_ms, report FROM app_syncs ORDER BY corp_id")
        return [(at, msgspec.msgpack.decode(report, type=Report)) for at, report in rows.fetchall()]


def _fingerprint(app: Application) -> str:
    return fingerprint(app.app_type, app.system_token or "")


class AppSync:
    """Writes the apps of an organisation into the credentials file. Safe to repeat, and after a kill at any point."""

    def __init__(self, path: Path, tokens: AppTokens, clock: Clock) -> None:
        self._path, self._tokens, self._clock = path, tokens, clock

    async def run(self, api: OrganisationApi, *, dry_run: bool = False) -> Report:
        """Make the file accept each listed app by its token. Nothing that a person wrote is removed.

        Raises:
            Later, Refused, Unexpected: A call failed.
            FileBroken: The file is invalid, or cannot be edited.
            OperatorError: The file cannot be written. The old one stays.
        """
        corp_id = api.organisation.corp_id
        try:
            listed = await api.applications()
        except NotOffered:
            raise
        except Refused as error:
            hint = "the application needs the permission Yida.App.Read, and the corp token must be right"
            raise Refused(f"{error}: {hint}", error.reason) from None
        current = [each for each in listed if each.system_token and each.system_token.strip()]
        if listed and not current:
            problem = "DingTalk lists apps without their system tokens, which only the dedicated edition (专属版) has"
            raise Unexpected(f"{corp_id}: {problem}")
        now_ms = self._clock.now_ms()
        file = CredentialsText(self._path)
        changes, changed, new = self._compare(corp_id, current, file, now_ms)
        known = {each.app_type for each in listed}
        changes += [Change(WITHOUT_TOKEN, each.app_type, each.name) for each in listed if each not in current]
        changes += [
            Change(ABSENT, each.app_type)
            for each in file.senders.apps
            if each.corp_id in (None, corp_id) and each.app_type not in known
        ]
        report = Report(corp_id, len(listed), tuple(changes))
        text = file.edited(changed, new) if changed or new else None
        if not dry_run:
            if text is not None:
                self._tokens.expect(report, current)
                file.replace(text)
            # After the file: a token counts as replaced once the next one is accepted.
            self._tokens.record(report, current, now_ms=now_ms)
            for each in changes:
                log = _log.warning if each.change in (ABSENT, WITHOUT_TOKEN) else _log.info
                log("app_" + each.change.replace("-", "_"), corp_id=corp_id, app_type=each.app_type)
        return report

    def _compare(
        self, corp_id: str, current: Sequence[Application], file: CredentialsText, now_ms: int
    ) -> tuple[list[Change], dict[int, list[str]], list[NewEntry]]:
        """The changes, the tokens of entries that differ, and new entries."""
        changes, changed, new = list[Change](), dict[int, list[str]](), list[NewEntry]()
        places = {(each.app_type, each.corp_id): at for at, each in enumerate(file.senders.apps)}
        for each in current:
            token = each.system_token or ""
            at = places.get((each.app_type, corp_id), places.get((each.app_type, None)))
            if at is None:
                new.append(NewEntry(each.app_type, corp_id, token, each.name))
                changes.append(Change(ADDED, each.app_type, each.name))
                continue
            here, in_files = file.tokens_of(file.senders.apps[at])
            old = self._tokens.old(corp_id, each.app_type, now_ms=now_ms)
            left = [known for known in here if known == token or fingerprint(each.app_type, known) not in old]
            tokens = left if token in in_files else [token, *(known for known in left if known != token)]
            if not tokens or tokens == here:
                continue
            changed[at] = tokens
            if token not in here and token not in in_files:
                changes.append(Change(RENEWED, each.app_type, each.name))
            if len(left) < len(here):
                changes.append(Change(DROPPED, each.app_type, each.name))
        return changes, changed, new
