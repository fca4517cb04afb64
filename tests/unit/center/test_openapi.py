"""The task center's OpenAPI document says what is so: schemathesis finds no difference, with tokens or without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.served_apps import TOKEN, center_app, differences, serving

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("is_open", [False, True], ids=["with tokens", "open"])
def test_the_document_says_what_is_so(tmp_path: Path, *, is_open: bool) -> None:
    with center_app(tmp_path, is_open=is_open) as http:
        document = http.openapi()
        operations = [operation for path in document["paths"].values() for operation in path.values()]
        assert all("422" not in operation["responses"] for operation in operations)
        assert any("security" in operation for operation in operations) is not is_open
        assert "text/plain" in document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
        assert "503" in document["paths"]["/readyz"]["get"]["responses"]
        assert list(document["components"]["responses"]["UnknownPath"]["content"]) == ["application/problem+json"]
        with serving(http) as url:
            assert differences(url, tmp_path, token=None if is_open else TOKEN) == ""
