"""Which values of a form its state has: those that are wanted, as far as they fit, whatever order they came in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from taskbridge.streams.fold.forms import FORM_BYTES, published_form

FORMS = st.dictionaries(st.text(max_size=4), st.none() | st.text(max_size=9) | st.just("长" * 2_000), max_size=5)


def test_only_what_is_wanted_is_published() -> None:
    form = {"b": "2", "a": None, "c": ""}
    assert list(published_form(form, {"*"}).items()) == [("a", None), ("b", "2"), ("c", "")]
    assert published_form(form, {"b", "d"}) == {"b": "2"}
    assert published_form(form, ()) == {}


def test_what_does_not_fit_is_left_out_and_what_is_smaller_may_still_fit() -> None:
    form = {"a": "x" * (FORM_BYTES - 4), "b": "长", "c": "zz"}
    assert published_form(form, {"*"}) == {"a": form["a"], "c": "zz"}
    assert published_form({"a": "x" * FORM_BYTES}, {"*"}) == {}


@given(FORMS)
def test_it_is_bounded_and_published_once_more_it_is_the_same(form: dict[str, str | None]) -> None:
    found = published_form(form, {"*"})
    assert sum(len(name.encode()) + len((value or "").encode()) for name, value in found.items()) <= FORM_BYTES
    assert list(found.items()) == sorted(found.items(), key=lambda each: each[0])
    assert published_form(found, {"*"}) == found
