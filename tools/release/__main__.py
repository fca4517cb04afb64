"""Builds all artifacts of a release from the commit that is checked out: ``make release``.

Twice the same bytes: they depend on the commit and on the pinned packages, not on the machine, the folder or the time.
Without ``--key`` nothing is signed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from release import archives, image, notes, packages, sbom, sums
from release.source import ROOT, export


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder of the artifacts; emptied first")
    parser.add_argument(
        "--key",
        type=Path,
        help="private key in PEM, of the curve P-256, that signs; its password is in TASKBRIDGE_RELEASE_PASSWORD",
    )
    parser.add_argument("--no-image", action="store_true", help="leave the image out: it needs root and mmdebstrap")
    given = parser.parse_args(arguments)
    out: Path = given.out.absolute()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="taskbridge-release-") as folder:
        source = export(Path(folder).resolve())
        packages.build(source, out)
        program = sbom.pinned(packages.constraints(source)) | sbom.ours(source)
        core = sbom.crates(source.tree / "native" / "Cargo.lock")
        sbom.write(out / f"{source.name}.cdx.json", source, program | core)
        archives.chart(source, out)
        archives.deployment(source, out)
        notes.write_notes(source, out)
        if (reason := "--no-image" if given.no_image else image.missing()) is not None:
            sys.stderr.write(f"left out: the image: {reason}\n")
        else:
            image.build(source, out, out)
        sums.write_provenance(source, out)
        sums.write_sums(out)
    if given.key is not None:
        password = os.environ.get("TASKBRIDGE_RELEASE_PASSWORD")
        sums.sign(out, given.key, password.encode() if password else None)
    for name, digest in sums.files(out).items():
        sys.stdout.write(f"{digest}  {(out / name).stat().st_size:>11}  {name}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
