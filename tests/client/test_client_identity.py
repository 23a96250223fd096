"""Identity files: what `tctl auth sign` writes, `tsh -i` and OpenSSH read."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teleconch.ca.authority import trusted
from teleconch.client.identity import (
    format_identity,
    parse_identity,
    read_identity,
    write_identity,
    write_openssh,
)
from teleconch.client.known_hosts import authority_lines, parse_authorities
from teleconch.errors import BadParameter
from tests.worlds.identities import HOST_CA, make_identity


def test_identity_file_comes_back_as_it_was(tmp_path: Path) -> None:
    """`tsh -i FILE` logs in as the user for whom `tctl auth sign` wrote FILE."""
    identity = make_identity()
    write_identity(tmp_path / "joe.pem", identity)
    again = read_identity(tmp_path / "joe.pem")
    assert again.ssh_private_key.reveal() == identity.ssh_private_key.reveal()
    assert again.ssh_cert.split() == identity.ssh_cert.split()
    assert again.tls_private_key.reveal() == identity.tls_private_key.reveal()
    assert again.tls_cert == identity.tls_cert
    assert again.authorities == (trusted(HOST_CA),)


def test_identity_file_is_private(tmp_path: Path) -> None:
    """No other user of the machine can read the key."""
    write_identity(tmp_path / "joe.pem", make_identity())
    assert stat.S_IMODE((tmp_path / "joe.pem").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["joe.pem"]


def test_openssh_reads_the_key_in_an_identity_file(tmp_path: Path) -> None:
    """ssh-keygen finds the private key in FILE and the certificate in F-cert.pub."""
    identity = make_identity()
    write_identity(tmp_path / "joe.pem", identity)
    public = subprocess.run(["ssh-keygen", "-y", "-f", tmp_path / "joe.pem"], capture_output=True, check=True).stdout
    assert public.startswith(b"ssh-ed25519 ")
    write_openssh(tmp_path / "joe", identity.ssh_private_key, identity.ssh_cert)
    shown = subprocess.run(["ssh-keygen", "-L", "-f", tmp_path / "joe-cert.pub"], capture_output=True, check=True)
    assert b'Key ID: "joe"' in shown.stdout
    assert stat.S_IMODE((tmp_path / "joe").stat().st_mode) == 0o600


@pytest.mark.parametrize("lost", ["OPENSSH PRIVATE KEY", "PRIVATE KEY", "CERTIFICATE", "@cert-authority", "-cert-v01"])
def test_incomplete_identity_says_what_is_missing(lost: str) -> None:
    """A file cut by copy and paste is told from a good one, with the command that makes a new one."""
    text = format_identity(make_identity()).replace(lost, "X")
    with pytest.raises(BadParameter, match=r"lacks an? .*tctl auth sign"):
        parse_identity(text)


@settings(max_examples=200)
@given(st.text(max_size=400))
def test_any_text_is_refused_in_one_sentence(text: str) -> None:
    """`tsh -i /etc/passwd` gives a sentence, not a traceback."""
    with pytest.raises(BadParameter):
        parse_identity(text)


def test_binary_file_is_refused(tmp_path: Path) -> None:
    """`tsh -i photo.jpg` gives a sentence."""
    (tmp_path / "photo").write_bytes(bytes(range(256)))
    with pytest.raises(BadParameter, match="not an identity file"):
        read_identity(tmp_path / "photo")


def test_windows_line_ends_do_not_matter() -> None:
    """An identity that passed through a chat or Windows still works."""
    text = format_identity(make_identity())
    assert parse_identity(text.replace("\n", "\r\n")) == parse_identity(text)


NAMES = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)


@given(NAMES, st.lists(NAMES, max_size=3))
def test_authority_lines_come_back(cluster: str, proxies: list[str]) -> None:
    """The authority stored at login is the one that is checked at the next `tsh ssh`."""
    authority = trusted(HOST_CA).__class__("host", cluster, trusted(HOST_CA).ssh_public_keys, ())
    assert parse_authorities("\n".join(authority_lines(authority, proxies))) == (authority,)


def test_lines_of_other_kinds_do_not_count() -> None:
    """A plain known host, a revoked key or a user authority never becomes a host authority."""
    key = trusted(HOST_CA).ssh_public_keys[0]
    text = f"host {key}\n@revoked *.a {key}\n@cert-authority *.a {key} clustername=a&type=user\n\n# x\n"
    assert parse_authorities(text) == ()
