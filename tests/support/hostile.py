"""Requests of a megabyte that nobody signed, each made to cost as much as it can before that is known."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

from edge.testing import APP_TYPE, CORP_ID

if TYPE_CHECKING:
    from collections.abc import Mapping

SIZE = (1 << 20) - 1024
_HALF = SIZE // 2
_FORM = {"content-type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True, kw_only=True)
class Hostile:
    name: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    query: str = ""
    action: str = "create"


def _filled(before: str, piece: str, after: str) -> str:
    return before + piece * ((SIZE - len(before) - len(after)) // len(piece)) + after


def _json(name: str, text: str, action: str = "create") -> Hostile:
    """The null and the plus make it be read in more than one way."""
    return Hostile(name=name, action=action, query="sign=0&a=+" if action == "create" else "a=+", body=text.encode())


def hostile() -> list[Hostile]:
    """Each names an app that is known, for else it is refused before it is hashed."""
    task = f'{{"appType":"{APP_TYPE}","corpId":"{CORP_ID}",'
    nested = {
        "lists": _filled(task + '"x":[', "[],", "1]}"),
        "objects": _filled(task + '"x":[', "{},", "1]}"),
        "numbers": _filled(task + '"x":[', "1,", "1]}"),
        "texts": _filled(task + '"x":[', '"",', "1]}"),
        "members": _filled(task, '"a":1,', '"b":1}'),
        "the app again and again": _filled("{", '"appType":"x",', task[1:] + '"b":1}'),
        "never closed": _filled(task + '"x":', "[", ""),
        "digits": _filled(task + '"x":', "1", "}"),
        "escapes": _filled(task + '"x":"', "\\n", '"}'),
        "half surrogate pairs": _filled(task + '"x":"', "\\ud800", '"}'),
        "an app of a megabyte": _filled('{"appType":"', "x", '"}'),
        "an app that is a list": _filled('{"appType":[', "[],", "1]}"),
    }

    def form(name: str, text: str, **more: str) -> Hostile:
        return Hostile(name=name, body=text.encode("latin-1"), headers={**_FORM, **more})

    located = "sign=0&task=" + quote(task + '"x":"') + "{}" + quote('"}')
    before, after = located.split("{}")
    flat = f'{{"sign":"0","appType":"{APP_TYPE}","corpId":"{CORP_ID}",'
    return [
        *(
            Hostile(
                name=f"{name} in a task",
                query="sign=0&a=+",
                body=json.dumps({"task": text[: SIZE // 2], "n": None}).encode(),
            )
            if '"' * 9 in text or "\\" in text
            else Hostile(
                name=f"{name} in a task", query="sign=0&a=+", body=json.dumps({"task": text, "n": None}).encode()[:SIZE]
            )
            for name, text in nested.items()
        ),
        *(
            _json(f"{name} in a task", json.dumps({"task": text[: SIZE // 2], "n": None}))
            for name, text in nested.items()
        ),
        *(_json(f"{name} as a task", '{"n":null,"task":' + text + "}") for name, text in nested.items()),
        *(_json(f"{name} as the body", flat + text[len(task) :], "complete") for name, text in nested.items()),
        form("escapes in a form", _filled(before, "%41", after)),
        form("pluses in a form", _filled(before, "+", after)),
        form("pairs", _filled(before + after, "&a=1", "")),
        form("separators", _filled(before + after, "&", "")),
        form("GBK", _filled(before, "%d5%c5", after), **{"content-type": _FORM["content-type"] + ";charset=gbk"}),
        Hostile(name="gzip", body=gzip.compress(nested["lists"].encode())),
        Hostile(
            name="parts",
            body=b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n" + b"\r\n--" * (SIZE // 4),
            headers={"content-type": "multipart/form-data; boundary=b"},
        ),
        Hostile(
            name="lines in parts",
            body=b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n" + b"\r\n" * (SIZE // 2),
            headers={"content-type": "multipart/form-data; boundary=b"},
        ),
    ]
