"""The lines of `tctl auth export`, read by OpenSSH itself."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from teleconch.ca.authority import new_authority, trusted
from teleconch.ca.keys import new_ssh_key
from teleconch.ca.ssh import issue_host_cert
from teleconch.cli.tctl_export import (
    authorized_keys_lines,
    extra_names,
    fingerprint,
    known_hosts_comment,
    known_hosts_lines,
)

UUID = str(uuid.UUID(int=7))
NAMES = ("proxy.example.org", "db.example.com", "github.com", "10.1.2.3", "127.0.0.1", "2001:db8::5")


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Runs ssh against a real sshd whose host certificate has ever so many names; gives what ssh says."""
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)
    folder = tmp_path_factory.mktemp("sshd")
    now = time.time()
    authority = new_authority("host", "main", now)
    private, public = new_ssh_key()
    cert = issue_host_cert(
        authority, uuid=UUID, nodename="web-1", roles=("node",), addresses=NAMES, public_key=public,
        valid_after=now - 60, valid_before=now + 3600, serial=1,
    )  # fmt: skip
    (folder / "key").write_text(private.reveal())
    (folder / "key").chmod(0o600)
    (folder / "key-cert.pub").write_text(cert + "\n")
    (folder / "sshd_config").write_text(
        f"HostKey {folder}/key\nHostCertificate {folder}/key-cert.pub\nUsePAM no\nAuthenticationMethods none\n"
    )
    if os.geteuid() == 0:  # there once sshd has run as a service
        os.makedirs("/run/sshd", exist_ok=True)
    known = [*known_hosts_comment("main", ["db.example.com"])]
    known += known_hosts_lines(trusted(authority), [authority.ssh_public_key], ["db.example.com"])
    (folder / "known_hosts").write_text("\n".join(known) + "\n")

    def ssh(host: str, port: int = 22) -> str:
        options = {
            "ProxyCommand": f"/usr/sbin/sshd -i -f {folder}/sshd_config",
            "UserKnownHostsFile": f"{folder}/known_hosts",
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "PreferredAuthentications": "none",
            "LogLevel": "ERROR",
        }
        line = ["ssh", "-F", "none", *(f"-o{name}={value}" for name, value in options.items()), "-p", str(port), host]
        return subprocess.run([*line, "true"], capture_output=True, text=True, timeout=20).stderr

    return ssh


VERIFIED, REFUSED = "Permission denied", "Host key verification failed"


@pytest.mark.program("ssh", "sshd")
@pytest.mark.parametrize(
    ("host", "port", "outcome"),
    [
        ("web-1", 22, VERIFIED),
        ("web-1", 3022, VERIFIED),
        (UUID, 22, VERIFIED),
        ("web-1.main", 22, VERIFIED),
        (f"{UUID}.main", 3022, VERIFIED),
        ("proxy.example.org", 3023, VERIFIED),
        ("10.1.2.3", 3023, VERIFIED),
        ("2001:db8::5", 3022, VERIFIED),
        ("127.0.0.1", 45123, VERIFIED),
        ("db.example.com", 22, VERIFIED),
        ("github.com", 22, REFUSED),
        ("proxy.example.org", 22, REFUSED),
        ("2001:db8::5", 22, REFUSED),
        ("10.1.2.3", 2222, REFUSED),
        ("other", 22, REFUSED),
    ],
)
def test_known_hosts(sshd: Callable[..., Any], host: str, port: int, outcome: str) -> None:
    """With the exported lines, ssh -o StrictHostKeyChecking=yes knows nodes by name, UUID and cluster name, and
    proxies; but a host that joined under the name of a public one is not taken for it."""
    assert outcome in sshd(host, port)


@pytest.mark.program("ssh-keygen")
def test_keys_are_readable_by_ssh_keygen(tmp_path: Path) -> None:
    """ssh-keygen reads the exported keys, and shows the fingerprints that --fingerprint takes."""
    for kind in ("user", "host"):
        authority = trusted(new_authority(kind, "main", 0))
        keys = authority.ssh_public_keys
        lines = authorized_keys_lines(authority, keys) if kind == "user" else known_hosts_lines(authority, keys, [])
        plain = [line.removeprefix("@cert-authority ") for line in lines]  # ssh-keygen -l knows no markers
        (tmp_path / kind).write_text("\n".join(plain) + "\n")
        shown = subprocess.run(["ssh-keygen", "-l", "-f", tmp_path / kind], capture_output=True, text=True, check=True)
        assert shown.stdout.count(fingerprint(keys[0])) == len(lines)
        assert f"clustername=main&type={kind}" in lines[0]


def test_only_names_with_a_dot_are_added() -> None:
    """A name from elsewhere cannot bring a pattern, a negation or a second line into known_hosts."""
    names = [
        "web-1",
        "Web-2.Example.com",
        "*",
        "*.com",
        "!a.b",
        "a.b,*",
        "a.b\n@cert-authority *",
        "",
        "10.0.0.1",
        "[::1]",
    ]
    assert extra_names(names) == ["10.0.0.1", "::1", "web-2.example.com"]
