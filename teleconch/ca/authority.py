"""Making an authority, and its public part."""

from __future__ import annotations

import datetime
import hashlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from teleconch import defaults
from teleconch.ca.keys import new_ssh_key, new_tls_key
from teleconch.resources.authority import AuthorityType, CertAuthority, TrustedAuthority
from teleconch.resources.names import check_name

_TLS_LIFE = 3650 * defaults.DAY  # authorities end by rotation, not by age


def utc(seconds: float) -> datetime.datetime:
    """Epoch seconds as an aware time, without the fraction, which certificates cannot hold."""
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)


def subject(type: AuthorityType, cluster: str) -> x509.Name:
    """The name of an authority: it binds the cluster and the kind of certificate."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, cluster),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, type),
        ]
    )


def new_authority(type: AuthorityType, cluster: str, now: float) -> CertAuthority:
    """A new authority for ``cluster`` with fresh keys. BadParameter for an unusable cluster name."""
    check_name(cluster, "Cluster name")
    ssh_private, ssh_public = new_ssh_key()
    tls_private, _ = new_tls_key()
    key = serialization.load_pem_private_key(tls_private.reveal().encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    name = subject(type, cluster)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(utc(now - defaults.DAY))
        .not_valid_after(utc(now + _TLS_LIFE))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return CertAuthority(
        type=type,
        cluster=cluster,
        ssh_public_key=ssh_public,
        ssh_private_key=ssh_private,
        tls_cert=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        tls_private_key=tls_private,
        created=now,
    )


def trusted(authority: CertAuthority) -> TrustedAuthority:
    """The public part of ``authority``."""
    return TrustedAuthority(
        type=authority.type,
        cluster=authority.cluster,
        ssh_public_keys=(authority.ssh_public_key,),
        tls_certs=(authority.tls_cert,),
        rotated=authority.rotated,
    )


def key_usage(*, authority: bool) -> x509.KeyUsage:
    """What a certificate's key may sign: certificates and lists of revoked ones, or else handshakes."""
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def ca_pin(tls_cert: str) -> str:
    """``sha256:<hex>`` over the certificate's SubjectPublicKeyInfo (DER), as Teleport's CA pin."""
    return pin_of(x509.load_pem_x509_certificate(tls_cert.encode()))


def pin_of(certificate: x509.Certificate) -> str:
    """:func:`ca_pin` of a certificate that has been loaded already."""
    info = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return "sha256:" + hashlib.sha256(info).hexdigest()
