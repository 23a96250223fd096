"""The OS account behind a login, and becoming it for good.

Runs in the launcher's children only, and so imports nothing outside the standard library.
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import stat
import time
from typing import NamedTuple

from teleconch.errors import AccessDenied, NotFound


class Account(NamedTuple):
    """One passwd entry and the groups that a login gets."""

    login: str
    uid: int
    gid: int
    home: str
    shell: str
    groups: tuple[int, ...]


class _Shadow(ctypes.Structure):
    """``struct spwd``; days since 1970, -1 for none."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("password", ctypes.c_char_p),
        ("last_change", ctypes.c_long),
        ("least", ctypes.c_long),
        ("most", ctypes.c_long),
        ("warning", ctypes.c_long),
        ("inactive", ctypes.c_long),
        ("expire", ctypes.c_long),
        ("flags", ctypes.c_ulong),
    ]


def look_up(login: str) -> Account:
    """The account of ``login``, through NSS (which may take long if accounts live on the network). NotFound."""
    try:
        entry = pwd.getpwnam(login)
    except (KeyError, ValueError):
        raise NotFound(
            f"There is no user {login} on this machine; ask its administrator for the account, or log in as another."
        ) from None
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir or "/", entry.pw_shell or "/bin/sh", groups)


def check(account: Account) -> None:
    """AccessDenied, with the reason, if this process cannot open a session for ``account``."""
    own = os.geteuid()
    if own not in (0, account.uid):
        raise AccessDenied(
            f"This node runs as the user {_name(own)} and not as root: log in as {_name(own)}, no other login is"
            " possible here."
        )
    try:
        mode = os.stat(account.shell).st_mode
    except OSError as error:
        raise AccessDenied(
            f"The shell {account.shell} of {account.login} cannot be used ({error.strerror}); ask the administrator."
        ) from None
    if not stat.S_ISREG(mode) or not mode & 0o111:
        raise AccessDenied(f"The shell {account.shell} of {account.login} is not a program; ask the administrator.")


def check_expiry(account: Account) -> None:
    """AccessDenied for an account whose last day is over (shadow(5), field 8). Only root can know.

    An expired or locked password means nothing here: nobody logs in with one.
    """
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None)
    libc.getspnam.restype = ctypes.POINTER(_Shadow)
    entry = libc.getspnam(os.fsencode(account.login))
    if entry and 0 < entry.contents.expire < time.time() // 86400:
        raise AccessDenied(f"The account {account.login} has expired; ask the administrator of this machine.")


def become(account: Account) -> None:
    """Give up this process's rights for those of ``account``, for good. AccessDenied if that does not hold.

    Groups first, then group, then user: each needs the rights that the next gives up. Afterwards every id is read
    back, and the way back to root is tried.
    """
    try:
        if os.geteuid() == 0:
            os.setgroups(account.groups)
            os.setresgid(account.gid, account.gid, account.gid)
            os.setresuid(account.uid, account.uid, account.uid)
            if set(os.getgroups()) != set(account.groups):
                raise PermissionError("groups differ")
        if os.getresuid() != (account.uid,) * 3 or os.getresgid() != (account.gid,) * 3:
            raise PermissionError("ids differ")
    except OSError as error:
        raise AccessDenied(f"This node could not take on the rights of {account.login}: {error}.") from None
    if account.uid != 0:
        for regain in (os.setuid, os.seteuid):
            try:
                regain(0)
            except PermissionError:
                continue
            raise AccessDenied(f"This node could not give up its own rights for {account.login}.")


def give_terminal(terminal: int, account: Account) -> None:
    """Make the slave side of a PTY the user's: owner, group tty, mode 0620 (write(1) and wall(1) want that)."""
    if os.geteuid() != 0:
        return  # devpts made it ours already
    try:
        gid, mode = grp.getgrnam("tty").gr_gid, 0o620
    except KeyError:
        gid, mode = account.gid, 0o600
    os.fchown(terminal, account.uid, gid)
    os.fchmod(terminal, mode)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
