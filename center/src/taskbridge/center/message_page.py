"""A page of one message in both languages, for a browser that goes to an address and not to one of our pages."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import structlog
from starlette.responses import HTMLResponse

from taskbridge.runtime.database import DatabaseUnavailable
from taskbridge.runtime.refusals import NotNow, Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

log = structlog.get_logger(__name__)

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "manifest-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    # The browser itself refuses to turn text into markup: a slip in our scripts fails, and does not run.
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""No inline scripts or styles, nothing from elsewhere, in nobody's frame: the component is the way to embed."""
HEADERS = {
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    # Addresses of the pages name people and instances: other sites' approval pages must not see them.
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Vary": "Accept-Encoding",
}
PAGE_HEADERS = {**HEADERS, "Cache-Control": "no-store", "Content-Security-Policy": CONTENT_SECURITY_POLICY}
"""Of a page that is made for one person."""

_PAGE = """<!doctype html>
<html lang="zh-CN">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="stylesheet" href="/assets/base.css">
<link rel="stylesheet" href="/assets/page.css">
</head>
<body>
<main class="sign-in"><div class="sign-in-form">
{body}
</div></main>
</body>
</html>
"""


def message_page(title: str, body: str, status: int = 200, headers: Mapping[str, str] | None = None) -> HTMLResponse:
    """``title`` and ``body`` are HTML."""
    return HTMLResponse(_PAGE.format(title=title, body=body), status, headers={**PAGE_HEADERS, **(headers or {})})


def refusal_page(
    refused: Refused | DatabaseUnavailable,
    *,
    title: str,
    heading: str,
    chinese: Mapping[type[Refused], str],
    otherwise: str,
    more: str = "",
) -> HTMLResponse:
    """Why something is refused: in Chinese by its class, or ``otherwise``, and what it says in English."""
    if isinstance(refused, DatabaseUnavailable):
        log.warning("database_unavailable", problem=str(refused))
        refused = NotNow("the database does not answer: try again later")
    text = str(refused)
    body = f"""<h1>{heading}</h1>
<p>{chinese.get(type(refused), otherwise)}</p>
<p lang="en">{html.escape(text[:1].upper() + text[1:])}.</p>
{more}"""
    return message_page(title, body, refused.status, refused.headers)
