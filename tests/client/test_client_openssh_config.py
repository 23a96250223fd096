"""`tsh config >> ~/.ssh/config`: what OpenSSH itself makes of it."""

import subprocess
from pathlib import Path

import pytest
from test_client_identity import make_identity

from teleconch.client.openssh_config import openssh_config
from teleconch.client.profile import Profile, Profiles
from teleconch.errors import BadParameter

PROFILE = Profile("proxy.example.com:3080", "proxy.example.com:4023", "joe", "example.com")


def config_of(profile: Profile, home: Path, user: str = "joe") -> str:
    profiles = Profiles(home)
    profiles.save(profile, make_identity(user), "ssh-ed25519 AAAA")
    return openssh_config(profile, profiles.identity_path(profile), profiles.known_hosts_path(profile))


def asked(config: str, host: str, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "config").write_text(config)
    shown = subprocess.run(
        ["ssh", "-G", "-F", tmp_path / "config", host], capture_output=True, text=True, check=True
    ).stdout
    return dict(line.split(" ", 1) for line in shown.splitlines() if " " in line)


def test_nodes_go_through_the_proxy(tmp_path):
    """`ssh joe@db.example.com` takes the certificate, the stored authority and the proxy's SSH port."""
    options = asked(config_of(PROFILE, tmp_path / "tsh"), "joe@db.example.com", tmp_path)
    assert options["port"] == "3022"
    assert options["stricthostkeychecking"] in ("true", "yes")
    assert options["identitiesonly"] == "yes"
    assert Path(options["identityfile"]).read_text().startswith("-----BEGIN OPENSSH PRIVATE KEY")
    assert Path(options["certificatefile"]).read_text().startswith("ssh-ed25519-cert-v01@openssh.com ")
    assert "@cert-authority" in Path(options["userknownhostsfile"]).read_text()
    assert "ssh -p 4023 " in options["proxycommand"]
    assert options["proxycommand"].endswith(" -s %r@proxy.example.com proxy:%h:%p")


def test_other_hosts_and_the_proxy_are_left_alone(tmp_path):
    """`ssh proxy.example.com` and `ssh elsewhere` are as before; the proxy is never reached through itself."""
    config = config_of(PROFILE, tmp_path / "tsh")
    for host in ("proxy.example.com", "elsewhere.org", "example.com"):
        options = asked(config, host, tmp_path)
        assert "proxycommand" not in options
        assert options["port"] == "22"


def test_paths_with_spaces_and_percent(tmp_path):
    """A home with a space or a percent sign in it works."""
    home = tmp_path / "my 100% home"
    options = asked(config_of(PROFILE, home), "joe@db.example.com", tmp_path)
    assert Path(options["identityfile"].replace("%%", "%")).exists()
    inner = options["proxycommand"].replace("%%", "%").replace(" -s %r@", " -G joe@").replace(" proxy:%h:%p", "")
    shown = subprocess.run(inner, shell=True, capture_output=True, text=True, check=True).stdout
    files = dict(line.split(" ", 1) for line in shown.splitlines() if " " in line)
    for name in ("identityfile", "certificatefile", "userknownhostsfile"):
        assert Path(files[name].replace("%%", "%")).exists(), name


def test_appended_again_after_another_login(tmp_path):
    """The config stays right when it is appended twice, and after a login as someone else."""
    first = config_of(PROFILE, tmp_path / "tsh")
    other = Profile("proxy.example.com:3080", "proxy.example.com:4023", "ann", "example.com")
    second = config_of(other, tmp_path / "tsh", "ann")
    options = asked(first + second, "joe@db.example.com", tmp_path)
    shown = subprocess.run(
        ["ssh-keygen", "-L", "-f", options["certificatefile"]], capture_output=True, text=True, check=True
    )
    assert 'Key ID: "ann"' in shown.stdout


@pytest.mark.parametrize("name", ['a"b', "a\nb", "a\\b", "a${HOME}"])
def test_path_that_openssh_cannot_take(name, tmp_path):
    """A directory that would change the meaning of the config is refused in a sentence."""
    with pytest.raises(BadParameter, match="TELEPORT_HOME"):
        openssh_config(PROFILE, tmp_path / name / "joe", tmp_path / "known_hosts")
