"""sshd's scripts before a session's shell or command: ``~/.ssh/rc``, or ``/etc/ssh/sshrc`` (sshd(8), SSHRC).

They run as the user, by sh, in the session's environment; their output is the session's. With X11, their input is one
line with the protocol and the cookie, so that a script may call xauth itself (it was called before, too).

Runs in the launcher's children only, after the change of ids, and so imports the standard library only.
"""

from __future__ import annotations

import os
import shlex
from typing import Final

SYSTEM: Final = "system"  # the administrator's script
USER: Final = "user"  # the user's own, or else the administrator's
SH: Final = "/bin/sh"
SYSTEM_FILE: Final = "/etc/ssh/sshrc"
USER_FILE: Final = ".ssh/rc"


def find(which: str | None, home: str) -> str | None:
    """The script to run: ``which`` is :data:`SYSTEM`, :data:`USER` or ``None`` for none. Call as the user."""
    own = os.path.join(home, USER_FILE)
    if which == USER and os.path.exists(own):
        return own
    return SYSTEM_FILE if which is not None and os.path.exists(SYSTEM_FILE) else None


def run(script: str, shell: str, environ: dict[bytes, bytes], cookie: bytes) -> None:
    """Run ``script`` to its end; how it ends decides nothing. Call as the user.

    The user's own goes through the login shell, as with sshd: a shell that is there to forbid things has its say.
    """
    command = [SH, script]
    if script != SYSTEM_FILE:
        command = [shell, "-c", shlex.join(command)]
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.write(writing, cookie)  # far less than a pipe holds
    os.close(writing)
    try:
        child = os.posix_spawn(
            command[0], command, environ, file_actions=[(os.POSIX_SPAWN_DUP2, reading, 0)]
        )  # the user's rights, and the user's own shell
    except OSError:
        return  # if it is the shell's fault, the session itself will tell
    finally:
        os.close(reading)
    os.waitpid(child, 0)
