"""``host:port`` as text, from people and from peers."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleconch.resources.address import is_host, is_ipv6, join_address, parted, port_of, split_address
from teleconch.resources.addresses import host_of

NAMES = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,60}[A-Za-z0-9_])?\.?", fullmatch=True)
ZONED = st.builds("{}%{}".format, st.ip_addresses(v=6), st.from_regex(r"[A-Za-z0-9_.-]{1,15}", fullmatch=True))
HOSTS = st.one_of(NAMES, st.ip_addresses().map(str), ZONED)
SPECIAL = st.text(alphabet="[]:%@-./\\ \t\n\r\0\x1b\x85\u2028\u202e٢a1fF", max_size=24)


@given(HOSTS, st.integers(1, 65535))
def test_round_trip(host: str, port: int) -> None:
    """What is joined is parted into the same host and port, with a zone or without."""
    assert split_address(join_address(host, port)) == (host, port)
    assert host_of(join_address(host, port)) == host.lower()
    assert split_address(host) == (host, None)
    if ":" in host:
        assert split_address(f"[{host}]") == (host, None)


@given(st.one_of(SPECIAL, st.text(max_size=40), st.builds("{}:{}".format, HOSTS, st.text(max_size=8))))
def test_anything(text: str) -> None:
    """Whatever comes, a host that is found is one: of ASCII, on one line, no option, in one reading only."""
    found = split_address(text)
    if found is None:
        assert not host_of(text)
        return
    host, port = found
    assert is_host(host)
    assert host.isascii()
    assert host.isprintable()
    assert not host.startswith("-")
    assert not set(host) & set("[]/\\@ '\"$`;")
    assert port is None or 1 <= port <= 65535
    assert (":" in host) == is_ipv6(host)
    if ":" in host:
        ipaddress.IPv6Address(host.partition("%")[0])
    again = host if port is None else join_address(host, port)
    assert split_address(again) == found


@pytest.mark.parametrize(
    "text",
    ["", ":", ":22", "a:", "a:0", "a:65536", "a:99999", "a:000022", "a:-1", "a:+1", "a: 1", "a:1 ", "a:٢٢", "a:2\n",
     "a\n:2", "a b:2", "-oProxyCommand=x:2", "-a", "a@b:2", "a/b:2", "a:1:2", "::1:::", "[::1", "::1]", "[::1]]:2",
     "[[::1]]:2", "[::1]2", "[::1]:", "[::1]:0", "[::1]:65536", "[::1]:2:3",
     "[a]:2", "[1.2.3.4]:2", "[]:2", "[:]:2", "[::1%]:2",
     "[::1%a/b]:2", "[::1%a b]:2", "[::1%" + "z" * 16 + "]:2", "::1%\x1b[2J", "[::1\n]:2", "12345::1",
     "a\0:2", "bücher:2", "a\x85:2", "a\u2028:2", "a\u202e:2", "x" * 256, "[::ffff:1.2.3.999]:2"],
)  # fmt: skip
def test_refused(text: str) -> None:
    """What is not exactly a host, with a port from 1 to 65535 or without, is none."""
    assert split_address(text) is None


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("web", "web", None),
        ("Web.Example.:65535", "Web.Example.", 65535),
        ("a:00022", "a", 22),
        ("1.2.3.4:1", "1.2.3.4", 1),
        ("::", "::", None),
        ("[fe80::1%eth0.5]:22", "fe80::1%eth0.5", 22),
        ("[::ffff:1.2.3.4]:22", "::ffff:1.2.3.4", 22),
        ("2001:db8::1:3022", "2001:db8::1:3022", None),
    ],
)
def test_read(text: str, host: str, port: int | None) -> None:
    """Names, IPv4, IPv6 with brackets and without, zones. A colon too many is part of an IPv6 address."""
    assert split_address(text) == (host, port)


def test_ports() -> None:
    """Port 0 is one only where it is asked for: any free port."""
    assert [port_of(text) for text in ("0", "1", "65535", "65536")] == [None, 1, 65535, None]
    assert port_of("0", 0) == 0
    assert split_address("a:0", 0) == ("a", 0)
    assert parted("a:") == ("a", "")


def test_loose() -> None:
    """`ssh -W [%h]:%p` puts brackets around names as well."""
    assert split_address("[web]:22", loose=True) == ("web", 22)
    assert split_address("[::1]:22", loose=True) == ("::1", 22)
    for text in ("[web", "[]:22", "[-o]:22", "[a:b]:22", "[a b]:22", "[[a]]:22"):
        assert split_address(text, loose=True) is None
