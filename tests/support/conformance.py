"""What the protocol's conformance suite wants of a server, added to the one of the task center: for tests only."""

from __future__ import annotations

import asyncio
import base64
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts.base import Message, UserMessage
from mcp_types import (
    AudioContent,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    TextContent,
    TextResourceContents,
)

from support.center_rows import AnsweringCenter
from taskbridge.center.access.access import Access
from taskbridge.center.actions.store import Actions
from taskbridge.center.actions.systems import Systems
from taskbridge.center.api.comments import CommentReader
from taskbridge.center.assistants.parts import Assistants
from taskbridge.center.settings import CenterSettings
from taskbridge.runtime.access import own_hosts

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from fastapi import FastAPI
    from mcp.server import MCPServer

    from taskbridge.runtime.database import Database

_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
_IMAGE = ImageContent(type="image", data=_PIXEL, mime_type="image/png")
_SILENCE = AudioContent(type="audio", data=base64.b64encode(b"RIFF$\0\0\0WAVEfmt ").decode(), mime_type="audio/wav")
NOT_OF_THIS_SERVER = {
    "logging-set-level": "it sends no log to clients",
    "completion-complete": "it completes no arguments",
    "tools-call-with-logging": "an answer is one JSON document, so nothing is sent before it",
    "tools-call-with-progress": "as above",
    "tools-call-sampling": "it is stateless: it asks a client for nothing in the middle of a call",
    "tools-call-elicitation": "as above",
    "elicitation-sep1034-defaults": "as above",
    "elicitation-sep1330-enums": "as above",
    "json-schema-2020-12": "the library makes the schemas of tools from their annotations",
    "resources-subscribe": "its resources do not change, as it has none",
    "resources-unsubscribe": "as above",
}
"""Scenarios that are expected to fail, and why."""


def conforming(database: Database, folder: Path) -> FastAPI:
    """An open task center with the fixtures, as it is served at ``/mcp``."""
    nowhere = {"kafka_bootstrap_servers": "127.0.0.1:1", "schema_registry_url": "http://127.0.0.1:1"}
    settings = CenterSettings.model_validate({**nowhere, "data_dir": folder, "mcp": True})
    rows, systems = AnsweringCenter(database, Access(None)), Systems()
    assistants = Assistants(
        settings,
        database,
        rows.threads,
        rows.access,
        provider=None,
        queries=rows.queries,
        store=Actions(database),
        systems=systems,
        reading=CommentReader(lambda _: None),
        complete=rows.complete_lists,
        wake=lambda: None,
    )
    _add_fixtures(assistants.mcp.server)
    http = rows.http(*assistants.routers, only_hosts=own_hosts("127.0.0.1"))

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncGenerator[None]:
        task = asyncio.create_task(assistants.run())
        await asyncio.sleep(0)
        yield
        task.cancel()

    http.router.lifespan_context = running
    return http


def _add_fixtures(server: MCPServer) -> None:
    text = TextContent(type="text", text="Multiple content types test:")
    mixed = _embedded("test://mixed-content-resource", '{"test":"data","value":123}', "application/json")
    results: dict[str, list[ContentBlock]] = {
        "test_simple_text": [TextContent(type="text", text="This is a simple text response for testing.")],
        "test_image_content": [_IMAGE],
        "test_audio_content": [_SILENCE],
        "test_embedded_resource": [_embedded("test://embedded-resource", "This is an embedded resource content.")],
        "test_multiple_content_types": [text, _IMAGE, mixed],
    }
    for name, content in results.items():
        server.add_tool(_returning(content), name=name, description="Of the suite.", structured_output=False)

    @server.tool(description="Of the suite.")
    def test_error_handling() -> str:
        raise ToolError("This tool intentionally returns an error for testing")

    server.add_tool(_of_schema, name="json_schema_2020_12_tool", description="Of the suite.")

    @server.resource("test://static-text", mime_type="text/plain")
    def static_text() -> str:
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", mime_type="image/png")
    def static_binary() -> bytes:
        return base64.b64decode(_PIXEL)

    @server.resource("test://template/{id}/data", mime_type="application/json")
    def template(id: str) -> str:  # noqa: A002 - as the suite names it
        return f'{{"id":"{id}","templateTest":true,"data":"Data for ID: {id}"}}'

    @server.prompt(description="Of the suite.")
    def test_simple_prompt() -> str:
        return "This is a simple prompt for testing."

    @server.prompt(description="Of the suite.")
    def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
        return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"

    @server.prompt(description="Of the suite.")
    def test_prompt_with_embedded_resource(resourceUri: str) -> list[Message]:  # noqa: N803 - as the suite names it
        return [UserMessage(_embedded(resourceUri, "Embedded resource content for testing."))]

    @server.prompt(description="Of the suite.")
    def test_prompt_with_image() -> list[Message]:
        return [UserMessage(_IMAGE), UserMessage("Please analyze the image above.")]


def _returning(content: list[ContentBlock]) -> Callable[[], CallToolResult]:
    return lambda: CallToolResult(content=content)


def _of_schema(name: str) -> str:
    return name


def _embedded(uri: str, text: str, mime_type: str = "text/plain") -> EmbeddedResource:
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, text=text, mime_type=mime_type))
