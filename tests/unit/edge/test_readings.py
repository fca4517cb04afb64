"""Whatever the JVM signed verifies by a reading of each encoding, packed or labelled wrongly; nothing else does."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskbridge.edge.errors import Rejection
from taskbridge.edge.parsing.bodies import unpacked
from taskbridge.edge.parsing.parameters import readings
from taskbridge.edge.sender import ENCODINGS, encode_callback, signed
from taskbridge.edge.verification.signature import matching

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.edge.sender import Encoding

ALL: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "vectors" / "sign-vectors.json").read_text("utf-8"))
VECTORS = [vector for vector in ALL if not vector["ambiguous"]]
TOKEN = "a-token"
WRAPPED: list[Callable[[bytes], bytes]] = [bytes, gzip.compress, b"\xef\xbb\xbf".__add__]
LABELS = ("", "text/plain", "application/octet-stream; charset=GBK", "text/json; charset=ISO-8859-1")


def verifies(query: bytes, content_type: str | None, body: bytes, *, token: str, sign: str) -> bool:
    try:
        found = list(readings(query, content_type, unpacked(body, max_bytes=1 << 20)))
    except Rejection:
        return False
    return any(any(matching(each.signed, system_tokens=[token], sign=sign)) for each in found)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_each_vector_verifies_in_each_encoding(vector: dict[str, Any], encoding: Encoding) -> None:
    encoded = encode_callback({**vector["params"], "sign": vector["sign"]}, encoding)
    query, label = encoded.query.encode(), encoded.headers.get("Content-Type")
    if len(query) + len(encoded.body) > 1 << 20:
        return
    assert verifies(query, label, encoded.body, token=vector["system_token"], sign=vector["sign"])
    assert not verifies(query, label, encoded.body, token=vector["system_token"] + "x", sign=vector["sign"])


VALUES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
SIGNED = st.dictionaries(st.sampled_from(["appType", "corpId", "taskId", "x"]), VALUES, min_size=1)


@given(SIGNED, st.sampled_from(["json", "form"]), st.sampled_from(WRAPPED), st.sampled_from(LABELS), st.booleans())
def test_what_is_signed_verifies_whatever_is_around_it_and_a_changed_value_never_does(
    parameters: dict[str, str],
    encoding: Encoding,
    wrapped: Callable[[bytes], bytes],
    label: str,
    beside: bool,  # noqa: FBT001 - given by Hypothesis
) -> None:
    sent = signed(parameters, system_token=TOKEN)
    query = b"source=yida" if beside else b""
    body = wrapped(encode_callback(sent, encoding).body)
    assert verifies(query, label, body, token=TOKEN, sign=sent["sign"])
    key = next(iter(parameters))
    changed = wrapped(encode_callback({**sent, key: sent[key] + "0"}, encoding).body)
    assert not verifies(query, label, changed, token=TOKEN, sign=sent["sign"])
