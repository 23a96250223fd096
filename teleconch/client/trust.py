"""Whom ``tsh`` believes to be the proxy, over HTTPS.

In this order: ``--insecure`` believes anyone; ``--ca-pin`` a chain that ends in the authority with that pin; else a
certificate that the machine trusts, or one from the host authority that was stored at the last login.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Sequence

from attrs import frozen

from teleconch.ca.authority import ca_pin
from teleconch.client.tcp import TIMEOUT, connect_tcp
from teleconch.errors import ConnectionProblem, TrustError


@frozen
class Trust:
    """``pin`` as in ``tctl status``, ``authorities`` are TLS certificates in PEM known from an earlier login."""

    pin: str | None = None
    authorities: tuple[str, ...] = ()
    insecure: bool = False


def tls_context(trust: Trust, host: str, port: int) -> ssl.SSLContext:
    """What to connect with. With a pin, asks the server for its chain first. TrustError, ConnectionProblem."""
    if trust.insecure:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    if trust.pin is not None:
        pinned = [pem for pem in shown_chain(host, port) if ca_pin(pem) == trust.pin]
        if pinned:
            context = ssl.create_default_context(cadata=pinned[0])
            _allow_own_root(context)
            return context
    context = ssl.create_default_context()
    # A given pin says which cluster is meant: what was stored of another one does not stand in for it.
    known = [pem for pem in trust.authorities if trust.pin is None or ca_pin(pem) == trust.pin]
    for pem in known:
        context.load_verify_locations(cadata=pem)
    if known:
        _allow_own_root(context)
    return context


def _allow_own_root(context: ssl.SSLContext) -> None:
    """Python 3.13 demands something of each certificate that ours need not have (an authority key identifier)."""
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT


def explain(error: ssl.SSLError, trust: Trust, host: str) -> TrustError | ConnectionProblem:
    """The sentence for a handshake that failed."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return ConnectionProblem(f"{host} does not speak HTTPS on this port: check --proxy ({error.reason or error}).")
    if error.verify_code == 62 or error.verify_code == 64:  # host name, IP address
        return TrustError(
            f"The certificate of the proxy is not for {host}: use one of its own names in --proxy,"
            f" or add {host} to proxy_service.public_addr."
        )
    if error.verify_code in (9, 10):
        when = "is not valid yet" if error.verify_code == 9 else "has expired"
        return TrustError(f"The certificate of {host} {when}: check the clock here and the certificate there.")
    if trust.pin is not None:
        return TrustError(
            f"The certificate of {host} is not signed by the authority with the pin {trust.pin}: compare it with"
            " `tctl status` on the auth server. If it is the same there, someone may be intercepting the connection."
        )
    if trust.authorities:
        return TrustError(
            f"The certificate of {host} is not of the cluster that you logged in to before. If that was set up anew,"
            " log in with --ca-pin=PIN from `tctl status`; otherwise someone may be intercepting the connection."
        )
    return TrustError(
        f"This machine does not trust the certificate of {host}: log in with --ca-pin=PIN, which `tctl status` on the"
        " auth server shows (or, only to try things out, with --insecure)."
    )


def shown_chain(host: str, port: int) -> Sequence[str]:
    """The certificates (PEM) that a server shows, believed by nobody yet; nothing but the handshake is sent."""
    from cryptography.hazmat.primitives.serialization import Encoding
    from OpenSSL import SSL

    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    with connect_tcp(host, port, https=True) as tcp:
        connection = SSL.Connection(context, tcp)
        connection.set_connect_state()
        try:
            socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
        except OSError:
            connection.set_tlsext_host_name(host.encode("idna"))
        until = time.monotonic() + TIMEOUT
        tcp.setblocking(False)
        while True:
            try:
                connection.do_handshake()
                break
            except (SSL.WantReadError, SSL.WantWriteError) as want:
                reading = isinstance(want, SSL.WantReadError)
                left = until - time.monotonic()
                ready = left > 0 and select.select([tcp] if reading else [], [] if reading else [tcp], [], left)
                if not ready or not any(ready):
                    raise ConnectionProblem(f"{host}:{port} does not answer: check --proxy.") from None
            except SSL.Error:
                raise ConnectionProblem(f"{host} does not speak HTTPS on port {port}: check --proxy.") from None
        chain = connection.get_peer_cert_chain() or []
        return [each.to_cryptography().public_bytes(Encoding.PEM).decode("ascii") for each in chain]
