"""The web's TLS: contexts made from the current certificate, also after a renewal."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from zope.interface import implementer

from teleconch.errors import BadParameter
from teleconch.resources.secret import Secret

if TYPE_CHECKING:
    from twisted.protocols.tls import TLSMemoryBIOProtocol

log = Logger()

LOOK_PERIOD: Final = 10.0
_CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20"  # for TLS 1.2; all of 1.3's are good
_HTTP: Final = b"http/1.1"


@frozen
class TLSFiles:
    """A private key in PEM, and its certificate in PEM followed by the chain."""

    private_key: Secret
    certificates: str


def files_reader(key_file: str | PathLike[str], cert_file: str | PathLike[str]) -> Callable[[], TLSFiles]:
    """A function that reads ``https_key_file`` and ``https_cert_file`` as they are now."""

    def read() -> TLSFiles:
        with open(key_file, encoding="ascii") as key, open(cert_file, encoding="ascii") as certificates:
            return TLSFiles(Secret(key.read()), certificates.read())

    return read


def make_context(files: TLSFiles) -> SSL.Context:
    """A server context: TLS 1.2 or later, HTTP/1.1, no client certificates. BadParameter."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(_CIPHERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # A renegotiation costs the server more than the client.
    context.set_options(
        SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_NO_TICKET | SSL.OP_CIPHER_SERVER_PREFERENCE
    )
    context.set_alpn_select_callback(_choose_protocol)
    try:
        own, *chain = load_pem_x509_certificates(files.certificates.encode("ascii"))
        key = load_pem_private_key(files.private_key.reveal().encode("ascii"), None)
        context.use_certificate(own)
        for certificate in chain:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(key)  # type: ignore[arg-type]  # kinds that TLS has no use for are refused here
        context.check_privatekey()
    except (SSL.Error, ValueError, TypeError, UnsupportedAlgorithm):
        raise BadParameter(
            "The HTTPS key and certificate cannot be used: they must be PEM without a passphrase, and belong together."
        ) from None
    return context


def _choose_protocol(connection: SSL.Connection, offered: list[bytes]) -> Any:  # bytes, or pyOpenSSL's marker for none
    return _HTTP if _HTTP in offered else SSL.NO_OVERLAPPING_PROTOCOLS


@implementer(IOpenSSLServerConnectionCreator)
class CurrentCertificate:
    """Gives each new connection the current certificate.

    ``read`` is called at most every :data:`LOOK_PERIOD` seconds. If the files cannot be used, the last good ones stay.
    """

    def __init__(self, read: Callable[[], TLSFiles], seconds: Callable[[], float]) -> None:
        self._read = read
        self._seconds = seconds
        try:
            self._files = read()
        except (OSError, UnicodeDecodeError) as error:
            raise BadParameter(f"The HTTPS key or certificate cannot be read: {error}.") from error
        self._context = make_context(self._files)
        self._looked = seconds()
        self._complained = ""

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        if self._seconds() - self._looked >= LOOK_PERIOD:
            self._look()
        return SSL.Connection(self._context, None)

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
