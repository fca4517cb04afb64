"""What the protocol's conformance suite wants of a server, added to the one of the task center: for tests only."""

from __future__ import annotations

import asyncio
import base64
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from mcp.server.mcpserver import Context  # noqa: TC002 - the tools' annotations are read
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts.base import Message, UserMessage
from mcp.shared.message import ServerMessageMetadata
from mcp_types import (
    AudioContent,
    CallToolResult,
    Completion,
    ContentBlock,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    EmbeddedResource,
    EmptyResult,
    ImageContent,
    LoggingMessageNotification,
    LoggingMessageNotificationParams,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    UnsubscribeRequestParams,
)

from support.center_rows import AnsweringCenter, unchecked
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
_ONE_DOCUMENT = "an answer is one JSON document, so nothing comes before it"
_NO_SESSION = (
    "without a session, no answer of a client to a question finds its call: the confirmation has a page instead"
)
NOT_AS_SERVED = {
    "tools-call-with-logging": _ONE_DOCUMENT,
    "tools-call-with-progress": _ONE_DOCUMENT,
    "tools-call-sampling": _NO_SESSION,
    "tools-call-elicitation": _NO_SESSION,
    "elicitation-sep1034-defaults": _NO_SESSION,
    "elicitation-sep1330-enums": _NO_SESSION,
}
"""Scenarios of what the task center does not offer, and why. With the library's sessions and streams they pass too."""


def conforming(database: Database, folder: Path, *, sessions: bool) -> FastAPI:
    """An open task center with the fixtures, as it is served at ``/mcp``; or with the library's sessions."""
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
        store=Actions(database, unchecked),
        systems=systems,
        reading=CommentReader(lambda _: None),
        forms=rows.forms,
        complete=rows.complete_lists,
        wake=lambda: None,
    )
    _add_fixtures(assistants.mcp.server)
    if sessions:
        manager = assistants.mcp.server.session_manager
        manager.stateless = manager.json_response = False
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
        "test_reconnection": [text],
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

    _add_schema(server)
    _add_conversations(server)
    _add_what_is_accepted(server)

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


def _add_schema(server: MCPServer) -> None:
    """Of a tool whose schema nobody's annotations make."""

    def named(name: str) -> str:
        return name

    server.add_tool(named, name="json_schema_2020_12_tool", description="Of the suite.")
    listed = server._tool_manager.get_tool("json_schema_2020_12_tool")  # pyright: ignore[reportPrivateUsage]
    assert listed is not None
    texts = {"type": "string"}
    listed.parameters = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {"address": {"type": "object", "properties": {"street": texts, "city": texts}}},
        "properties": {"name": texts, "address": {"$ref": "#/$defs/address"}},
        "additionalProperties": False,
    }


# Tools that say something before their answer, or ask the client.


async def _say(ctx: Context) -> str:
    for text in ("started", "processing", "completed"):
        params = LoggingMessageNotificationParams(level="info", data=f"Tool {text}")
        await ctx.session.send_notification(
            LoggingMessageNotification(params=params), related_request_id=ctx.request_id
        )
    return "said"


async def _progress(ctx: Context) -> str:
    for done in (0, 50, 100):
        await ctx.report_progress(done, 100)
    return "done"


async def _sample(prompt: str, ctx: Context) -> str:
    message = SamplingMessage(role="user", content=TextContent(type="text", text=prompt))
    request = CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=100))
    about = ServerMessageMetadata(related_request_id=ctx.request_id)
    return f"LLM response: {await ctx.session.send_request(request, CreateMessageResult, metadata=about)}"


async def _elicit(message: str, ctx: Context) -> str:
    return await _ask(ctx, message, {key: {"type": "string"} for key in ("username", "email")})


async def _elicit_defaults(ctx: Context) -> str:
    status = {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"}
    fields = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": status,
        "verified": {"type": "boolean", "default": True},
    }
    return await _ask(ctx, "Defaults", fields)


async def _elicit_enums(ctx: Context) -> str:
    options, titled = ["option1", "option2", "option3"], [{"const": f"value{n}", "title": f"{n}."} for n in "123"]
    names = {"enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option One", "Option Two", "Option Three"]}
    fields = {
        "untitledSingle": {"type": "string", "enum": options},
        "titledSingle": {"type": "string", "oneOf": titled},
        "legacyEnum": {"type": "string", **names},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": options}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled}},
    }
    return await _ask(ctx, "Choices", fields)


async def _ask(ctx: Context, message: str, fields: dict[str, Any]) -> str:
    schema: dict[str, Any] = {"type": "object", "properties": fields, "required": []}
    answer = await ctx.session.elicit_form(message, schema, related_request_id=ctx.request_id)
    return f"{answer.action}: {answer.content}"


def _add_conversations(server: MCPServer) -> None:
    tools = {
        "test_tool_with_logging": _say,
        "test_tool_with_progress": _progress,
        "test_sampling": _sample,
        "test_elicitation": _elicit,
        "test_elicitation_sep1034_defaults": _elicit_defaults,
        "test_elicitation_sep1330_enums": _elicit_enums,
    }
    for name, tool in tools.items():
        server.add_tool(tool, name=name, description="Of the suite.", structured_output=False)


def _add_what_is_accepted(server: MCPServer) -> None:
    """Levels of logs, subscriptions and completions: accepted, and without effect."""

    async def accept(_ctx: Any, _params: Any) -> EmptyResult:
        return EmptyResult()

    low = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]
    low.add_request_handler("logging/setLevel", SetLevelRequestParams, accept)
    low.add_request_handler("resources/subscribe", SubscribeRequestParams, accept)
    low.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, accept)

    @server.completion()
    async def complete(_ref: Any, _argument: Any, _context: Any) -> Completion:
        return Completion(values=[])


def _embedded(uri: str, text: str, mime_type: str = "text/plain") -> EmbeddedResource:
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, text=text, mime_type=mime_type))
