"""The peer: a FastAPI handler that returns a constant, of about the size of a page of fifty lines.

``python -m tests.bench.query.constant PORT``. What it costs is what the framework and the server cost everybody.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.responses import Response

from taskbridge.streams.query.models import ITEM_EXAMPLE

_LINES = 50


def build() -> FastAPI:
    http = FastAPI()
    page: dict[str, Any] = {"items": [ITEM_EXAMPLE] * _LINES, "next_cursor": None}
    body = json.dumps(page, ensure_ascii=False).encode()

    @http.get("/constant")
    async def constant() -> Response:  # pyright: ignore[reportUnusedFunction]
        return Response(body, media_type="application/json")

    return http


def main() -> None:
    uvicorn.run(build(), host="127.0.0.1", port=int(sys.argv[1]), log_config=None, access_log=False)


if __name__ == "__main__":
    main()
