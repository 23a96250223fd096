"""`tsh config >> ~/.ssh/config`: what OpenSSH itself makes of it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from teleconch.client.openssh_config import openssh_config
from teleconch.client.profile import Profile, Profiles
from teleconch.errors import BadParameter
from tests.worlds.identities import make_identity

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


def test_nodes_go_through_the_proxy(tmp_path: Path) -> None:
    """`ssh joe@db.example.com` takes the certificate, the stored authority and the proxy's SSH port."""
    options = asked(config_of(PROFILE, tmp_path / "tsh"), "joe@db.example.com", tmp_path)
    assert options["port"] == "3022"
    assert options["stricthostkeychecking"] in ("true", "yes")
    assert options["identitiesonly"] == "yes"
    assert Path(options["identityfile"]).read_text().startswith("-----BEGIN OPENSSH PRIVATE KEY")
    assert Path(options["certificatefile"]).read_text().startswith("ssh-ed25519-cert-v01@openssh.com ")
    assert "@cert-authority" in Path(options["userknownhostsfile"]).read_text()
    assert " -p 4023 " in options["proxycommand"]
    assert options["proxycommand"].endswith(" -s -l '%r' proxy.example.com 'proxy:%h:%p'")


def test_other_hosts_and_the_proxy_are_left_alone(tmp_path: Path) -> None:
    """`ssh proxy.example.com` and `ssh elsewhere` are as before; the proxy is never reached through itself."""
    config = config_of(PROFILE, tmp_path / "tsh")
    for host in ("proxy.example.com", "elsewhere.org", "example.com"):
        options = asked(config, host, tmp_path)
        assert "proxycommand" not in options
        assert options["port"] == "22"


def test_paths_with_spaces_and_percent(tmp_path: Path) -> None:
    """A home with a space or a percent sign in it works."""
    home = tmp_path / "my 100% home"
    options = asked(config_of(PROFILE, home), "joe@db.example.com", tmp_path)
    assert Path(options["identityfile"].replace("%%", "%")).exists()
    inner = options["proxycommand"].replace("%%", "%").replace("-s -l '%r'", "-G -l joe").replace(" 'proxy:%h:%p'", "")
    shown = subprocess.run(inner, shell=True, capture_output=True, text=True, check=True).stdout
    files = dict(line.split(" ", 1) for line in shown.splitlines() if " " in line)
    for name in ("identityfile", "certificatefile", "userknownhostsfile"):
        assert Path(files[name].replace("%%", "%")).exists(), name


def test_appended_again_after_another_login(tmp_path: Path) -> None:
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
def test_path_that_openssh_cannot_take(name: str, tmp_path: Path) -> None:
    """A directory that would change the meaning of the config is refused in a sentence."""
    with pytest.raises(BadParameter, match="TELEPORT_HOME"):
        openssh_config(PROFILE, tmp_path / name / "joe", tmp_path / "known_hosts")


def test_lines_that_follow_are_for_every_host(tmp_path: Path) -> None:
    """The block may stand at the top: what follows it does not become part of it."""
    config = config_of(PROFILE, tmp_path / "tsh") + "Port 2222\nUser ann\n"
    assert asked(config, "elsewhere.org", tmp_path)["port"] == "2222"
    options = asked(config, "db.example.com", tmp_path)
    assert (options["port"], options["user"]) == ("3022", "ann")


HOSTILE = (
    "Host *\n    LocalForward 18093 127.0.0.1:18092\n    ExitOnForwardFailure yes\n    RemoteCommand echo hi\n"
    "    StdinNull yes\n    ForkAfterAuthentication yes\n    ForwardAgent yes\n    ForwardX11 yes\n"
    "    RequestTTY force\n"
    "    PermitLocalCommand yes\n    LocalCommand touch {touched}\n    DynamicForward 18094\n    Tunnel yes\n"
    "    HostKeyAlgorithms ssh-ed25519,rsa-sha2-512\n    PubkeyAcceptedAlgorithms ssh-ed25519,rsa-sha2-512\n"
    "    PreferredAuthentications password\n    PubkeyAuthentication no\n"
    "    IgnoreUnknown UseKeychain\n    UseKeychain yes\n"
)


@pytest.mark.parametrize("first", [True, False])
def test_options_for_every_host_stay_out_of_the_inner_ssh(first: bool, tmp_path: Path) -> None:
    """What `Host *` says of forwarding, commands and algorithms does not reach the connection to the proxy."""
    config = config_of(PROFILE, tmp_path / "tsh")
    hostile = HOSTILE.format(touched=tmp_path / "touched")
    options = asked(config + hostile if first else hostile + config, "joe@db.example.com", tmp_path)
    inner = options["proxycommand"].replace("%%", "%").replace("-s -l '%r'", "-G -l joe").replace(" 'proxy:%h:%p'", "")
    (tmp_path / "config").write_text(hostile)
    shown = subprocess.run(
        inner.replace("ssh ", f"ssh -F {tmp_path}/config ", 1), shell=True, capture_output=True, text=True, check=True
    ).stdout
    found = dict(line.split(" ", 1) for line in shown.splitlines() if " " in line)
    expected = {
        "clearallforwardings": "yes",
        "exitonforwardfailure": "no",
        "forwardagent": "no",
        "forwardx11": "no",
        "permitlocalcommand": "no",
        "requesttty": "false",
        "stdinnull": "no",
        "forkafterauthentication": "no",
        "tunnel": "false",
        "pubkeyauthentication": "true",
        "preferredauthentications": "publickey",
    }
    assert {name: found.get(name) for name in expected} == expected
    assert found.get("remotecommand", "none") == "none"
    for name in ("hostkeyalgorithms", "pubkeyacceptedalgorithms"):
        assert "ssh-ed25519-cert-v01@openssh.com" in found[name], name


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "ksh", "zsh", "tcsh", "fish"])
@pytest.mark.parametrize(
    ("login", "host"),
    [
        ("joe", "$(touch touched).example.com"),
        ("joe", "`touch touched`.example.com"),
        ("joe", "x;touch touched;.example.com"),
        ("joe", "x|touch touched&.example.com"),
        ("joe", "x y(touch touched)<z>.example.com"),
        ("$(touch touched)", "db.example.com"),
        ("x;touch touched;", "db.example.com"),
        ("CORP\\kim", "db.example.com"),
        ("-oProxyCommand=touch touched", "db.example.com"),
    ],
)
def test_names_are_not_commands(login: str, host: str, shell: str, tmp_path: Path) -> None:
    """A host or login that a link or a submodule names is never run by the user's shell (CVE-2023-51385)."""
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    program = tmp_path / "ssh"
    program.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\" > words\n")
    program.chmod(0o755)
    options = dict(
        line.strip().split(" ", 1) for line in config_of(PROFILE, tmp_path / "tsh").splitlines() if line.startswith(" ")
    )
    command = options["ProxyCommand"].replace("%r", login).replace("%h", host).replace("%p", "22").replace("%%", "%")
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}
    subprocess.run([shell, "-c", f"exec {command}"], cwd=tmp_path, env=env, check=True, timeout=30)
    words = (tmp_path / "words").read_text().splitlines()
    assert words[-4:] == ["-l", login, "proxy.example.com", f"proxy:{host}:22"]
    assert not (tmp_path / "touched").exists()


def test_names_with_quotation_marks_are_left_out(tmp_path: Path) -> None:
    """What could end the quotes around a name gets no ProxyCommand that has it: clients before 9.6 take such names."""
    lines = config_of(PROFILE, tmp_path / "tsh").splitlines()
    refused = lines.index('Match originalhost *.example.com user "*\'*"')
    assert lines[refused + 1].strip() == "ProxyCommand false"
    (hosts,) = (line for line in lines if line.startswith("Host "))
    assert hosts.endswith('"!*\'*" "!*\\*"')
    assert lines.index(hosts) > refused
