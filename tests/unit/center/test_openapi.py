"""The task center's OpenAPI document says what is so: schemathesis finds no difference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support.served_apps import TOKEN, center_app, differences, serving

if TYPE_CHECKING:
    from pathlib import Path


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in document["paths"].values() for operation in path.values()]


@pytest.mark.parametrize("is_open", [False, True], ids=["with tokens", "open"])
def test_operations_have_a_security_requirement_where_tokens_are_configured(tmp_path: Path, *, is_open: bool) -> None:
    with center_app(tmp_path, is_open=is_open) as http:
        assert any("security" in operation for operation in operations(http.openapi())) is not is_open


def test_the_document_says_what_is_so(tmp_path: Path) -> None:
    with center_app(tmp_path, is_open=False) as http:
        document = http.openapi()
        assert all("422" not in operation["responses"] for operation in operations(document))
        assert "text/plain" in document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
        assert "503" in document["paths"]["/readyz"]["get"]["responses"]
        assert list(document["components"]["responses"]["UnknownPath"]["content"]) == ["application/problem+json"]
        with serving(http) as url:
            assert differences(url, tmp_path, token=TOKEN) == ""
