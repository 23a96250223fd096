"""~/.tsh: what is remembered between two calls of tsh."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from teleconch.client.address import ProxyAddress, parse_proxy, split_address
from teleconch.client.profile import Profile, Profiles, home, read_fields, split_pem
from teleconch.errors import BadParameter, NotFound
from teleconch.resources.address import join_address
from tests.worlds.identities import make_identity

PROFILE = Profile("proxy.example.com:3080", "proxy.example.com:3023", "joe", "example.com")


@pytest.mark.parametrize(
    ("text", "host", "web", "ssh"),
    [
        ("proxy.example.com", "proxy.example.com", None, None),
        ("proxy.example.com:8080", "proxy.example.com", 8080, None),
        ("proxy.example.com:8080,8023", "proxy.example.com", 8080, 8023),
        ("work.example.com:,23", "work.example.com", None, 23),
        ("https://Proxy.example.com:3080/web/login", "proxy.example.com", 3080, None),
        ("[::1]:3080,3023", "::1", 3080, 3023),
        ("::1", "::1", None, None),
        ("127.0.0.1:4080", "127.0.0.1", 4080, None),
    ],
)
def test_proxy_forms(text: str, host: str, web: int | None, ssh: int | None) -> None:
    """Every form of --proxy in Teleport's documents means the same here."""
    assert parse_proxy(text) == ProxyAddress(host, web, ssh)


@pytest.mark.parametrize(
    "text", ["", " ", "a b", "-oProxyCommand=x", "a:b", "a:99999", "a:0", "a:1,2,3", "../x", "[x]", "a:1;2"]
)
def test_proxy_that_is_none(text: str) -> None:
    """A wrong --proxy is told with the right form; it never becomes a path or an option."""
    with pytest.raises(BadParameter, match="--proxy"):
        parse_proxy(text)


@given(st.sampled_from(["a", "a.b", "::1", "10.0.0.1"]), st.integers(1, 65535))
def test_addresses_come_back(host: str, port: int) -> None:
    """host:port is read as it was written, IPv6 too."""
    assert split_address(join_address(host, port), 1) == (host, port)


def test_login_is_remembered(tmp_path: Path) -> None:
    """After a login the next tsh needs no --proxy and no --user."""
    profiles = Profiles(tmp_path / "tsh")
    identity = make_identity()
    profiles.save(PROFILE, identity, "ssh-ed25519 AAAA")
    assert profiles.find(None) == PROFILE
    assert profiles.find(parse_proxy("proxy.example.com")) == PROFILE
    assert profiles.find(parse_proxy("proxy.example.com:,99")).ssh_proxy_addr == "proxy.example.com:99"
    again = profiles.identity(PROFILE)
    assert again.ssh_cert.split() == identity.ssh_cert.split()
    assert again.ssh_private_key.reveal() == identity.ssh_private_key.reveal()
    assert again.tls_private_key.reveal() == identity.tls_private_key.reveal()
    assert again.authorities == identity.authorities


def test_keys_are_private(tmp_path: Path) -> None:
    """Nobody else on the machine can read the keys, whatever the umask."""
    old = os.umask(0)
    try:
        profiles = Profiles(tmp_path / "tsh")
        profiles.save(PROFILE, make_identity(), "ssh-ed25519 AAAA")
    finally:
        os.umask(old)
    for path in (tmp_path / "tsh").rglob("*"):
        if not path.is_symlink():
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert {path.name for path in (tmp_path / "tsh").rglob(".*")} == {".identity", ".identity-cert.pub"}


def test_two_proxies(tmp_path: Path) -> None:
    """A second login does not overwrite the first, and --proxy goes back to it."""
    profiles = Profiles(tmp_path)
    other = Profile("proxy.example.com:4080", "proxy.example.com:3023", "ann", "other")
    profiles.save(PROFILE, make_identity(), "ssh-ed25519 AAAA")
    profiles.save(other, make_identity("ann"), "ssh-ed25519 AAAA")
    assert profiles.find(None) == other
    assert profiles.find(parse_proxy("proxy.example.com:3080")) == PROFILE
    profiles.select(PROFILE)
    assert profiles.find(None) == PROFILE
    assert profiles.all() == [PROFILE, other]


def test_logout_removes_the_keys(tmp_path: Path) -> None:
    """After a logout no key is left, and the next call says how to log in again, with proxy and user."""
    profiles = Profiles(tmp_path)
    profiles.save(PROFILE, make_identity(), "ssh-ed25519 AAAA")
    assert profiles.forget(PROFILE)
    assert not profiles.forget(PROFILE)
    assert {path.name for path in profiles.keys_directory(PROFILE).iterdir() if not path.is_symlink()} == {
        "certs.pem",
        "known_hosts",
    }
    with pytest.raises(NotFound, match=r"tsh login --proxy=proxy\.example\.com --user=joe"):
        profiles.identity(PROFILE)


def test_nobody_logged_in(tmp_path: Path) -> None:
    """The very first call says what to type."""
    with pytest.raises(NotFound, match="tsh login --proxy=HOST"):
        Profiles(tmp_path).find(None)
    with pytest.raises(NotFound, match=r"tsh login --proxy=h:1"):
        Profiles(tmp_path).find(parse_proxy("h:1"))


def test_damaged_profile_is_named(tmp_path: Path) -> None:
    """A damaged file is named in a sentence."""
    (tmp_path / "x.yaml").write_text("[")
    with pytest.raises(BadParameter, match=r"x\.yaml is damaged"):
        Profiles(tmp_path).all()


def test_user_names_are_no_paths(tmp_path: Path) -> None:
    """A user name can never leave the directory or hide the authorities."""
    for name in ("..", ".x", "known_hosts", "certs.pem", "a/b"):
        profile = Profile("h:3080", "h:3023", name, "c")
        with pytest.raises(BadParameter):
            Profiles(tmp_path).save(profile, make_identity(), "ssh-ed25519 AAAA")


@given(st.dictionaries(st.sampled_from(["user", "cluster", "auth_type"]), st.text(max_size=30), min_size=1))
def test_fields_by_hand_and_by_yaml(values: dict[str, str]) -> None:
    """A profile that was edited, or written by Teleport itself, is read as the one that tsh writes."""
    assert read_fields(yaml.safe_dump(values)) == values


def test_teleport_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """TELEPORT_HOME moves everything."""
    monkeypatch.setenv("TELEPORT_HOME", str(tmp_path))
    assert home() == tmp_path
    monkeypatch.delenv("TELEPORT_HOME")
    assert home().name == ".tsh"


def test_split_pem() -> None:
    """Two authorities of a rotation are two certificates."""
    one, two = make_identity().tls_cert, make_identity().tls_cert
    assert split_pem(one + two) == (one, two)
    assert split_pem("") == ()


@pytest.mark.root
def test_closed_directory(tmp_path: Path) -> None:
    """Who may not read or write ~/.tsh reads that, before a password is asked for, and not that nobody is logged in."""
    tmp_path.chmod(0o700)  # root's: closed to nobody
    code = (
        "import os, sys; from pathlib import Path; from teleconch.client.profile import Profiles\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "getattr(Profiles(Path(sys.argv[1])), sys.argv[2])()"
    )
    for method, done in ("current", "read"), ("check_writable", "written"):
        ran = subprocess.run(
            [sys.executable, "-c", code, tmp_path, method], capture_output=True, text=True, check=False
        )
        assert f"cannot be {done} (Permission denied)" in ran.stderr
        assert "TELEPORT_HOME" in ran.stderr


def test_a_file_in_the_way(tmp_path: Path) -> None:
    """$TELEPORT_HOME that names a file is told before a password is asked for."""
    (tmp_path / "file").touch()
    with pytest.raises(BadParameter, match="Not a directory"):
        Profiles(tmp_path / "file").check_writable()
    Profiles(tmp_path / "not" / "yet").check_writable()
    assert not (tmp_path / "not").exists()
