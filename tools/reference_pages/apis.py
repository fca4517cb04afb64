"""The pages of the HTTP sides of edge and task center, from their OpenAPI documents; nothing needs to run for that."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reference_pages.markdown import UNTYPED, also, code, listed, page, prose, repeated, typed
from support.edge.fakes import MemoryPublisher, write_credentials
from taskbridge.center.app import Center
from taskbridge.center.settings import CenterSettings
from taskbridge.edge.app import create_app
from taskbridge.edge.settings import EdgeSettings
from taskbridge.runtime.database import open_database
from taskbridge.schemas.registry import schema_text

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence

    from reference_pages.markdown import Row

NOWHERE = {"kafka_bootstrap_servers": "127.0.0.1:1", "schema_registry_url": "http://127.0.0.1:1"}

_UNDESCRIBED = "Successful Response"
"""FastAPI's description of a response that a route does not describe."""

_SEVERAL = 2
"""So many routes share what is shown once."""

_MANY = 8
"""So many fields that two schemas share are listed once."""

_SAME_FOR_BOTH = """\
As OpenAPI 3.1, with each route's responses and an example of each: [{file}]({file}). The service
serves it at `/openapi.json`, and as a page at `/docs`, also without internet access. Errors are
[problem documents](problems.md)."""

_MOMENT = "ISO 8601, UTC, with milliseconds."
"""What is said once, and not of each field."""


def edge_document() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        credentials = Path(folder, "credentials.toml")
        write_credentials(credentials, "token")
        settings = EdgeSettings.model_validate(
            {**NOWHERE, "credentials_file": credentials, "data_dir": Path(folder, "edge"), "bearer_tokens": "token"}
        )
        return create_app(settings, publisher=MemoryPublisher()).openapi()


@contextmanager
def a_center() -> Generator[Center]:
    """A task center that requires tokens, with a database that has no tables yet."""
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder, "tokens.toml")
        tokens.write_text(f'[[tokens]]\nname = "portal"\nsha256 = "{"0" * 64}"\ncorps = ["*"]\n', "utf-8")
        settings = CenterSettings.model_validate(
            {**NOWHERE, "data_dir": folder, "api_tokens_file": tokens, "mcp": True}
        )
        with closing(open_database(None, settings.data_dir)) as database:
            yield Center(settings, database)


def center_document() -> dict[str, Any]:
    with a_center() as center:
        found: Any = center.http()
        return found.openapi()


def edge_text() -> str:
    return _text(edge_document())


def center_text() -> str:
    return _text(center_document())


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def edge_page() -> str:
    return _page("The edge's HTTP side", edge_document(), "edge-openapi.json")


def center_page() -> str:
    return _page("The task center's API", center_document(), "task-center-openapi.json")


def _page(title: str, document: Mapping[str, Any], file: str) -> str:
    schemas = document.get("components", {}).get("schemas", {})
    routes = [
        (f"{method.upper()} {path}", operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    shared = _Shared(
        parameters=repeated((_parameters(operation) for _, operation in routes), at_least=_SEVERAL),
        responses=repeated((_responses(operation) for _, operation in routes), at_least=_SEVERAL),
        descriptions=_repeated_texts(prose(operation.get("description", "")) for _, operation in routes),
    )
    parts = [_route(name, operation, schemas, shared) for name, operation in routes]
    introduction = f"{document['info'].get('description', '')}\n\n{_SAME_FOR_BOTH.format(file=file)}"
    return page(title, introduction, *_common(shared), *parts, *_shapes(schemas))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """What several routes have, to be shown once."""

    parameters: Sequence[Row]
    responses: Sequence[Row]
    descriptions: Sequence[str]


def _repeated_texts(texts: Iterable[str]) -> Sequence[str]:
    return [text for text, count in Counter(texts).items() if text and count >= _SEVERAL]


def _common(shared: _Shared) -> Iterator[str]:
    if shared.parameters or shared.descriptions:
        yield "## Parameters of several routes"
        yield from shared.descriptions
        if shared.parameters:
            yield listed(shared.parameters)
    yield f"## Responses of several routes\n\n{listed(sorted(shared.responses))}"


def _responses(operation: Mapping[str, Any]) -> list[Row]:
    return [
        (f"{code(status)}{_media(response)}", prose(response.get("description", "")))
        for status, response in operation["responses"].items()
        if response.get("description") != _UNDESCRIBED
    ]


def _listed(schema: Mapping[str, Any]) -> str:
    """In place of a schema that only has items, which need no heading."""
    fields = _fields(schema)
    return f"`items`: {fields[0][1]}" if [(field, meaning) for field, _, meaning in fields] == [("`items`", "")] else ""


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def _returned(operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    """The schema of a success that has no description."""
    response = operation["responses"].get("200", {})
    if response.get("description") != _UNDESCRIBED:
        return ""
    for found in response.get("content", {}).values():
        if name := found.get("schema", {}).get("$ref", "").rpartition("/")[2]:
            return f"Returns {_listed(schemas[name]) or _link(name)}."
    return ""


def _route(name: str, operation: Mapping[str, Any], schemas: Mapping[str, Any], shared: _Shared) -> str:
    parts = [f"## {name}", f"{prose(operation.get('summary', '')).rstrip('.')}."]
    if (description := prose(operation.get("description", ""))) not in shared.descriptions:
        parts.append(description)
    parameters = [*_parameters(operation)]
    in_events = [each for each in parameters if each in _fields_of_events()]
    if own := [each for each in parameters if each not in (*shared.parameters, *in_events)]:
        parts.append(f"Parameters:\n\n{listed(own)}")
    if in_events:
        names = ", ".join(each[0].partition(" (")[0] for each in in_events)
        parts.append(f"In the body, as in [TaskEvent](topics.md#taskevent): {names}.")
    parts += [also(parameters, shared.parameters), _returned(operation, schemas)]
    if own := [each for each in _responses(operation) if each not in shared.responses]:
        parts.append(f"Responses:\n\n{listed(own)}")
    return "\n\n".join(each for each in parts if each)


def _parameters(operation: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Without those of the path that need no explanation: the heading names them."""
    for each in operation.get("parameters", ()):
        if each["in"] == "path" and not _meaning(each):
            continue
        place = _where(each["in"], required=each.get("required", False))
        yield f"{code(each['name'])}{place}", _meaning(each)
    content = operation.get("requestBody", {}).get("content", {})
    place = "" if "multipart/form-data" in content else "body"
    for schema in [each["schema"] for each in content.values()][:1]:
        if model := schema.get("$ref", "").rpartition("/")[2]:
            yield f"[{model}](#{model.lower()}){_where(place, required=True)}", ""
        for name, found in schema.get("properties", {}).items():
            yield f"{code(name)}{_where(place, required=name in schema.get('required', ()))}", _meaning(found)


@cache
def _fields_of_events() -> Sequence[Row]:
    """As parameters of a body that mean the same."""
    fields = json.loads(schema_text("TaskEvent"))["fields"]
    return [(f"{code(each['name'])} (body)", prose(each["doc"])) for each in fields]


def _where(place: str, *, required: bool) -> str:
    """In brackets; the place is empty where the description says it."""
    found = ", ".join([*([place] if place else []), *(["required"] if required else [])])
    return f" ({found})" if found else ""


def _meaning(found: Mapping[str, Any]) -> str:
    schema = found.get("schema", found)
    text = prose(found.get("description") or schema.get("description", ""))
    if text == _MOMENT:
        text = ""
    if choices := schema.get("enum"):
        text = f"{text} One of {', '.join(code(str(each)) for each in choices)}."
    if (default := schema.get("default")) not in (None, ""):
        text = f"{text} Default: {code(str(default))}."
    return text.strip()


def _media(answer: Mapping[str, Any]) -> str:
    """In brackets, of what is neither JSON nor a problem."""
    found = [code(each) for each in answer.get("content", {}) if not each.endswith("json")]
    return f" ({', '.join(found)})" if found else ""


def _shapes(schemas: Mapping[str, Any]) -> Iterator[str]:
    shared = repeated((_fields(schema) for schema in schemas.values()), at_least=2)
    shared = [row for row in shared if row[2]]
    if schemas:
        yield f"## Schemas\n\nTimes are {_MOMENT} {UNTYPED}"
    if shared:
        yield f"Fields of several schemas:\n\n{listed(_typed(shared))}"
    for name, schema in schemas.items():
        if _listed(schema) and name.endswith("Out"):
            continue  # shown where it is returned
        parts = [f"### {name}", prose(schema.get("description", ""))]
        if choices := schema.get("enum"):
            parts.append(f"One of {', '.join(code(str(each)) for each in choices)}.")
        rows = _fields(schema)
        if within := [each for each, found in schemas.items() if _is_larger(rows, _fields(found))]:
            parts.append(f"The fields of {_link(within[0])}, and these.")
            rows = [row for row in rows if row not in _fields(schemas[within[0]])]
        own = [row for row in rows if row[2] and row not in shared]
        if own:
            parts.append(listed(_typed(own)))
        if others := [
            field if meaning else typed(field, kind)
            for field, kind, meaning in rows
            if (field, kind, meaning) not in own
        ]:
            parts.append(f"{'Also' if own else 'Fields:'} {', '.join(others)}.")
        yield "\n\n".join(each for each in parts if each)


def _is_larger(rows: Sequence[Row], others: Sequence[Row]) -> bool:
    """Whether these fields are many others, and more."""
    return len(rows) > len(others) >= _MANY and all(each in rows for each in others)


def _typed(fields: Iterable[Row]) -> Iterator[Row]:
    for field, kind, meaning in fields:
        yield typed(field, kind), meaning


def _fields(schema: Mapping[str, Any]) -> list[Row]:
    return [(code(each), _kind(found), _meaning(found)) for each, found in schema.get("properties", {}).items()]


def _kind(schema: Mapping[str, Any]) -> str:
    if name := schema.get("$ref", "").rpartition("/")[2]:
        return _link(name)
    if kinds := schema.get("anyOf"):
        return " or ".join(_kind(each) for each in kinds)
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return str(schema.get("type", "any"))
