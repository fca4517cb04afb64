"""Which of a form's values stand in its instance's state: those that the administrator names. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

EVERY_FIELD = "*"
FORM_BYTES = 8 << 10
"""Of names and values together: a state is written anew with each event, and sixty thousand are held in memory."""


def published_form(form: Mapping[str, str | None], wanted: Collection[str]) -> dict[str, str | None]:
    """The values of the wanted fields, in the order of their names; ``wanted`` may hold EVERY_FIELD.

    What does not fit into FORM_BYTES any more is left out.
    """
    found: dict[str, str | None] = {}
    room = FORM_BYTES
    for name in sorted(form if EVERY_FIELD in wanted else form.keys() & set(wanted)):
        value = form[name]
        size = len(name.encode()) + len((value or "").encode())
        if size <= room:
            found[name] = value
            room -= size
    return found
