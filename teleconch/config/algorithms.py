"""Names that ``ciphers``, ``kex_algos`` and ``mac_algos`` may hold: what ``teleconch.ssh`` can do, best first.

A copy, since this package may not import ``ssh``; ``tests/config/test_algorithms.py`` compares the two.
"""

from __future__ import annotations

from typing import Final

KEX_ALGOS: Final = (
    "mlkem768x25519-sha256",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
)
CIPHERS: Final = (
    "aes256-gcm@openssh.com",
    "aes128-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes192-ctr",
    "aes128-ctr",
)
MAC_ALGOS: Final = (
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
)
