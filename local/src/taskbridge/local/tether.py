"""Run the program given as arguments, tied to its parent: it dies when the parent process ends in any way.

Run as ``python -I -S tether.py PARENT_PID SIGNAL NICENESS DESCRIPTORS PROGRAM ARGUMENT...``. DESCRIPTORS, with commas,
are of listening sockets, which the program receives as from systemd. A program of its own instead of a
``preexec_fn``, because Python code between fork and exec can hang where the parent has threads.
"""

from __future__ import annotations

import os
import sys
import time

_PR_SET_PDEATHSIG = 1
_AUTOGROUP_ATTEMPTS, _AUTOGROUP_PAUSE_S = 50, 0.11
_FIRST_GIVEN = 3  # sd_listen_fds(3): the first descriptor


def main() -> None:
    parent_pid, signal_number, niceness, descriptors, *argv = sys.argv[1:]
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415  slow to import, and not needed elsewhere

        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0) != 0:
            sys.exit(f"cannot tie {argv[0]} to its parent: {os.strerror(ctypes.get_errno())}")
        if os.getppid() != int(parent_pid):  # it died before the call above, so no signal follows
            sys.exit("the parent process has ended already")
    if int(niceness):
        give_way(int(niceness))
    if descriptors:
        hand_over([int(each) for each in descriptors.split(",")])
    try:
        os.execvp(argv[0], argv)  # noqa: S606  replacing this process is the purpose
    except OSError as error:
        sys.exit(f"cannot run {argv[0]}: {error.strerror}")


def give_way(niceness: int) -> None:
    """Where this is not possible, all have the same share."""
    try:
        os.nice(niceness)
        # Linux shares the processors between sessions first, and each has a niceness of its own: sched(7), autogroup.
        for _ in range(_AUTOGROUP_ATTEMPTS):
            try:
                with open("/proc/self/autogroup", "w") as group:  # noqa: PTH123  pathlib is slow to import
                    group.write(str(niceness))
            except BlockingIOError:  # the kernel takes ten a second from all users but root
                time.sleep(_AUTOGROUP_PAUSE_S)
            else:
                return
    except OSError:
        return


def hand_over(descriptors: list[int]) -> None:
    import fcntl  # noqa: PLC0415  as above

    # Move them away first: one may have a number that another needs.
    end = _FIRST_GIVEN + len(descriptors)
    for number, each in enumerate([fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, end) for each in descriptors]):
        os.dup2(each, _FIRST_GIVEN + number, inheritable=True)
    os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(descriptors))}


if __name__ == "__main__":
    main()
