"""A server's key and certificate, loaded once and used for every connection."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

from attrs import field, frozen

from teleconch.resources.secret import Secret
from teleconch.ssh import signatures


@frozen
class HostKey:
    """``private_key_pem`` in OpenSSH or PKCS#8 PEM; ``cert_line`` one line ``...-cert-v01@openssh.com AAAA...``."""

    private_key_pem: str = field(repr=False)
    cert_line: str | None = None
    _key: Any = field(init=False, repr=False, eq=False)
    blob: bytes = field(init=False, repr=False, eq=False)
    certificate: bytes | None = field(init=False, repr=False, eq=False)

    @_key.default
    def _load_key(self) -> Any:
        return signatures.load_private_key(self.private_key_pem)

    @blob.default
    def _make_blob(self) -> bytes:
        return signatures.public_blob(self._key)

    @certificate.default
    def _parse_certificate(self) -> bytes | None:
        return base64.b64decode(self.cert_line.split()[1]) if self.cert_line else None

    def offers(self) -> dict[bytes, bytes]:
        """Algorithm -> blob to present, certificate first."""
        blobs = [self.certificate, self.blob] if self.certificate else [self.blob]
        return {name: blob for blob in blobs for name in signatures.algorithms_of(signatures.key_type(blob))}

    def sign(self, data: bytes, algorithm: bytes) -> bytes:
        return signatures.sign(self._key, data, algorithm)


class CurrentKeys:
    """The current host keys: ``current`` returns the PEM (a secret) and the certificate. They are parsed again only
    after a renewal; new connections see the new ones."""

    def __init__(self, current: Callable[[], tuple[Secret, str]]) -> None:
        self._current = current
        self._of: tuple[Secret, str] | None = None
        self._keys: tuple[HostKey, ...] = ()

    def __call__(self) -> Sequence[HostKey]:
        of = self._current()
        if of != self._of:
            self._keys = (HostKey(of[0].reveal(), of[1]),)
            self._of = of
        return self._keys
