"""Which values are published: never one that the administrator leaves out, in any shape."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from taskbridge.reconcile.form_values import Protection, fields_of, protected, unlabelled

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY = b"the key of this company"
LABELS = {"text_1": "身份证号", "number_1": "金额", "table_1": "明细", "text_9": "电话"}


def hashed(value: str) -> str:
    return hmac.new(KEY, value.encode(), hashlib.sha256).hexdigest()


def published(data: Mapping[str, str | None], *, omit: str = "", hash: str = "") -> dict[str, str | None]:  # noqa: A002
    return protected(data, LABELS, Protection(tuple(omit.split()), tuple(hash.split()), KEY))


def test_without_patterns_values_are_as_they_came() -> None:
    data = {"text_1": "x", "table_1": '[{ "text_9" : "1" }]', "number_1": None, "text_9": "[{ not JSON"}
    assert published(data) == data


def test_fields_are_left_out_by_id_or_label_with_their_companions() -> None:
    data = {"text_1": "110101", "text_1_id": "110101", "number_1": "5"}
    for pattern in ("text_1", "text_*", "身份证*"):
        assert published(data, omit=pattern) == {"number_1": "5"}


def test_fields_are_hashed_by_a_secret_key_and_empty_ones_stay_empty() -> None:
    data = {"text_1": "王芳", "number_1": None}
    assert published(data, hash="text_1 金额") == {"text_1": hashed("王芳"), "number_1": None}
    assert published(data, omit="text_1", hash="text_1") == {"number_1": None}


def test_fields_of_a_sub_form_are_named_with_it() -> None:
    lines = [{"text_9": "139", "number_2": 7}, {"text_9": None, "number_2": 8}]
    data = {"table_1": json.dumps(lines), "text_9": "stays"}
    for pattern in ("table_1.text_9", "明细.电话", "*.电话"):
        found = published(data, omit=pattern)
        assert json.loads(found["table_1"] or "") == [{"number_2": 7}, {"number_2": 8}]
        assert found["text_9"] == "stays"
    found = published(data, hash="明细.*")
    assert json.loads(found["table_1"] or "") == [
        {"text_9": hashed("139"), "number_2": hashed("7")},
        {"text_9": None, "number_2": hashed("8")},
    ]


def test_what_looks_like_lines_and_cannot_be_read_is_not_published() -> None:
    assert published({"table_1": '[{"text_9": "139'}, omit="*.电话") == {"table_1": None}


def test_fields_without_a_label_are_named_once() -> None:
    data = {"text_1_id": "x", "text_2": "y", "text_2_id": "z", "table_1": '[{"text_9": "1", "text_8": "2"}]'}
    assert fields_of(data) == {"text_1_id", "text_2", "table_1", "text_9", "text_8"}
    assert unlabelled(data, LABELS) == {"text_2", "text_8"}


def test_the_key_is_not_shown() -> None:
    assert "key" not in repr(Protection(hash=("x",), key=KEY))


@given(st.dictionaries(st.sampled_from(["text_1", "table_1", "other"]), st.none() | st.text(max_size=30)))
def test_hostile_texts_raise_nothing_and_reveal_nothing(data: dict[str, str | None]) -> None:
    found = published(data, omit="text_1 *.电话")
    assert "text_1" not in found
    assert found.keys() == data.keys() - {"text_1"}
