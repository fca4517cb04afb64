"""Parse a CSV file of forms, one line per field."""

from __future__ import annotations

from collections import defaultdict

from taskbridge.cli.imports.lines import CORP_ID, BadFile, Encoding, read_lines
from taskbridge.schemas.events import Form, form_key

FORM_UUID, FORM_TITLE, FIELD_ID, LABEL = "form_uuid", "form_title", "field_id", "label"


def read_forms(
    content: bytes, *, corp_id: str | None = None, encoding: Encoding = "utf-8", labelled: bool = True
) -> dict[bytes, Form]:
    """The forms of the file by record key. ``labelled``: each line must have a field and its label.

    Unknown columns are ignored: exports have more.

    Raises:
        BadFile: as ``read_lines``; or a form has several titles.
    """
    needed = (FORM_UUID, FIELD_ID, LABEL) if labelled else (FORM_UUID,)
    lines = read_lines(content, ids=(FORM_UUID, FIELD_ID), needed=needed, corp_id=corp_id, encoding=encoding)
    by_form: dict[bytes, list[dict[str, str]]] = defaultdict(list)
    for found in lines:
        by_form[form_key(found[CORP_ID], found[FORM_UUID])].append(found)
    return {key: _form(fields) for key, fields in by_form.items()}


def _form(fields: list[dict[str, str]]) -> Form:
    form_uuid = fields[0][FORM_UUID]
    titles = {found[FORM_TITLE] for found in fields if FORM_TITLE in found}
    if len(titles) > 1:
        raise BadFile(f"{form_uuid} has several titles: {', '.join(sorted(titles))}")
    # Sorted, so that the order of lines does not change the record's bytes.
    labels = sorted((found[FIELD_ID], found[LABEL]) for found in fields if FIELD_ID in found and LABEL in found)
    return Form(form_uuid, next(iter(titles), None), dict(labels))
