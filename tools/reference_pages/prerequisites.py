"""What the commands of the README need of a machine, as they check it."""

from __future__ import annotations

import prerequisites
from reference_pages.markdown import code, page, table

_INTRODUCTION = f"""\
`make demo`, `make test` and `make slow` (with `make disasters` and `make consumers`) check this list first. As root, or
with a `sudo` that needs no password, they install what they lack on Debian and its like, unless
`{prerequisites.MODE}=check` is set. Elsewhere they print what is missing, and the command that installs it. Without a
required program they end; without another the tests that need it are skipped, which is a failure with `CI=true`. What
is fetched without root (uv, Python's packages, Go, Node, Kafka) is not listed."""

_COMMANDS = {"": "all", "demo": "`make demo`, `make test`", "test": "`make test`", "slow": "`make slow`"}


def prerequisites_page() -> str:
    heads = ("what", "for", "needed by", "Debian's packages")
    return page("Prerequisites", _INTRODUCTION, table(heads, map(_row, prerequisites.ALL)))


def _row(each: prerequisites.Prerequisite) -> tuple[str, ...]:
    packages = ", ".join(" or ".join(map(code, filter(None, name.split("|")))) for name in each.packages)
    purpose = f"as root: {each.purpose}" if each.as_root else each.purpose
    name = f"{each.name} (required)" if each.required else each.name
    return name, purpose, _COMMANDS[each.command], packages
