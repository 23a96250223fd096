"""The names that teleport.yaml may hold are those that the SSH servers speak."""

from __future__ import annotations

from teleconch.config import algorithms
from teleconch.ssh import algorithms as spoken


def test_config_allows_what_ssh_speaks() -> None:
    """No algorithm passes `teleport configure --check` and then keeps the servers from starting, or the reverse."""
    assert tuple(name.decode() for name in (*spoken.KEX, *spoken.KEX_ALSO)) == algorithms.KEX_ALGOS
    assert tuple(name.decode() for name in spoken.CIPHERS) == algorithms.CIPHERS
    assert tuple(name.decode() for name in (*spoken.MACS, *spoken.MACS_ALSO)) == algorithms.MAC_ALGOS
