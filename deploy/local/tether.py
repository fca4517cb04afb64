"""Becomes the program given as arguments, which then dies with the process that started it, however that ends.

Run as ``python -I -S tether.py PARENT_PID SIGNAL PROGRAM ARGUMENT...``. A program of its own instead of a
``preexec_fn``, because Python code between fork and exec can hang where the parent has threads.
"""

from __future__ import annotations

import os
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent_pid, signal_number, *argv = sys.argv[1:]
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415  is not needed, and takes its time, elsewhere

        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0) != 0:
            sys.exit(f"cannot tie {argv[0]} to its parent: {os.strerror(ctypes.get_errno())}")
        if os.getppid() != int(parent_pid):  # it died before the call above, so no signal will come
            sys.exit("the parent is gone already")
    try:
        os.execvp(argv[0], argv)  # noqa: S606  to become the program is the purpose
    except OSError as error:
        sys.exit(f"cannot run {argv[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
