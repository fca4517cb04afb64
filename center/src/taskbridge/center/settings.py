"""The settings of the task center, all from the environment."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode, SettingsConfigDict

from taskbridge.runtime import extensions
from taskbridge.runtime.settings import DatabaseSettings, FileOrNone, Networks, Port, TextOrNone, UrlOrNone


def _names(value: Any) -> Any:
    return tuple(each.strip() for each in value.split(",") if each.strip()) if isinstance(value, str) else value


def parse_person(text: object) -> tuple[str, str]:
    """As in a record's key, the corp ends at the first slash."""
    corp, _, user = str(text).partition("/")
    if not corp or not user:
        raise ValueError("must be corp/user")
    return corp, user


def _people(value: Any) -> Any:
    return tuple(parse_person(each) for each in _names(value)) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)]
People = Annotated[tuple[tuple[str, str], ...], NoDecode, BeforeValidator(_people)]


class CenterSettings(DatabaseSettings):
    """Each field is the environment variable ``CENTER_`` and its name in capitals; the reference has its text."""

    model_config = SettingsConfigDict(env_prefix="CENTER_")
    unknown: ClassVar[str] = "no such setting, or one of an extension that is not installed"

    host: str = "127.0.0.1"
    """Address on which the API, health, metrics and pages are served. Any address other than loopback requires
    `CENTER_API_TOKENS_FILE`."""
    port: Port = 8500
    """Port on which they are served. `0` chooses a free port."""
    data_dir: Path = Path("taskbridge-center")
    api_tokens_file: Path | None = None
    """File with the API tokens and their permissions. Changes are loaded without a restart."""
    allowed_origins: str = ""
    """Origins whose pages may embed the task list, such as `https://portal.example`, comma-separated."""
    query_rate_per_s: float = Field(500.0, gt=0)
    """Average queries per second that a replica answers for one caller: a token, a signed-in person, or an address.
    Further ones get 429 with `Retry-After`."""
    event_streams: int = Field(10_000, ge=1)
    """Maximum number of live-update connections per replica. Each takes about 10 KB. Further ones get 503."""
    edge_urls: str = ""
    """URLs of the edges, comma-separated. A name with several addresses stands for all of them. The operator page shows
    their status."""
    streams_urls: str = ""
    """URLs of the streams workers, in the same form. The operator page shows their partitions and their lag."""
    reconcile_url: str = ""
    """URL of the reconcile service. The operator page shows the callbacks that it found missing, by app and day."""
    webhooks_urls: str = ""
    """URLs of the webhooks services, in the same form. The operator page shows their endpoints, and acts on them."""
    webhooks_token_file: Path | None = None
    """File with the token that the webhooks services require of the task center. It is read at each request."""
    corp_id: TextOrNone = None
    """Corp of all people who sign in. A header or claim with the corp, if one is set, is used in place of it."""
    mapped_id: str | None = None
    """Type of id in the proxies' header or the provider's claim, if it is not the user id: `employee_number`, or the
    name of another id in the people topic. With a claim, the person must have been imported either way. Not for a proxy
    and a provider at once, whose ids may be of two types."""
    sso_proxies: Networks = ()
    """Networks of the reverse proxies whose identity headers are trusted (CIDR, comma-separated)."""
    sso_user_header: str = "x-forwarded-user"
    """Header in which these proxies send the id of the person who signed in."""
    sso_corp_header: TextOrNone = None
    """Header in which these proxies send the person's corp. `CENTER_SSO_PROXIES` requires this or `CENTER_CORP_ID`."""
    sso_groups_header: TextOrNone = None
    """Header in which these proxies send the person's groups, comma-separated. They must set or remove it in every
    request, or people could send their own."""
    public_url: UrlOrNone = None
    """URL under which people open the task center, such as `https://tasks.example`. The identity provider sends them
    back to `/sign-in/callback` there."""
    oidc_issuer: UrlOrNone = None
    """URL of the OpenID Connect provider where people sign in, without `/.well-known/…`. Requires
    `CENTER_OIDC_CLIENT_ID`, `CENTER_PUBLIC_URL`, and a corp."""
    oidc_client_id: TextOrNone = None
    """The task center's client id at the provider."""
    oidc_client_secret_file: FileOrNone = None
    """File with the client's secret. Read at each sign-in. Not needed for a public client: the flow uses PKCE."""
    oidc_scopes: str = "openid profile"
    """Scopes that are requested, with spaces between."""
    oidc_user_claim: str = "preferred_username"
    """Claim with the person's id."""
    oidc_corp_claim: TextOrNone = None
    """Claim with the person's corp. `CENTER_OIDC_ISSUER` requires this or `CENTER_CORP_ID`."""
    oidc_groups_claim: str = "groups"
    """Claim with the person's groups."""
    credentials_file: FileOrNone = None
    """The edge's credentials file, for other systems with an `action_url`, and for system tokens that are not in
    `CENTER_APPS_FILE`."""
    operator_groups: Names = ()
    """Groups at the OpenID Connect provider, or of `CENTER_SSO_GROUPS_HEADER`, whose members are operators: they see
    every corp and the operator page. Comma-separated. A change at the provider counts at the next sign-in."""
    auditor_groups: Names = ()
    """Groups of auditors there, who see the audit trail."""
    operators: People = ()
    """Signed-in people who are operators, also those whom a proxy names: `corp/user`, comma-separated."""
    auditors: People = ()
    """Signed-in people who are auditors, in the same form."""
    audit_days: int = Field(1095, ge=1)
    """Days after which entries of the audit trail are deleted."""
    reminders_file: FileOrNone = None
    """File with working hours, due times, reminders, and the owners of apps. Changes are loaded without a restart."""
    session_idle_minutes: int = Field(480, ge=1)
    """A session ends so long after its latest request."""
    session_hours: int = Field(168, ge=1)
    """A session ends so long after its sign-in."""
    mcp: bool = False
    """`on` serves assistants at `/mcp`. People need `CENTER_OIDC_ISSUER`, programs a token of
    `CENTER_API_TOKENS_FILE`."""
    mcp_rules_file: FileOrNone = None
    """File with the decisions that an assistant may make without a confirmation. Without it, there are none.
    Changes are loaded without a restart."""
    proposal_minutes: int = Field(10, ge=1, le=60)
    """A decision that an assistant proposes expires so long afterwards."""


@cache
def settings_class() -> type[CenterSettings]:
    """The settings of the task center and of all installed extensions, each a class derived from ``CenterSettings``.

    Raises ConfigurationError if an extension cannot be loaded.
    """
    classes = tuple(extensions.load_all(extensions.CENTER_SETTINGS)) or (CenterSettings,)
    return classes[0] if len(classes) == 1 else type("CenterSettings", classes, {"__module__": __name__})
