"""Both OpenAPI documents have an example of every request and answer, and each is within its schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pytest

from reference import DOCS

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENTS = {
    name: json.loads((DOCS / "reference" / f"{name}-openapi.json").read_text("utf-8"))
    for name in ("edge", "task-center")
}
OF_OUR_PAGE = {"/v1/ops/overview", "/v1/ops/callbacks", "/v1/ops/webhooks/{endpoint}/{action}"}
"""What they answer is for the operator's page, and has no schema."""


def contents(document: Any) -> Iterator[tuple[str, Any]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            bodies = {"": operation.get("requestBody", {}), **operation["responses"]}
            for status, body in bodies.items():
                if not (path in OF_OUR_PAGE and status == "200"):
                    for media_type, content in body.get("content", {}).items():
                        yield f"{method} {path} {status} {media_type}", content


def shown(document: Any, content: Any) -> list[Any]:
    """The examples, which may be next to the schema or within it."""
    schema = content["schema"]
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return [content["example"]] if "example" in content else schema.get("examples", [])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_request_and_answer_has_an_example_within_its_schema(name: str) -> None:
    document = DOCUMENTS[name]
    found = dict(contents(document))
    assert len(found) > 30
    assert [each for each, content in found.items() if not shown(document, content)] == []
    for each, content in found.items():
        schema = {**content["schema"], "components": document["components"]}
        for example in shown(document, content):
            assert jsonschema_rs.Draft202012Validator(schema).is_valid(example), each


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_parameter_without_a_default_has_an_example(name: str) -> None:
    parameters = [
        (path, each)
        for path, operations in DOCUMENTS[name]["paths"].items()
        for operation in operations.values()
        for each in operation.get("parameters", ())
        if each.get("required")
    ]
    bare = [(path, each["name"]) for path, each in parameters if not {"examples", "enum"} & each["schema"].keys()]
    assert bare == []
