"""``template``: JSON by a Jinja2 template in a sandbox, signed by Standard Webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from taskbridge.schemas.json_forms import notification_json
from taskbridge.webhooks.formats.base import EXAMPLE, JSON, Answer, Attempt, Call, DeliveryProblem, Options, checked
from taskbridge.webhooks.formats.notification import post_signed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


_MAX_BYTES = 256 << 10
_environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
# An endless loop would stop all deliveries; JSON needs none.
_environment.globals.pop("range")


class _Options(Options):
    template: str
    """Of the body; `file:PATH` names a file. Its variables are the fields of the notification; `tojson` quotes."""


def options(given: Mapping[str, Any], read: Callable[[str], str]) -> Template:
    text = read(checked(_Options, given, read).template)
    try:
        found = _environment.from_string(text)
    except Exception as error:  # a template of many brackets is too deep for the compiler
        raise ValueError(f"template: {_said(error)}") from error
    try:
        _render(found, notification_json(EXAMPLE))
    except DeliveryProblem as error:
        raise ValueError(f"template: {error}") from None
    return found


async def send(attempt: Attempt, call: Call) -> Answer:
    return await post_signed(attempt, call, _render(attempt.options, attempt.data), JSON)


def _render(template: Template, data: Mapping[str, Any]) -> bytes:
    try:
        body = template.render(data).encode()
    except Exception as error:  # an expression can raise anything: KeyError, IndexError, RecursionError
        raise DeliveryProblem(f"the template fails: {_said(error)}") from error
    if len(body) > _MAX_BYTES:
        raise DeliveryProblem(f"the template's result is larger than {_MAX_BYTES >> 10} KiB")
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DeliveryProblem(f"the template's result is not JSON: {error}") from error
    return body


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
