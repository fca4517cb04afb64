"""An assistant: the official client of MCP, at a task center that is served on this machine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, Implementation, TextContent

from support.sign_in import URL

if TYPE_CHECKING:
    from mcp.client.client import ConnectMode
    from mcp.client.session import ElicitationFnT

    from support.identity_provider import IdentityProvider

AUDIENCE = f"{URL}/mcp"


class Assistant:
    """With one access token. Each call is a connection of its own."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        mode: ConnectMode = "auto",
        elicit: ElicitationFnT | None = None,
        name: str = "test",
    ) -> None:
        self._url, self._token, self._mode, self._elicit = url, token, mode, elicit
        self._name = name

    def calls(self, *calls: tuple[str, dict[str, Any]]) -> list[CallToolResult]:
        async def run() -> list[CallToolResult]:
            headers = {"Authorization": f"Bearer {self._token}"}
            async with (
                httpx2.AsyncClient(headers=headers, timeout=60) as http,
                Client(
                    streamable_http_client(f"{self._url}/mcp", http_client=http),
                    mode=self._mode,
                    elicitation_callback=self._elicit,
                    client_info=Implementation(name=self._name, version="1"),
                ) as client,
            ):
                return [await client.call_tool(name, arguments) for name, arguments in calls]

        return asyncio.run(run())

    def __call__(self, tool: str, **arguments: Any) -> Any:
        """The structured content of the answer, or the text of the refusal."""
        [answer] = self.calls((tool, arguments))
        return text_of(answer) if answer.is_error else answer.structured_content

    def tools(self) -> dict[str, Any]:
        async def run() -> dict[str, Any]:
            async with (
                httpx2.AsyncClient(headers={"Authorization": f"Bearer {self._token}"}) as http,
                Client(streamable_http_client(f"{self._url}/mcp", http_client=http), mode=self._mode) as client,
            ):
                return {each.name: each for each in (await client.list_tools()).tools}

        return asyncio.run(run())


def text_of(answer: CallToolResult) -> str:
    return "".join(each.text for each in answer.content if isinstance(each, TextContent))


def token_of(provider: IdentityProvider, user: str = "ann", **claims: Any) -> str:
    return provider.access_token(**{"aud": AUDIENCE, "preferred_username": user, **claims})
