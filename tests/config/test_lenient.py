"""Values that Teleport takes and whose meaning is clear: taken here, too, with a warning where they are odd."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import yaml

from teleconch.config.addresses import Address
from teleconch.config.algorithms import CIPHERS, KEX_ALGOS, MAC_ALGOS
from teleconch.config.flags import Flags
from teleconch.config.load import load_config
from teleconch.config.values import CommandLabel, Config, StaticToken
from teleconch.resources.secret import Secret

KEYS = """
teleport: nodename data_dir auth_token ca_pin advertise_ip auth_servers pid_file ciphers kex_algos mac_algos cache
teleport.log: output severity
teleport.connection_limits: max_connections max_users rates
teleport.storage: type path region audit_events_uri
auth_service: enabled cluster_name public_addr listen_addr tokens session_recording client_idle_timeout license_file
auth_service: keep_alive_interval keep_alive_count_max disconnect_expired_cert proxy_checks_host_keys
auth_service.authentication: type second_factor local_auth
ssh_service: enabled listen_addr public_addr labels commands permit_user_env accept_env gateway_ports
ssh_service.pam: enabled service_name
proxy_service: enabled listen_addr web_listen_addr tunnel_listen_addr public_addr ssh_public_addr https_key_file
proxy_service: https_cert_file kubernetes tunnel_public_addr
"""
# What holds where they are empty; ``enabled`` of a role.
BOOLEANS = {
    "enabled": "yes",
    "local_auth": "yes",
    "proxy_checks_host_keys": "yes",
    "disconnect_expired_cert": "no",
    "permit_user_env": "no",
}


def load(text: str, flags: Flags | None = None) -> Config:
    return load_config(text, "/etc/teleport.yaml", flags or Flags(), hostname=lambda: "graviton")


def said(config: Config) -> list[tuple[int, str]]:
    return [(line, sentence) for _, line, sentence in config.warnings]


NAMES = [
    (section, key)
    for line in KEYS.strip().splitlines()
    for section, _, keys in [line.partition(":")]
    for key in keys.split()
]


@pytest.mark.parametrize(("section", "key"), NAMES, ids=[".".join(name) for name in NAMES])
def test_an_empty_value_is_none(section: str, key: str) -> None:
    """What a template leaves of a variable that is not set is as good as no key at all, for each key there is.

    Of an empty yes-or-no, a token and a pin the file's owner is told, so that PAM is not off without a word."""
    absent = load("teleport: {}\n")
    empties: tuple[Any, ...] = ("", "  ", [], [""], [None], {}, None)
    for empty in empties:
        document = {key: empty}
        for name in reversed(section.split(".")):
            document = {name: document}
        config = load(yaml.safe_dump(document))
        warning = f"{section}.{key} is empty, which is as if it were left out"
        ending = "." if key in ("auth_token", "ca_pin") else f": {BOOLEANS[key]}." if key in BOOLEANS else None
        if (section, key) == ("ssh_service.pam", "enabled"):
            ending = ": no."
        expected = [] if ending is None or empty is None else [warning + ending]
        assert [sentence for _, sentence in said(config)] == expected
        assert (config.teleport, config.auth_service) == (absent.teleport, absent.auth_service)
        assert (config.ssh_service, config.proxy_service) == (absent.ssh_service, absent.proxy_service)


def test_empty_items_of_a_list_are_left_out() -> None:
    """`auth_servers: [a, ""]`, as a loop of a template writes it, is a list of one."""
    config = load(
        "teleport: {auth_servers: [a, '', ~]}\nauth_service: {enabled: no}\nssh_service: {accept_env: ['', A]}\n"
    )
    assert config.teleport.auth_servers == (Address("a", 3025),)
    assert config.ssh_service.accept_env == ("A",)


def test_an_empty_label_is_a_label() -> None:
    """A label may have no value: it is a name that hosts have or lack."""
    assert load("ssh_service: {labels: {canary: '', spare: }}\n").ssh_service.labels == {"canary": "", "spare": ""}


def test_one_token_twice_is_one_token() -> None:
    """A value that is listed for some roles here and for others there is for all of them, and the file's owner hears
    of it; later services' roles and roles named twice do no harm."""
    config = load("""\
auth_service:
  tokens:
  - "proxy,node:0123456789abcdef"
  - "auth,node:0123456789abcdef"
  - "node,node,kube,trusted_cluster:other"
  - "trustedcluster:old-name"
  - "app:only-for-applications"
""")
    assert config.auth_service.tokens == (
        StaticToken(("proxy", "node", "auth"), Secret("0123456789abcdef")),
        StaticToken(("node",), Secret("other")),
    )
    assert [line for line, _ in said(config)] == [4, 5, 5, 5, 6, 7]
    assert "one token, for proxy, node, auth." in said(config)[0][1]
    assert "0123456789abcdef" not in str(config.warnings)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("0.0.0.0:3025", "127.0.0.1:3025"),
        ("0.0.0.0", "127.0.0.1:3025"),
        ("[::]:4025", "[::1]:4025"),
        ("::", "[::1]:3025"),
        (":3026", "127.0.0.1:3026"),
        ("tcp://0.0.0.0:3025", "127.0.0.1:3025"),
    ],
)
@pytest.mark.parametrize("auth", ["yes", "no"])
def test_an_auth_server_at_every_address_is_the_one_of_this_host(written: str, read: str, auth: str) -> None:
    """The auth server's listen address, copied to auth_servers, leads to it: in this process, or in another one."""
    config = load(f"teleport:\n  auth_servers: ['{written}']\nauth_service: {{enabled: {auth}}}\n")
    assert [str(server) for server in config.teleport.auth_servers] == [read]
    assert said(config) == [(2, f"teleport.auth_servers: '{written}' is read as this host's own {read}.")]


def test_a_public_address_at_every_address_is_left_out() -> None:
    """`public_addr: 0.0.0.0:3080` tells users nothing: it is as if there were none."""
    config = load("proxy_service:\n  public_addr: ['0.0.0.0:3080', a]\n  ssh_public_addr: '[::]'\n")
    assert [str(address) for address in config.proxy_service.public_addr] == ["a:3080"]
    assert [line for line, _ in said(config)] == [2, 3]


@pytest.mark.parametrize("written", ["443", "':443'", "'443'", "tcp://:443"])
def test_a_port_alone_is_where_to_listen(written: str) -> None:
    """`web_listen_addr: 443` and `:443` listen there on every address, for each key that says where to listen."""
    for section, key in (
        ("auth_service", "listen_addr"),
        ("ssh_service", "listen_addr"),
        ("proxy_service", "listen_addr"),
        ("proxy_service", "web_listen_addr"),
    ):
        config = load(f"{section}: {{{key}: {written}}}\n")
        assert getattr(getattr(config, section), key) == Address("0.0.0.0", 443)


def test_weak_algorithms_are_left_out_while_a_good_one_remains() -> None:
    """The lists of 4.2, and of sshd_config's of old, load; nobody is offered CBC, SHA-1 or MD5 by it."""
    config = load("""\
teleport:
  ciphers: [aes128-ctr, aes128-ctr, arcfour256, aes128-cbc, 3des-cbc]
  kex_algos: [curve25519-sha256@libssh.org, diffie-hellman-group14-sha1, diffie-hellman-group-exchange-sha256]
  mac_algos: [hmac-sha2-256-etm@openssh.com, hmac-sha1-96, umac-64@openssh.com]
""")
    teleport = config.teleport
    assert (teleport.ciphers, teleport.kex_algos) == (("aes128-ctr",), ("curve25519-sha256@libssh.org",))
    assert teleport.mac_algos == ("hmac-sha2-256-etm@openssh.com",)
    assert [line for line, _ in said(config)] == [2, 2, 2, 2, 3, 3, 4, 4]
    assert not set(itertools.chain(teleport.ciphers or (), CIPHERS, KEX_ALGOS, MAC_ALGOS)) & {"aes128-cbc", "hmac-sha1"}


def test_a_label_command_is_any_argv() -> None:
    """Scripts of several lines, tabs, empty arguments, and words that YAML takes for something else, arrive as they
    are written."""
    config = load("""\
ssh_service:
  commands:
  - name: id
    period: 1h
    command:
    - /bin/sh
    - -c
    - |
      cat /etc/machine-id
      echo
  - {name: f, command: [cut, -d, "\\t", -f1, /etc/x], period: 1m}
  - {name: g, command: [printf, "", " a ", yes, 5, 1.0, ~, 2020-01-01]}
  - {name: "on", command: [true]}
""")
    assert config.ssh_service.commands == (
        CommandLabel("id", ("/bin/sh", "-c", "cat /etc/machine-id\necho\n"), 3600),
        CommandLabel("f", ("cut", "-d", "\t", "-f1", "/etc/x"), 60),
        CommandLabel("g", ("printf", "", " a ", "yes", "5", "1.0", "", "2020-01-01"), 60),
        CommandLabel("on", ("true",), 60),
    )
    assert config.warnings == ()


def test_later_words_for_what_there_is() -> None:
    """`second_factor: on` asks for any second factor: there is one. Recording has no effect, in its later modes too."""
    config = load("auth_service: {authentication: {second_factor: on}, session_recording: node-sync}\n")
    assert config.auth_service.authentication.second_factor == "otp"
    assert [sentence for _, sentence in said(config)] == [
        "auth_service.session_recording has no effect in this version yet."
    ]


def test_anchors_are_merged() -> None:
    """`<<: *base` brings the keys of another section, in the order that YAML has for it: what is written there stays,
    and what comes first wins. An anchor that holds itself does no harm."""
    config = load("""\
teleport: {nodename: a}
auth_service: &base {enabled: yes, public_addr: auth.example.com}
ssh_service:
  <<: *base
  public_addr: node.example.com
  labels: &labels {env: prod, team: ops}
  commands:
  - &every {name: a, command: [true], period: 5m}
  - {<<: *every, name: b}
proxy_service:
  <<: [{public_addr: proxy.example.com}, *base]
""")
    assert [str(address) for address in config.ssh_service.public_addr] == ["node.example.com:3022"]
    assert [str(address) for address in config.proxy_service.public_addr] == ["proxy.example.com:3080"]
    assert [(each.name, each.period) for each in config.ssh_service.commands] == [("a", 300), ("b", 300)]
    assert load("teleport: &a {<<: *a, nodename: b}\n").teleport.nodename == "b"


def test_a_label_that_is_printed_stands_before_one_that_is_not() -> None:
    """A label that is there as a text and as a command is the command, and of two commands the last, as in 4.2."""
    config = load("""\
ssh_service:
  labels: {host: a, env: b}
  commands:
  - {name: host, command: [hostname]}
  - {name: host, command: [hostname, -f]}
""")
    assert config.ssh_service.labels == {"env": "b"}
    assert config.ssh_service.commands == (CommandLabel("host", ("hostname", "-f"), 60),)
    assert [line for line, _ in said(config)] == [4, 5]


def test_zero_is_the_default_of_a_limit() -> None:
    """A limit of 0 is none that was set, as in 4.2: it does not open the host to any number of connections."""
    config = load("teleport: {connection_limits: {max_connections: 0, max_users: 0}}\n")
    assert config.teleport.connection_limits == load("teleport: {}\n").teleport.connection_limits
    assert len(said(config)) == 2


def test_a_log_file_beside_the_configuration() -> None:
    """`output: teleport.log` is a file in the configuration's folder; a mistyped word is still an error."""
    assert load("teleport: {log: {output: teleport.log}}\n").teleport.log.output == "/etc/teleport.log"
