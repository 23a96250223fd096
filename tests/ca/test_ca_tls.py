"""TLS certificates: an identity is what the signing authority says, never what the peer claims."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from teleconch.ca.authority import ca_pin, new_authority, trusted
from teleconch.ca.keys import new_tls_key
from teleconch.ca.tls import identity_of, issue_host_tls, issue_user_tls, verify_auth_server
from teleconch.defaults import API_SERVER_NAME
from teleconch.errors import BadParameter, ClockSkew, TrustError
from teleconch.resources.authority import CertAuthority

NOW = 1_800_000_000.0
UUID = "52e3e46a-372f-494b-bdd9-a1d25b9d6dec"
USERS = new_authority("user", "main", NOW)
HOSTS = new_authority("host", "main", NOW)
TRUST = (trusted(USERS), trusted(HOSTS))
_, PUBLIC = new_tls_key()
LIFE: dict[str, Any] = {"public_key": PUBLIC, "valid_after": NOW - 60, "valid_before": NOW + 3600, "serial": 7}


def der(pem: str) -> bytes:
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)


def host(
    roles: tuple[str, ...] = ("node",), names: tuple[str, ...] = ("web1", "10.0.0.1"), authority: CertAuthority = HOSTS
) -> bytes:
    return der(issue_host_tls(authority, uuid=UUID, roles=roles, dns_names=names, **LIFE))


def test_identities() -> None:
    """The kind of a peer follows from which authority signed its certificate."""
    node = identity_of(host(), TRUST, NOW)
    assert (node.kind, node.name, node.roles, node.cluster, node.expires) == (
        "host",
        UUID,
        ("node",),
        "main",
        NOW + 3600,
    )
    user = identity_of(der(issue_user_tls(USERS, user="joe", roles=("user",), **LIFE)), TRUST, NOW)
    assert (user.kind, user.name, user.roles) == ("user", "joe", ("user",))


def test_a_user_with_a_plus() -> None:
    """An address with a tag is a user's name in a TLS certificate as well."""
    certificate = issue_user_tls(USERS, user="joe+ops@example.com", roles=("user",), **LIFE)
    assert identity_of(der(certificate), TRUST, NOW).name == "joe+ops@example.com"


def test_a_user_named_like_a_host_role_stays_a_user() -> None:
    """A user whose role is called admin is not the cluster's administrator: the kind differs."""
    assert identity_of(der(issue_user_tls(USERS, user="joe", roles=("admin",), **LIFE)), TRUST, NOW).kind == "user"


@pytest.mark.parametrize(("roles", "serves"), [(("node",), False), ((), False), (("proxy",), True), (("auth",), True)])
def test_only_auth_and_proxies_serve_tls(roles: tuple[str], serves: bool) -> None:
    """A node that names a proxy's address as its own cannot pass for that proxy and collect passwords."""
    certificate = x509.load_der_x509_certificate(host(roles, ("proxy.example.com",)))
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert (ExtendedKeyUsageOID.SERVER_AUTH in usages) is serves
    assert ExtendedKeyUsageOID.CLIENT_AUTH in usages


def test_authorities_that_are_not_ours() -> None:
    """Another cluster of the same name, of another name, and the other kind's authority are all refused."""
    for authority in (new_authority("host", "main", NOW), new_authority("host", "other", NOW)):
        with pytest.raises(TrustError, match="not signed by an authority"):
            identity_of(host(authority=authority), TRUST, NOW)
    with pytest.raises(BadParameter):
        issue_user_tls(HOSTS, user="joe", roles=(), **LIFE)
    with pytest.raises(BadParameter):
        host(authority=USERS)


def test_the_cluster_is_bound_to_the_authority() -> None:
    """A leaf cluster cannot sign for the root cluster."""
    leaf = new_authority("host", "leaf", NOW)
    assert identity_of(host(authority=leaf), (*TRUST, trusted(leaf)), NOW).cluster == "leaf"


def test_an_authority_is_no_client_and_time_counts() -> None:
    """An authority's own certificate, an expired one and an early one are no identities."""
    with pytest.raises(TrustError, match="not one for a client"):
        identity_of(der(HOSTS.tls_cert), TRUST, NOW)
    with pytest.raises(TrustError, match="expired"):
        identity_of(host(), TRUST, NOW + 3600)
    with pytest.raises(TrustError, match="clocks"):
        identity_of(host(), TRUST, NOW - 61)
    with pytest.raises(TrustError, match="cannot be read"):
        identity_of(b"noise", TRUST, NOW)


def test_a_member_is_no_authority() -> None:
    """A node cannot sign an administrator's certificate with its own key."""
    private, public = new_tls_key()
    pem = issue_host_tls(HOSTS, uuid=UUID, roles=("node",), dns_names=(), **{**LIFE, "public_key": public})
    import attrs

    rogue = attrs.evolve(HOSTS, tls_cert=pem, tls_private_key=private)
    with pytest.raises(TrustError):
        identity_of(host(roles=("admin",), authority=rogue), TRUST, NOW)


def test_first_contact() -> None:
    """A joining host believes the auth server only under the pin, and is told what is wrong otherwise."""
    good = host(("auth",), (API_SERVER_NAME, "10.0.0.1"))
    chain = [good, der(HOSTS.tls_cert)]
    pin = ca_pin(HOSTS.tls_cert)
    assert verify_auth_server(chain, (pin,), NOW) == ("main", HOSTS.tls_cert)
    assert verify_auth_server(chain, (), NOW)[0] == "main"
    assert verify_auth_server(chain, ("sha256:00", pin.upper().replace("SHA", "sha")), NOW)[0] == "main"
    with pytest.raises(TrustError, match=pin):
        verify_auth_server(chain, ("sha256:" + "0" * 64,), NOW)
    with pytest.raises(TrustError, match="does not show"):
        verify_auth_server([good], (pin,), NOW)
    with pytest.raises(TrustError, match="not its auth server"):
        verify_auth_server([host(("node",), (API_SERVER_NAME,)), chain[1]], (pin,), NOW)
    with pytest.raises(TrustError, match="not its auth server"):
        verify_auth_server([host(("auth",)), chain[1]], (pin,), NOW)
    with pytest.raises(TrustError, match="does not show"):
        verify_auth_server([good, der(new_authority("host", "main", NOW).tls_cert)], (pin,), NOW)
    user = der(issue_user_tls(USERS, user="joe", roles=("auth",), **LIFE))
    with pytest.raises(TrustError, match="not a cluster's host authority"):
        verify_auth_server([user, der(USERS.tls_cert)], (), NOW)
    for now in (NOW - 7200, NOW + 7200):
        with pytest.raises(ClockSkew, match="set the clock"):
            verify_auth_server(chain, (pin,), now)
    with pytest.raises(TrustError):
        verify_auth_server([b"x"], (), NOW)
    with pytest.raises(TrustError):
        verify_auth_server([], (), NOW)
