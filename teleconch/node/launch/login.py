"""What happens as root between the choice of an account and becoming it: who may enter, PAM, terminal, records.

Runs in the launcher's children only, and so imports the standard library only.
"""

from __future__ import annotations

import fcntl
import os
import signal
import termios
from collections.abc import Mapping
from typing import Any, NamedTuple

from teleconch.node.launch import accounts, apart, greeting, records
from teleconch.node.launch.accounts import Account
from teleconch.node.launch.attend import Note, attend
from teleconch.node.launch.pam import Stack
from teleconch.node.launch.pulse import Refusals

UMASK = 0o022
REPLY = 3  # the descriptor of the launcher's reply; one for reports of moved files may follow
NEW_PASSWORD = b'[ -t 0 ] && echo "Your password has expired: change it now, and log in again." >&2 && exec passwd; \
echo "Your password has expired, and changing it needs a terminal: log in with one (ssh -t)." >&2; exit 1'


class Entered(NamedTuple):
    """An account that this process may become now. ``variables`` are PAM's, ``said`` is what a login is shown first."""

    account: Account
    variables: Mapping[bytes, bytes]
    said: bytes
    new_password: bool  # nothing but a change of the password may run


def enter(request: Mapping[str, Any], note: Note | None, refusals: Refusals) -> Entered:
    """Check, open the PAM session and take the terminal (descriptor 0). NotFound, AccessDenied, LimitExceeded,
    Unavailable.

    With PAM, this returns in a new child, whose parent stays to close the session and writes the ``note``.
    """
    account = accounts.look_up(request["login"])
    accounts.check(account)
    refusals.check(account.login, account.uid)
    accounts.check_expiry(account)
    greeting.refuse_nologin(account)
    apart.join_own_keyring()
    os.umask(UMASK)  # as a service manager gives it to sshd; pam_umask may choose another
    line = os.ttyname(0).removeprefix("/dev/") if request["terminal"] else None
    host = request["environment"].get("SSH_CLIENT", "").split(" ")[0]
    entered = Entered(account, {}, b"", False)
    if request["pam"] is not None:
        entered = _through_pam(request, account, line, host, note)
    if line is not None:
        accounts.give_terminal(0, account)
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # session leader without a terminal: this one becomes it
        if os.geteuid() == 0:
            records.login(line, os.getpid(), account.login, host)
            before = records.seen(account.uid, line, host)
            entered = entered._replace(said=entered.said + greeting.last_login(before))
    return entered


def is_login(request: Mapping[str, Any]) -> bool:
    """Whether this is a login shell on a terminal, which gets a greeting."""
    return bool(request["terminal"] and request["command"] is None and request["serve"] is None)


def _through_pam(
    request: Mapping[str, Any], account: Account, line: str | None, host: str, note: Note | None
) -> Entered:
    lent = [fd for fd in range(REPLY + 2) if _is_open(fd)]  # the rest will be the modules' own
    stack = Stack(request["pam"], account.login, None if line is None else f"/dev/{line}", host)
    known = {"SSH_CONNECTION": request["environment"].get("SSH_CONNECTION", "")}
    new_password = stack.open({name.encode(): value.encode("latin-1") for name, value in known.items() if value})
    entered = Entered(account, stack.variables(), stack.said(), new_password)
    left = signal.alarm(0)
    try:
        child = os.fork()
    except OSError:
        stack.close()
        raise
    if child:
        attend(child, lent, stack.close, note)
    signal.alarm(left)
    os.setsid()
    os.closerange(max(lent) + 1, 256)  # what modules hold open stays with the parent
    return entered


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
