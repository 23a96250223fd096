"""What keeps a session's process apart from others, beyond its ids: a keyring of its own, and no debugger.

Runs in the launcher's children only, and so imports the standard library only.
"""

from __future__ import annotations

import ctypes
import platform
import struct
from typing import Final

_JOIN_SESSION_KEYRING: Final = 1  # linux/keyctl.h
_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h
# The number of the system call keyctl, for which libc has no function, by machine and pointer size.
_KEYCTL: Final = {
    ("x86_64", 8): 250,
    ("x86_64", 4): 288,
    ("i686", 4): 288,
    ("i386", 4): 288,
    ("aarch64", 8): 219,
    ("aarch64", 4): 311,
    ("armv7l", 4): 311,
    ("armv6l", 4): 311,
    ("riscv64", 8): 219,
    ("loongarch64", 8): 219,
    ("ppc64le", 8): 271,
    ("s390x", 8): 280,
}


def join_own_keyring() -> None:
    """Leave the daemon's session keyring for a new one. What the old one holds is not the user's to use (keyrings(7)),
    and users whose sessions share a keyring would hold each other's keys.

    As root, so that it counts against no user's quota. PAM's pam_keyinit may put another in its place. A kernel or a
    container without keyrings has none to share.
    """
    number = _KEYCTL.get((platform.machine(), struct.calcsize("P")))
    if number is not None:
        ctypes.CDLL(None).syscall(number, _JOIN_SESSION_KEYRING, None)


def forbid_tracing() -> None:
    """Hide this process's memory from core dumps and the same user's debuggers: NSS and PAM have used it as root
    (others' entries of shadow(5) may be in it). Holds until exec.

    The change of ids does this already, unless the system was told otherwise (``fs.suid_dumpable``).
    """
    if ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError("this process cannot be kept from debuggers")
