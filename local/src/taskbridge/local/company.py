"""The simulated company: its people, and the forms and processes of its apps, as ``company.toml`` names them."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from taskbridge.schemas.events import Form

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FILES = files("taskbridge.local")
_COMPANY: dict[str, Any] = tomllib.loads(_FILES.joinpath("company.toml").read_text("utf-8"))

CORP = "ding5d17e3add038d44535c2f4657eb6378f"
"""The corp of the demo and of simulated apps without one in the credentials."""


class Employee(NamedTuple):
    user_id: str
    name: str
    department: str
    is_head: bool = False


EMPLOYEES: tuple[Employee, ...] = (
    Employee("01690741902689", "张红", "研发部"),
    *(
        Employee(_COMPANY["known_ids"].get(name, f"0169{department:02d}{number:04d}"), name, title, number == 0)
        for department, (title, names) in enumerate(_COMPANY["departments"].items(), 1)
        for number, name in enumerate(names)
    ),
)


def busiest() -> Employee:
    """The head of the largest department, who decides on its requests."""
    sizes = Counter(each.department for each in EMPLOYEES)
    return max((each for each in EMPLOYEES if each.is_head), key=lambda each: sizes[each.department])


DEPARTMENT_FIELD = "employeeField_department"


class Approval(NamedTuple):
    """One step: approval by the applicant's head, or by any one of some members of a department."""

    name: str
    department: str | None = None
    assignees: int = 1


class Process(NamedTuple):
    name: str
    code: str
    title: str
    form: Mapping[str, Sequence[str]]
    steps: Sequence[Approval]
    copied_to: str | None = None

    @property
    def form_uuid(self) -> str:
        return f"FORM-{self.code}"


PROCESSES = tuple(
    Process(steps=[Approval(**step) for step in each.pop("steps")], **each) for each in _COMPANY["processes"]
)

FORMS = tuple(
    Form(each.form_uuid, each.name, {name: _COMPANY["labels"][name] for name in (*each.form, DEPARTMENT_FIELD)})
    for each in PROCESSES
)

VISITORS = Form(**_COMPANY["visitors"])


def vendor_sample() -> dict[str, Any]:
    """The ``task`` of the vendor's page, with the missing comma after ``instValue``."""
    return json.loads(_FILES.joinpath("vendor-sample.json").read_text("utf-8"))
