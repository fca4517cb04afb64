"""The commands ``taskbridge schemas register|check``.

``check`` proves that schemas change only compatibly. ``schemas/avro/versions`` stores, for each published version N of
a record, ``{record}.{N}.avsc`` and ``{record}.{N}.avro``, a container file with records that it wrote;
``tools/publish_schema.py`` adds to them.
"""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from taskbridge.cli.options import DataDir, Json, RegistryUrl, example, operator_connection
from taskbridge.cli.terminal import json_line, say
from taskbridge.schemas import topics

if TYPE_CHECKING:
    from collections.abc import Iterable


schemas_app = typer.Typer(help="Register and check the Avro schemas of the contract.", no_args_is_help=True)

_VERSION_FILE = re.compile(r"(?P<record>\w+)\.(?P<version>\d+)\.avsc")


@schemas_app.command("register", epilog=example("taskbridge schemas register --registry-url http://registry:8081"))
def schemas_register(
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Register the schemas and set their compatibility to FULL_TRANSITIVE. Safe to repeat."""
    with operator_connection(None, registry_url, data_dir) as connection:
        found = connection.registry.register(topics.ALL)
    for subject, schema_id in found.items():
        say(json_line({"subject": subject, "id": schema_id}) if as_json else f"{schema_id:>6}  {subject}")


@schemas_app.command("check", epilog=example("taskbridge schemas check"))
def schemas_check(as_json: Json = False) -> None:  # noqa: FBT002
    """Check that each schema is fully compatible with every published version; needs no registry."""
    reports = check()
    for report in reports:
        lines = [f"{'broken' if report.problems else 'ok':8}{report.record} against version {report.version}"]
        lines += [f"        {each}" for each in report.problems]
        say(json_line(report._asdict()) if as_json else "\n".join(lines))
    if any(report.problems for report in reports):
        raise typer.Exit(1)


class VersionReport(NamedTuple):
    record: str
    version: int
    problems: list[str]


def records() -> list[str]:
    return [topic.record for topic in topics.ALL if topic.record is not None]


def versions_folder() -> Path:
    return Path(str(files("taskbridge.schemas").joinpath("avro", "versions")))


def check(folder: Path | None = None, only: Iterable[str] | None = None) -> list[VersionReport]:
    """Compare each current schema with every published version in both directions, and read the records they wrote."""
    folder = folder or versions_folder()
    return [
        _check(record, version, folder)
        for record in (only or records())
        for version in published_versions(record, folder)
    ]


def published_versions(record: str, folder: Path) -> list[int]:
    found = (_VERSION_FILE.fullmatch(path.name) for path in folder.glob(f"{record}.*.avsc"))
    return sorted(int(match["version"]) for match in found if match)


def _check(record: str, version: int, folder: Path) -> VersionReport:
    import fastavro

    from taskbridge.schemas.registry import schema_text

    current = schema_text(record)
    published = (folder / f"{record}.{version}.avsc").read_text("utf-8")
    problems = _incompatibilities(reader=current, writer=published, direction="cannot read what that version wrote")
    problems += _incompatibilities(reader=published, writer=current, direction="cannot be read by that version")
    try:
        with (folder / f"{record}.{version}.avro").open("rb") as written:
            if not list(fastavro.reader(written, fastavro.parse_schema(json.loads(current)))):
                problems.append("holds no stored record to read")
    except Exception as error:  # noqa: BLE001 - any error of the reader is the finding
        problems.append(f"a stored record does not decode: {type(error).__name__}: {error}")
    return VersionReport(record, version, problems)


def _incompatibilities(*, reader: str, writer: str, direction: str) -> list[str]:
    from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
    from avro.errors import AvroException
    from avro.schema import parse

    try:
        result = ReaderWriterCompatibilityChecker().get_compatibility(parse(reader), parse(writer))
    except AvroException as error:
        return [f"is not a valid schema: {error}"]
    if result.compatibility is SchemaCompatibilityType.compatible:
        return []
    return [f"{direction}: {message}" for message in sorted(result.messages)]
