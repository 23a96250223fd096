"""TLS certificates of hosts and users: issued and checked.

In the subject, CN is the user name or the host UUID, with one O per role. The issuer
(:func:`teleconch.ca.authority.subject`) names the cluster and the kind, so an identity's cluster is that of the
authority that signed, never one that the peer claims.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from teleconch import defaults
from teleconch.ca.authority import key_usage, pin_of, subject, utc
from teleconch.errors import BadParameter, ClockSkew, TrustError
from teleconch.resources.authority import CertAuthority, TrustedAuthority
from teleconch.resources.identity import ApiIdentity
from teleconch.resources.names import check_name, check_user_name, check_uuid

# The roles that serve TLS. A node names its own addresses when it joins. If its certificate were valid for servers, it
# could name a proxy's address, and whoever types a password there would trust it.
_SERVERS: Final = frozenset(("auth", "proxy"))


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _public_key(pem: str) -> ec.EllipticCurvePublicKey:
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except ValueError:
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise BadParameter("The TLS public key must be an ECDSA key as SubjectPublicKeyInfo in PEM.")
    return key


def _issue(
    authority: CertAuthority,
    name: str,
    roles: Iterable[str],
    names: Sequence[str],
    public_key: str,
    valid_after: float,
    valid_before: float,
    serial: int,
) -> str:
    if not valid_after < valid_before:
        raise BadParameter("A certificate must end after it begins.")
    signer = serialization.load_pem_private_key(authority.tls_private_key.reveal().encode(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    ca = x509.load_pem_x509_certificate(authority.tls_cert.encode())
    key = _public_key(public_key)
    roles = tuple(roles)
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    attributes += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, check_name(role, "Role")) for role in roles]
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if authority.type == "host" and not _SERVERS.isdisjoint(roles):
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(attributes))
        .issuer_name(ca.subject)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(utc(valid_after))
        .not_valid_after(utc(valid_before))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general_name(each) for each in dict.fromkeys(names)]), critical=False
        )
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def issue_host_tls(
    authority: CertAuthority,
    *,
    uuid: str,
    roles: Iterable[str],
    dns_names: Sequence[str],
    public_key: str,
    valid_after: float,
    valid_before: float,
    serial: int,
) -> str:
    """A host's certificate in PEM: for clients and, if it has a role that serves TLS (auth, proxy), also for servers.

    ``dns_names`` may hold IP addresses. Times are epoch seconds.
    """
    if authority.type != "host":
        raise BadParameter("Host certificates are signed by the host authority only.")
    check_uuid(uuid)
    return _issue(authority, uuid, roles, dns_names, public_key, valid_after, valid_before, serial)


def issue_user_tls(
    authority: CertAuthority,
    *,
    user: str,
    roles: Iterable[str],
    public_key: str,
    valid_after: float,
    valid_before: float,
    serial: int,
) -> str:
    """A user's client certificate in PEM. Times are epoch seconds."""
    if authority.type != "user":
        raise BadParameter("User certificates are signed by the user authority only.")
    check_user_name(user)
    return _issue(authority, user, roles, (), public_key, valid_after, valid_before, serial)


@lru_cache(maxsize=64)
def _load(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def _signed_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _plain_end_entity(certificate: x509.Certificate, usage: x509.ObjectIdentifier) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
    return not constraints.ca and usage in usages


def _check_time(certificate: x509.Certificate, now: float, whose: str) -> None:
    if now >= certificate.not_valid_after_utc.timestamp():
        raise TrustError(
            f"The TLS certificate of {whose} expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC."
        )
    if now < certificate.not_valid_before_utc.timestamp():
        raise TrustError(
            f"The TLS certificate of {whose} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S}"
            f" UTC, and here it is {utc(now):%Y-%m-%d %H:%M:%S} UTC: check the clocks of both machines."
        )


def _names(certificate: x509.Certificate) -> tuple[str, tuple[str, ...]]:
    names = [str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    roles = [
        str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    ]
    if len(names) != 1:
        raise TrustError("The TLS certificate must name exactly one owner.")
    return names[0], tuple(roles)


def identity_of(cert_der: bytes, authorities: Iterable[TrustedAuthority], now: float) -> ApiIdentity:
    """The owner of a peer's TLS certificate. TrustError unless one of ``authorities`` signed it and it is valid at
    ``now``."""
    try:
        certificate = x509.load_der_x509_certificate(cert_der)
        issuer = certificate.issuer
    except ValueError:
        raise TrustError("The TLS certificate cannot be read.") from None
    for authority in authorities:
        if issuer != subject(authority.type, authority.cluster):
            continue
        if any(_signed_by(certificate, _load(pem)) for pem in authority.tls_certs):
            break
    else:
        raise TrustError("The TLS certificate is not signed by an authority of this cluster.")
    if not _plain_end_entity(certificate, ExtendedKeyUsageOID.CLIENT_AUTH):
        raise TrustError("The TLS certificate is not one for a client.")
    name, roles = _names(certificate)
    try:
        if authority.type == "host":
            check_uuid(name)
        else:
            check_user_name(name)
    except BadParameter as error:
        raise TrustError(str(error)) from None
    _check_time(certificate, now, name)
    return ApiIdentity(
        kind=authority.type,
        name=name,
        roles=roles,
        cluster=authority.cluster,
        expires=certificate.not_valid_after_utc.timestamp(),
        begins=certificate.not_valid_before_utc.timestamp(),
    )


def verify_auth_server(chain: Sequence[bytes], pins: Sequence[str], now: float) -> tuple[str, str]:
    """First contact: the cluster's name and its host authority (PEM), from the DER chain that a server showed.

    With ``pins``, the authority's public key must match one of them; without, it is trusted (and the caller warns).
    TrustError for another pin or a broken chain; ClockSkew if the certificate's lifetime shows that this clock is off.
    """
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
    except ValueError:
        raise TrustError("The server's TLS certificate cannot be read: is this address an auth server's?") from None
    authority = next((ca for ca in certificates[1:] if _signed_by(certificates[0], ca) and _signed_by(ca, ca)), None)
    if authority is None:
        raise TrustError("The server does not show a cluster's authority: is this address an auth server's?")
    names = authority.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1 or authority.subject != subject("host", str(names[0].value)):
        raise TrustError("The server's authority is not a cluster's host authority.")
    pin = pin_of(authority)
    if pins and not any(hmac.compare_digest(pin, wanted.strip().lower()) for wanted in pins):
        raise TrustError(
            f"The auth server's CA has the pin {pin}, not the one that ca_pin asks for. If the address is right,"
            " compare with `tctl status` on the auth server; otherwise someone may be intercepting the connection:"
            " nothing was sent."
        )
    _, roles = _names(certificates[0])
    try:
        alternative = certificates[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = alternative.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        hosts = []
    if (
        "auth" not in roles
        or defaults.API_SERVER_NAME not in hosts
        or not _plain_end_entity(certificates[0], ExtendedKeyUsageOID.SERVER_AUTH)
    ):
        raise TrustError(
            "The server belongs to the cluster but is not its auth server: check auth_servers (port 3025)."
        )
    early = certificates[0].not_valid_before_utc.timestamp() - now
    late = now - certificates[0].not_valid_after_utc.timestamp()
    if early > 0 or late >= 0:
        raise ClockSkew(
            f"By this machine's clock ({utc(now):%Y-%m-%d %H:%M:%S} UTC) the auth server's certificate"
            f" {'is not valid yet' if early > 0 else 'has expired'}: set the clock of both machines (e.g. with chrony),"
            " then start again."
        )
    return str(names[0].value), authority.public_bytes(serialization.Encoding.PEM).decode()
