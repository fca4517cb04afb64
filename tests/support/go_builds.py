"""How the tests have Go build: quickly, and all alike, so that what one build has compiled is there for the next."""

from __future__ import annotations

QUICKLY = {
    # Without optimisation and debug information, which one run of a program does not earn back.
    "GOFLAGS": "'-gcflags=all=-N -l -dwarf=false' '-ldflags=-s -w'",
    "CGO_CFLAGS": "-O0",
}
"""To be added to the environment. Go keeps what it has compiled by all of these: one that differs compiles anew."""
