"""The administrator's TOML file: working time, due times, who is reminded how, and who sees what waits.

It is reloaded when it changes. A broken new version is reported, and the old one stays.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import TYPE_CHECKING, Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from taskbridge.center.reminders.due import DueRules, Rule
from taskbridge.center.reminders.messages import ARRIVALS, DIGEST, REMINDER
from taskbridge.center.reminders.web_push import PushKey
from taskbridge.center.reminders.working_time import DAY_MINUTES, HOUR_MS, Period, WorkingTime
from taskbridge.center.settings import parse_person
from taskbridge.runtime.settings import (
    FileBroken,
    FileModel,
    Network,
    NotBlank,
    Port,
    ReloadedFile,
    Url,
    parse_network,
    parse_toml,
)
from taskbridge.runtime.standard_webhooks import key_of
from taskbridge.runtime.tokens import ALL_CORPS

if TYPE_CHECKING:
    from collections.abc import Iterator

_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK = re.compile(r"(\d\d):(\d\d)", re.ASCII)
_MAX_HOURS, _MAX_DAYS, _MAX_RULES, _MAX_CHANNELS = 2_000, 3_660, 200, 50
"""Of working time before a task is due; of holidays; of the file."""


def zone_name(name: str) -> str:
    """The name, if it is one of the IANA database; raises ValueError otherwise."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("must be a time zone of the IANA database, such as Asia/Shanghai") from error
    return name


def _clock(text: str) -> int:
    found = _CLOCK.fullmatch(text)
    minutes = int(found[1]) * 60 + int(found[2]) if found else -1
    if not 0 <= minutes <= DAY_MINUTES or (found is not None and int(found[2]) >= 60):  # noqa: PLR2004
        raise ValueError("must be a time of day, such as 09:00")
    return minutes


def _period(text: object) -> object:
    if not isinstance(text, str):
        raise ValueError("must be a period such as 09:00-18:00")  # noqa: TRY004 - pydantic's
    begin, _, end = text.partition("-")
    return _clock(begin), _clock(end)


def _time(text: object) -> object:
    return _clock(text) if isinstance(text, str) else text


def _in_order(hours: tuple[Period, ...]) -> tuple[Period, ...]:
    edges = [edge for period in hours for edge in period]
    if not hours or any(begin >= end for begin, end in hours) or edges != sorted(edges):
        raise ValueError("must be periods such as 09:00-12:00, in order, that do not overlap")
    return hours


def _dates(text: object) -> object:
    """A date, or the first and the last of several with a slash between. TOML has dates of its own, too."""
    first, _, last = str(text).partition("/")
    return date.fromisoformat(first), date.fromisoformat(last or first)


Clock = Annotated[int, BeforeValidator(_time), Field(ge=0, lt=DAY_MINUTES)]
Hours = Annotated[tuple[Annotated[Period, BeforeValidator(_period)], ...], AfterValidator(_in_order)]
Dates = Annotated[tuple[date, date], BeforeValidator(_dates)]
Corps = Annotated[frozenset[NotBlank], Field(min_length=1)]
People = frozenset[Annotated[tuple[str, str], BeforeValidator(parse_person)]]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


class _Calendar(FileModel):
    time_zone: Annotated[str, AfterValidator(zone_name)] = "Asia/Shanghai"
    hours: Hours = ((9 * 60, 12 * 60), (13 * 60 + 30, 18 * 60))
    days: Annotated[frozenset[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]], Field(min_length=1)] = (
        frozenset(("mon", "tue", "wed", "thu", "fri"))
    )
    holidays: tuple[Dates, ...] = ()
    working_days: tuple[Dates, ...] = ()

    def working_time(self) -> WorkingTime:
        return WorkingTime(
            ZoneInfo(self.time_zone),
            self.hours,
            weekdays=[_WEEKDAYS.index(each) for each in self.days],
            holidays=_days(self.holidays),
            working_days=_days(self.working_days),
        )


def _days(periods: tuple[Dates, ...]) -> Iterator[date]:
    left = _MAX_DAYS
    for first, last in periods:
        left -= max(0, (last - first).days) + 1
        if last < first or left < 0:
            raise FileBroken(f"calendar: {first}/{last} ends before it begins, or there are more than {_MAX_DAYS} days")
        yield from (first + timedelta(days=number) for number in range((last - first).days + 1))


class _Rule(FileModel):
    app_type: NotBlank | None = None
    process: NotBlank | None = None
    hours: Annotated[float, Field(gt=0, le=_MAX_HOURS)]
    remind_hours_before: Annotated[float, Field(gt=0, le=_MAX_HOURS)] | None = None

    @model_validator(mode="after")
    def _names_the_app(self) -> _Rule:
        if self.process is not None and self.app_type is None:
            raise ValueError("process requires app_type")
        return self

    def rule(self) -> Rule:
        before = None if self.remind_hours_before is None else round(self.remind_hours_before * HOUR_MS)
        return Rule(self.app_type, self.process, max(1, round(self.hours * HOUR_MS)), before)


class _Digest(FileModel):
    at: Clock


class Email(FileModel):
    """The SMTP server."""

    host: NotBlank
    port: Port = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: NotBlank | None = None
    password: SecretStr | None = None
    sender: Annotated[str, Field(pattern=r"^[^@\s<>]+@[^@\s<>]+$")]
    corps: Corps = frozenset((ALL_CORPS,))
    ca_file: Path | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> Email:
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password are required together")
        if self.password is not None and self.security == "none":
            raise ValueError('a password requires security = "starttls" or "tls"')
        return self


class Robot(FileModel):
    """A robot of a DingTalk group."""

    name: Name
    url: SecretStr
    secret: SecretStr | None = None
    corps: Corps


class Webhook(FileModel):
    """An endpoint of Standard Webhooks."""

    name: Name
    url: Url
    secret: SecretStr
    corps: Corps


class Push(FileModel):
    """Web Push, to the devices where people turned it on."""

    key: SecretStr
    subject: Annotated[str, Field(pattern=r"^(mailto:|https://)\S+$")]
    corps: Corps = frozenset((ALL_CORPS,))
    titles: frozenset[NotBlank] = frozenset()
    """The corps whose titles a locked screen may show."""
    allowed_networks: tuple[Annotated[Network, BeforeValidator(parse_network)], ...] = ()


class Work(FileModel):
    """DingTalk's work notifications, by the application of each corp."""

    corps: Corps


Channel = Email | Robot | Webhook | Push | Work
PUSH, WORK = "push", "work_notifications"


def kinds_of(channel: Channel) -> tuple[str, ...]:
    """Of the messages that go there."""
    return (REMINDER, DIGEST, *(ARRIVALS if isinstance(channel, Push | Work) else ()))


class _File(FileModel):
    language: Literal["zh", "en"] = "zh"
    calendar: _Calendar = _Calendar()
    rules: Annotated[tuple[_Rule, ...], Field(max_length=_MAX_RULES)] = ()
    owners: dict[str, People] = Field(default_factory=dict[str, People])
    quiet_hours: Annotated[Period, BeforeValidator(_period)] | None = None
    digest: _Digest | None = None
    email: Email | None = None
    robots: Annotated[tuple[Robot, ...], Field(max_length=_MAX_CHANNELS)] = ()
    webhooks: Annotated[tuple[Webhook, ...], Field(max_length=_MAX_CHANNELS)] = ()
    push: Push | None = None
    work_notifications: Work | None = None


@dataclass(frozen=True)
class Reminders:
    """One version of the file."""

    due: DueRules = field(default_factory=DueRules)
    language: Literal["zh", "en"] = "zh"
    owners: dict[str, People] = field(default_factory=dict[str, People])
    """Of apps: who sees what waits in them."""
    quiet_hours: Period | None = None
    digest_at: int | None = None
    channels: dict[str, Channel] = field(default_factory=dict[str, Channel])
    """By name, with their secrets."""
    tls: ssl.SSLContext | None = None
    """Of the SMTP server."""
    push_key: PushKey | None = None

    @property
    def count(self) -> int:
        return len(self.due.rules)

    def is_quiet(self, now: int) -> bool:
        """Whether nothing may be sent at this moment. A period whose end is before its begin lasts over midnight."""
        if self.quiet_hours is None:
            return False
        (begin, end), local = self.quiet_hours, self.due.working_time.local(now)
        at = local.hour * 60 + local.minute
        return begin <= at < end if begin < end else at >= begin or at < end

    def apps_of(self, person: tuple[str, str]) -> list[str]:
        return sorted(app for app, people in self.owners.items() if person in people)


class RemindersFile(ReloadedFile[Reminders]):
    title = "reminders file"
    log_events = "reminders_reloaded", "reminders_broken"

    def parse(self, text: str) -> Reminders:
        file = parse_toml(text, _File)
        rules = DueRules(file.calendar.working_time(), [each.rule() for each in file.rules])
        if len(set(rules.keys)) < len(rules.keys):
            raise FileBroken("rules: an app and process occur twice")
        found = Reminders(
            rules,
            file.language,
            file.owners,
            file.quiet_hours,
            None if file.digest is None else file.digest.at,
            self._channels(file),
            self._tls(file.email),
            self._push_key(file.push),
        )
        if file.digest is not None and found.is_quiet(rules.working_time.moment(date(2000, 1, 1), file.digest.at)):
            raise FileBroken("digest.at: is within quiet_hours")
        return found

    def _channels(self, file: _File) -> dict[str, Channel]:
        found: dict[str, Channel] = {}
        if file.email is not None:
            found["email"] = self._with_secrets("email", file.email)
        if file.push is not None:
            found[PUSH] = file.push
        if file.work_notifications is not None:
            found[WORK] = file.work_notifications
        for kind, channels in (("robots", file.robots), ("webhooks", file.webhooks)):
            for at, each in enumerate(channels):
                if each.name in found:
                    raise FileBroken(f"{kind}.{at}.name: occurs twice, or is that of another channel")
                found[each.name] = self._with_secrets(f"{kind}.{at}", each)
        return found

    def _with_secrets(self, place: str, channel: Channel) -> Channel:
        """With the contents of the files that are named in place of secrets."""
        changed: dict[str, SecretStr] = {}
        for name, value in channel:
            if isinstance(value, SecretStr):
                try:
                    changed[name] = SecretStr(self.secret_of(value.get_secret_value()))
                except FileBroken as error:
                    raise FileBroken(f"{place}.{name}: {error}") from None
        found = channel.model_copy(update=changed)
        if isinstance(found, Robot) and not found.url.get_secret_value().startswith(("https://", "http://")):
            raise FileBroken(f"{place}.url: must be https://…")
        if isinstance(found, Webhook):
            try:
                key_of(found.secret.get_secret_value())
            except ValueError as error:
                raise FileBroken(f"{place}.secret: {error}") from None
        return found

    def _push_key(self, push: Push | None) -> PushKey | None:
        try:
            return None if push is None else PushKey(self.secret_of(push.key.get_secret_value()), push.subject)
        except ValueError:
            raise FileBroken("push.key: must be what 'taskbridge token push' made") from None

    def _tls(self, email: Email | None) -> ssl.SSLContext | None:
        if email is None or email.security == "none":
            return None
        authorities = None
        if email.ca_file is not None:
            authorities = self.text_of(self.path.parent / email.ca_file)
        try:
            return ssl.create_default_context(cadata=authorities)
        except ssl.SSLError:
            raise FileBroken("email.ca_file: has no certificates (PEM)") from None
