"""Addresses as people write them."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleconch.config.addresses import Address, parse_address, parse_reachable
from teleconch.errors import BadParameter


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.1.0.5", "10.1.0.5", 3025),
        ("10.1.0.5:3026", "10.1.0.5", 3026),
        ("auth.example.com", "auth.example.com", 3025),
        ("auth.example.com.:443", "auth.example.com", 443),
        ("[2001:DB8::0:5]:22", "2001:db8::5", 22),
        ("[::1]", "::1", 3025),
        ("2001:db8::5", "2001:db8::5", 3025),
        ("tcp://a_b:1", "a_b", 1),
    ],
)
def test_reads(text: str, host: str, port: int) -> None:
    """Names, IPv4 and IPv6 are understood with and without a port."""
    assert parse_address(text, 3025) == Address(host, port)


@pytest.mark.parametrize(
    "text",
    ["", ":22", "a:", "a:0", "a:65536", "a:x", "a:+5", "a:٢٢", "[::1", "[::1]x", "1.2.3", "300.1.1.1", "a b", "-a",
     "a-", "https://a", "a/b", "fe80::1%eth0", "a..b", "x" * 64, "a\nb", "*", "::1:::", "[a]:5",
     "[::1]:5:6"],
)  # fmt: skip
def test_refuses(text: str) -> None:
    """What cannot be an address is told at once, not at the first connection."""
    with pytest.raises(BadParameter):
        parse_address(text, 3025)


@given(
    st.one_of(st.ip_addresses().map(str), st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)),
    st.integers(1, 65535),
)
def test_round_trip(host: str, port: int) -> None:
    """An address that is printed is read back as the same one, IPv6 brackets included."""
    address = Address(host, port)
    assert parse_address(str(address), 1) == address


def test_listening_everywhere() -> None:
    """`0.0.0.0` is fine to listen on and nothing to connect to; a local peer uses the loopback of that family."""
    everywhere = parse_address(":3022", 1, default_host="0.0.0.0")
    assert everywhere == Address("0.0.0.0", 3022)
    assert str(everywhere.local) == "127.0.0.1:3022"
    assert str(parse_address("[::]:5", 1).local) == "[::1]:5"
    assert parse_address("127.0.0.1:0", 1, port_0=True).port == 0
    for text in ("0.0.0.0", "::", "[::]:3022", "a:0"):
        with pytest.raises(BadParameter):
            parse_reachable(text, 3022)


@given(st.text(max_size=30))
def test_never_anything_but_bad_parameter(text: str) -> None:
    """Odd input gives a sentence, never a traceback, and never a host that could be read two ways."""
    try:
        address = parse_address(text, 1)
    except BadParameter:
        return
    assert address.host.isascii()
    if ":" in address.host:
        ipaddress.IPv6Address(address.host)
