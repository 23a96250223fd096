"""What -L, -R, -D and SOCKS clients say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleconch.client.forward.socks import NotSocks, Socks
from teleconch.client.forward.specs import Forward, Place, parse_dynamic, parse_forward
from teleconch.errors import BadParameter


@pytest.mark.parametrize(
    ("flag", "text", "listen", "target"),
    [
        ("-L", "80:host:90", Place(None, 80), Place("host", 90)),
        ("-L", "*:80:host:90", Place("", 80), Place("host", 90)),
        ("-L", ":80:host:90", Place("", 80), Place("host", 90)),
        ("-L", "[::1]:80:[fe80::1]:90", Place("::1", 80), Place("fe80::1", 90)),
        ("-L", "80:/run/x.sock", Place(None, 80), Place(path="/run/x.sock")),
        ("-L", "/tmp/a:/run/b", Place(path="/tmp/a"), Place(path="/run/b")),
        ("-L", "/tmp/a:host:1", Place(path="/tmp/a"), Place("host", 1)),
        ("-R", "0:host:90", Place(None, 0), Place("host", 90)),
        ("-R", "80", Place(None, 80), None),
        ("-R", "*:80", Place("", 80), None),
    ],
)
def test_forwards(flag: str, text: str, listen: Place, target: Place | None) -> None:
    """A forward is read as OpenSSH reads it."""
    assert parse_forward(flag, text) == Forward(listen, target)


def test_dynamic() -> None:
    """-D takes a port, with an address before it if need be."""
    assert parse_dynamic("-D", "1080") == Forward(Place(None, 1080), None)
    assert parse_dynamic("-D", "[::]:1080") == Forward(Place("::", 1080), None)


@pytest.mark.parametrize(
    "text", ["", "80", "0:h:1", "80:h", "80:h:0", "80:h:99999", "x:h:1", "80::1", "[::1:80:h:1", "a:b:c:d:e", "/x"]
)
def test_wrong_forwards(text: str) -> None:
    """What is no forward is said before anything is dialled."""
    with pytest.raises(BadParameter):
        parse_forward("-L", text)


SOCKS = [
    (b"\5\1\0" + b"\5\1\0\3\4host\0\x50", Place("host", 80)),
    (b"\5\2\0\2" + b"\5\1\0\1\x7f\0\0\1\0\x50", Place("127.0.0.1", 80)),
    (b"\5\1\0" + b"\5\1\0\4" + bytes(15) + b"\1\0\x50", Place("::1", 80)),
    (b"\4\1\0\x50\x7f\0\0\1me\0", Place("127.0.0.1", 80)),
    (b"\4\1\0\x50\0\0\0\1\0host\0", Place("host", 80)),
]


@pytest.mark.parametrize(("spoken", "place"), SOCKS)
@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_socks(spoken: bytes, place: Place, piece: int) -> None:
    """SOCKS clients of each version are understood, however their bytes are cut."""
    socks, found = Socks(), None
    spoken += b"rest"
    for at in range(0, len(spoken), piece):
        _, found = socks.feed(spoken[at : at + piece])
        if found:
            break
    assert found.place == place
    assert b"rest".startswith(found.rest)


@given(st.lists(st.binary(max_size=2000), max_size=4))
def test_noise_is_no_socks(pieces: list[bytes]) -> None:
    """Noise ends as a refusal, and never takes more memory than a request."""
    socks = Socks()
    try:
        for piece in pieces:
            socks.feed(piece)
    except NotSocks:
        pass
    for bad in (b"GET / HTTP/1.0\r\n", b"\5\1\2", b"\5\1\0\5\2\0\1\0\0", b"\4\1" + b"a" * 2000):
        with pytest.raises(NotSocks):
            Socks().feed(bad)
