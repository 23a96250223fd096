"""Key exchange: what two sides agree on, and that both come to the same secret or to a sentence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleconch.codec import boolean, mpint, name_list, string, uint32
from teleconch.ssh import algorithms, kex, limits, messages
from teleconch.ssh.algorithms import Algorithms, choose
from teleconch.ssh.problems import NegotiationProblem, ProtocolProblem

OURS = choose()
KEYS = algorithms.HOST_KEYS
EXCHANGES = (*OURS.kex, *algorithms.KEX_ALSO)


def offer(offered: Algorithms = OURS, *, client: bool = True, first: bool = True) -> kex.Offer:
    """What the other side reads of an offer."""
    return kex.parse_kexinit(kex.make_kexinit(offered, client=client, first=first, host_keys=KEYS))


def agree(client: kex.Offer, server: kex.Offer, **changes: bool) -> kex.Agreed:
    return kex.agree(client, server, **{"peer_is_client": True, "strict": True, **changes})


def test_an_offer_comes_back() -> None:
    """What is offered is what the other side reads; the cookie differs each time; markers come in the first only."""
    read = offer()
    assert read.kex == (*OURS.kex, algorithms.EXT_INFO_CLIENT, algorithms.STRICT_CLIENT)
    assert (read.host_keys, read.ciphers, read.macs) == (KEYS, (OURS.ciphers,) * 2, (OURS.macs,) * 2)
    assert not read.first_follows
    assert offer(client=False).kex[-2:] == (algorithms.EXT_INFO_SERVER, algorithms.STRICT_SERVER)
    assert offer(first=False).kex == OURS.kex
    one, other = (kex.make_kexinit(OURS, client=True, first=True, host_keys=KEYS) for _ in range(2))
    assert one[1:17] != other[1:17]
    assert (one[:1], one[17:]) == (bytes((messages.KEXINIT,)), other[17:])


def test_the_clients_order_decides() -> None:
    """Of what both have, the client's first is taken, in each direction by itself (RFC 4253 section 7.1)."""
    client = offer()._replace(ciphers=((b"nothing", *OURS.ciphers[::-1]), OURS.ciphers))
    agreed = agree(client, offer(client=False))
    assert agreed.ciphers == (OURS.ciphers[-1], OURS.ciphers[0])
    assert agreed.macs == (OURS.macs[0], b""), "an AEAD cipher has no MAC"


@pytest.mark.parametrize(
    ("field", "what"),
    [
        ("kex", "key exchange"),
        ("host_keys", "host key algorithm"),
        ("ciphers", "cipher"),
        ("compression", "compression"),
    ],
)
def test_nothing_in_common(field: str, what: str) -> None:
    """A list with nothing that both have ends the connection with its name."""
    none: Any = ((b"none-of-ours",), (b"none-of-ours",)) if field in ("ciphers", "compression") else (b"none-of-ours",)
    with pytest.raises(NegotiationProblem, match=f"no common {what}"):
        agree(offer()._replace(**{field: none}), offer(client=False))


def test_markers_are_no_key_exchanges() -> None:
    """Both sides have a marker in their lists: it is never what they agree on."""
    both = (algorithms.STRICT_CLIENT,)
    with pytest.raises(NegotiationProblem, match="no common key exchange"):
        agree(offer()._replace(kex=both), offer()._replace(kex=both))


def test_without_strict_key_exchange() -> None:
    """Without it only GCM and CTR with encrypt-and-MAC are agreed on: the rest is open to prefix truncation."""
    server = offer(client=False)
    for cipher in OURS.ciphers:
        client = offer()._replace(ciphers=((cipher,), (cipher,)))
        if cipher in algorithms.SAFE_WITHOUT_STRICT:
            assert agree(client, server, strict=False).ciphers == (cipher, cipher)
        else:
            with pytest.raises(NegotiationProblem, match="no strict key exchange"):
                agree(client, server, strict=False)
    plain = (algorithms.MACS_ALSO,) * 2
    ctr = offer()._replace(ciphers=((b"aes256-ctr",),) * 2, macs=plain)
    assert agree(ctr, server._replace(macs=plain), strict=False).macs == (algorithms.MACS_ALSO[0],) * 2


@pytest.mark.parametrize("peer_is_client", [True, False])
def test_a_guess(peer_is_client: bool) -> None:
    """The packet that a peer sent on a guess is dropped only if it said that one follows, and the guess was wrong."""
    client, server = offer(), offer(client=False)
    for who, follows, wrong in ((0, True, True), (0, True, False), (0, False, True), (1, True, True)):
        pair = [client, server]
        pair[who] = pair[who]._replace(first_follows=follows)
        if wrong:
            pair[1] = pair[1]._replace(kex=pair[1].kex[::-1])
        expected = follows and wrong and (who == 0) is peer_is_client
        assert agree(pair[0], pair[1], peer_is_client=peer_is_client).guess_wrong is expected, (who, follows, wrong)


def test_what_an_old_client_is_offered() -> None:
    """A client without strict key exchange, or without our MACs, gets what is safe with it, and nothing less."""
    old = offer()._replace(kex=(b"ecdh-sha2-nistp256",))
    fit = kex.fitting(OURS, old)
    assert set(fit.ciphers) == algorithms.SAFE_WITHOUT_STRICT
    assert fit.kex == (*OURS.kex, *algorithms.KEX_ALSO)
    with_ctr_alone = old._replace(ciphers=((b"aes256-ctr",),) * 2)
    fit = kex.fitting(OURS, with_ctr_alone)
    assert not algorithms.AEAD.intersection(fit.ciphers)
    assert fit.macs == algorithms.MACS_ALSO
    plain = kex.fitting(OURS, offer()._replace(macs=((b"hmac-sha2-256",),) * 2))
    assert plain.macs == (*OURS.macs, *algorithms.MACS_ALSO), "at the end: whoever has better does not get it"
    assert kex.fitting(OURS, offer()) == OURS


def test_what_anyone_is_offered() -> None:
    """Before a client has spoken, only what is safe with every client is offered."""
    anyone = kex.for_anyone(OURS)
    assert b"chacha20-poly1305@openssh.com" not in anyone.ciphers
    assert anyone.macs == algorithms.MACS_ALSO
    for cipher in anyone.ciphers:
        client = offer()._replace(ciphers=((cipher,),) * 2, macs=(anyone.macs,) * 2)
        assert agree(client, offer(anyone, client=False), strict=False).ciphers == (cipher,) * 2


@pytest.mark.parametrize("name", EXCHANGES)
def test_both_come_to_the_same_secret(name: bytes) -> None:
    """Each exchange leads both sides to one secret, and the next run to another."""
    secrets = set()
    for _ in range(2):
        client = kex.ClientExchange(name)
        reply, secret = kex.server_exchange(name, client.init)
        assert client.secret(reply) == secret
        secrets.add(secret)
    assert len(secrets) == 2


@pytest.mark.parametrize("name", EXCHANGES)
def test_values_that_cannot_be_used(name: bytes) -> None:
    """A value that is cut, too long, no point of the curve or of small order is refused with one sentence."""
    client = kex.ClientExchange(name)
    reply, _ = kex.server_exchange(name, client.init)
    small = 32
    for value, answer in ((client.init, kex.server_exchange), (reply, None)):
        bad = [b"", value[:-1], value + b"\0", b"\4" + b"\1" * (len(value) - 1) if name[:4] == b"ecdh" else b""]
        if not name.startswith(b"ecdh"):
            bad.append(value[:-small] + bytes(small))  # the neutral element: the secret would be known
        for each in bad:
            with pytest.raises(NegotiationProblem, match="not usable"):
                answer(name, each) if answer is not None else client.secret(each)


def test_keys_of_any_length() -> None:
    """Keys differ by letter and session, begin alike for every length (RFC 4253 section 7.2), and follow the hash."""
    material = kex.KeyMaterial(b"curve25519-sha256", mpint(b"\1" * 32), b"digest", b"session")
    assert len({material(letter, 32) for letter in (b"A", b"B", b"C", b"D", b"E", b"F")}) == 6
    assert material(b"A", 100)[:32] == material(b"A", 32)
    assert len(material(b"A", 100)) == 100
    other = kex.KeyMaterial(b"curve25519-sha256", mpint(b"\1" * 32), b"digest", b"another")
    assert other(b"A", 32) != material(b"A", 32)


def test_lists_without_end() -> None:
    """A list or a number of extensions beyond every need ends the connection before it is worked on."""
    long = b"x," * (limits.NAME_LIST_MAX // 2) + b"x"
    lists = name_list((long,)) + string(b"") * 9 + boolean(False) + uint32(0)
    with pytest.raises(ProtocolProblem, match="list of algorithms is too long"):
        kex.parse_kexinit(bytes(17) + lists)
    with pytest.raises(ProtocolProblem, match="too many extensions"):
        kex.parse_ext_info(uint32(65) + (string(b"x") + string(b"y")) * 65)


def test_extensions() -> None:
    """Known extensions are read, others are passed over."""
    known, unknown = (b"server-sig-algs", b"ssh-ed25519"), (b"elevation", b"y")
    body = uint32(2) + b"".join(string(part) for pair in (unknown, known) for part in pair)
    assert kex.parse_ext_info(body) == dict([known])


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Whatever comes as KEXINIT or EXT_INFO is read, or is a problem of the protocol."""
    for read in (kex.parse_kexinit, kex.parse_ext_info):
        try:
            read(data)
        except ProtocolProblem:
            pass
