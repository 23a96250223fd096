"""What a host keeps in its ``data_dir``: the UUID (one for all roles), and keys and certificates in ``<role>/``.

::

    data_dir/host_uuid                 shared by the roles of this host
    data_dir/<role>/ssh_key            OpenSSH PEM, made before the first join
    data_dir/<role>/tls_key.pem        PKCS#8 PEM, made at the same time
    data_dir/<role>/membership.json    everything that a join or a renewal returned, replaced as a whole
    data_dir/<role>/tls_cert.pem       a copy for programs that read certificates from files

Every file is written under another name, synced and renamed into place, so ``kill -9`` at any point leaves either the
old or the new one. Files are 0600, folders 0700.
"""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from teleconch.api.codec import decode_value, encode_value
from teleconch.api.tls import TLSCredentials, host_certificates
from teleconch.atomic import clear, make_directory, write_file, write_first
from teleconch.ca.keys import new_ssh_key, new_tls_key
from teleconch.errors import BadParameter, TrustError, Unavailable
from teleconch.resources.host import HostCertificates
from teleconch.resources.names import check_uuid
from teleconch.resources.secret import Secret

_MEMBERSHIP: Final = "membership.json"
FORMAT: Final = 1  # of membership.json


@frozen
class HostKeys:
    """A host's two key pairs: the private halves in PEM, the public halves as in ``JoinRequest``."""

    ssh_private: Secret
    ssh_public: str
    tls_private: Secret
    tls_public: str


@frozen
class StoredMembership:
    """What was issued for ``nodename`` and ``addresses``."""

    format: int
    nodename: str
    addresses: tuple[str, ...]
    certificates: HostCertificates


class HostFiles:
    """The files of one role. Methods raise Unavailable if the disk fails and TrustError if a file is damaged."""

    def __init__(self, data_dir: str | os.PathLike[str], role: str) -> None:
        self._data_dir = Path(data_dir)
        self.directory = self._data_dir / role
        self.tls_certificate = self.directory / "tls_cert.pem"
        self.tls_key = self.directory / "tls_key.pem"
        self._ssh_key = self.directory / "ssh_key"

    def uuid(self) -> str:
        """This host's UUID, made on the first call by any role."""
        path = self._data_dir / "host_uuid"
        with _told(path):
            make_directory(self._data_dir)
            _not_for_all(self._data_dir)
            if not path.exists():
                with suppress(FileExistsError):  # another role was first
                    write_first(path, f"{uuid.uuid4()}\n".encode())
            text = path.read_text("utf-8", "replace").strip()
        try:
            return check_uuid(text)
        except BadParameter:
            raise TrustError(
                f"{path} does not hold a UUID. Restore it; or delete it, {self.directory} and join again with a token."
            ) from None

    def keys(self) -> HostKeys:
        """This role's keys, made and stored on the first call."""
        ssh_private = self._key(self._ssh_key, lambda: new_ssh_key()[0])
        tls_private = self._key(self.tls_key, lambda: new_tls_key()[0])
        try:
            ssh: Any = serialization.load_ssh_private_key(ssh_private.reveal().encode(), None)
            tls: Any = serialization.load_pem_private_key(tls_private.reveal().encode(), None)
        except ValueError:
            raise TrustError(
                f"A key in {self.directory} is damaged. Restore it; or delete {self.directory}, run"
                f" `tctl rm node/{self.uuid()}` on the auth server and join again with a token."
            ) from None
        formats = serialization.Encoding, serialization.PublicFormat
        return HostKeys(
            ssh_private,
            ssh.public_key().public_bytes(formats[0].OpenSSH, formats[1].OpenSSH).decode(),
            tls_private,
            tls.public_key().public_bytes(formats[0].PEM, formats[1].SubjectPublicKeyInfo).decode(),
        )

    def _key(self, path: Path, make: Any) -> Secret:
        with _told(path):
            make_directory(self.directory)
            clear(self.directory)
            if not path.exists():
                write_file(path, make().reveal().encode())
            return Secret(path.read_text())

    def load(self) -> StoredMembership | None:
        """The membership that was stored last; ``None`` before the first join."""
        path = self.directory / _MEMBERSHIP
        with _told(path):
            if not path.exists():
                return None
            data = path.read_bytes()
        stored = _decoded(data)
        if stored is None or not certified(stored.certificates, self.keys()):
            raise TrustError(
                f"{path} is damaged or not of the keys beside it. Restore the folder; or delete it, run"
                f" `tctl rm node/{self.uuid()}` on the auth server and join again with a token."
            )
        if not self.tls_certificate.exists():
            self._store_copy(stored)
        return stored

    def store(self, membership: StoredMembership) -> None:
        """Replace what :meth:`load` returns."""
        path = self.directory / _MEMBERSHIP
        with _told(path):
            write_file(path, encode_value(membership))
        self._store_copy(membership)

    def _store_copy(self, membership: StoredMembership) -> None:
        given = membership.certificates
        with _told(self.tls_certificate):
            write_file(self.tls_certificate, (given.tls_cert + host_certificates(given.authorities)).encode())

    def beside(self) -> TLSCredentials | None:
        """The certificate and key of the other role of this ``data_dir``, unchecked; ``None`` if there is none.
        Unavailable while that role has keys but no certificate: it is joining, or has failed to."""
        for key in sorted(self._data_dir.glob(f"*/{self.tls_key.name}")):
            certificate = key.with_name(self.tls_certificate.name)
            if key.parent != self.directory:
                if not certificate.exists():
                    raise Unavailable(f"{key.parent.name} of this host joins at this moment, or cannot: see its log.")
                with _told(certificate):
                    return TLSCredentials(certificate.read_text(), Secret(key.read_text()))
        return None

    def clusters(self) -> dict[str, str]:
        """Role to cluster, for every role of this ``data_dir`` that is a member of one."""
        found = {}
        for path in sorted(self._data_dir.glob(f"*/{_MEMBERSHIP}")):
            try:
                stored = _decoded(path.read_bytes())
            except OSError:
                continue  # that role reports it when it starts
            if stored is not None:
                found[path.parent.name] = stored.certificates.cluster
        return found


def _decoded(data: bytes) -> StoredMembership | None:
    try:
        stored: StoredMembership = decode_value(StoredMembership, data)
    except BadParameter:
        return None
    return stored if stored.format == FORMAT else None


def certified(certificates: HostCertificates, keys: HostKeys) -> bool:
    """Whether ``certificates`` are for ``keys``."""
    try:
        ssh: Any = serialization.load_ssh_public_identity(certificates.ssh_cert.encode())
        tls: Any = x509.load_pem_x509_certificate(certificates.tls_cert.encode())
    except (ValueError, UnsupportedAlgorithm):
        return False
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    wanted_tls: Any = serialization.load_pem_public_key(keys.tls_public.encode())
    wanted_ssh: Any = serialization.load_ssh_public_key(keys.ssh_public.encode())
    return bool(
        isinstance(ssh, serialization.SSHCertificate)
        and ssh.public_key() == wanted_ssh
        and tls.public_key().public_bytes(*form) == wanted_tls.public_bytes(*form)
    )


def _not_for_all(path: Path) -> None:
    """Take away everyone's right to write, which a fresh container volume has: anyone who can rename folders here can
    make this host use their own keys and authorities."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & stat.S_IWOTH:
        path.chmod(mode & ~(stat.S_IWOTH | stat.S_ISVTX))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"{path} cannot be read or written ({error.strerror}): check owner, mode and space of the data_dir."
        ) from error
