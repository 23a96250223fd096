"""SSH certificates: what is issued is what OpenSSH reads, and what is not ours is refused with a sentence."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from teleconch.ca.authority import new_authority, trusted
from teleconch.ca.keys import blob_line, new_ssh_key, public_blob
from teleconch.ca.ssh import (
    certificate_summary,
    check_host_certificate,
    check_user_certificate,
    issue_host_cert,
    issue_openssh_host_cert,
    issue_user_cert,
    signed_key,
)
from teleconch.errors import AccessDenied, BadParameter, TrustError
from teleconch.resources.authority import TrustedAuthority
from teleconch.resources.identity import SSHIdentity
from tests.ca import forge

NOW = 1_800_000_000.0
UUID = "52e3e46a-372f-494b-bdd9-a1d25b9d6dec"
USERS = new_authority("user", "main", NOW)
HOSTS = new_authority("host", "main", NOW)
OTHERS = new_authority("user", "other", NOW)
TRUST = (trusted(HOSTS), trusted(USERS))
_, PUBLIC = new_ssh_key()
JOE = Ed25519PrivateKey.generate()
NAMES = st.from_regex(r"[A-Za-z0-9._@][A-Za-z0-9._@-]{0,30}", fullmatch=True)

PEOPLE = st.from_regex(r"[A-Za-z0-9._@][A-Za-z0-9._@+-]{0,30}", fullmatch=True)
LOGINS = st.from_regex(r"([A-Z]{1,9}\\)?[A-Za-z0-9._@][A-Za-z0-9._@+-]{0,20}\$?", fullmatch=True)


def user_cert(**changes: Any) -> bytes:
    values: dict[str, Any] = {
        "user": "joe",
        "logins": ("joe", "root"),
        "roles": ("user",),
        "traits": {"logins": ("joe", "root")},
        "public_key": PUBLIC,
        "extensions": ("permit-pty",),
        "valid_after": NOW - 60,
        "valid_before": NOW + 3600,
        "serial": 7,
    }
    return public_blob(issue_user_cert(changes.pop("authority", USERS), **{**values, **changes}))


def host_cert(**changes: Any) -> bytes:
    values: dict[str, Any] = {
        "uuid": UUID,
        "nodename": "Web1",
        "roles": ("node",),
        "addresses": ("10.0.0.1", "::1", "web.example.com"),
        "public_key": PUBLIC,
        "valid_after": NOW - 60,
        "valid_before": NOW + 3600,
        "serial": 7,
    }
    return public_blob(issue_host_cert(HOSTS, **{**values, **changes}))


def check(
    blob: bytes,
    login: str = "joe",
    now: float = NOW,
    source: str | None = "127.0.0.1",
    trust: tuple[TrustedAuthority, ...] = TRUST,
) -> SSHIdentity:
    return check_user_certificate(blob, authorities=trust, login=login, now=now, source_ip=source)


def denied(blob: bytes, *words: str, **how: Any) -> None:
    with pytest.raises(AccessDenied) as info:
        check(blob, **how)
    for word in words:
        assert word in str(info.value)


@given(
    user=PEOPLE,
    logins=st.lists(LOGINS, min_size=1, max_size=5),
    traits=st.dictionaries(NAMES, st.lists(st.text(max_size=9).map(str), max_size=3).map(tuple), max_size=3),
)
def test_what_is_issued_is_read_back(user: str, logins: list[str], traits: dict[str, tuple[str, ...]]) -> None:
    """A user's name, logins and traits survive the way through a certificate unchanged."""
    identity = check(user_cert(user=user, logins=logins, traits=traits), login=logins[-1])
    assert (identity.user, identity.logins) == (user, tuple(dict.fromkeys(logins)))
    assert identity.traits == traits
    assert identity.cluster == "main"
    assert identity.extensions == {"permit-pty"}


@pytest.mark.program("ssh-keygen")
def test_ssh_keygen_reads_both(tmp_path: Path) -> None:
    """`ssh-keygen -L` shows an administrator what teleconch put into user and host certificates."""
    shown = []
    logins = ("joe", "CORP\\kim", "joe+ops@example.com", "web1$")
    for blob in (user_cert(), host_cert(), user_cert(user="joe+ops@example.com", logins=logins)):
        path = tmp_path / "k-cert.pub"
        path.write_text(blob_line(blob) + "\n")
        shown.append(subprocess.run(["ssh-keygen", "-Lf", path], capture_output=True, text=True, check=True).stdout)
    assert 'Key ID: "joe"' in shown[0]
    assert "user certificate" in shown[0]
    assert "permit-pty" in shown[0]
    assert "permit-port-forwarding" not in shown[0]
    assert 'Key ID: "joe+ops@example.com"' in shown[2]
    for login in logins:
        assert f"                {login}\n" in shown[2]
    assert "host certificate" in shown[1]
    for name in (UUID, f"{UUID}.main", "web1", "web1.main", "10.0.0.1", "::1", "web.example.com"):
        assert f"                {name}\n" in shown[1]


def test_times() -> None:
    """An expired certificate and one that is not yet valid are refused, each with its own sentence."""
    assert check(user_cert(), now=NOW + 3599).user == "joe"
    denied(user_cert(), "expired", "tsh login", now=NOW + 3600)
    assert check(user_cert(), now=NOW - 60).user == "joe"
    denied(user_cert(), "not valid before", "clocks", now=NOW - 61)


def test_another_clusters_authority() -> None:
    """A certificate of another cluster opens nothing here."""
    denied(user_cert(authority=OTHERS), "not signed by a user authority of this cluster")
    assert check(user_cert(authority=OTHERS), trust=(*TRUST, trusted(OTHERS))).cluster == "other"


def test_host_certificate_as_a_users() -> None:
    """A host's certificate is no way in, whichever authority signed it (CVE-2021-41393)."""
    denied(host_cert(), "not signed by a user authority")
    forged = forge.certificate(forge.ca_key(USERS), JOE, kind=2)
    denied(forged, "host's certificate")


def test_a_certificate_is_judged_each_time_it_is_shown() -> None:
    """That its signature was good is remembered; whose it is, for whom and until when is not, and no other's is."""
    blob = user_cert()
    assert check(blob) == check(blob)
    denied(blob, "expired", now=NOW + 3600)
    denied(blob, "does not allow the login", login="kim")
    denied(blob, "not signed by a user authority of this cluster", trust=(trusted(HOSTS), trusted(OTHERS)))
    for forged in (blob[:-1] + bytes((blob[-1] ^ 1,)), blob.replace(b"joe", b"eve")):
        for _ in range(2):
            denied(forged, "signature is wrong")
    assert check(blob).user == "joe"


def test_a_certificate_as_authority() -> None:
    """A signing key that is itself a certificate is no authority (CVE-2025-49825)."""
    ca = forge.ca_key(USERS)
    nested = forge.certificate(ca, ca)  # the authority's own key, certified by itself
    denied(forge.certificate(ca, JOE, signing_key=nested), "may not sign")
    attacker = Ed25519PrivateKey.generate()
    stolen = forge.certificate(ca, attacker)  # an honest user certificate for the attacker's key
    denied(forge.certificate(attacker, JOE, signing_key=stolen), "may not sign")


def test_signed_by_someone_else_in_the_authoritys_name() -> None:
    """Naming the authority is not enough: its signature must verify."""
    attacker = Ed25519PrivateKey.generate()
    denied(forge.certificate(attacker, JOE, signing_key=forge.plain_blob(forge.ca_key(USERS))), "signature is wrong")


@pytest.mark.parametrize(
    "name", [b"joe,root", b"joe root", b"*", b"joe\nroot", b"", b"jo\x00e", b"-joe", "j\u00f6e".encode(), b"\xff"]
)
def test_principals_that_no_one_may_have(name: bytes) -> None:
    """A principal is opaque and plain: separators and wildcards void the certificate (CVE-2026-35414)."""
    for principals in ((name,), (b"joe", name)):
        denied(forge.certificate(forge.ca_key(USERS), JOE, principals=principals), "principals")
    with pytest.raises(BadParameter):
        user_cert(logins=(name.decode("latin-1"),))


def test_no_principals_is_nobody() -> None:
    """A certificate without principals is not one for everybody."""
    denied(forge.certificate(forge.ca_key(USERS), JOE, principals=()), "no principals")
    with pytest.raises(BadParameter):
        user_cert(logins=())


def test_a_login_that_is_no_principal() -> None:
    """Only the listed logins, exactly: no prefix, no other case."""
    for login in ("bob", "jo", "joe2", "JOE", "joe,root", "", "joe "):
        denied(user_cert(), "does not allow the login", "joe, root", login=login)


def test_critical_options() -> None:
    """An unknown critical option is refused; source-address holds for IPv4, IPv6 and mapped addresses."""
    ca = forge.ca_key(USERS)
    denied(forge.certificate(ca, JOE, critical={b"force-command": b"true"}), "force-command")
    limited = forge.certificate(ca, JOE, critical={b"source-address": b"10.1.0.0/16,::1/128"})
    for source in ("10.1.2.3", "::1", "::ffff:10.1.2.3"):
        assert check(limited, source=source).user == "joe"
    for outside in ("10.2.0.1", "::2", None, "nonsense"):
        denied(limited, "source-address", source=outside)
    denied(forge.certificate(ca, JOE, critical={b"source-address": b"anywhere"}), "source-address")


@given(st.data())
def test_damaged_certificates(data: st.DataObject) -> None:
    """Whatever is cut off, flipped or appended, the answer is a refusal, never an error."""
    blob = bytearray(user_cert())
    how = data.draw(st.sampled_from(["cut", "flip", "append", "noise"]))
    if how == "cut":
        del blob[data.draw(st.integers(0, len(blob) - 1)) :]
    elif how == "flip":
        blob[data.draw(st.integers(0, len(blob) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif how == "append":
        blob += data.draw(st.binary(min_size=1, max_size=9))
    else:
        blob = bytearray(data.draw(st.binary(max_size=200)))
    denied(bytes(blob))


def test_plain_keys_and_monsters() -> None:
    """A key without a certificate, and one of a megabyte, are refused alike."""
    denied(public_blob(PUBLIC), "not a certificate")
    denied(b"\0\0\0\x20ssh-ed25519-cert-v01@openssh.com" + b"\0" * 10**6, "larger")


def test_host_certificate_names() -> None:
    """A client believes a host only under the names in its certificate, and is told which these are."""
    for host in ("web1", "WEB1.main", UUID, "::1", "web.example.com"):
        check_host_certificate(host_cert(), authorities=TRUST, host=host, now=NOW)
    with pytest.raises(TrustError, match="public_addr"):
        check_host_certificate(host_cert(), authorities=TRUST, host="web2", now=NOW)
    with pytest.raises(TrustError, match="expired"):
        check_host_certificate(host_cert(), authorities=TRUST, host="web1", now=NOW + 3600)
    with pytest.raises(TrustError, match="not signed by a host authority"):
        check_host_certificate(user_cert(logins=("web1",)), authorities=TRUST, host="web1", now=NOW)
    with pytest.raises(TrustError, match="plain host key"):
        check_host_certificate(public_blob(PUBLIC), authorities=TRUST, host="web1", now=NOW)
    as_user = forge.certificate(forge.ca_key(HOSTS), JOE, kind=1, principals=(b"web1",))
    with pytest.raises(TrustError, match="user's certificate"):
        check_host_certificate(as_user, authorities=TRUST, host="web1", now=NOW)


def test_wrong_requests_to_sign() -> None:
    """What may not be signed is not signed: names, keys, times, the wrong authority."""
    for change in (
        {"user": "a b"},
        {"extensions": ("permit-all",)},
        {"valid_before": NOW - 60},
        {"public_key": "ssh-ed25519 AAAA"},
        {"authority": HOSTS},
        {"public_key": blob_line(user_cert())},
    ):
        with pytest.raises(BadParameter):
            user_cert(**change)
    for change in ({"uuid": "x"}, {"nodename": "a,b"}, {"addresses": ("*",)}, {"addresses": ("fe80::1%eth0",)}):
        with pytest.raises(BadParameter):
            host_cert(**change)
    with pytest.raises(BadParameter):
        issue_openssh_host_cert(HOSTS, names=(), public_key=PUBLIC, valid_after=NOW, valid_before=NOW + 1, serial=1)


def test_summary_and_signed_key() -> None:
    """What `tsh status` shows of a certificate is what stands in it."""
    summary = certificate_summary(user_cert())
    assert (summary.key_id, summary.principals, summary.valid_before) == ("joe", ("joe", "root"), NOW + 3600)
    assert signed_key(user_cert()) == public_blob(PUBLIC)
    with pytest.raises(BadParameter):
        certificate_summary(public_blob(PUBLIC))
    with pytest.raises(BadParameter):
        signed_key(b"nonsense")


@given(
    key_id=st.binary(max_size=20),
    principals=st.lists(st.binary(max_size=12), max_size=3).map(lambda names: (b"joe", *names)),
    critical=st.dictionaries(st.binary(max_size=16), st.binary(max_size=12), max_size=2),
    extensions=st.dictionaries(
        st.binary(max_size=16) | st.sampled_from([b"teleport-roles", b"teleport-traits", b"permit-pty"]),
        st.binary(max_size=20) | st.sampled_from([b'{"roles": ["\\ud800"]}', b"[" * 4000, b"NaN", b"\xff\xfe{}"]),
        max_size=3,
    ),
)
def test_any_fields_are_read_or_refused(
    key_id: bytes, principals: tuple[bytes, ...], critical: dict[bytes, bytes], extensions: dict[bytes, bytes]
) -> None:
    """Whatever stands in a certificate's fields, bytes that are no text among them, no check breaks on it."""
    blob = forge.certificate(
        forge.ca_key(USERS), JOE, key_id=key_id, principals=principals, critical=critical, extensions=extensions
    )
    try:
        identity = check(blob)
    except AccessDenied as error:
        said = str(error)
    else:
        repr(identity).encode()
        return
    assert said.isprintable()
