"""What the launcher's child does about files, between becoming the user and exec: serve SFTP, or lend out scp.

An account's shell may be there to forbid things: ``nologin``, ``git-shell``, ``rbash``. SFTP is served without the
shell only if it is one that lets its user run anything; any other shell is asked as sshd does it, with ``SHELL -c``.
"""

from __future__ import annotations

import os
import signal
import time

from teleconch.node.files import lend, sftp_server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

SFTP = "sftp"
REPORT = 4  # where the report socket is, close-on-exec
_LENIENT = frozenset(("sh", "ash", "bash", "dash", "fish", "ksh", "mksh", "zsh", "csh", "tcsh"))


def needs_shell(shell: str) -> bool:
    """Whether the account's shell has a say in SFTP."""
    return os.path.basename(shell) not in _LENIENT


def sftp_command(folder: str | None) -> str:
    """What the shell is asked to run. If no folder could be made, it is something that no machine has."""
    return f"{folder or '/nonexistent'}/{lend.SFTP}"


def serve_sftp() -> NoReturn:
    """Serve on stdin and stdout until the client is gone."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # the write's error tells the same
        signal.signal(number, signal.SIG_IGN)
    time.tzset()  # the user's own, for the lines of directories
    os._exit(sftp_server.main(_report()))


def lend_scp(environ: dict[bytes, bytes], folder: str, reply: int) -> None:
    """Put ``folder`` at the front of PATH and lend scp; returns in a child that is to become the shell. ``reply`` is
    that child's alone."""
    environ[b"PATH"] = os.fsencode(folder) + b":" + environ.get(b"PATH", os.fsencode(os.defpath))
    lend.lend(reply, _report())


def _report() -> int | None:
    try:
        os.fstat(REPORT)
    except OSError:
        return None
    return REPORT
