"""The native core, wherever it was built: everything that asks it has the same in Python, too."""

from __future__ import annotations

try:
    from taskbridge.native import _native
except ImportError:  # installed without the extra `native`
    _native = None

native = _native
