"""What is known of each configured token: where it stands, and when it last signed a callback."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from taskbridge.edge.verification.credentials import CredentialsFile
from taskbridge.edge.verification.token_use import read_use

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class TokenReport:
    """One token. Times are ISO 8601, UTC."""

    app_type: str
    token: str
    """Its fingerprint."""
    place: str
    last_used: str | None
    recorded_since: str
    """Never used means not since then."""

    def line(self) -> str:
        used = f"last used {self.last_used}" if self.last_used else f"never used since {self.recorded_since}"
        return f"{self.app_type}  {self.token}  {self.place}  {used}"

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def report_tokens(credentials: Path, data_dir: Path) -> list[TokenReport]:
    """One report for each token, in the order of the credentials file.

    Raises:
        CredentialsBroken: the credentials cannot be read.
        UseUnknown: ``data_dir`` has no record: nothing may be said then, least of all that a token is not used.
    """
    tokens = CredentialsFile(credentials).current.tokens
    use = read_use(data_dir)
    since = _iso(use.since)
    return [
        TokenReport(
            each.app_type,
            each.fingerprint,
            each.place,
            _iso(use.last[each.fingerprint]) if each.fingerprint in use.last else None,
            since,
        )
        for each in tokens
    ]


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
