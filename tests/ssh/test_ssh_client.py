"""The client: host keys, errors as sentences, time limits."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol

from teleconch.ca import authority
from teleconch.ca import ssh as ca_ssh
from teleconch.ca.keys import public_blob
from teleconch.config import algorithms as config_names
from teleconch.errors import AccessDenied, BadParameter, ConnectionProblem, TrustError
from teleconch.ssh import algorithms, signatures
from teleconch.ssh.client import ClientOptions
from teleconch.ssh.hostkey import HostKey
from teleconch.ssh.server import ServerOptions
from tests.worlds.reactor import port_of, reactor
from tests.worlds.ssh import (
    HOST_CA,
    HOST_CERT,
    HOST_PEM,
    NOW,
    USER_CERT,
    USER_PEM,
    Pair,
    login,
    make_client,
    make_factory,
)


class Agent:
    """An agent that holds the user's key and certificate."""

    def __init__(self) -> None:
        self.key = signatures.load_private_key(USER_PEM.reveal())

    async def keys(self) -> list[bytes]:
        return [signatures.public_blob(self.key), public_blob(USER_CERT)]

    async def sign(self, blob: bytes, data: bytes, algorithm: bytes) -> bytes:
        return signatures.sign(self.key, data, algorithm)


@pytest_twisted.ensureDeferred
async def test_with_an_agent() -> None:
    """A key that never leaves the agent logs in; a plain key before the certificate does no harm."""
    port = reactor.listenTCP(0, make_factory(), interface="127.0.0.1")
    for certificate in (None, USER_CERT):
        connection = await login(port_of(port), private_key_pem=None, certificate=certificate, agent=Agent())
        connection.close()
        await connection.disconnected
    await maybeDeferred(port.stopListening)


@pytest_twisted.ensureDeferred
async def test_errors_are_sentences() -> None:
    """Who cannot connect or log in reads what happened: nothing there, no SSH there, not allowed, not trusted."""
    factory = make_factory()
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")

    class Other(Protocol):
        def connectionMade(self) -> None:
            self.transport.write(b"220 mail.example.com ESMTP\r\n" * 40)

    web = reactor.listenTCP(0, Factory.forProtocol(Other), interface="127.0.0.1")

    def distrust(blob: bytes) -> None:
        raise TrustError("The host key is not one that this cluster signed.")

    number = port_of(port)
    with pytest.raises(ConnectionProblem):
        await login(1)
    with pytest.raises(ConnectionProblem, match=r"^The SSH connection ended: .*\.$"):
        await login(port_of(web))
    with pytest.raises(AccessDenied, match="did not let mallory in"):
        await login(number, user="mallory")
    with pytest.raises(TrustError, match="not one that this cluster signed"):
        await login(number, verify_host=distrust)
    with pytest.raises(BadParameter, match="md5"):
        await login(number, options=ClientOptions(mac_algos=("hmac-md5",)))
    assert not factory.realm.avatars
    await maybeDeferred(port.stopListening)
    await maybeDeferred(web.stopListening)


@pytest_twisted.ensureDeferred
async def test_a_server_that_says_nothing() -> None:
    """A server that accepts and then stays silent is given up in time."""
    silent = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port_of(silent))
    with pytest.raises(ConnectionProblem, match="took too long"):
        await login(0, endpoint=endpoint, options=ClientOptions(timeout=0.05))
    await maybeDeferred(silent.stopListening)


def test_the_host_is_verified_by_what_it_proved() -> None:
    """``verify_host`` sees the certificate that signed; a check by the cluster's host authority passes."""
    seen: list[bytes] = []

    def verify(blob: bytes) -> None:
        seen.append(blob)
        ca_ssh.check_host_certificate(blob, authorities=[authority.trusted(HOST_CA)], host="n1", now=NOW)

    pair = Pair(lambda clock: make_client(clock, verify_host=verify))
    pair.pump()
    assert seen == [public_blob(HOST_CERT)]
    assert pair.client.host_key == seen[0]
    pair.client.rekey()
    pair.pump()
    assert len(seen) == 1
    pair.end()


class Impostor(HostKey):
    """Shows a host's certificate and signs with another key."""

    def sign(self, data: bytes, algorithm: bytes) -> bytes:
        return signatures.sign(signatures.load_private_key(USER_PEM.reveal()), data, algorithm)


def test_a_host_that_lies() -> None:
    """A server that shows another host's certificate without its key is not trusted, nor even asked about."""
    seen: list[bytes] = []
    pair = Pair(
        lambda clock: make_client(clock, verify_host=seen.append),
        host_keys=[Impostor(HOST_PEM.reveal(), HOST_CERT)],
    )
    pair.pump()
    assert isinstance(pair.client.refused, ConnectionProblem)
    assert "signature is wrong" in str(pair.client.refused)
    assert not seen
    assert not pair.factory.realm.avatars
    pair.end()


def test_algorithms_that_are_gone() -> None:
    """SHA-1, MD5, CBC, 3DES, DSA and RSA with SHA-1 cannot be switched on (CVE-2026-44405)."""
    a = algorithms
    spoken = b",".join((*a.KEX, *a.KEX_ALSO, *a.CIPHERS, *a.MACS, *a.MACS_ALSO, *a.HOST_KEYS))
    for weak in (b"sha1", b"md5", b"cbc", b"3des", b"dss", b"arcfour", b"none", b"group1", b"ssh-rsa"):
        assert weak not in spoken
    weak_options: list[dict[str, Any]] = [
        {"ciphers": ("aes128-cbc",)},
        {"mac_algos": ("hmac-sha1",)},
        {"kex_algos": ("ssh-rsa",)},
    ]
    for option in weak_options:
        with pytest.raises(BadParameter):
            Pair(options=ServerOptions(**option))


def test_the_configuration_knows_the_same_names() -> None:
    """Every name that ``teleport.yaml`` takes is spoken, and what is spoken by default may be written there."""
    assert {name.encode() for name in config_names.KEX_ALGOS} >= set(algorithms.KEX)
    assert {name.encode() for name in config_names.KEX_ALGOS} <= {*algorithms.KEX, *algorithms.KEX_ALSO}
    assert {name.encode() for name in config_names.CIPHERS} == set(algorithms.CIPHERS)
    assert {name.encode() for name in config_names.MAC_ALGOS} == {*algorithms.MACS, *algorithms.MACS_ALSO}


@pytest.mark.parametrize("kex", [*algorithms.choose().kex, *algorithms.KEX_ALSO])
def test_each_key_exchange(kex: bytes) -> None:
    """Every key exchange that can be configured works."""
    names = (kex.decode(),)
    pair = Pair(options=ServerOptions(kex_algos=names), client_options=ClientOptions(kex_algos=names))
    pair.pump()
    assert pair.client.ready.called
    assert pair.avatar.identity.user == "alice"
    pair.end()


def test_nothing_heavy_is_imported() -> None:
    """``tsh ssh`` starts quickly: the client loads neither Conch's keys nor the server's parts."""
    code = "import sys, teleconch.ssh.client; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    for heavy in ("twisted.conch.ssh.keys", "twisted.cred.portal", "cryptography.x509", "teleconch.ssh.server"):
        assert heavy not in loaded
