"""Forms are as in their latest records; a form has room for all its labels, or is dropped."""

from __future__ import annotations

import pytest

from taskbridge.schemas.codec import Undecodable
from taskbridge.schemas.events import MAX_NAME_CHARACTERS, Form
from taskbridge.streams.directories.forms import Forms

LONGEST = "x" * MAX_NAME_CHARACTERS


def form(form_uuid: str, *fields: str) -> Form:
    return Form(form_uuid, "合同审批", dict.fromkeys(fields, "合同方"))


def test_a_form_is_the_latest_of_this_corp() -> None:
    forms = Forms(most=10)
    forms.know("corp", form("F-1", "a", "b"))
    forms.know("other", form("F-1"))
    forms.know("corp", form("F-1", "c"))
    assert (forms.find("corp", "F-1"), forms.find("other", "F-1")) == (form("F-1", "c"), form("F-1"))
    assert forms.count == 3
    forms.forget("corp", "F-1")
    forms.forget("corp", "F-1")
    assert (forms.find("corp", "F-1"), forms.count) == (None, 1)


def test_there_is_room_for_so_many_titles_and_labels() -> None:
    forms = Forms(most=4)
    forms.know("corp", form("F-1", "a", "b"))
    forms.know("corp", form("F-2", "a"))
    assert (forms.find("corp", "F-2"), forms.count, forms.left_out) == (None, 3, 1)
    assert list(forms.news()) == [("left_out", {"known": 3, "records": 1})]
    assert list(forms.news()) == [], "once"
    forms.know("corp", form("F-2"))
    assert forms.count == 4
    forms.know("corp", form("F-1", "a", "b", "c"))
    assert (forms.find("corp", "F-1"), forms.count, forms.left_out) == (None, 1, 2), "what it was is not shown either"


@pytest.mark.parametrize(
    "record",
    [
        form("F-2"),
        form("F-1", LONGEST + "x"),
        Form("F-1", None, {"a": LONGEST + "x"}),
        Form("F-1", LONGEST + "x"),
    ],
    ids=["another form's", "a long field", "a long label", "a long title"],
)
def test_what_is_no_record_of_the_form_is_not_taken(record: Form) -> None:
    with pytest.raises(Undecodable):
        Forms(most=10).check("F-1", record)


def test_the_longest_texts_are_taken() -> None:
    Forms(most=10).check(LONGEST, Form(LONGEST, LONGEST, {LONGEST: LONGEST}))
