"""OpenSSH certificates: issued and checked.

Source: OpenSSH's PROTOCOL.certkeys. ``cryptography`` encodes, signs and verifies. What it leaves open is decided here:
which key may sign (compared as raw blobs, and never a certificate), principals, critical options and times.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    SSHCertificate,
    SSHCertificateBuilder,
    SSHCertificateType,
    load_ssh_private_key,
    load_ssh_public_identity,
    load_ssh_public_key,
)

from teleconch.ca.keys import blob_line, public_blob
from teleconch.errors import AccessDenied, BadParameter, TrustError, quoted
from teleconch.resources.authority import CertAuthority, TrustedAuthority
from teleconch.resources.names import check_login, check_name, check_user_name, check_uuid, is_host_principal, is_login

if TYPE_CHECKING:
    from teleconch.resources.identity import SSHIdentity

ROLES = b"teleport-roles"
TRAITS = b"teleport-traits"
ROUTE = b"teleport-route-to-cluster"
HOST_ROLE = b"x-teleport-role"
HOST_AUTHORITY = b"x-teleport-authority"
PERMITS = ("permit-pty", "permit-port-forwarding", "permit-agent-forwarding", "permit-X11-forwarding", "permit-user-rc")
SOURCE_ADDRESS = b"source-address"

_SUFFIX = b"-cert-v01@openssh.com"
_KEY_FIELDS = {  # the strings between nonce and serial
    b"ssh-ed25519": 1,
    b"ecdsa-sha2-nistp256": 2,
    b"ecdsa-sha2-nistp384": 2,
    b"ecdsa-sha2-nistp521": 2,
    b"ssh-rsa": 2,
}
_SIGNING_KEYS = (b"ssh-ed25519", b"ecdsa-sha2-nistp256", b"ecdsa-sha2-nistp384", b"ecdsa-sha2-nistp521", b"ssh-rsa")
_SIGNATURES = (  # no SHA-1
    b"ssh-ed25519",
    b"ecdsa-sha2-nistp256",
    b"ecdsa-sha2-nistp384",
    b"ecdsa-sha2-nistp521",
    b"rsa-sha2-256",
    b"rsa-sha2-512",
)
_BLOB_MAX = 64 * 1024


# --- issue -----------------------------------------------------------------------------------------------------------


def _public_key(line: str) -> ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    try:
        if is_certificate(public_blob(line)):  # cryptography would extract the key from it
            raise ValueError("a certificate")
        key = load_ssh_public_key(line.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise BadParameter(
            "This public key cannot be signed: give an ed25519, ECDSA or RSA key, not a certificate."
        ) from None
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < 2048:
        raise BadParameter("RSA keys need at least 2048 bits; make one with `ssh-keygen -t ed25519`.")
    if not isinstance(key, ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise BadParameter("Only ed25519, ECDSA and RSA keys are signed; make one with `ssh-keygen -t ed25519`.")
    return key


def _issue(
    authority: CertAuthority,
    kind: SSHCertificateType,
    key_id: str,
    principals: Iterable[str],
    public_key: str,
    extensions: Mapping[bytes, bytes],
    valid_after: float,
    valid_before: float,
    serial: int,
) -> str:
    if not valid_after < valid_before:
        raise BadParameter("A certificate must end after it begins.")
    names = list(dict.fromkeys(name.encode() for name in principals))
    if not names:
        raise BadParameter("A certificate without principals is never issued: name at least one.")
    builder = (
        SSHCertificateBuilder()
        .public_key(_public_key(public_key))
        .type(kind)
        .key_id(key_id.encode())
        .serial(serial)
        .valid_principals(names)
        .valid_after(int(valid_after))
        .valid_before(int(valid_before))
    )
    for name in sorted(extensions):
        builder = builder.add_extension(name, extensions[name])
    signer = load_ssh_private_key(authority.ssh_private_key.reveal().encode(), None)
    assert isinstance(signer, ed25519.Ed25519PrivateKey)
    return builder.sign(signer).public_bytes().decode()


def issue_user_cert(
    authority: CertAuthority,
    *,
    user: str,
    logins: Iterable[str],
    roles: Iterable[str],
    traits: Mapping[str, Iterable[str]],
    public_key: str,
    extensions: Iterable[str],
    valid_after: float,
    valid_before: float,
    serial: int,
) -> str:
    """A user certificate as one line. Times are epoch seconds. BadParameter for a name that may not be a principal."""
    if authority.type != "user":
        raise BadParameter("User certificates are signed by the user authority only.")
    check_user_name(user)
    values = {
        ROLES: json.dumps({"version": "v1", "roles": [check_name(role, "Role") for role in roles]}).encode(),
        TRAITS: json.dumps({name: list(items) for name, items in traits.items()}, sort_keys=True).encode(),
        ROUTE: authority.cluster.encode(),
    }
    for permit in extensions:
        if permit not in PERMITS:
            raise BadParameter(
                f"{quoted(permit)} is not a permission of a user certificate; there are {', '.join(PERMITS)}."
            )
        values[permit.encode()] = b""
    principals = [check_login(login) for login in logins]
    return _issue(
        authority, SSHCertificateType.USER, user, principals, public_key, values, valid_after, valid_before, serial
    )


def host_names(uuid: str, nodename: str, cluster: str, addresses: Iterable[str]) -> tuple[str, ...]:
    """Every name by which a host may be reached: its UUID and nodename, each with and without the cluster, and its
    addresses."""
    names = [uuid, f"{uuid}.{cluster}", nodename, f"{nodename}.{cluster}", *addresses]
    return tuple(dict.fromkeys(name.lower() for name in names))


def issue_host_cert(
    authority: CertAuthority,
    *,
    uuid: str,
    nodename: str,
    roles: Iterable[str],
    addresses: Iterable[str],
    public_key: str,
    valid_after: float,
    valid_before: float,
    serial: int,
    principals: tuple[str, ...] | None = None,
) -> str:
    """A member host's certificate as one line. Names are in lower case, as ssh looks for them.

    ``principals`` are those of its names that it may have; ``None`` for all of them.
    """
    check_uuid(uuid)
    check_name(nodename, "Node name")
    names = host_names(uuid, nodename, authority.cluster, addresses)
    if principals is not None:
        names = tuple(name for name in names if name in principals)
    values = {HOST_ROLE: ",".join(roles).encode(), HOST_AUTHORITY: authority.cluster.encode()}
    return _issue_host(authority, uuid, names, public_key, values, valid_after, valid_before, serial)


def issue_openssh_host_cert(
    authority: CertAuthority,
    *,
    names: Iterable[str],
    public_key: str,
    valid_after: float,
    valid_before: float,
    serial: int,
) -> str:
    """A host certificate for an OpenSSH server with just these principals."""
    names = tuple(name.lower() for name in names)
    if not names:
        raise BadParameter("Name at least one host.")
    return _issue_host(authority, names[0], names, public_key, {}, valid_after, valid_before, serial)


def _issue_host(
    authority: CertAuthority,
    key_id: str,
    names: tuple[str, ...],
    public_key: str,
    values: Mapping[bytes, bytes],
    valid_after: float,
    valid_before: float,
    serial: int,
) -> str:
    if authority.type != "host":
        raise BadParameter("Host certificates are signed by the host authority only.")
    for name in names:
        if not is_host_principal(name):
            raise BadParameter(f"{quoted(name)} is not a host name: use letters, digits and . _ @ -, or an IP address.")
    return _issue(
        authority, SSHCertificateType.HOST, key_id, names, public_key, values, valid_after, valid_before, serial
    )


# --- check -----------------------------------------------------------------------------------------------------------


def _take(blob: bytes, at: int) -> tuple[bytes, int]:
    """The RFC 4251 string at ``at``, and the position after it. ValueError if the blob ends early."""
    end = at + 4 + int.from_bytes(blob[at : at + 4], "big")
    if len(blob) < at + 4 or len(blob) < end:
        raise ValueError("truncated")
    return blob[at + 4 : end], end


class _Raw(NamedTuple):
    """What is compared byte by byte: the key that signed, and the algorithm of its signature."""

    signing_key: bytes
    signing_type: bytes
    signature_type: bytes


def _raw(blob: bytes) -> _Raw:
    name, at = _take(blob, 0)
    if not name.endswith(_SUFFIX):
        raise ValueError("not a certificate")
    for _ in range(1 + _KEY_FIELDS[name.removesuffix(_SUFFIX)]):
        _, at = _take(blob, at)
    at += 8 + 4  # serial, type
    for _ in range(2):  # key id, principals
        _, at = _take(blob, at)
    at += 8 + 8  # valid after, valid before
    for _ in range(3):  # critical options, extensions, reserved
        _, at = _take(blob, at)
    signing_key, at = _take(blob, at)
    signature, at = _take(blob, at)
    if at != len(blob):
        raise ValueError("something follows the certificate")
    return _Raw(signing_key, _take(signing_key, 0)[0], _take(signature, 0)[0])


def is_certificate(blob: bytes) -> bool:
    """Whether a key blob claims to be an OpenSSH certificate."""
    try:
        return _take(blob, 0)[0].endswith(_SUFFIX)
    except ValueError:
        return False


@lru_cache(maxsize=64)
def _signed(blob: bytes) -> SSHCertificate:
    """The certificate in ``blob``, if the authority named in it did sign it. Whether to trust that authority, and what
    the certificate says, the caller must judge each time. Results are remembered, since a client shows its certificate
    twice in a login, first without its own signature; errors are not. ValueError, UnsupportedAlgorithm,
    InvalidSignature, TrustError.
    """
    certificate = load_ssh_public_identity(blob_line(blob).encode())
    if not isinstance(certificate, SSHCertificate):
        raise TrustError("A key without a certificate is not accepted; log in with `tsh login`.")
    certificate.verify_cert_signature()
    return certificate


def _load(blob: bytes, authorities: Iterable[TrustedAuthority], type: str) -> tuple[SSHCertificate, TrustedAuthority]:
    """The certificate, with its signature verified, and the authority that signed it. TrustError otherwise."""
    if len(blob) > _BLOB_MAX:
        raise TrustError("The certificate is larger than any that this cluster issues.")
    try:
        raw = _raw(blob)
    except (ValueError, KeyError):
        raise TrustError("This is not a certificate that can be read; log in again with `tsh login`.") from None
    if raw.signing_type not in _SIGNING_KEYS or raw.signature_type not in _SIGNATURES:
        raise TrustError("The certificate is signed by something that may not sign: only plain authority keys may.")
    authority = next(
        (
            candidate
            for candidate in authorities
            if candidate.type == type and any(public_blob(key) == raw.signing_key for key in candidate.ssh_public_keys)
        ),
        None,
    )
    if authority is None:
        raise TrustError(
            f"The certificate is not signed by a {type} authority of this cluster; check which cluster you use."
        )
    try:
        certificate = _signed(blob)
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        raise TrustError(
            "The certificate is damaged or its signature is wrong; log in again with `tsh login`."
        ) from None
    return certificate, authority


def _stamp(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return "the end of time"


def _check_time(certificate: SSHCertificate, now: float) -> None:
    if now >= certificate.valid_before:
        raise TrustError(
            f"The certificate expired at {_stamp(certificate.valid_before)}; log in again with `tsh login`."
        )
    if now < certificate.valid_after:
        raise TrustError(
            f"The certificate is not valid before {_stamp(certificate.valid_after)}, and here it is {_stamp(now)}:"
            " check the clocks of both machines."
        )


def _check_source(value: bytes, source_ip: str | None) -> None:
    try:
        networks = [ipaddress.ip_network(part.strip(), strict=False) for part in value.decode("ascii").split(",")]
        source = ipaddress.ip_address(source_ip or "")
    except ValueError:
        raise AccessDenied("The certificate's source-address cannot be checked; ask for a new certificate.") from None
    mapped = getattr(source, "ipv4_mapped", None)
    if not any((mapped or source) in network for network in networks):
        raise AccessDenied(f"The certificate may not be used from {source}; its source-address allows other networks.")


def _strings(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("not a list of strings")
    return tuple(value)


def _attributes(extensions: Mapping[bytes, bytes]) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Roles and traits. ValueError (json's included) if they are not what :func:`issue_user_cert` writes."""
    roles = json.loads(extensions.get(ROLES, b'{"roles": []}'))
    traits = json.loads(extensions.get(TRAITS, b"{}"))
    if not isinstance(roles, dict) or not isinstance(traits, dict):
        raise ValueError("not objects")
    return _strings(roles.get("roles")), {name: _strings(items) for name, items in traits.items()}


def check_user_certificate(
    blob: bytes, *, authorities: Iterable[TrustedAuthority], login: str, now: float, source_ip: str | None
) -> SSHIdentity:
    """The identity that this certificate proves, for a login as ``login``. AccessDenied, with a sentence, for any flaw.

    The caller must verify that the peer owns the certificate's key (RFC 4252 section 7).
    """
    try:
        certificate, authority = _load(blob, authorities, "user")
        if certificate.type is not SSHCertificateType.USER:
            raise AccessDenied("This is a host's certificate; users log in with a user certificate from `tsh login`.")
        _check_time(certificate, now)
    except TrustError as error:
        raise AccessDenied(str(error)) from error
    for option, value in certificate.critical_options.items():
        if option != SOURCE_ADDRESS:
            raise AccessDenied(
                f"The certificate has the critical option {quoted(option[:64])}, which is not known"
                " here, so it is refused."
            )
        _check_source(value, source_ip)
    principals = [name.decode("utf-8", "replace") for name in certificate.valid_principals]
    if not principals or not all(is_login(name) for name in principals):
        raise AccessDenied("The certificate names no principals or ones that are not allowed; ask for a new one.")
    if not is_login(login) or login not in principals:
        raise AccessDenied(
            f"The certificate does not allow the login {quoted(login[:64])}; it allows {', '.join(principals[:20])}."
        )
    try:
        user = certificate.key_id.decode("ascii")
        check_user_name(user)
        roles, traits = _attributes(certificate.extensions)
    except (ValueError, BadParameter):
        raise AccessDenied("The certificate's user, roles or traits cannot be read; log in again.") from None
    from teleconch.resources.identity import SSHIdentity  # late: a client checks hosts only

    return SSHIdentity(
        user=user,
        logins=tuple(principals),
        roles=roles,
        traits=traits,
        cluster=authority.cluster,
        extensions=frozenset(
            name.decode("ascii", "replace") for name in certificate.extensions if name.startswith(b"permit-")
        ),
        valid_before=certificate.valid_before,
        serial=certificate.serial,
        certificate=blob,
    )


def check_host_certificate(blob: bytes, *, authorities: Iterable[TrustedAuthority], host: str, now: float) -> None:
    """TrustError, with a sentence, unless a server with this host certificate is ``host``."""
    if not is_certificate(blob):
        raise TrustError(
            f"{host} shows a plain host key, not a certificate of this cluster: it is not a member, or"
            " not the one you mean."
        )
    certificate, _ = _load(blob, authorities, "host")
    if certificate.type is not SSHCertificateType.HOST:
        raise TrustError(f"{host} shows a user's certificate instead of a host's.")
    _check_time(certificate, now)
    if certificate.critical_options:
        raise TrustError(f"The certificate of {host} has critical options that are not known here.")
    principals = [name.decode("utf-8", "replace") for name in certificate.valid_principals]
    if not principals or not all(is_host_principal(name) for name in principals):
        raise TrustError(f"The certificate of {host} names no hosts or ones that are not allowed.")
    if host.lower() not in principals:
        raise TrustError(
            f"The certificate is for {', '.join(principals[:8])}, not for {host}: use one of these names, or add"
            f" {host} to public_addr in that host's configuration and join it again."
        )


class CertificateSummary(NamedTuple):
    """What a certificate says, unchecked: for display only. Times are epoch seconds."""

    valid_after: float
    valid_before: float
    principals: tuple[str, ...]
    key_id: str
    extensions: tuple[str, ...]


def certificate_summary(blob: bytes) -> CertificateSummary:
    """Read a certificate for display. BadParameter if it is not one."""
    try:
        certificate = load_ssh_public_identity(blob_line(blob).encode())
    except (ValueError, UnsupportedAlgorithm):
        raise BadParameter("This is not a certificate that can be read.") from None
    if not isinstance(certificate, SSHCertificate):
        raise BadParameter("This is a plain key, not a certificate.")
    return CertificateSummary(
        certificate.valid_after,
        certificate.valid_before,
        tuple(name.decode("utf-8", "replace") for name in certificate.valid_principals),
        certificate.key_id.decode("utf-8", "replace"),
        tuple(name.decode("utf-8", "replace") for name in certificate.extensions),
    )


def signed_key(blob: bytes) -> bytes:
    """The plain public key blob inside a certificate (what the peer must sign with). BadParameter."""
    try:
        certificate = load_ssh_public_identity(blob_line(blob).encode())
    except (ValueError, UnsupportedAlgorithm):
        raise BadParameter("This is not a certificate that can be read.") from None
    key = certificate.public_key() if isinstance(certificate, SSHCertificate) else certificate
    line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return public_blob(line.decode())
