"""The cluster's authorities, the auth server's own identities, and certificates made by an administrator."""

from __future__ import annotations

import subprocess
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from twisted.internet.defer import DeferredList, gatherResults
from twisted.internet.task import deferLater

import teleconch
from teleconch import defaults
from teleconch.auth.records import authority_key
from teleconch.auth.state import State, put
from teleconch.ca.authority import ca_pin, new_authority, trusted
from teleconch.ca.keys import new_ssh_key, new_tls_key, public_blob
from teleconch.ca.ssh import certificate_summary, check_host_certificate
from teleconch.ca.tls import identity_of, verify_auth_server
from teleconch.errors import BadParameter, NotFound, Unavailable
from teleconch.resources.authority import CertAuthority
from teleconch.resources.secret import Secret
from teleconch.resources.token import Token
from teleconch.resources.user import User
from tests.worlds.auth import CLUSTER, Cluster, new_uuid
from tests.worlds.reactor import reactor
from tests.worlds.waiting import spawn


def der(pem: str) -> bytes:
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)


async def refused(awaitable: Awaitable[object], kind: Any) -> str:
    with pytest.raises(kind) as caught:
        await awaitable
    return str(caught.value)


@pytest_twisted.ensureDeferred
async def test_status_is_what_hosts_pin(cluster: Cluster) -> None:
    """`tctl status` shows the pin of the certificate that hosts see, and which second factor is asked."""
    status = await cluster.server.status()
    assert (status.cluster, status.second_factor, status.version) == (CLUSTER, "otp", teleconch.__version__)
    assert status.time == cluster.clock.seconds()
    assert sorted(authority.type for authority in status.authorities) == ["host", "user"]
    (host,) = [authority for authority in status.authorities if authority.type == "host"]
    assert status.ca_pins == (ca_pin(host.tls_certs[0]),)
    assert await cluster.server.authorities() == status.authorities


@pytest_twisted.ensureDeferred
async def test_authorities_stay_over_restarts_and_servers(cluster: Cluster) -> None:
    """A restart, or a second auth server, does not lock every host and user out."""
    before = await cluster.server.authorities()
    others = [cluster.another() for _ in range(3)]
    await gatherResults([spawn(other.start()) for other in others])
    for other in others:
        assert await other.authorities() == before
        await other.stop()


@pytest_twisted.ensureDeferred
async def test_two_auth_servers_that_start_first_agree(cluster: Cluster) -> None:
    """Auth servers that start at the same moment on an empty state end with the same authorities."""
    for key in ("user", "host"):
        await cluster.backend.delete(f"/authorities/{key}")
    others = [cluster.another() for _ in range(4)]
    cluster.meanwhile(others[0].start)
    await gatherResults([spawn(other.start()) for other in others[1:]])
    told = [await other.authorities() for other in others]
    assert all(each == told[0] for each in told)
    for other in others:
        await other.stop()


@pytest_twisted.ensureDeferred
async def test_another_clusters_state_is_refused(cluster: Cluster) -> None:
    """A changed cluster_name is told at the start, rather than by certificates that nobody accepts."""
    told = await refused(cluster.another(cluster="renamed").start(), Unavailable)
    assert "'example.com'" in told
    assert "'renamed'" in told
    assert "cluster_name" in told
    await cluster.backend.delete("/authorities/user")
    assert "lacks the user authority" in await refused(cluster.another().start(), Unavailable)


@pytest_twisted.ensureDeferred
async def test_a_damaged_record_is_a_sentence(cluster: Cluster) -> None:
    """Damaged or newer stored values are told with their key, and shown as no traceback."""
    await cluster.signed_up()
    for value in (b"", b"nonsense", b"[]", b"{}", b'{"version": 1}', b'{"version": "x"}', b'{"version": 1, "user": 3}'):
        await cluster.backend.put("/users/alice", value)
        assert "/users/alice is damaged in the store" in await refused(cluster.server.get_user("alice"), Unavailable)
    await cluster.backend.put("/users/alice", b'{"version": 2}')
    assert "newer version" in await refused(cluster.server.get_user("alice"), Unavailable)


@pytest_twisted.ensureDeferred
async def test_fields_of_a_newer_version_are_tolerated(cluster: Cluster) -> None:
    """A record with a field that this version does not know is read all the same."""
    await cluster.server.upsert_user(User("alice", traits={"logins": ("root",)}), False)
    value = (await cluster.stored())["/users/alice"]
    await cluster.backend.put("/users/alice", value.replace(b'{"version": 1', b'{"version": 1, "color": {"a": []}'))
    assert (await cluster.server.get_user("alice")).logins == ("root",)


@pytest_twisted.ensureDeferred
async def test_a_server_that_did_not_start_says_so(cluster: Cluster) -> None:
    """Early callers are told to try again."""
    assert "try again" in await refused(cluster.another().status(), Unavailable)


def test_settings_that_make_no_sense_are_refused(cluster: Cluster) -> None:
    """A second factor that nobody knows is never taken for none."""
    for changes in ({"second_factor": "none"}, {"second_factor": ""}, {"cluster": "a b"}):
        with pytest.raises(BadParameter):
            cluster.another(**changes)
    with pytest.raises(BadParameter):
        cluster.another(static_tokens=[Token(Secret("x"), ("admin",), None)])


@pytest_twisted.ensureDeferred
async def test_authorities_are_followed(cluster: Cluster) -> None:
    """An authority that another auth server changed is used without a restart; one that goes, or is not this cluster's,
    changes nothing."""
    other = cluster.another()
    await other.start()
    host = await State(cluster.backend).find(authority_key("host"), CertAuthority)
    new = new_authority("user", CLUSTER, cluster.clock.seconds())
    await cluster.backend.commit(put(authority_key("user"), new))

    async def followed() -> bool:
        for _ in range(100):
            if await other.authorities() == (trusted(new), trusted(host.record)):
                return True
            await deferLater(reactor, 0.005)
        return False

    assert await followed()
    await cluster.backend.commit(put(authority_key("user"), new_authority("user", "other.example.com", 0)))
    await cluster.backend.delete(authority_key("host"))
    await deferLater(reactor, 0.02)
    assert await followed()
    new = new_authority("user", CLUSTER, cluster.clock.seconds())
    await cluster.backend.commit(put(authority_key("user"), new), put(authority_key("host"), host.record))
    assert await followed()
    await other.stop()


@pytest_twisted.ensureDeferred
async def test_the_auth_servers_own_identity_is_trusted_by_hosts(cluster: Cluster) -> None:
    """The API's listener shows a certificate that joining hosts accept with the pin; its key fits."""
    status = await cluster.server.status()
    uuid = new_uuid()
    own = cluster.server.own_identity(uuid, ["auth.example.com", "192.0.2.1"])
    (host,) = [authority for authority in own.authorities if authority.type == "host"]
    chain = [der(own.certificate), der(host.tls_certs[0])]
    name, _ = verify_auth_server(chain, status.ca_pins, cluster.clock.seconds())
    assert name == CLUSTER
    certificate = x509.load_pem_x509_certificate(own.certificate.encode())
    key = load_pem_private_key(own.private_key.reveal().encode(), None)
    assert key.public_key() == certificate.public_key()
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {defaults.API_SERVER_NAME, "auth.example.com", uuid} <= set(names.get_values_for_type(x509.DNSName))
    assert certificate.not_valid_after_utc.timestamp() == own.valid_before == cluster.clock.seconds() + 30 * 86400
    assert "PRIVATE" not in repr(own)


@pytest_twisted.ensureDeferred
async def test_the_admin_identity_is_no_server(cluster: Cluster) -> None:
    """`tctl` on the auth host is an administrator, and cannot pose as the auth server."""
    admin = cluster.server.admin_identity(new_uuid())
    identity = identity_of(der(admin.certificate), admin.authorities, cluster.clock.seconds())
    assert (identity.kind, identity.roles) == ("host", ("admin",))
    assert defaults.API_SERVER_NAME not in admin.certificate
    names = x509.load_pem_x509_certificate(admin.certificate.encode()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert defaults.API_SERVER_NAME not in names.value.get_values_for_type(x509.DNSName)
    for uuid in ("", "x"):
        with pytest.raises(BadParameter):
            cluster.server.admin_identity(uuid)


@pytest_twisted.ensureDeferred
async def test_serials_come_from_the_given_randomness(cluster: Cluster) -> None:
    """Serial numbers are 63 random bits, and never the zero that X.509 forbids."""
    for filler, serial in ((b"\0", 1), (b"\xff", 2**63 - 1)):
        server = cluster.another(randomness=lambda size, filler=filler: filler * size)
        await server.start()
        own = server.own_identity(new_uuid())
        assert x509.load_pem_x509_certificate(own.certificate.encode()).serial_number == serial
        await server.stop()


@pytest_twisted.ensureDeferred
async def test_an_openssh_server_gets_a_certificate(cluster: Cluster) -> None:
    """`tctl auth sign --host` makes a certificate for sshd with just the names given; its TLS half has no role."""
    names = ("DB.example.com", "192.0.2.9", "2001:db8::9", "db.example.com")
    signed = await cluster.server.sign_host(names, new_ssh_key()[1], new_tls_key()[1], 3600)
    summary = certificate_summary(public_blob(signed.ssh_cert))
    assert set(summary.principals) == {"db.example.com", "192.0.2.9", "2001:db8::9"}
    now = cluster.clock.seconds()
    assert summary.valid_before == now + 3600
    check_host_certificate(public_blob(signed.ssh_cert), authorities=signed.authorities, host="192.0.2.9", now=now)
    identity = identity_of(der(signed.tls_cert), signed.authorities, now)
    assert (identity.kind, identity.roles) == ("host", ())
    for bad in (
        (),
        ("*.example.com",),
        ("a,b",),
        ("",),
        (defaults.API_SERVER_NAME,),
        tuple(f"a{n}" for n in range(33)),
    ):
        await refused(cluster.server.sign_host(bad, new_ssh_key()[1], new_tls_key()[1], 3600), BadParameter)


@pytest.mark.program("ssh-keygen")
@pytest_twisted.ensureDeferred
async def test_ssh_keygen_reads_the_certificates(cluster: Cluster, tmp_path: Path) -> None:
    """`ssh-keygen -L` shows users and administrators what they hold."""
    await cluster.server.upsert_user(User("alice", traits={"logins": ("root", "deploy")}), False)
    user = await cluster.server.sign_user("alice", new_ssh_key()[1], new_tls_key()[1], 3600)
    request = cluster.request(addresses=("2001:db8::7",))
    host = await cluster.server.join(request)
    for line, words in (
        (user.ssh_cert, ["user certificate", 'Key ID: "alice"', "root", "deploy", "permit-pty"]),
        (host.ssh_cert, ["host certificate", request.uuid, f"web1.{CLUSTER}", "2001:db8::7", "x-teleport-role"]),
    ):
        (tmp_path / "key-cert.pub").write_text(line + "\n")
        shown = subprocess.run(
            ["ssh-keygen", "-L", "-f", str(tmp_path / "key-cert.pub")], capture_output=True, text=True, check=True
        ).stdout
        for word in words:
            assert word in shown


@pytest.mark.program("oathtool")
@pytest_twisted.ensureDeferred
async def test_oathtool_makes_codes_that_log_in(cluster: Cluster) -> None:
    """Any authenticator that follows RFC 6238 works with the secret that the sign-up shows."""
    token = await cluster.server.create_user(User("alice", traits={"logins": ("root",)}), 60)
    secret = (await cluster.server.start_signup(token.value)).otp_secret

    def otp(seconds: int) -> str:
        when = f"@{int(cluster.clock.seconds() + seconds)}"
        command = ["oathtool", "--totp", "-b", secret.reveal(), "--now", when]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    await cluster.server.finish_signup(token.value, Secret("correct horse"), otp(0))
    await cluster.server.login(cluster.login_request(otp=otp(30)))


@pytest_twisted.ensureDeferred
async def test_expired_items_are_swept_by_the_clock(cluster: Cluster) -> None:
    """Old tokens and lock-outs do not pile up in the state."""
    await cluster.server.create_token(("node",), 60, None)
    await cluster.server.create_user(User("alice"), 60)
    count = len(await cluster.stored())
    watch = await cluster.backend.watch("/")
    cluster.clock.advance(2 * 86400)
    gone: list[Any] = []
    while len(gone) < 2:
        gone += [event.key for event in await watch.events() if event.item is None]
    watch.stop()
    assert sorted(key.split("/")[1] for key in gone) == ["signups", "tokens"]
    assert len(await cluster.stored()) == count - 2


@pytest_twisted.ensureDeferred
async def test_a_state_that_cannot_be_written_is_a_sentence(cluster: Cluster) -> None:
    """When the disk is full, logins, joins and pings are refused with the reason, and nothing was half done."""
    secret = await cluster.signed_up()
    uuid = await cluster.joined()
    real = cluster.backend.commit

    async def full(*changes: Any) -> int:
        raise Unavailable("The disk is full.")

    cluster.backend.commit = full
    from tests.worlds.auth import code

    otp = code(secret, cluster.clock.seconds())
    attempts = [
        cluster.server.login(cluster.login_request(otp=otp)),
        cluster.server.join(cluster.request()),
        cluster.ping(uuid),
        cluster.server.create_user(User("bob"), 60),
        cluster.server.create_token(("node",), 60, None),
    ]
    results: list[Any] = await DeferredList([spawn(attempt) for attempt in attempts], consumeErrors=True)
    assert all(result.check(Unavailable) for _, result in results)
    cluster.clock.advance(10)
    cluster.backend.commit = real
    await cluster.server.login(cluster.login_request(otp=otp))
    await refused(cluster.server.get_user("bob"), NotFound)
