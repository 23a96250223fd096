"""What a host holds of its membership: its UUID, keys, certificates, and the cluster's authorities.

Joining (``join.py``) fills it and the upkeep (``upkeep.py``) renews it; everyone else only reads it. Everything is
stored in ``data_dir`` before anybody can read it here, so a restarted host can go on without its auth server.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.logger import Logger

from teleconch.api.hostfiles import FORMAT, HostFiles, HostKeys, StoredMembership, certified
from teleconch.api.perspectives import described
from teleconch.api.tls import TLSCredentials
from teleconch.ca.keys import public_blob
from teleconch.ca.ssh import certificate_summary
from teleconch.ca.tls import identity_of
from teleconch.errors import TrustError
from teleconch.resources.authority import TrustedAuthority
from teleconch.resources.host import HostCertificates
from teleconch.resources.secret import Secret

log = Logger()


class Held:
    """What one role holds. ``uuid`` is set once :meth:`load` has been called, the rest once a membership is in use."""

    def __init__(self, data_dir: str | os.PathLike[str], role: str, nodename: str, addresses: Sequence[str]) -> None:
        self.role = role
        self.nodename = nodename
        self.addresses = tuple(addresses)
        self.files = HostFiles(data_dir, role)
        self.uuid = ""
        self._keys: HostKeys | None = None
        self._stored: StoredMembership | None = None
        self._credentials: TLSCredentials | None = None

    def load(self) -> StoredMembership | None:
        """The membership in ``data_dir``, which the caller judges before :meth:`use`. Makes the UUID and the keys if
        there are none. Unavailable, TrustError."""
        self.uuid = self.files.uuid()
        self._keys = self.files.keys()
        return self.files.load()

    # -- what others read

    @property
    def cluster(self) -> str:
        """The cluster's name."""
        return self.certificates.cluster

    @property
    def keys(self) -> HostKeys:
        """This role's key pairs."""
        assert self._keys is not None, "not started"
        return self._keys

    def host_keys(self) -> tuple[Secret, str]:
        """The current SSH host key (OpenSSH PEM) and its certificate (one line)."""
        return self.keys.ssh_private, self.certificates.ssh_cert

    def authorities(self) -> tuple[TrustedAuthority, ...]:
        """The cluster's authorities, as of the last contact."""
        return self.certificates.authorities

    def credentials(self) -> TLSCredentials:
        """This host's current TLS certificate and key."""
        assert self._credentials is not None, "not started"
        return self._credentials

    @property
    def tls_files(self) -> tuple[Path, Path]:
        """The same as PEM files, for a web server: the certificate (followed by the host authority's) and the key."""
        return self.files.tls_certificate, self.files.tls_key

    @property
    def expires(self) -> float:
        """When the certificates expire, in epoch seconds."""
        return self.certificates.valid_before

    @property
    def certificates(self) -> HostCertificates:
        """Everything that the auth server issued last."""
        assert self._stored is not None, "not started"
        return self._stored.certificates

    # -- what changes it

    def check_cluster(self, cluster: str) -> None:
        """TrustError if ``cluster`` is not the one that this ``data_dir`` is a member of."""
        for role, known in self.files.clusters().items():
            if known != cluster:
                raise TrustError(
                    f"The auth server is of cluster {cluster}, but {self.files.directory.parent} belongs to a member"
                    f" of cluster {known} (role {role}). Use another data_dir; or, to leave {known} for good, delete"
                    " this one's role folders and join with a token."
                )

    def adopt(self, given: HostCertificates) -> None:
        """Check, store and use what the auth server issued. TrustError; Unavailable if it cannot be stored."""
        authorities = [each for each in given.authorities if each.cluster == given.cluster]
        if not certified(given, self.keys) or {each.type for each in authorities} != {"user", "host"}:
            raise TrustError("The auth server gave certificates that are not this host's: are both up to date?")
        certificate = x509.load_pem_x509_certificate(given.tls_cert.encode()).public_bytes(Encoding.DER)
        identity = identity_of(certificate, authorities, given.valid_after)
        if (identity.kind, identity.name, self.role in identity.roles) != ("host", self.uuid, True):
            raise TrustError(f"The auth server gave the certificate of {described(identity)}, which is not this host.")
        self.check_cluster(given.cluster)
        stored = StoredMembership(FORMAT, self.nodename, self.addresses, given)
        self.files.store(stored)
        self.use(stored)
        if self.nodename.lower() not in certificate_summary(public_blob(given.ssh_cert)).principals:
            log.warn(
                "the name {nodename} is another host's, or every machine's: this one is reached by its UUID,"
                " {server_id}. Give it a nodename of its own; or, if the other (the auth server's log names it) is gone"
                " for good, run `tctl rm node/UUID` on the auth server for the other and for this one, and start this"
                " one again with a join token",
                nodename=self.nodename,
                server_id=self.uuid,
            )

    def use(self, stored: StoredMembership) -> None:
        """Use a membership that is in ``data_dir`` already."""
        self._stored = stored
        self._credentials = TLSCredentials(stored.certificates.tls_cert, self.keys.tls_private)

    def learn(self, authorities: tuple[TrustedAuthority, ...]) -> None:
        """Take over the cluster's current authorities. If an answer has none, the known ones stay."""
        given = self.certificates
        if {each.type for each in authorities if each.cluster == given.cluster} != {"user", "host"}:
            log.warn("the auth server gave no authorities of this cluster")
        elif authorities != given.authorities:
            assert self._stored is not None
            stored = evolve(self._stored, certificates=evolve(given, authorities=authorities))
            self._stored = stored
            self.files.store(stored)
            log.info("learned of new authorities of the cluster")
