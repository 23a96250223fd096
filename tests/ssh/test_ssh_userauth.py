"""Who gets in, and who does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.conch.error import NotEnoughAuthentication
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from zope.interface import implementer

from teleconch.audit.emitter import Memory as Events
from teleconch.audit.events import SessionRejected
from teleconch.ca import authority, keys
from teleconch.ca.keys import public_blob
from teleconch.codec import boolean, string, uint32
from teleconch.errors import AccessDenied
from teleconch.ssh import messages as m
from teleconch.ssh import signatures, states
from teleconch.ssh.auth_client import Signer, UserAuthClient
from teleconch.ssh.checker import CertificateChecker, CertificateCredentials, IInteractiveCredentials
from teleconch.ssh.reader import Reader
from teleconch.ssh.server_limits import Limits
from teleconch.ssh.transport import server_extensions
from tests.worlds.ssh import (
    HOST_CERT,
    HOST_LINE,
    HOST_PEM,
    NOW,
    USER_CERT,
    USER_LINE,
    USER_PEM,
    Pair,
    make_client,
    options,
    user_cert,
)

OTHER_CA = authority.new_authority("user", "other", NOW)
OTHER_PEM, OTHER_LINE = keys.new_ssh_key()


def enter(pem: Any = USER_PEM, cert: str | None = USER_CERT, user: str = "root", **given: Any) -> Pair:
    pair = Pair(lambda clock: make_client(clock, user=user, signers=[Signer.from_key(pem.reveal(), cert)]), **given)
    pair.pump()
    return pair


def log_lines(log: Sequence[dict[str, Any]]) -> list[str]:
    return [event["log_format"].format(**event) for event in log if event.get("event") == "auth"]


def test_a_certificate_gets_in() -> None:
    """Who holds a valid certificate of the cluster is logged in, with the identity that the certificate gives."""
    pair = enter()
    assert pair.server.state == states.OPEN
    assert pair.avatar.identity.user == "alice"
    assert pair.avatar.conn is pair.server.service
    pair.end()
    assert pair.avatar.logged_out == 1


@pytest.mark.parametrize(
    ("cert", "why"),
    [
        (user_cert(valid_before=NOW - 1), "expired"),
        (user_cert(valid_after=NOW + 600, valid_before=NOW + 900), "not yet valid"),
        (user_cert(authority=OTHER_CA), "another cluster's authority"),
        (user_cert(logins=("bob",)), "a login that is no principal"),
        (None, "a plain key"),
        (HOST_CERT, "a host's certificate"),
    ],
)
def test_others_do_not(cert: str | None, why: str) -> None:
    """Nobody gets in with a certificate that is expired, early, foreign, another's, a host's, or with none."""
    pem = HOST_PEM if cert == HOST_CERT else USER_PEM
    with capturedLogs() as log:
        pair = enter(pem, cert)
    assert isinstance(pair.client.refused, AccessDenied)
    assert not pair.factory.realm.avatars
    assert pair.server.ended
    (line,) = log_lines(log)
    assert line.startswith("access denied: ")
    event = next(event for event in log if event.get("event") == "auth")
    assert (event["login"], event["service"]) == ("root", "test")
    assert event["addr_remote"] == "127.0.0.1:40000"


def test_a_certificate_with_another_key_does_not_get_in() -> None:
    """Someone's certificate is of no use without its private key."""
    pair = enter(OTHER_PEM, USER_CERT)
    assert isinstance(pair.client.refused, AccessDenied)
    assert not pair.factory.realm.avatars
    pair.end()


class Talking(UserAuthClient):
    """Sends what it is told, and keeps the answers."""

    def serviceStarted(self) -> None:
        self.heard: list[tuple[int, bytes]] = []

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        self.heard.append((messageNum, packet))
        if messageNum == m.USERAUTH_SUCCESS:
            super().packetReceived(messageNum, packet)


def talk(**given: Any) -> tuple[Pair, Talking]:
    pair = Pair(**given)
    talking = Talking("root", [], pair.client._logged_in, pair.client._refused, "")
    pair.client._got_service_accept = lambda body: (
        setattr(pair.client, "state", states.AUTH),
        pair.client.setService(talking),
    )
    pair.pump()
    return pair, talking


def request(pair: Pair, algorithm: bytes, blob: bytes, pem: Any = None, user: bytes = b"root", **changes: Any) -> None:
    """An offer, or with ``pem`` a signature by that key."""
    head = string(user) + string(b"ssh-connection") + string(changes.get("method", b"publickey"))
    body = string(algorithm) + string(blob) + changes.get("bound", b"")
    session = changes.get("session", pair.client.sessionID)
    data = string(session) + bytes((m.USERAUTH_REQUEST,)) + head + boolean(True) + body
    signature = b""
    if pem is not None:
        key = signatures.load_private_key(pem.reveal())
        signature = string(signatures.sign(key, changes.get("data", data), changes.get("signed_as", algorithm)))
    pair.client.sendPacket(m.USERAUTH_REQUEST, head + boolean(pem) + body + signature)
    pair.pump()


CERT_TYPE = b"ssh-ed25519-cert-v01@openssh.com"
CERT_BLOB = public_blob(USER_CERT)


def test_an_offer_is_no_login() -> None:
    """A certificate that was only shown is answered with 'go on', and nobody is logged in."""
    pair, talking = talk()
    request(pair, CERT_TYPE, CERT_BLOB)
    assert talking.heard == [(m.USERAUTH_PK_OK, string(CERT_TYPE) + string(CERT_BLOB))]
    assert not pair.factory.realm.avatars
    request(pair, CERT_TYPE, CERT_BLOB, USER_PEM)
    assert pair.server.state == states.OPEN
    pair.end()


def test_offered_with_one_key_signed_with_another() -> None:
    """Offering alice's certificate and then signing with another key gives nothing, whatever was offered before
    (CVE-2024-45337)."""
    pair, talking = talk()
    request(pair, CERT_TYPE, CERT_BLOB)
    request(pair, b"ssh-ed25519", public_blob(OTHER_LINE), OTHER_PEM)
    assert talking.heard[-1][0] == m.USERAUTH_FAILURE
    request(pair, CERT_TYPE, CERT_BLOB, OTHER_PEM)
    assert talking.heard[-1][0] == m.USERAUTH_FAILURE
    mallory = user_cert(user="mallory", public_key=OTHER_LINE, logins=("root",))
    request(pair, CERT_TYPE, public_blob(mallory), OTHER_PEM)
    assert pair.avatar.identity.user == "mallory"
    pair.end()


HOSTBOUND = b"publickey-hostbound-v00@openssh.com"


def test_a_signature_bound_to_the_host_key() -> None:
    """Agents that hold keys for some hosts alone sign for the host's key, too: that of this connection, no other."""
    host = string(public_blob(HOST_CERT))
    pair, talking = talk()
    assert string(b"publickey-hostbound@openssh.com") + string(b"0") in server_extensions()
    request(pair, CERT_TYPE, CERT_BLOB, method=HOSTBOUND, bound=host)
    assert talking.heard == [(m.USERAUTH_PK_OK, string(CERT_TYPE) + string(CERT_BLOB))]
    request(pair, CERT_TYPE, CERT_BLOB, OTHER_PEM, method=HOSTBOUND, bound=host)
    assert talking.heard[-1] == (m.USERAUTH_FAILURE, string(b"publickey") + boolean(False))
    request(pair, CERT_TYPE, CERT_BLOB, USER_PEM, method=HOSTBOUND, bound=host)
    assert pair.server.state == states.OPEN
    pair.end()
    for bound in (string(public_blob(HOST_LINE)), string(public_blob(OTHER_LINE)), string(b""), b""):
        pair, talking = talk()
        request(pair, CERT_TYPE, CERT_BLOB, USER_PEM, method=HOSTBOUND, bound=bound)
        assert pair.server.ended
        assert not pair.factory.realm.avatars
        pair.end()


@pytest.mark.parametrize("method", [b"publickey", HOSTBOUND])
def test_a_style_is_cut_off(method: bytes) -> None:
    """`ssh root:style@node` is root, as on sshd; the signature is over what was sent."""
    bound = string(public_blob(HOST_CERT)) if method == HOSTBOUND else b""
    pair, talking = talk()
    request(pair, CERT_TYPE, CERT_BLOB, USER_PEM, user=b"bob:root", method=method, bound=bound)
    assert talking.heard[-1][0] == m.USERAUTH_FAILURE
    pair.end()
    for user in (b"root:style", b"root:", b"root:a:b"):
        pair, talking = talk()
        request(pair, CERT_TYPE, CERT_BLOB, USER_PEM, user=user, method=method, bound=bound)
        assert pair.server.state == states.OPEN, user
        pair.end()


def test_a_foreign_certificate_costs_no_signature_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's certificate of 16,384 bits is refused by its authority, before anything is computed with its key."""
    pair, talking = talk()
    checked: list[bytes] = []
    monkeypatch.setattr(signatures, "verify", lambda *given: bool(checked.append(given[0])))
    request(pair, CERT_TYPE, public_blob(user_cert(authority=OTHER_CA)), USER_PEM)
    assert talking.heard[-1][0] == m.USERAUTH_FAILURE
    assert not checked
    request(pair, CERT_TYPE, CERT_BLOB, USER_PEM)
    assert talking.heard[-1][0] == m.USERAUTH_FAILURE, "nobody gets in without"
    assert checked == [CERT_BLOB]
    pair.end()


def test_a_signature_is_for_this_connection_only() -> None:
    """A signature that was made for another connection, login or algorithm does not count."""
    pair, talking = talk()
    request(pair, CERT_TYPE, CERT_BLOB, USER_PEM, session=b"another session")
    assert talking.heard[-1][0] == m.USERAUTH_FAILURE
    request(pair, CERT_TYPE, CERT_BLOB, USER_PEM, data=b"something else")
    assert talking.heard[-1][0] == m.USERAUTH_FAILURE
    request(pair, b"ssh-ed25519", CERT_BLOB, USER_PEM)
    assert talking.heard[-1][0] == m.USERAUTH_FAILURE
    assert not pair.factory.realm.avatars
    pair.end()


def test_the_login_stays_the_same() -> None:
    """A client cannot prove one login and get another."""
    pair, _talking = talk()
    request(pair, CERT_TYPE, CERT_BLOB)
    request(pair, CERT_TYPE, CERT_BLOB, USER_PEM, user=b"admin")
    assert pair.server.ended
    assert not pair.factory.realm.avatars


def test_six_tries() -> None:
    """The sixth wrong signature ends the connection."""
    pair, _talking = talk()
    for number in range(6):
        assert not pair.server.ended, number
        request(pair, CERT_TYPE, CERT_BLOB, OTHER_PEM)
    assert pair.server.ended
    assert not pair.factory.realm.avatars


def test_a_full_agent_is_no_attack() -> None:
    """Someone with 20 keys in the agent still gets in with the certificate that comes last, without a warning for each
    key."""
    pair, _talking = talk()
    with capturedLogs() as log:
        for number in range(20):
            request(pair, b"ssh-ed25519", string(b"ssh-ed25519") + string(bytes((number,)) * 32))
        request(pair, CERT_TYPE, CERT_BLOB, USER_PEM)
    assert pair.server.state == states.OPEN
    assert not log_lines(log)
    pair.end()


def test_endless_offers_end() -> None:
    """Nobody can offer keys without end."""
    pair, _talking = talk()
    for number in range(40):
        if not pair.server.ended:
            request(pair, b"ssh-ed25519", string(b"ssh-ed25519") + string(bytes((number,)) * 32))
    assert pair.server.ended


def test_login_grace() -> None:
    """Who connects and does not log in is cut off after 30 seconds; who did stays."""
    pair, _ = talk()
    pair.clock.advance(29)
    assert not pair.server.ended
    pair.clock.advance(2)
    assert pair.server.ended
    pair.end()
    pair = enter()
    pair.clock.advance(300)
    assert not pair.server.ended
    pair.end()


@pytest.mark.parametrize(
    ("service", "method"), [(b"ssh-connection", b"password"), (b"ssh-connection", b"hostbased"), (b"other", b"none")]
)
def test_other_methods(service: bytes, method: bytes) -> None:
    """Passwords and host-based logins do not exist here."""
    pair, talking = talk()
    pair.client.sendPacket(m.USERAUTH_REQUEST, string(b"root") + string(service) + string(method) + string(b"x"))
    pair.pump()
    assert not pair.factory.realm.avatars
    if service == b"ssh-connection":
        ((number, packet),) = talking.heard
        assert (number, Reader(packet).name_list()) == (m.USERAUTH_FAILURE, (b"publickey",))
    else:
        assert pair.server.ended
    pair.end()


def test_garbage_in_requests() -> None:
    """Requests that cannot be read end the connection without a traceback."""
    for body in (b"", string(b"root"), string(b"root") + string(b"ssh-connection") + string(b"publickey") + b"\1"):
        pair, _talking = talk()
        with capturedLogs() as log:
            pair.client.sendPacket(m.USERAUTH_REQUEST, body)
            pair.pump()
        assert pair.server.ended
        assert not [event for event in log if "log_failure" in event]
        pair.end()


@pytest.mark.parametrize(
    "login", [b"", b"\xff", b"root\0", b"root\n", b"\xed\xa0\x80", b"-oProxyCommand=x", b"root,bob", b"a" * 30_000]
)
def test_logins_that_are_nobodys(login: bytes) -> None:
    """A login that is no text, or could be nobody's, is refused without a traceback, and its log line is one line."""
    pair, _talking = talk()
    with capturedLogs() as log:
        request(pair, CERT_TYPE, CERT_BLOB, USER_PEM, user=login)
    assert pair.server.state != states.OPEN
    assert not pair.factory.realm.avatars
    assert not [event for event in log if "log_failure" in event]
    assert all("\n" not in (formatEvent(event) or "") for event in log)
    pair.end()


@implementer(ICredentialsChecker)
class SecondFactor:
    """Certificates are half of it; the answer must be 42."""

    credentialInterfaces = (*CertificateChecker.credentialInterfaces, IInteractiveCredentials)

    def __init__(self) -> None:
        self.first = CertificateChecker(lambda: [authority.trusted(OTHER_CA)], lambda: NOW)

    async def ask(self, credentials: Any) -> Any:
        if not credentials.earlier:
            raise UnauthorizedLogin("key first")
        if await credentials.ask("Second factor", [("Answer: ", False)]) != ("42",):
            raise UnauthorizedLogin("wrong")
        return self.first.requestAvatarId(credentials.earlier[0])

    def requestAvatarId(self, credentials: Any) -> Any:
        if isinstance(credentials, CertificateCredentials):
            self.first.requestAvatarId(credentials)
            raise NotEnoughAuthentication
        return Deferred.fromCoroutine(self.ask(credentials))


def test_second_factor() -> None:
    """A key and an answer together let in; either alone does not."""
    cert = user_cert(authority=OTHER_CA)
    pair, talking = talk(checkers=[SecondFactor()])

    def interactive() -> None:
        head = string(b"root") + string(b"ssh-connection") + string(b"keyboard-interactive")
        pair.client.sendPacket(m.USERAUTH_REQUEST, head + string(b"") + string(b""))
        pair.pump()

    def answer(text: bytes) -> None:
        pair.client.legal = dict(pair.client.legal) | {states.AUTH: frozenset(range(256))}
        pair.client.sendPacket(m.USERAUTH_INFO_RESPONSE, uint32(1) + string(text))
        pair.pump()

    interactive()
    assert talking.heard[-1][0] == m.USERAUTH_FAILURE
    request(pair, CERT_TYPE, public_blob(cert), USER_PEM)
    reader = Reader(talking.heard[-1][1])
    assert (reader.name_list(), reader.boolean()) == ((b"publickey", b"keyboard-interactive"), True)
    interactive()
    assert talking.heard[-1][0] == m.USERAUTH_INFO_REQUEST
    answer(b"41")
    assert talking.heard[-1][0] == m.USERAUTH_FAILURE
    assert not pair.factory.realm.avatars
    interactive()
    answer(b"42")
    assert pair.server.state == states.OPEN
    pair.end()


@implementer(ICredentialsChecker)
class Careless:
    """Takes an offer for a login."""

    credentialInterfaces = CertificateChecker.credentialInterfaces

    def requestAvatarId(self, credentials: Any) -> Any:
        return "identity", credentials.login, credentials.peer


def test_a_careless_checker() -> None:
    """Even where a checker forgets to ask for the signature, nobody is logged in without one."""
    pair, talking = talk(checkers=[Careless()])
    request(pair, CERT_TYPE, CERT_BLOB)
    assert pair.server.ended
    assert not [number for number, _ in talking.heard if number == m.USERAUTH_SUCCESS]
    assert pair.avatar.logged_out == 1
    assert pair.avatar.conn is None


def test_connections_per_user() -> None:
    """One user cannot take all the connections."""
    pair = Pair(options=options(limits=Limits(max_connections_per_user=1)))
    told = pair.factory.emitter = Events()
    pair.pump()
    assert pair.server.state == states.OPEN
    second = make_client(pair.clock)
    server = pair.factory.buildProtocol(None)
    again = Pair()
    again.end()
    again.server, again.client, again._lost = server, second, [False, False]
    from tests.worlds.ssh import Memory

    again.ends = (Memory(), Memory())
    server.makeConnection(again.ends[0])
    second.makeConnection(again.ends[1])
    again.pump()
    assert server.ended
    assert "too many connections" in str(second.refused)  # type: ignore[attr-defined]
    (event,) = told.events
    assert isinstance(event, SessionRejected)
    assert (event.peer.user, event.service, event.reason, event.success) == ("alice", "test", "connections", False)
    assert pair.avatar.logged_out == 1
    pair.end()


def test_the_users_key_line_is_what_the_certificate_holds() -> None:
    """The blob that is signed with is the key in the certificate."""
    reader = Reader(CERT_BLOB)
    reader.string()
    reader.string()
    assert string(b"ssh-ed25519") + string(reader.string()) == public_blob(USER_LINE)
