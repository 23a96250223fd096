"""One file for all hosts: what concerns roles that do not run here keeps nothing from starting."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from teleconch.config.addresses import Address
from teleconch.config.flags import Flags
from teleconch.config.load import load_config
from teleconch.config.values import Config
from teleconch.errors import ConfigError

TEMPLATE = """\
teleport:
  auth_servers: [auth.example.com]
  auth_token: 0123456789abcdef
  storage: {type: dynamodb, region: eu-west-1, table_name: t}
auth_service:
  enabled: no
  authentication: {type: github, second_factor: u2f}
  tokens: ['node:x', 'proxy:x', 'nod:SeCrEt', 'node:/nonexistent/token']
  listen_addr: 0.0.0.0:auth
proxy_service: {enabled: no, https_key_file: /nonexistent/k.pem, https_cert_file: /nonexistent/c.pem}
ssh_service: {enabled: yes}
"""


def load(text: str, flags: Flags | None = None, only: str | None = None) -> Config:
    return load_config(text, "/etc/teleport.yaml", flags or Flags(), only=only, hostname=lambda: "graviton")


def refused(text: str, flags: Flags | None = None, only: str | None = None) -> list[tuple[int, str]]:
    with pytest.raises(ConfigError) as caught:
        load(text, flags, only)
    return [(line, sentence) for _, line, sentence in caught.value.problems]


def test_a_template_for_all_hosts() -> None:
    """A node starts from a file whose auth and proxy sections are for other hosts; what is wrong there is told as a
    warning with its line, and what would have no effect anyway is not told."""
    config = load(TEMPLATE)
    assert config.roles == ("node",)
    assert {line for _, line, _ in config.warnings} == {4, 7, 8, 9}
    for _, line, sentence in config.warnings:
        where = "no auth server runs" if line == 4 else "auth_service does not run"
        assert sentence.endswith(".)")
        assert f"(Only a warning: {where}" in sentence
        assert "SeCrEt" not in sentence


def test_the_same_sections_are_checked_where_they_run() -> None:
    """On the auth server's and the proxy's hosts, the same values are errors, each with its line."""
    lines = {line for line, _ in refused(TEMPLATE.replace("enabled: no", "enabled: yes"))}
    assert lines == {4, 7, 8, 9, 10}


def test_files_of_roles_that_do_not_run_are_not_opened(tmp_path: Path) -> None:
    """A key or a token of another role is none of this process's: it is not even opened, or a pipe would hold the
    start for ever."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    config = load(f"""
teleport: {{auth_servers: [a]}}
auth_service: {{enabled: no, tokens: ["node:{pipe}"]}}
proxy_service: {{enabled: no, https_key_file: {pipe}, https_cert_file: {pipe}}}
""")
    assert (config.roles, config.warnings) == (("node",), ())


def test_flags_decide_what_runs() -> None:
    """`--roles` and `--auth-server` turn roles on and off after the file, and the check follows them."""
    text = "auth_service: {authentication: {type: saml}}\nproxy_service: {https_key_file: /nonexistent/k.pem}\n"
    assert {line for line, _ in refused(text)} == {1, 2}
    node = load(text, Flags(roles=("node",), auth_servers=(Address("a", 3025),)))
    assert len(node.warnings) == 2
    assert {line for line, _ in refused(text, Flags(auth_servers=(Address("a", 3025),)))} == {2}
    off = "auth_service: {enabled: no, authentication: {type: saml}}\n"
    assert [line for line, _ in refused(off, Flags(roles=("auth",)))] == [1]


def test_one_role_of_an_all_in_one_file() -> None:
    """`twistd teleport-node` looks at what the node needs of the file, and at nothing of the other roles."""
    text = """\
teleport: {storage: {type: etcd}}
auth_service: {listen_addr: 127.0.0.1:4025, authentication: {type: saml}}
proxy_service: {listen_addr: '0.0.0.0:4025', https_key_file: /nonexistent/k.pem}
ssh_service: {gateway_ports: no}
"""
    config = load(text, only="node").only("node")
    assert config.teleport.auth_servers == (Address("127.0.0.1", 4025),)
    assert {line for _, line, _ in config.warnings} == {1, 2, 3}
    assert {line for line, _ in refused(text, only="auth")} == {1, 2}
    assert {line for line, _ in refused(text.replace("gateway_ports: no", "gateway_ports: 5"), only="node")} == {4}


def test_twistd_tells_what_concerns_its_role(tmp_path: Path) -> None:
    """`twistd teleport-node` with a wrong value of each role ends with the node's alone."""
    file = tmp_path / "teleport.yaml"
    file.write_text(
        "auth_service: {authentication: {type: saml}}\n"
        "proxy_service: {https_key_file: /nonexistent/k.pem}\n"
        "ssh_service: {gateway_ports: 5}\n"
    )
    twistd = Path(sys.executable).with_name("twistd")
    ended = subprocess.run(
        [twistd, "--nodaemon", "--pidfile=", "teleport-node", "-c", file], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1
    assert [line.partition(" ")[0] for line in ended.stderr.splitlines()] == ["ERROR:"]
    assert f"{file}:3: ssh_service.gateway_ports: '5' is not known." in ended.stderr


@pytest.mark.parametrize(
    "text",
    [
        "auth_service: {enabled: no, tokns: [a]}",
        "auth_service: {enabled: no, cluster_name: a, cluster_name: b}",
        "auth_service: {enabled: perhaps}",
    ],
)
def test_key_names_are_checked_everywhere(text: str) -> None:
    """A slip in a key, above all in 'enabled', is found on every host, since it may be what turns the section off."""
    assert len(refused(f"teleport: {{auth_servers: [a]}}\n{text}\n")) == 1
