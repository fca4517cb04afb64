"""Builds all artifacts of a release from the commit that is checked out: ``make release``.

Twice the same bytes: they depend on the commit and on the pinned packages, not on the machine, the folder or the time.
Without ``--key`` nothing is signed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from release import archives, image, notes, packages, sbom, sums
from release.source import HEAD, ROOT, export, say

COMPARE = (sys.executable, str(ROOT / "tools" / "reference.py"), "--released", "--check")
"""By the program itself, of the environment that ``make native`` makes and ``make release`` only adds to."""


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "dist", help="folder of the artifacts; those of before are removed"
    )
    parser.add_argument(
        "--key",
        type=Path,
        help="private key in PEM, of the curve P-256, that signs; its password is in TASKBRIDGE_RELEASE_PASSWORD",
    )
    parser.add_argument("--no-image", action="store_true", help="leave the image out: it needs root and mmdebstrap")
    parser.add_argument("--commit", default=HEAD, help="build another commit than the one that is checked out")
    given = parser.parse_args(arguments)
    # No program that builds may read it.
    password = os.environ.pop("TASKBRIDGE_RELEASE_PASSWORD", None)
    key = None if given.key is None else sums.load(given.key, password.encode() if password else None)
    whole: Path = given.out.absolute()
    check_former(whole)
    for killed in whole.parent.glob(f".{whole.name}-????????"):  # its folder would be a change of the checkout
        shutil.rmtree(killed)
    with (
        tempfile.TemporaryDirectory(prefix="taskbridge-release-") as folder,
        tempfile.TemporaryDirectory(prefix=f".{whole.name}-", dir=whole.parent) as unfinished,
    ):
        source = export(Path(folder).resolve(), signed=key is not None, commit=given.commit)
        if given.commit == HEAD or key is not None:  # of another commit, it signs nothing
            compare_surface(signed=key is not None)
        out = Path(unfinished, "dist")
        out.mkdir()
        packages.build(source, out)
        say("bill of materials, chart, deployment, notes")
        program = sbom.pinned(packages.constraints(source)) | sbom.ours(source)
        core = sbom.crates(source.tree / "native" / "Cargo.lock")
        sbom.write(out / f"{source.name}.cdx.json", source, program | core)
        archives.chart(source, out)
        archives.deployment(source, out)
        notes.write_notes(source, out)
        if (reason := "--no-image" if given.no_image else image.missing()) is not None:
            say(f"left out: the image: {reason}")
        else:
            say("the image")
            image.build(source, out, out)
        say("provenance and sums" if key is None else "provenance, sums and signatures")
        sums.write_provenance(source, out)
        sums.write_sums(out)
        if key is not None:
            sums.sign(out, key)
        if whole.exists():
            whole.rename(Path(unfinished, "former"))
        out.rename(whole)
    for name, digest in sums.files(whole).items():
        sys.stdout.write(f"{digest}  {(whole / name).stat().st_size:>11}  {name}\n")


def compare_surface(*, signed: bool) -> None:
    """Whether the commit holds what the next release must not break."""
    done = subprocess.run(COMPARE, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        why = done.stderr.strip().rpartition("\n")[2]  # of a traceback, the error
        line = f"tools/release/surface.json: {why}: see RELEASING.md, step 1"
        if signed:
            sys.exit(f"it signs nothing: {line}")
        say(line)


def check_former(out: Path) -> None:
    """Only what a release wrote gives way to this one, once this one is whole."""
    out.parent.mkdir(parents=True, exist_ok=True)
    if not out.exists():
        return
    others = [
        each.name
        for each in out.iterdir()
        if not re.match(r"taskbridge[-_]|SHA256SUMS(\.sig)?$|\.gitignore$", each.name)
    ]
    if others:
        sys.exit(f"{out} holds what no release wrote: {', '.join(sorted(others)[:3])}")


if __name__ == "__main__":
    main(sys.argv[1:])
