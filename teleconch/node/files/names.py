"""From the names that a client gives to absolute ones: ``REALPATH``, and ``~`` and ``~user`` at the front."""

from __future__ import annotations

import errno
import os
import pwd
import stat

PATH_MAX = 4096
LINKS_MAX = 32  # OpenSSH's limit


def _fail(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def resolved(path: bytes) -> bytes:
    """The absolute name without links, ``.`` and ``..``. All but the last component must exist. OSError.

    The kernel is asked for each component, so that ``..`` goes up from where a link leads.
    """
    if len(path) >= PATH_MAX:
        raise _fail(errno.ENAMETOOLONG)
    at = b"/" if path.startswith(b"/") else os.getcwdb()
    links = 0
    left = path.split(b"/")
    left.reverse()
    while left:
        name = left.pop()
        if name in (b"", b"."):
            continue
        if name == b"..":
            at = os.path.dirname(at)
            continue
        here = b"%s%s%s" % (at, b"" if at == b"/" else b"/", name)
        if len(here) >= PATH_MAX:
            raise _fail(errno.ENAMETOOLONG)
        try:
            is_link = stat.S_ISLNK(os.lstat(here).st_mode)
        except FileNotFoundError:
            if left:
                raise
            return here
        if not is_link:
            at = here
            continue
        links += 1
        if links > LINKS_MAX:
            raise _fail(errno.ELOOP)
        target = os.readlink(here)
        if target.startswith(b"/"):
            at = b"/"
        left.extend(reversed(target.split(b"/")))
    return at


def home_of(user: bytes) -> bytes | None:
    """A user's home directory; ``None`` if there is no such user. An empty name is nobody's."""
    try:
        return os.fsencode(pwd.getpwnam(os.fsdecode(user)).pw_dir)
    except (KeyError, ValueError):
        return None


def own_home() -> bytes:
    """``$HOME``, or what the passwd entry says."""
    home = os.environb.get(b"HOME")
    return home if home else entered_home()


def entered_home() -> bytes:
    """The home directory in one's own passwd entry."""
    return os.fsencode(pwd.getpwuid(os.getuid()).pw_dir)


def expanded(path: bytes) -> bytes | None:
    """``path`` with ``~`` or ``~user`` at its front replaced. ``None`` if there is no such user."""
    if not path.startswith(b"~"):
        return path
    user, _, rest = path[1:].partition(b"/")
    home = home_of(user) if user else own_home()
    return None if home is None else os.path.join(home, rest.lstrip(b"/")) if rest else home
