"""Which messages are legal when. Whatever is not in a state's row ends the connection.

::

    START --KEXINIT--> KEYS --KEX_INIT/KEX_REPLY--> NEW --NEWKEYS--> SERVICE --SERVICE_*--> AUTH --success--> OPEN
                                                                        ^                    |                 |
                        KEXINIT at any time in SERVICE, AUTH, OPEN: rekey (KEYS, NEW) and back to where it was
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from teleconch.ssh import limits
from teleconch.ssh import messages as m
from teleconch.ssh.problems import ProtocolProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

START: Final = "start"
KEYS: Final = "keys"
NEW: Final = "new"
SERVICE: Final = "service"
AUTH: Final = "auth"
OPEN: Final = "open"
STATES: Final = (START, KEYS, NEW, SERVICE, AUTH, OPEN)

_ANY: Final = frozenset((m.DISCONNECT, m.IGNORE, m.UNIMPLEMENTED, m.DEBUG))
_CHANNELS: Final = frozenset(
    (
        m.GLOBAL_REQUEST,
        m.REQUEST_SUCCESS,
        m.REQUEST_FAILURE,
        m.CHANNEL_OPEN,
        m.CHANNEL_OPEN_CONFIRMATION,
        m.CHANNEL_OPEN_FAILURE,
        m.CHANNEL_WINDOW_ADJUST,
        m.CHANNEL_DATA,
        m.CHANNEL_EXTENDED_DATA,
        m.CHANNEL_EOF,
        m.CHANNEL_CLOSE,
        m.CHANNEL_REQUEST,
        m.CHANNEL_SUCCESS,
        m.CHANNEL_FAILURE,
    )
)

# What a server takes from a client. EXT_INFO only as the first message after NEWKEYS (RFC 8308 section 2.4).
SERVER: Final = {
    START: _ANY | {m.KEXINIT},
    KEYS: _ANY | {m.KEX_INIT},
    NEW: _ANY | {m.NEWKEYS},
    SERVICE: _ANY | {m.KEXINIT, m.SERVICE_REQUEST, m.EXT_INFO},
    AUTH: _ANY | {m.KEXINIT, m.USERAUTH_REQUEST, m.USERAUTH_INFO_RESPONSE, m.PING},
    OPEN: _ANY | {m.KEXINIT, m.PING} | _CHANNELS,
}
# What a client takes from a server. A second EXT_INFO may come right before USERAUTH_SUCCESS (RFC 8308 section 2.4).
CLIENT: Final = {
    START: _ANY | {m.KEXINIT},
    KEYS: _ANY | {m.KEX_REPLY},
    NEW: _ANY | {m.NEWKEYS},
    SERVICE: _ANY | {m.KEXINIT, m.SERVICE_ACCEPT, m.EXT_INFO},
    AUTH: _ANY
    | {
        m.KEXINIT,
        m.EXT_INFO,
        m.USERAUTH_FAILURE,
        m.USERAUTH_SUCCESS,
        m.USERAUTH_BANNER,
        m.USERAUTH_PK_OK,
        m.PING,
        m.PONG,
    },
    OPEN: _ANY | {m.KEXINIT, m.PING, m.PONG} | _CHANNELS,
}
# During the first key exchange under strict KEX nothing but the exchange itself (OpenSSH PROTOCOL, section 1.10).
STRICT: Final = frozenset((m.KEXINIT, m.KEX_INIT, m.KEX_REPLY, m.NEWKEYS, m.DISCONNECT))
# Numbers that mean something somewhere; the others are answered with UNIMPLEMENTED once the connection is open.
KNOWN: Final = frozenset().union(*SERVER.values(), *CLIENT.values())


class Order:
    """Which message may come now. The transport asks before it reads one.

    It leads ``state`` through the table, and notes here what else decides.
    """

    legal: ClassVar[Mapping[str, frozenset[int]]]
    state: str = START
    sessionID: bytes | None = None  # from the first NEWKEYS on
    entered = False  # authentication has succeeded
    _strict = False
    _ext_info_legal = False  # the first NEWKEYS was the last message
    _early_messages = 0

    def expects(self, number: int) -> bool:
        """Whether to handle this message. False: its number means nothing, answer UNIMPLEMENTED. ProtocolProblem."""
        if not self.entered:
            self._early_messages += 1
            if self._early_messages > limits.MESSAGES_EARLY:
                raise ProtocolProblem("too many messages before authentication")
        if number not in self.legal[self.state]:
            if self.state == OPEN and number not in KNOWN:
                return False
            raise ProtocolProblem(f"message {number} came at a moment when it must not")
        if self._strict and self.sessionID is None and number not in STRICT:
            raise ProtocolProblem("a message came that strict key exchange does not allow")
        if number == m.EXT_INFO and not self._ext_info_legal and self.state == SERVICE:
            raise ProtocolProblem("extensions came at a moment when they must not")
        if number != m.NEWKEYS:
            self._ext_info_legal = False
        return True
