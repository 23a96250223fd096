"""What a login sees before its prompt, and who is not let in for now (nologin, last login, message of the day).

Runs in the launcher's children only, and so imports the standard library only.
"""

from __future__ import annotations

import os
import stat
import time
from typing import Final

from teleconch.errors import AccessDenied
from teleconch.node.launch.accounts import Account

NOLOGIN: Final = ("/etc/nologin", "/run/nologin")
MOTD: Final = ("/run/motd.dynamic", "/etc/motd")
HUSH: Final = ".hushlogin"
TEXT_MAX: Final = 64 * 1024
NOLOGIN_MAX: Final = 4096  # it travels in the reply


def refuse_nologin(account: Account) -> None:
    """AccessDenied with the text of /etc/nologin for all but root, while that file is there (nologin(5))."""
    if account.uid == 0:
        return
    for path in NOLOGIN:
        if os.path.lexists(path):
            said = _text(path, NOLOGIN_MAX).decode("utf-8", "replace").rstrip()
            raise AccessDenied(said or "This machine takes no logins at the moment; try again later.")


def hushed(home: str) -> bool:
    """Whether the user wants no greeting. Call as the user."""
    return os.path.lexists(os.path.join(home, HUSH))


def last_login(before: tuple[float, str] | None) -> bytes:
    """``Last login: Mon Jan  2 15:04:05 2006 from 192.0.2.1``, as sshd writes it; empty the first time."""
    if before is None:
        return b""
    when, where = before
    origin = f" from {where}" if where else ""
    return f"Last login: {time.ctime(when)}{origin}\n".encode()


def message_of_the_day() -> bytes:
    """What the administrator has to say today."""
    return b"".join(_text(path, TEXT_MAX) for path in MOTD)


def show(text: bytes) -> None:
    """Write all of it to the terminal (descriptor 1)."""
    left = memoryview(text)
    while left:
        left = left[os.write(1, left) :]


def _text(path: str, most: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return b""
    try:
        return os.read(fd, most) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(fd)
