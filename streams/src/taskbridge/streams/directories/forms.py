"""Forms: what they and their fields are called."""

from __future__ import annotations

from itertools import chain

from taskbridge.schemas.codec import Undecodable
from taskbridge.schemas.events import MAX_NAME_CHARACTERS, Form
from taskbridge.schemas.topics import FORMS
from taskbridge.streams.directories.directory import Directory


class Forms(Directory[Form, Form]):
    """Forms of all corps by corp and form; each uses the room of its title and of a label for each field."""

    what, topic = "labels", FORMS

    def size(self, value: Form, /) -> int:
        """Its title, and its labels."""
        return 1 + len(value.labels)

    def check(self, its_id: str, record: Form) -> None:
        """Raise Undecodable where the record is about another form, or a text of it is too long."""
        if record.form_uuid != its_id:
            raise Undecodable("it is about another form than its key")
        texts = chain((its_id, record.title or ""), record.labels, record.labels.values())
        if max(map(len, texts)) > MAX_NAME_CHARACTERS:
            raise Undecodable(
                f"its title, or the id or label of a field, has more than {MAX_NAME_CHARACTERS} characters"
            )

    def know(self, corp_id: str, record: Form) -> None:
        """Add a form's record, instead of the one before it."""
        self._keep(corp_id, record.form_uuid, record)
