"""The apps file (TOML): apps of Yida, and the credentials of their corps for DingTalk's API."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from taskbridge.dingtalk.times import DAY_MS
from taskbridge.runtime.settings import FileBroken, FileModel, NotBlank, ReloadedFile, Senders, Url, parse_toml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from taskbridge.runtime.settings import AppEntry


def _address(url: str) -> str:
    """Without a slash at its end. Raises ValueError if calls could not be made with it."""
    parts = urlsplit(url)
    is_address = parts.hostname and parts.port != 0 and parts.username is None and not (parts.query or parts.fragment)
    if not is_address or not url.isprintable() or " " in url or "?" in url or "#" in url:
        raise ValueError("must be a URL with a host, without user, query and fragment")
    return url.rstrip("/")


_Address = Annotated[Url, AfterValidator(_address)]


class _Corp(FileModel):
    corp_id: NotBlank
    app_key: NotBlank
    app_secret: SecretStr | None = None
    app_secret_file: NotBlank | None = None
    user_id: NotBlank
    agent_id: Annotated[int, Field(gt=0)] | None = None
    corp_token: SecretStr | None = None
    corp_token_file: NotBlank | None = None
    write_agents: bool = False
    env: Literal["vpc", "sgp_vpc"] | None = None
    yida_url: _Address | None = None
    yida_auth: Literal["app", "corp"] = "app"
    api_url: _Address | None = None

    @model_validator(mode="after")
    def _has_secret(self) -> _Corp:
        if (self.app_secret is None) == (self.app_secret_file is None):
            raise ValueError("exactly one of app_secret and app_secret_file is required")
        if self.corp_token is not None and self.corp_token_file is not None:
            raise ValueError("corp_token and corp_token_file exclude each other")
        if self.write_agents and not self.has_corp_token:
            raise ValueError("write_agents requires corp_token or corp_token_file")
        return self

    @property
    def has_corp_token(self) -> bool:
        return self.corp_token is not None or self.corp_token_file is not None


class _App(FileModel):
    app_type: NotBlank
    corp_id: NotBlank | None = None
    system_token: SecretStr | None = None
    system_token_file: NotBlank | None = None
    user_id: NotBlank | None = None
    forms: tuple[NotBlank, ...] = ()
    ordinary_forms: tuple[NotBlank, ...] = ()
    omit_fields: tuple[NotBlank, ...] = ()
    hash_fields: tuple[NotBlank, ...] = ()
    keep_days: dict[NotBlank, Annotated[int, Field(gt=0, le=36_500)]] = Field(default={})
    url: Annotated[str, Field(pattern=r"^https?://.*\{instance_id\}")] | None = None


class _File(FileModel):
    corps: tuple[_Corp, ...]
    apps: tuple[_App, ...] = ()


@dataclass(frozen=True, slots=True)
class Corp:
    """A corp, with the credentials of its DingTalk application. The repr does not show the secret."""

    corp_id: str
    """Empty: the corp of the application, which gets its tokens by ``GetAccessToken``."""
    app_key: str
    app_secret: SecretStr
    env: str | None = None
    """The site of its Yida: `vpc` in China, the default; `sgp_vpc` abroad. By the document of GetOperationRecords."""
    yida_url: str = ""
    """The URL of its dedicated cluster (专属版), for the calls of Yida. Empty: they go where all other calls go."""
    yida_auth_by_corp: bool = False
    """Whether that cluster gives access tokens as the public API does, and not by ``GetAccessToken``."""
    api_url: str = ""
    """The URL for all other calls. Empty: the one in the settings of the service."""

    def base_of(self, path: str) -> str:
        """Where a call goes; empty for the URL in the settings."""
        return self.yida_url or self.api_url if "/yida/" in path else self.api_url


@dataclass(frozen=True, slots=True)
class App:
    corp: Corp
    app_type: str
    system_token: SecretStr
    user_id: str
    """A user who may see all data of the app."""
    forms: tuple[str, ...]
    """The forms to read. Empty: all that start a process."""
    url: str | None = None
    """The URL of an instance's page, with `{instance_id}` for its id: DingTalk's API does not return it."""
    ordinary_forms: tuple[str, ...] = ()
    """Forms without a process whose values are published."""
    omit_fields: tuple[str, ...] = ()
    """Shell patterns of field ids and labels whose values are not published; a sub-form's field is `SUBFORM.FIELD`."""
    hash_fields: tuple[str, ...] = ()
    """Those whose values are published as hashes."""
    keep_days: tuple[tuple[str, int], ...] = ()
    """Shell patterns of form ids, and how many days after an instance's last change its values stay published."""

    @property
    def corp_id(self) -> str:
        return self.corp.corp_id

    def kept_since(self, form_uuid: str, *, now_ms: int) -> int:
        """Values of the form that did not change since this time are no longer published. The first pattern counts."""
        matching = (days for pattern, days in self.keep_days if fnmatchcase(form_uuid, pattern))
        return now_ms - days * DAY_MS if (days := next(matching, 0)) else 0

    def url_of(self, instance_id: str) -> str | None:
        return None if self.url is None else self.url.replace("{instance_id}", quote(instance_id, safe=""))


@dataclass(frozen=True, slots=True)
class Organisation:
    """A corp, and what calls for all of its apps need. The repr does not show the secrets."""

    corp: Corp
    user_id: str
    corp_token: SecretStr | None = None
    """Proves to DingTalk that the caller may list all apps with their system tokens, agents, and copies by person."""
    agent_id: int | None = None
    """Of the DingTalk application, for work notifications."""
    write_agents: bool = False
    """Whether people may have delegations written to Yida. Only with a corp token."""

    @property
    def corp_id(self) -> str:
        return self.corp.corp_id


@dataclass(frozen=True, slots=True)
class Apps:
    organisations: tuple[Organisation, ...]
    apps: tuple[App, ...]

    @property
    def count(self) -> int:
        return len(self.apps)


class AppsFile(ReloadedFile[Apps]):
    """The apps file. A change of it, or of a file that it uses, is in use after ``reload_if_changed``."""

    title = "apps file"
    log_events = "apps_reloaded", "apps_broken"

    def __init__(self, path: Path, credentials: Path | None = None) -> None:
        """``credentials`` is the edge's file. An app without a system token uses its token from there.

        Raises:
            FileBroken: A file cannot be read or is wrong. The message contains no secret.
        """
        self.credentials = credentials
        super().__init__(path)

    def parse(self, text: str) -> Apps:
        """A corp with a corp token and without apps has those of the edge's file: they follow DingTalk's list."""
        file = parse_toml(text, _File)
        organisations = self._organisations(file)

        @cache
        def known() -> tuple[AppEntry, ...]:
            """Read where an app needs them: nothing else depends on the edge's file."""
            return () if self.credentials is None else self._senders(self.credentials).apps

        corps = {each.corp_id: each.corp for each in organisations}
        users = {each.corp_id: each.user_id for each in organisations}
        listed = [
            _App(app_type=each.app_type, corp_id=corp.corp_id)
            for corp in file.corps
            if corp.has_corp_token and not any(each.corp_id in (None, corp.corp_id) for each in file.apps)
            for each in known()
            if each.corp_id in (None, corp.corp_id)
        ]
        if not file.apps and not any(each.has_corp_token for each in file.corps):
            raise FileBroken("apps: at least one is required, unless a corp has a corp_token")
        found: dict[tuple[str, str], App] = {}
        for at, each in enumerate((*file.apps, *listed)):
            corp_id = each.corp_id or (next(iter(corps)) if len(corps) == 1 else None)
            if corp_id not in corps:
                raise FileBroken(f"apps.{at}: corp_id must be the corp_id of one of [[corps]]")
            token = each.system_token
            if token is None and each.system_token_file is not None:
                token = secret_in(self.path, each.system_token_file, self._named_text)
            if token is None and self.credentials is not None:
                token = self._known_token(each, corp_id, known(), self.credentials)
            if token is None or not token.get_secret_value().strip():
                raise FileBroken(
                    f"apps.{at}: system_token is required, unless the app is in the edge's credentials file"
                )
            if (corp_id, each.app_type) in found:
                raise FileBroken(f"apps.{at}: an app_type occurs twice with the same corp_id")
            found[corp_id, each.app_type] = App(
                corps[corp_id],
                each.app_type,
                token,
                each.user_id or users[corp_id],
                each.forms,
                each.url,
                each.ordinary_forms,
                each.omit_fields,
                each.hash_fields,
                tuple(each.keep_days.items()),
            )
        return Apps(organisations, tuple(found.values()))

    def _organisations(self, file: _File) -> tuple[Organisation, ...]:
        found = tuple(
            Organisation(
                Corp(
                    each.corp_id,
                    each.app_key,
                    self._secret(each.app_secret, each.app_secret_file, "app_secret"),
                    each.env,
                    yida_url=each.yida_url or "",
                    yida_auth_by_corp=each.yida_auth == "corp",
                    api_url=each.api_url or "",
                ),
                each.user_id,
                self._secret(each.corp_token, each.corp_token_file, "corp_token") if each.has_corp_token else None,
                each.agent_id,
                each.write_agents,
            )
            for each in file.corps
        )
        if len({each.corp_id for each in found}) < len(found):
            raise FileBroken("corps: a corp_id occurs twice")
        return found

    def _secret(self, here: SecretStr | None, file: str | None, name: str) -> SecretStr:
        secret = here or secret_in(self.path, file or "", self._named_text)
        if not secret.get_secret_value().strip():
            raise FileBroken(f"corps: an {name} is empty")
        return secret

    def _senders(self, credentials: Path) -> Senders:
        try:
            return parse_toml(self._named_text(credentials), Senders)
        except FileBroken as error:
            raise FileBroken(f"credentials file {credentials}: {error}") from None

    def _known_token(self, app: _App, corp_id: str, senders: Iterable[AppEntry], credentials: Path) -> SecretStr | None:
        for known in senders:
            if known.app_type == app.app_type and known.corp_id in (None, corp_id):
                # The first is current; the others are previous or future ones.
                if known.system_tokens:
                    return known.system_tokens[0]
                if known.system_token_files:
                    return secret_in(credentials, known.system_token_files[0], self._named_text)
        return None

    def _named_text(self, path: Path) -> str:
        try:
            return self.text_of(path)
        except (FileBroken, ValueError) as error:
            why = error if isinstance(error, FileBroken) else "not a file name"
            raise FileBroken(f"{path.name}: {why}") from None


def secret_in(base: Path, name: str, read: Callable[[Path], str]) -> SecretStr:
    """The secret in a file that another file names."""
    return SecretStr(read(base.parent / name).removesuffix("\n").removesuffix("\r"))
