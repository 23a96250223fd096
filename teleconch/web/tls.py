"""The web's TLS: contexts made from the certificate that is current, also after it was renewed."""

from __future__ import annotations

import re
from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING

from attrs import frozen
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.ssl import Certificate, CertificateOptions, KeyPair, TLSVersion
from twisted.logger import Logger
from zope.interface import implementer

from teleconch.errors import BadParameter
from teleconch.resources.secret import Secret

if TYPE_CHECKING:
    from twisted.protocols.tls import TLSMemoryBIOProtocol

log = Logger()

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@frozen
class TLSFiles:
    """A private key in PEM, and its certificate in PEM with the chain behind it."""

    private_key: Secret
    certificates: str


def files_reader(key_file: str | PathLike[str], cert_file: str | PathLike[str]) -> Callable[[], TLSFiles]:
    """Reads ``https_key_file`` and ``https_cert_file`` as they are now."""

    def read() -> TLSFiles:
        with open(key_file, encoding="ascii") as key, open(cert_file, encoding="ascii") as certificates:
            return TLSFiles(Secret(key.read()), certificates.read())

    return read


def make_context(files: TLSFiles) -> SSL.Context:
    """A server context: TLS 1.2 or later, no client certificates. BadParameter."""
    try:
        chain = [Certificate.loadPEM(pem) for pem in _CERTIFICATE.findall(files.certificates.encode("ascii"))]
        key = KeyPair.load(files.private_key.reveal().encode("ascii"), crypto.FILETYPE_PEM)
        options = CertificateOptions(
            privateKey=key.original,
            certificate=chain[0].original,
            extraCertChain=[certificate.original for certificate in chain[1:]],
            raiseMinimumTo=TLSVersion.TLSv1_2,
            acceptableProtocols=[b"http/1.1"],
        )
        context: SSL.Context = options.getContext()
        context.check_privatekey()
    except (SSL.Error, ValueError, TypeError, IndexError) as error:
        raise BadParameter(f"The HTTPS certificate and key do not fit or are not PEM: {error!r}.") from None
    # A renegotiation costs the server more than the client.
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    return context


@implementer(IOpenSSLServerConnectionCreator)
class CurrentCertificate:
    """Gives each new connection the certificate of this moment.

    ``read`` is asked at most every ``period`` seconds; files that cannot be used leave the last good ones in place.
    """

    def __init__(self, read: Callable[[], TLSFiles], seconds: Callable[[], float], period: float = 10.0) -> None:
        self._read = read
        self._seconds = seconds
        self._period = period
        self._files = read()
        self._context = make_context(self._files)
        self._looked = seconds()
        self._complained = ""

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        if self._seconds() - self._looked >= self._period:
            self._look()
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(protocol)  # Twisted's ALPN callback asks the protocol what it speaks
        return connection

    def _look(self) -> None:
        self._looked = self._seconds()
        try:
            files = self._read()
            if files != self._files:
                self._context = make_context(files)
                self._files = files
                self._complained = ""
                log.info("the HTTPS certificate was renewed")
        except (OSError, BadParameter, UnicodeDecodeError) as error:
            if str(error) != self._complained:
                self._complained = str(error)
                log.error("the renewed HTTPS certificate cannot be used; the last one stays: {error}", error=str(error))
