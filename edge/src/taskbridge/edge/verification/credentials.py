"""The senders that are known here and their secrets: a TOML file, and files it names, read again when one changes."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from taskbridge.edge.verification.webhooks import key_of
from taskbridge.runtime.settings import AppEntry, FileBroken, FileNames, NotBlank, ReloadedFile, Secrets, parse_toml
from taskbridge.schemas.events import SOURCE_TASKBRIDGE, SOURCE_YIDA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


def _not_ours(name: str) -> str:
    if name in (SOURCE_YIDA, SOURCE_TASKBRIDGE):
        raise ValueError("is taken")
    return name


_BEARER = re.compile(r"[A-Za-z0-9._~+/=-]{32,}")
"""RFC 6750's characters, and too many of them to be tried one by one."""


class _Source(BaseModel):
    """One other system as it stands in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$"), AfterValidator(_not_ours)]
    corp_id: NotBlank
    format: Literal["cloudevents", "flowable", "camunda", "todo"] = "cloudevents"
    secrets: Secrets | None = None
    secret_files: FileNames | None = None
    bearer_tokens: Secrets | None = None
    bearer_token_files: FileNames | None = None

    @model_validator(mode="after")
    def _has_secrets(self) -> _Source:
        if not (self.secrets or self.secret_files or self.bearer_tokens or self.bearer_token_files):
            raise ValueError("secrets, secret_files, bearer_tokens or bearer_token_files is required")
        return self


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    apps: tuple[AppEntry, ...] = ()
    sources: tuple[_Source, ...] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """One secret, and what may be said of it. A repr does not show it."""

    secret: SecretStr
    app_type: str
    """The app, or the other system, that signs with it."""
    place: str
    """Where it stands: ``apps.0.system_tokens.1`` of the TOML file, or a file of its own."""
    fingerprint: str
    """Names the token in logs, metrics and commands, and gives nothing of it away."""


@dataclass(frozen=True, slots=True)
class App:
    """One app, and the tokens that it may sign with at present."""

    app_type: str
    corp_id: str | None
    tokens: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """One other system, the organisation that it speaks for, and how it proves that it is it, at present."""

    name: str
    corp_id: str
    format: str
    secrets: tuple[Token, ...]
    """It signs with these,"""
    bearers: tuple[Token, ...]
    """or sends one of these, where it cannot sign."""
    keys: tuple[bytes, ...] = field(repr=False)
    """For which its secrets stand."""
    bearer_digests: tuple[str, ...]

    @property
    def tokens(self) -> tuple[Token, ...]:
        return self.secrets + self.bearers


class Credentials:
    """The apps by type, of which one may stand with several organisations, and the other systems by name."""

    def __init__(self, apps: Sequence[App], sources: Sequence[Source] = ()) -> None:
        self._apps: dict[str, list[App]] = {}
        for app in apps:
            self._apps.setdefault(app.app_type, []).append(app)
        self._signers = {
            app_type: [(app, token) for app in known for token in app.tokens] for app_type, known in self._apps.items()
        }
        self._sources = {source.name: source for source in sources}
        self.count = len(apps) + len(sources)
        self.tokens: Sequence[Token] = [token for sender in (*apps, *sources) for token in sender.tokens]

    @property
    def app_types(self) -> Iterable[str]:
        return self._apps

    def apps(self, app_type: str) -> Sequence[App]:
        return self._apps.get(app_type, ())

    def signers(self, app_type: str) -> Sequence[tuple[App, Token]]:
        """Each token of the app, with the organisation that it is for."""
        return self._signers.get(app_type, ())

    def source(self, name: str) -> Source | None:
        return self._sources.get(name)


def fingerprint(app_type: str, system_token: str) -> str:
    """Eight hex digits that name a token of an app, the same for ever."""
    named = f"taskbridge token fingerprint\0{app_type}\0{system_token}"
    return hashlib.sha256(named.encode()).hexdigest()[:8]


def parse_credentials(text: str, *, read_token: Callable[[str], str] | None = None) -> Credentials:
    """The credentials in a TOML text; ``read_token`` gives the token in a file that it names.

    Raises:
        FileBroken: not TOML, or not what the file should hold.
    """
    file = parse_toml(text, _File)
    apps, sources = file.apps, file.sources
    if len({(app.app_type, app.corp_id) for app in apps}) < len(apps):
        raise FileBroken("apps: an app_type occurs twice with the same corp_id")
    if len({source.name for source in sources}) < len(sources):
        raise FileBroken("sources: a name occurs twice")
    if len({each.corp_id for each in (*apps, *sources)} - {None}) > 1:
        unsaid = next((at for at, app in enumerate(apps) if app.corp_id is None), None)
        if unsaid is not None:
            # Whoever holds its token could sign for any of them.
            problem = f"apps.{unsaid}: corp_id is required, because the file has apps of several corps"
            raise FileBroken(problem)

    def held(
        owner: str, place: str, here: Sequence[SecretStr] | None, files: Sequence[str] | None
    ) -> tuple[Token, ...]:
        """The secrets in the text itself, and then those in files."""
        found = [(f"{place}.{number}", secret) for number, secret in enumerate(here or ())]
        for name in files or ():
            if read_token is None:
                raise FileBroken(f"{place.rpartition('.')[2].removesuffix('s')}_files cannot be read here")
            found.append((name, SecretStr(read_token(name))))
        return tuple(
            Token(secret, owner, where, fingerprint(owner, secret.get_secret_value())) for where, secret in found
        )

    return Credentials(
        [
            App(
                app.app_type,
                app.corp_id,
                held(app.app_type, f"apps.{at}.system_tokens", app.system_tokens, app.system_token_files),
            )
            for at, app in enumerate(apps)
        ],
        [
            _source(
                source,
                held(source.name, f"sources.{at}.secrets", source.secrets, source.secret_files),
                held(source.name, f"sources.{at}.bearer_tokens", source.bearer_tokens, source.bearer_token_files),
            )
            for at, source in enumerate(sources)
        ],
    )


def _source(source: _Source, secrets: tuple[Token, ...], bearers: tuple[Token, ...]) -> Source:
    keys: list[bytes] = []
    for each in secrets:
        try:
            keys.append(key_of(each.secret.get_secret_value()))
        except ValueError as error:
            raise FileBroken(f"{each.place}: {error}") from None
    for each in bearers:
        if not _BEARER.fullmatch(each.secret.get_secret_value()):
            raise FileBroken(f"{each.place}: must be at least 32 letters, digits and -._~+/=")
    digests = tuple(hashlib.sha256(each.secret.get_secret_value().encode()).hexdigest() for each in bearers)
    return Source(source.name, source.corp_id, source.format, secrets, bearers, tuple(keys), digests)


class CredentialsFile(ReloadedFile[Credentials]):
    """The credentials in force. A file without apps is right at the start only."""

    title = "credentials file"
    log_events = "credentials_reloaded", "credentials_broken"

    def parse(self, text: str) -> Credentials:
        credentials = parse_credentials(text, read_token=self._token)
        if self.is_in_force and not credentials.count:
            raise FileBroken("no apps")
        return credentials

    def _token(self, name: str) -> str:
        # Relative to the folder that the TOML is mounted in, whatever its name there is a link to.
        try:
            token = self.text_of(self.path.parent / name).removesuffix("\n").removesuffix("\r")
        except FileBroken as error:
            raise FileBroken(f"token file {name}: {error}") from error
        if not token.strip():
            raise FileBroken(f"token file {name}: is empty")
        return token
