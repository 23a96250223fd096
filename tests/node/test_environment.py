"""Which variables a client may set."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv6Address

from teleconch.node.environment import COUNT_MAX, VALUE_MAX, Requested, address

NEVER = ("LD_PRELOAD", "LD_AUDIT", "PYTHONPATH", "PYTHONSTARTUP", "BASH_ENV", "ENV", "IFS", "DYLD_INSERT_LIBRARIES")


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_allow_list(name: bytes, value: bytes) -> None:
    """Nothing but the listed names passes, whatever bytes a client sends."""
    if Requested().set(name, value):
        assert name in (b"LANG", b"COLORTERM", b"TERM", b"TELEPORT_SESSION") or name.startswith(b"LC_")
        assert b"=" not in name
        assert b"\0" not in value


def test_never() -> None:
    """Names that change how programs load or shells start are refused, also hidden behind an allowed one."""
    requested = Requested()
    for name in NEVER:
        for trick in (name, name.lower(), f"LC_X={name}", f"LC_X\0{name}", f"LC_X\n{name}", f" {name}"):
            assert not requested.set(trick.encode(), b"x")
    assert not requested.variables


def test_bounds() -> None:
    """A client cannot fill memory with variables."""
    requested = Requested()
    assert not requested.set(b"LANG", b"x" * (VALUE_MAX + 1))
    taken = [requested.set(b"LC_%d" % n, b"x") for n in range(COUNT_MAX + 10)]
    assert sum(taken) == COUNT_MAX
    assert requested.set(b"LC_1", b"y")


def test_mapped_address() -> None:
    """A client that comes by IPv4 to a dual listener shows as IPv4 in SSH_CLIENT."""
    assert address(IPv6Address("TCP", "::ffff:192.0.2.1", 5)) == ("192.0.2.1", 5)
    assert address(IPv6Address("TCP", "2001:db8::1", 5)) == ("2001:db8::1", 5)
