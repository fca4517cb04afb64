"""The same parameters come out of every encoding, and nothing but a rejection out of anything else."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, unquote_to_bytes, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from taskbridge.edge.errors import MAX_PARAMETERS, Malformed, Rejection, TooLarge, UnsupportedType
from taskbridge.edge.parsing import parameters
from taskbridge.edge.parsing.parameters import Body, ReadingKind, form_pairs, readings, unpacked
from taskbridge.edge.sender import ENCODINGS, Encoding, encode_callback, signed
from taskbridge.edge.verification.signature import fold, matching
from taskbridge.schemas.events import event_id_for

if TYPE_CHECKING:
    from collections.abc import Callable


UNICODE = st.text(st.characters(exclude_categories=["Cs"]))
# HTML's way of writing part names cannot distinguish '%22' from a quote, nor a backslash before a quote from an escape.
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters='%\\"\r\n'))
PARAMETERS = st.dictionaries(KEYS, UNICODE, min_size=1, max_size=10).filter(
    lambda found: len({fold(key) for key in found}) == len(found)
)


def read_parameters(query: bytes, content_type: str | None, body: bytes) -> list[dict[str, str]]:
    """What a signature may be over, by each reading in turn."""
    return [dict(each.signed) for each in readings(query, content_type, body)]


def read(parameters: dict[str, str], encoding: Encoding) -> list[dict[str, str]]:
    encoded = encode_callback(parameters, encoding)
    return read_parameters(encoded.query.encode(), encoded.headers.get("Content-Type"), encoded.body)


@given(PARAMETERS)
def test_every_encoding_gives_the_same_parameters_and_event_id(parameters: dict[str, str]) -> None:
    for encoding in ENCODINGS:
        assert read(parameters, encoding)[0] == parameters, encoding
        assert event_id_for("yida", "create", read(parameters, encoding)[0]) == event_id_for(
            "yida", "create", parameters
        )


ESCAPED = st.sampled_from(["%3D", "%0a", "%0D", "%25", "%C3%a9", "=", "==", "\n", "\r", "_", " ", "a", "F", "\0", "\t"])


@given(st.lists(ESCAPED))
def test_escapes_are_undone_as_the_standard_library_does(pieces: list[str]) -> None:
    encoded = "".join(pieces)
    [found] = read_parameters(b"", "application/x-www-form-urlencoded", f"key={encoded}".encode())
    assert found == {"key": unquote(encoded)}


CONTENT_TYPES = (None, "", "application/json", "application/x+json", "application/x-www-form-urlencoded")
MULTIPART = "multipart/form-data; boundary=b"


@given(st.binary(), st.sampled_from([*CONTENT_TYPES, MULTIPART, "multipart/form-data"]) | st.text(), st.binary())
def test_any_bytes_are_read_or_rejected(query: bytes, content_type: str | None, body: bytes) -> None:
    with contextlib.suppress(Rejection):
        assert 1 <= len(read_parameters(query, content_type, body)) <= len(ReadingKind)


PIECES = [b"--b", b"\r\n", b"--", b"Content-Disposition: form-data; name=", b'"a"', b"x", b"\r\n\r\n", b"\xff", b"%22"]


@given(st.lists(st.sampled_from(PIECES)))
def test_anything_like_multipart_is_read_or_rejected(pieces: list[bytes]) -> None:
    with contextlib.suppress(Rejection):
        assert 1 <= len(read_parameters(b"", MULTIPART, b"--b\r\n" + b"".join(pieces))) <= 2


def test_json_values_stay_as_their_text() -> None:
    body = b'{"a": 1.0, "b": [1, {"c": null}], "d": false, "e": "x"}'
    assert read_parameters(b"", "application/json; charset=UTF-8", body) == [
        {"a": "1.0", "b": '[1, {"c": null}]', "d": "false", "e": "x"}
    ]


def test_a_json_null_is_absent_in_one_reading_and_a_text_in_the_other() -> None:
    assert read_parameters(b"q=1", "application/json", b'{"a": null, "b": "2"}') == [
        {"q": "1", "b": "2"},
        {"q": "1", "a": "null", "b": "2"},
    ]


def test_query_and_body_are_merged() -> None:
    assert read_parameters(b"a=%E5%BC%A0+1&b", "application/x-www-form-urlencoded", b"c=%2B&&d==") == [
        {"a": "张 1", "b": "", "c": "+", "d": "="},
        {"a": "张+1", "b": "", "c": "+", "d": "="},
    ]


@pytest.mark.parametrize(
    ("query", "body"),
    [(b"a=1&a=1", b""), (b"a=1", b"a=1"), (b"a=1", b"A=1"), (b"", b"%C3%9F=1&%C3%9F=1"), (b"%CF%82=", b"%CE%A3=")],
)
def test_a_key_given_twice_is_malformed_in_any_mix(query: bytes, body: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        read_parameters(query, "application/x-www-form-urlencoded", body)
    assert caught.value.reason == "duplicate-key"


@given(
    st.lists(
        st.sampled_from([b"%", b"%4", b"%41", b"%e5", b"=", b"\n", b"\r", b"4", b"g", b"+", b"_"]), max_size=8
    ).map(b"".join)
)
@example(b"%\r")
@example(b"%\n")
def test_only_whole_escapes_are_decoded_and_each_of_their_bytes_stays(value: bytes) -> None:
    for plus in (False, True):
        if re.search(rb"%(?![0-9A-Fa-f]{2})", value):
            with pytest.raises(Malformed) as caught:
                form_pairs(b"k=" + value, "latin-1", plus=plus)
            assert caught.value.reason == "percent-escape"
        else:
            expected = unquote_to_bytes(value if plus else value.replace(b"+", b" ")).decode("latin-1")
            assert form_pairs(b"k=" + value, "latin-1", plus=plus) == [("k", expected)]


def test_as_many_parameters_as_the_limit_are_read() -> None:
    full = {f"k{n}": "v" for n in range(MAX_PARAMETERS)}
    for encoding in ENCODINGS:
        assert read(full, encoding) == [full]
        with pytest.raises(Malformed) as caught:
            read(full | {"one": "more"}, encoding)
        assert caught.value.reason in ("too-many-parameters", "multipart")
    assert urlencode(full).count("&") < 2 * MAX_PARAMETERS


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/plain", b"hello"),
        ("application/xml", b"<a b='1'/>"),
        ("*/*", b'"[]"'),
        ("application/json; charset=utf-16", '{"a": "1"}'.encode("utf-16")),
    ],
)
def test_what_is_nothing_that_is_known_is_not_supported(content_type: str, body: bytes) -> None:
    with pytest.raises(UnsupportedType):
        read_parameters(b"", content_type, body)


@pytest.mark.parametrize("pair", [b"a=1", b"a=%31"])
def test_a_form_is_split_at_no_more_places_than_twice_the_limit(pair: bytes) -> None:
    most = b"&" * (2 * MAX_PARAMETERS - 1) + pair
    assert form_pairs(most, "utf-8", plus=False) == [("a", "1")]
    with pytest.raises(Malformed) as caught:
        form_pairs(b"&" + most, "utf-8", plus=False)
    assert caught.value.reason == "too-many-parameters"


def test_a_value_with_an_escape_has_only_as_many_equals_signs_as_cost_little() -> None:
    most = b"=" * parameters._MAX_EQUALS  # pyright: ignore[reportPrivateUsage]
    assert form_pairs(b"k=%41" + most, "utf-8", plus=False) == [("k", "A" + most.decode())]
    with pytest.raises(Malformed) as caught:
        form_pairs(b"k=%41=" + most, "utf-8", plus=False)
    assert caught.value.reason == "percent-escape"


@pytest.mark.parametrize("label", ["application/json", "text/json", "application/problem+json"])
def test_what_is_labelled_json_and_is_no_object_is_malformed(label: str) -> None:
    with pytest.raises(Malformed) as caught:
        read_parameters(b"", label, b"[1]")
    assert caught.value.reason == "json"


@pytest.mark.parametrize(
    ("charset", "body", "reason"),
    [
        ("utf-8", b'{"a": "\xff"}', "invalid-utf-8"),
        ("gbk", b'{"a": "\xff"}', "invalid-utf-8"),
        ("koi8-r", b"{", "json"),
    ],
)
def test_a_character_set_is_to_blame_only_where_it_is_unknown_and_the_text_not_read(
    charset: str, body: bytes, reason: str
) -> None:
    with pytest.raises(Malformed) as caught:
        read_parameters(b"", f"application/json; charset={charset}", body)
    assert caught.value.reason == reason


def test_a_label_that_leaves_two_character_sets_open_is_read_by_the_likelier_first() -> None:
    text, as_gbk = "张红", "张红".encode().decode("gbk")
    for label, body in (
        ("application/json; charset=gbk", f'{{"a": "{text}"}}'.encode()),
        ("application/x-www-form-urlencoded; charset=gbk", f"a={text}".encode()),
        (MULTIPART, part(text.encode(), "text/plain; charset=gbk")),
    ):
        assert read_parameters(b"", label, body) == [{"a": as_gbk}, {"a": text}]


def part(value: bytes, content_type: str) -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="a"\r\nContent-Type: {content_type}\r\n\r\n'
    return head.encode() + value + b"\r\n--b--\r\n"


def test_a_parts_label_is_a_hint() -> None:
    latin = "text/plain; charset=ISO-8859-1"
    assert read_parameters(b"", MULTIPART, part(b"ascii", latin)) == [{"a": "ascii"}]
    assert {"a": "张"} in read_parameters(b"", MULTIPART, part("张".encode(), "text/plain; charset=UTF-8"))
    assert {"a": "张"} in read_parameters(b"", MULTIPART, part("张".encode(), latin))
    assert {"a": "张"} in read_parameters(b"", MULTIPART, part("张".encode("gbk"), "text/plain; charset=GBK"))
    assert {"a": "é"} in read_parameters(b"", MULTIPART, part(b"\xe9", latin))


def test_a_form_may_begin_as_a_multipart_does() -> None:
    assert read_parameters(b"", "application/x-www-form-urlencoded", b"--a=1") == [{"--a": "1"}]


def test_the_boundary_is_the_labels_where_that_is_multipart_and_else_the_bodys_own() -> None:
    assert read_parameters(b"", MULTIPART, b"Preamble.\r\n" + part(b"1", "text/plain")) == [{"a": "1"}]
    assert read_parameters(b"", "text/plain; boundary=other", part(b"1", "text/plain")) == [{"a": "1"}]


def test_readings_depart_from_the_first_one_by_one_and_then_of_the_signed_part_alone() -> None:
    body = '{"sign": "s", "a": null, "b": "张"}'.encode("gbk")
    labelled = "application/json; charset=gbk"
    part = {"sign": "s", "b": "张"}
    found = read_parameters(b"q=1+2", labelled, body)
    assert found == [{**part, "q": "1 2"}, {**part, "q": "1+2", "a": "null"}, part, {**part, "a": "null"}]
    assert [each.kind for each in readings(b"q=1+2", labelled, body)] == ["plain", "literal", "part", "literal-part"]
    utf_8 = [each.kind for each in readings(b"q=1+2", labelled, body.decode("gbk").replace("张", "张红").encode())]
    assert utf_8 == list(ReadingKind), "no request is read in more ways"
    large = body[:-1] + b', "x": "' + b"x" * (64 << 10) + b'"}'
    assert [{**each, "x": ""} for each in read_parameters(b"q=1+2", labelled, large)] == [
        {**each, "x": ""} for each in (found[0], {**found[0], "a": "null"}, part)
    ], "with a large body a plus in the address is a space"


LARGE = 64 << 10


@pytest.mark.parametrize("label", ["gbk", "iso-8859-1"])
def test_what_is_plainly_utf_8_is_read_as_nothing_else_where_it_is_large(label: str) -> None:
    text = "张张" * LARGE
    body = f'{{"sign": "s", "a": null, "b": "{text}"}}'.encode()
    first = {"q": "1", "sign": "s", "b": text}
    assert read_parameters(b"q=1", f"application/json; charset={label}", body) == [
        first,
        {**first, "a": "null"},
        {"sign": "s", "b": text},
    ]
    parts = part(text.encode(), f"text/plain; charset={label}")
    for kind in (MULTIPART, f"{MULTIPART}; charset={label}"):
        assert read_parameters(b"", kind, parts) == [{"a": text}]


@pytest.mark.parametrize(("label", "other"), [("gbk", "gbk"), ("iso-8859-1", "latin-1")])
@pytest.mark.parametrize("times", [1, 250])
def test_what_may_be_utf_8_by_accident_is_read_in_both_ways_however_large_it_is(
    label: str, other: str, times: int
) -> None:
    text = "张张" * times + "x" * LARGE
    for kind, body in (("application/json", f'{{"b": "{text}"}}'), ("application/x-www-form-urlencoded", f"b={text}")):
        found = read_parameters(b"", f"{kind}; charset={label}", body.encode())
        assert sorted(found, key=repr) == sorted([{"b": text}, {"b": text.encode().decode(other)}], key=repr)


@pytest.mark.parametrize("times", [1, LARGE])
def test_what_is_not_utf_8_is_read_as_what_it_is_labelled(times: int) -> None:
    body = f"sign=s+&b={'张' * times}&c=+".encode("gbk")
    first = {"sign": "s ", "b": "张" * times, "c": " "}
    assert read_parameters(b"", "application/x-www-form-urlencoded; charset=gbk", body) == [
        first,
        {**first, "sign": "s+", "c": "+"},
    ]
    with pytest.raises(Malformed) as caught:
        read_parameters(b"", "application/json", '{"a": "张"}'.encode("gbk").replace(b"a", b"a" * times))
    assert caught.value.reason == "invalid-utf-8"


@pytest.mark.parametrize("times", [1, LARGE])
def test_what_is_not_utf_8_is_read_as_latin_1_where_its_label_leaves_that_open(times: int) -> None:
    body = f'{{"a": "{"é" * times}"}}'.encode("latin-1")
    assert read_parameters(b"", "application/json; charset=ISO-8859-1", body) == [{"a": "é" * times}]


def test_of_a_large_request_each_departure_alone_is_read() -> None:
    large = "x" * (64 << 10)
    found = read_parameters(b"", "application/x-www-form-urlencoded", f"a=1+2&x={large}".encode())
    assert found == [{"a": "1 2", "x": large}, {"a": "1+2", "x": large}]


def test_a_body_is_read_once_for_all_readings_in_which_it_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, read_how = Body.pairs, list[bool]()

    def counted(body: Body, *, plus: bool, other: bool) -> Any:
        read_how.append(other)
        return pairs(body, plus=plus, other=other)

    monkeypatch.setattr(Body, "pairs", counted)
    body = '{"sign": "s", "a": null, "b": "张红"}'.encode()
    assert len(read_parameters(b"q=1+2", "application/json; charset=gbk", body)) > 2
    assert read_how == [False, True]


def test_half_a_surrogate_pair_is_a_question_mark_as_in_java() -> None:
    body = rb'{"a": "\ud83d", "b": "\ude00\ud83d\ude00", "c": "\\ud83d", "d": [ "\udFFF" ]}'
    assert read_parameters(b"", None, body) == [{"a": "?", "b": "?\U0001f600", "c": "\\ud83d", "d": '[ "?" ]'}]


def test_a_form_is_unescaped_once_for_both_character_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer than all else, and anybody may send a megabyte."""
    unescaped, how = parameters._unescaped, list[tuple[bytes, bool]]()  # pyright: ignore[reportPrivateUsage]

    def counted(encoded: bytes, *, plus: bool) -> bytes:
        how.append((encoded, plus))
        return unescaped(encoded, plus=plus)

    monkeypatch.setattr(parameters, "_unescaped", counted)
    body = b"sign=s&b=%E5%BC%A0%E7%BA%A2+"
    assert len(read_parameters(b"q=%41+", "application/x-www-form-urlencoded; charset=gbk", body)) == len(ReadingKind)
    assert len(how) == len(set(how))


@pytest.mark.parametrize("body", [b"\xef\xbb\xbfa=1", b'\xef\xbb\xbf {"a": "1"}'])
def test_a_byte_order_mark_is_no_part_of_the_text(body: bytes) -> None:
    assert read_parameters(b"", None, body) == [{"a": "1"}]


@given(st.binary(max_size=200), st.integers(0, 300))
def test_gzip_unpacks_to_what_was_packed_within_the_limit(packed: bytes, limit: int) -> None:
    if packed.startswith(b"\x1f\x8b"):
        return
    assert unpacked(packed, max_bytes=limit) == packed
    if len(packed) <= limit:
        assert unpacked(gzip.compress(packed), max_bytes=limit) == packed
    else:
        with pytest.raises(TooLarge):
            unpacked(gzip.compress(packed), max_bytes=limit)


PACKED = gzip.compress(b"a", mtime=0)  # the same bytes, and so the same test ids, in each test process


@pytest.mark.parametrize("broken", [b"\x1f\x8b", PACKED[:-1], PACKED + b"x", b"\x1f\x8b" * 20])
def test_gzip_that_is_not_whole_is_malformed(broken: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        unpacked(broken, max_bytes=100)
    assert caught.value.reason == "gzip"


ALL: list[dict[str, Any]] = json.loads((Path(__file__).parents[3] / "vectors" / "sign-vectors.json").read_text("utf-8"))
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
def test_signed_values_verify_in_any_encoding_and_a_changed_value_never_does(
    parameters: dict[str, str],
    encoding: Encoding,
    wrapped: Callable[[bytes], bytes],
    label: str,
    with_query: bool,  # noqa: FBT001 - given by Hypothesis
) -> None:
    sent = signed(parameters, system_token=TOKEN)
    query = b"source=yida" if with_query else b""
    body = wrapped(encode_callback(sent, encoding).body)
    assert verifies(query, label, body, token=TOKEN, sign=sent["sign"])
    key = next(iter(parameters))
    changed = wrapped(encode_callback({**sent, key: sent[key] + "0"}, encoding).body)
    assert not verifies(query, label, changed, token=TOKEN, sign=sent["sign"])
