"""The AsyncAPI document is one by the rules of AsyncAPI's own parser. Avro and examples: tests/unit/docs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from reference import DOCS
from support import toolchains

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

pytestmark = pytest.mark.integration

DOCUMENT = DOCS / "reference" / "asyncapi.json"


def misnamed_binding(document: Any) -> None:
    kafka = document["components"]["messages"]["TaskEvent"]["bindings"]["kafka"]
    kafka["schemaIdPlace"] = kafka.pop("schemaIdLocation")


def setting_of_another_type(document: Any) -> None:
    kafka = document["channels"]["taskEvents"]["bindings"]["kafka"]
    kafka["topicConfiguration"]["retention.ms"] = "2592000000"


def schema_that_is_not_there(document: Any) -> None:
    del document["components"]["schemas"]["QuarantinedCallback"]


def as_it_is(document: Any) -> None:
    del document


BROKEN = (misnamed_binding, setting_of_another_type, schema_that_is_not_there)


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Callable[[Any], None], list[str]]:
    """Findings in the document and in broken copies, in one run because Node starts slowly."""
    folder = tmp_path_factory.mktemp("documents")
    changes = (as_it_is, *BROKEN)
    paths = [folder / f"{change.__name__}.json" for change in changes]
    for change, path in zip(changes, paths, strict=True):
        document = json.loads(DOCUMENT.read_text("utf-8"))
        change(document)
        path.write_text(json.dumps(document), "utf-8")
    printed = toolchains.run_node(toolchains.npm_installed("asyncapi") / "validate.js", *map(str, paths))
    return dict(zip(changes, map(json.loads, printed.splitlines()), strict=True))


def test_nothing_is_found_in_the_document_no_hint_either(found: Mapping[Any, list[str]]) -> None:
    assert found[as_it_is] == []


@pytest.mark.parametrize("change", BROKEN)
def test_what_is_wrong_is_found(found: Mapping[Any, list[str]], change: Callable[[Any], None]) -> None:
    assert found[change] != []
