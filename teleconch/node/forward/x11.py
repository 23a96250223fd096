"""X11 for one session: what ``x11-req`` asks for (RFC 4254 section 6.3.1), and xauth's input.

The cookie that a client sends is one of its own making; the client checks it and puts the real one in its place. So
nothing here is worth stealing for long. But it comes from outside: what goes to xauth is checked, as by sshd.
"""

from __future__ import annotations

import re
from typing import Final

from attrs import frozen

from teleconch.errors import BadParameter
from teleconch.ssh.reader import Reader

PROGRAM: Final = "/usr/bin/xauth"
COMMAND: Final = b"exec /usr/bin/xauth -q -"
WORD_MAX: Final = 4096
SCREEN_MAX: Final = 400  # OpenSSH's bound

_WORD: Final = re.compile(rb"[A-Za-z0-9.:/_-]+")


@frozen
class X11Request:
    """``single``: one connection only. ``protocol`` and ``cookie`` as xauth takes them."""

    single: bool
    protocol: bytes
    cookie: bytes
    screen: int

    def display(self, number: int) -> bytes:
        """``DISPLAY`` for the session."""
        return b"localhost:%d.%d" % (number, self.screen)

    def line(self) -> bytes:
        """As sshd gives it to ``~/.ssh/rc``."""
        return self.protocol + b" " + self.cookie + b"\n"

    def xauth(self, number: int) -> bytes:
        """Commands for xauth: forget what an earlier session left, add the cookie."""
        name = b"unix:%d.%d" % (number, self.screen)
        return b"remove %s\nadd %s %s %s\n" % (name, name, self.protocol, self.cookie)


def parse(data: bytes) -> X11Request:
    """BadParameter, or ProtocolProblem if the fields do not fit."""
    reader = Reader(data)
    single, protocol, cookie, screen = reader.boolean(), reader.string(), reader.string(), reader.uint32()
    reader.end()
    for word in (protocol, cookie):
        if len(word) > WORD_MAX or not _WORD.fullmatch(word):
            raise BadParameter("The X11 authentication protocol or cookie holds characters that xauth does not take.")
    if screen > SCREEN_MAX:
        raise BadParameter(f"There is no X11 screen {screen}.")
    return X11Request(single, protocol, cookie, screen)
