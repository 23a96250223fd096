"""How much a peer may ask for. Sizes in bytes, durations in seconds."""

from __future__ import annotations

from typing import Final

VERSION_LINE: Final = 255  # RFC 4253 section 4.2
VERSION_LINES_BEFORE: Final = 32  # other lines that a server may send first; only a client reads them
READ_SIZE: Final = 256 * 1024  # of one read of a socket
PACKET_MAX: Final = 256 * 1024 + 1024  # packet length field; OpenSSH's largest is 256 KiB
PACKET_MAX_EARLY: Final = 64 * 1024  # before authentication nothing is longer
PACKET_MAX_FIRST: Final = 35_000  # before there are keys: what RFC 4253 section 6.1 asks for
MESSAGES_EARLY: Final = 1000  # before authentication has succeeded
NAME_LIST_MAX: Final = 8 * 1024
CONNECTION_BUDGET: Final = 16 * 1024 * 1024  # what may be held for one connection
USER_BUDGET: Final = 128 * 1024 * 1024  # and for all connections of one user
EARLY_BUDGET: Final = 256 * 1024  # and for a connection that has not logged in
CONNECTION_COST: Final = 32 * 1024  # of a connection itself, about
CHANNEL_COST: Final = 8 * 1024  # of a channel itself, about
EVENT_COST: Final = 1024  # of a message that waits, beside its bytes
PIECE_COST: Final = 256  # of a piece of data that waits, beside its bytes
CHANNEL_WINDOW: Final = 2 * 1024 * 1024  # of a channel whose data is consumed, as long as there is room
CHANNEL_PACKET: Final = 128 * 1024
FIRST_WINDOW: Final = 64 * 1024  # of a channel whose data nobody has consumed yet
WIDE_CHANNELS: Final = 32  # so many channels of one connection begin with that window; the others with
NARROW_WINDOW: Final = 8 * 1024
CHANNEL_BUFFER: Final = 8 * 1024 * 1024  # what a writer that does not pause may leave unsent
SEND_BATCH: Final = 256 * 1024  # sealed bytes that are gathered before they are sent
REPLIES_UNREAD: Final = 1024 * 1024  # unsent bytes at which a peer is no longer read
BLOCKED_BYTES: Final = 1024 * 1024  # of messages that wait for the end of a key exchange
PENDING_EVENTS: Final = 64  # requests of one channel, or of a connection, that wait for an answer
REKEY_BYTES: Final = 1 << 30
REKEY_SECONDS: Final = 3600.0
KEX_SECONDS: Final = 120.0  # for a peer to finish a key exchange once it has begun
REKEY_PACKETS: Final = 1 << 28  # far below the 2**32 of RFC 4344 and any counter
RELAY_LINGER: Final = 300.0  # how long a relayed socket may take nothing of what was sent before it is closed
AUTH_TRIES: Final = 6
