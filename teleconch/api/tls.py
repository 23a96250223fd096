"""TLS 1.3 of the auth API: one context for the server, one for its clients.

OpenSSL proves that a peer holds its certificate's private key. Right after the handshake, before any byte of the API
flows, ``ca/tls.py`` decides whether to trust the certificate: by the cluster's authorities, at the time of the clock
that was passed in. A refused peer gets a sentence, where a TLS alert would be a riddle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from zope.interface import implementer

from teleconch.ca.authority import ca_pin
from teleconch.ca.tls import verify_auth_server
from teleconch.defaults import API_SERVER_NAME
from teleconch.errors import ClockSkew, TrustError
from teleconch.resources.authority import TrustedAuthority
from teleconch.resources.secret import Secret
from teleconch.resources.times import duration_text

log = Logger()


@frozen
class TLSCredentials:
    """``certificate`` is one's own in PEM; an auth server's is followed by its authority's. The key is PKCS#8 PEM."""

    certificate: str
    private_key: Secret


def _context(credentials: TLSCredentials | None) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    # A resumed session would carry a certificate that was checked once; every connection proves its key anew.
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # True: go on with the handshake. The certificate is judged when it is complete (see the module's docstring).
    context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    if credentials is not None:
        own, *chain = x509.load_pem_x509_certificates(credentials.certificate.encode())
        context.use_certificate(own)
        for each in chain:
            context.add_extra_chain_cert(each)
        key: Any = serialization.load_pem_private_key(credentials.private_key.reveal().encode(), None)
        try:
            context.use_privatekey(key)
            context.check_privatekey()
        except SSL.Error:
            raise TrustError("The TLS certificate and the private key here do not belong together.") from None
    return context


def peer_chain(transport: Any) -> tuple[bytes, ...]:
    """The certificates (DER) that the peer of a TLS transport showed, its own first; empty if it showed none."""
    connection = transport.getHandle()
    own = connection.get_peer_certificate() if connection is not None else None
    if own is None:
        return ()
    certificates = [own, *(connection.get_peer_cert_chain() or ())]  # a client's chain begins with its own again
    ders = (each.to_cryptography().public_bytes(serialization.Encoding.DER) for each in certificates)
    return tuple(dict.fromkeys(ders))


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """The auth server's side: asks for a client certificate, and treats a peer without one as anonymous.

    ``credentials`` is called at each connection, so a renewed certificate is used at once.
    """

    def __init__(self, credentials: Callable[[], TLSCredentials]) -> None:
        self._credentials = credentials
        self._used = credentials()
        self._context = _context(self._used)

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:
        credentials = self._credentials()
        if credentials is not self._used:
            self._used = credentials
            try:
                self._context = _context(credentials)
            except (TrustError, ValueError):
                log.failure("the auth server's new certificate cannot be used; the old one stays")
        return SSL.Connection(self._context, None)


@implementer(IOpenSSLClientConnectionCreator)
class ClientTLS:
    """A client's side: its certificate, if it has one, and how it knows the auth server.

    ``check`` is given the server's chain (DER) once the handshake is complete, and raises TrustError or ClockSkew.
    Nothing of the API is sent before it returns.
    """

    def __init__(
        self, credentials: Callable[[], TLSCredentials | None], check: Callable[[Sequence[bytes]], None]
    ) -> None:
        self._credentials = credentials
        self._context: SSL.Context | None = None
        self.check = check

    def prepared(self) -> ClientTLS:
        """The same for one connection, with the current credentials. TrustError, or ValueError if they are unusable."""
        context = _context(self._credentials())
        prepared = ClientTLS(self._credentials, self.check)
        prepared._context = context
        return prepared

    def clientConnectionForTLS(self, protocol: object) -> SSL.Connection:
        connection = SSL.Connection(self._context or _context(self._credentials()), None)
        connection.set_tlsext_host_name(API_SERVER_NAME.encode())
        return connection


def _verify(chain: Sequence[bytes], pins: Sequence[str], now: float) -> tuple[str, str]:
    try:
        return verify_auth_server(chain, pins, now)
    except ClockSkew as error:
        server = x509.load_der_x509_certificate(chain[0])
        early = server.not_valid_before_utc.timestamp() - now
        late = now - server.not_valid_after_utc.timestamp()
        raise ClockSkew(f"{error} (They differ by {duration_text(max(early, late, 1))} at least.)") from None


def member_tls(
    credentials: Callable[[], TLSCredentials],
    authorities: Callable[[], Iterable[TrustedAuthority]],
    now: Callable[[], float],
) -> ClientTLS:
    """For a client with a certificate: the auth server's must be signed by the cluster's host authority."""

    def check(chain: Sequence[bytes]) -> None:
        cluster, shown = _verify(chain, (), now())
        hosts = [each for each in authorities() if each.type == "host"]
        if ca_pin(shown) in {ca_pin(pem) for each in hosts for pem in each.tls_certs if each.cluster == cluster}:
            return
        ours = ", ".join(sorted({each.cluster for each in hosts})) or "no cluster"
        if cluster in {each.cluster for each in hosts}:
            raise TrustError(
                f"The auth server's CA ({ca_pin(shown)}) is not the one that is known here for cluster {cluster}."
                " If the cluster was set up anew, join or log in again; otherwise someone may be intercepting the"
                " connection."
            )
        raise TrustError(
            f"The auth server belongs to cluster {cluster}, but the certificate here is from {ours}."
            " Check the address, or join or log in to that cluster."
        )

    return ClientTLS(credentials, check)


class FirstContact:
    """What a newcomer learns about the cluster: its name and its host authority (PEM), as shown by the last server."""

    def __init__(self, pins: Sequence[str], now: Callable[[], float]) -> None:
        self._pins = tuple(pins)
        self._now = now
        self.cluster = ""
        self.authority = ""

    def check(self, chain: Sequence[bytes]) -> None:
        self.cluster, self.authority = _verify(chain, self._pins, self._now())
        if not self._pins:
            log.warn(
                "the auth server of cluster {cluster} is trusted without a check; its CA has the pin {pin}:"
                " set ca_pin to it once you have compared it with `tctl status` on the auth server",
                cluster=self.cluster,
                pin=ca_pin(self.authority),
            )


def newcomer_tls(check: Callable[[Sequence[bytes]], None], beside: TLSCredentials | None = None) -> ClientTLS:
    """For a client without a certificate, or with only that of another role of its host. ``check`` is, or begins with,
    the check of a :class:`FirstContact`."""
    return ClientTLS(lambda: beside, check)


def server_credentials(
    certificate: str, private_key: Secret, authorities: Iterable[TrustedAuthority]
) -> TLSCredentials:
    """What an auth server shows: its certificate, and the host authority's so that newcomers can compare the pin."""
    return TLSCredentials(certificate + host_certificates(authorities), private_key)


def host_certificates(authorities: Iterable[TrustedAuthority]) -> str:
    """The certificates (PEM) of the host authority: they complete the chain of an auth server's or a host's own
    certificate."""
    return "".join(pem for each in authorities if each.type == "host" for pem in each.tls_certs)
