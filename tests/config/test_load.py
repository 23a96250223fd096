"""teleport.yaml as administrators write it, right and wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from teleconch.config.addresses import Address
from teleconch.config.document import Notice
from teleconch.config.flags import Flags
from teleconch.config.load import default_config, load_config, read_config
from teleconch.config.values import Authentication, CommandLabel, Config, StaticToken
from teleconch.errors import BadParameter, ConfigError
from teleconch.resources.secret import Secret

PIN = "sha256:" + "7e" * 32


def load(text: str, flags: Flags | None = None) -> Config:
    return load_config(text, "/etc/teleport.yaml", flags or Flags(), hostname=lambda: "graviton")


def problems(text: str) -> list[Notice]:
    with pytest.raises(ConfigError) as caught:
        load(text)
    return caught.value.problems


def test_a_node() -> None:
    """The file that 4.2's guide gives for a joining node means what it says."""
    config = load(f"""
teleport:
  auth_token: "1ac590d36493acdaa2387bc1c492db1a"
  ca_pin: "{PIN.upper().replace("SHA", "sha")}"
  advertise_ip: 10.1.0.5
  auth_servers: ["10.12.0.6:3025", auth.example.com, "[2001:db8::5]:4025"]
  log: {{output: stdout, severity: WARNING}}
auth_service: {{enabled: no}}
proxy_service: {{enabled: "off"}}
ssh_service:
  listen_addr: 127.0.0.1:4022
  public_addr: [node.example.com, "node.example.com:22"]
  labels: {{environment: test, on: yes, ratio: 1.0}}
""")
    assert config.roles == ("node",)
    teleport, ssh = config.teleport, config.ssh_service
    assert teleport.nodename == "graviton"
    assert teleport.data_dir == "/var/lib/teleport"
    assert teleport.auth_token == Secret("1ac590d36493acdaa2387bc1c492db1a")
    assert teleport.ca_pin == (PIN,)
    assert teleport.advertise_ip == Address("10.1.0.5", 4022)
    assert [str(a) for a in teleport.auth_servers] == ["10.12.0.6:3025", "auth.example.com:3025", "[2001:db8::5]:4025"]
    assert (teleport.log.output, teleport.log.severity) == ("stdout", "WARN")
    assert ssh.listen_addr == Address("127.0.0.1", 4022)
    assert [str(a) for a in ssh.public_addr] == ["node.example.com:4022", "node.example.com:22"]
    assert ssh.labels == {"environment": "test", "on": "yes", "ratio": "1.0"}
    assert config.warnings == ()


def test_an_auth_server_and_proxy(tmp_path: Path) -> None:
    """Cluster name, tokens from value and file, second factor, keep-alives, storage and addresses arrive as written."""
    token_file = tmp_path / "token"
    token_file.write_text("  from-a-file\n")
    token_file.chmod(0o600)
    config = load(f"""
teleport:
  data_dir: state
  pid_file: /run/teleport.pid
  ciphers: [aes256-ctr]
  connection_limits: {{max_connections: 7, max_users: 3}}
auth_service:
  cluster_name: main.example.com
  listen_addr: "[::]:4025"
  tokens: ["Proxy,node:secret:value", "node:{token_file}"]
  authentication: {{type: local, second_factor: off}}
  keep_alive_interval: never
  keep_alive_count_max: 5
ssh_service: {{enabled: no}}
proxy_service: {{web_listen_addr: ":443", public_addr: proxy.example.com}}
""")
    assert config.roles == ("auth", "proxy")
    assert config.teleport.data_dir == "/etc/state"
    assert config.teleport.storage.path == "/etc/state/backend"
    assert config.teleport.pid_file == "/run/teleport.pid"
    assert config.teleport.ciphers == ("aes256-ctr",)
    assert config.teleport.kex_algos is None
    assert config.teleport.connection_limits.max_connections == 7
    assert [str(a) for a in config.teleport.auth_servers] == ["[::1]:4025"]
    auth = config.auth_service
    assert auth.cluster_name == "main.example.com"
    assert auth.tokens == (
        StaticToken(("proxy", "node"), Secret("secret:value")),
        StaticToken(("node",), Secret("from-a-file")),
    )
    assert auth.authentication == Authentication("local", "off")
    assert (auth.keep_alive_interval, auth.keep_alive_count_max) == (None, 5)
    assert config.proxy_service.web_listen_addr == Address("0.0.0.0", 443)
    assert [str(a) for a in config.proxy_service.public_addr] == ["proxy.example.com:443"]


def test_one_section_is_enough() -> None:
    """A file with nothing but a name runs all three roles with 4.2's ports, as 4.2 does."""
    config = load("teleport: {nodename: one}\nauth_service:\nssh_service: ~\n")
    assert config.roles == ("auth", "proxy", "node")
    assert [str(a) for a in config.teleport.auth_servers] == ["127.0.0.1:3025"]
    assert str(config.auth_service.listen_addr) == "0.0.0.0:3025"
    assert str(config.ssh_service.listen_addr) == "0.0.0.0:3022"
    assert str(config.proxy_service.listen_addr) == "0.0.0.0:3023"
    assert str(config.proxy_service.web_listen_addr) == "0.0.0.0:3080"
    assert config.auth_service.authentication == Authentication("local", "otp")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "The file is empty"),
        ("# nothing\n", 1, "The file is empty"),
        ("- a\n", 1, "sections such as 'teleport:'"),
        ("teleport:\n  nodename: a\n\tdata_dir: /x\n", 3, "indented with a tab"),
        ("teleport:\n  nodename: 'a\n", 3, "This is not YAML"),
        ("teleport:\n  nodename: a: b\n", 2, "This is not YAML"),
        ("a: b\n---\nc: d\n", 2, "A second document"),
        ("a: b\n\x00\n", 2, "control character"),
        ("[" * 3000, 1, "nested too deeply"),
        ("a: " + "x" * (1 << 20), 1, "larger than 1024 KiB"),
        ("teleport: *nowhere\n", 1, "This is not YAML: found undefined alias"),
        ('teleport: {nodename: "\\UFFFFFFFF"}\n', 1, "escaped character"),
        ("teleport: 5\n", 1, "teleport must hold keys"),
        ("telport: {}\n", 1, "no key 'telport'. Did you mean 'teleport'?"),
        ("teleport:\n  nodname: a\n", 2, "no key 'nodname' in teleport. Did you mean 'nodename'?"),
        ("teleport:\n  cluster_name: a\n", 2, "It belongs in auth_service."),
        ("teleport: {qqqqqq: 1}\n", 1, "Known here: advertise_ip, auth_servers,"),
        ("nodename: x\n", 1, "It belongs in teleport."),
        ("teleport: {log: {outptu: x}}\n", 1, "no key 'outptu' in teleport.log. Did you mean 'output'?"),
        ("teleport:\n  nodename: a\n  nodename: b\n", 3, "is in line 2 already"),
        ("teleport: {? [a] : b}\n", 1, "must be a plain name"),
        ("teleport: {nodename: on}\n", 1, "means yes or no to YAML. Put it in quotes"),
        ("teleport: {nodename: [a]}\n", 1, "teleport.nodename must be one text"),
        ("teleport: {nodename: !!python/object:os.system x}\n", 1, "without a YAML tag"),
        ('teleport: {nodename: "a\\nb"}\n', 1, "on one line"),
        ("teleport: {nodename: 'a b'}\n", 1, "not a usable name"),
        ("teleport: {nodename: '*'}\n", 1, "not a usable name"),
        ("teleport: {data_dir: ~/x}\n", 1, "absolute path"),
        ("teleport: {ca_pin: sha256:abc, auth_servers: [a]}\nauth_service: {enabled: no}\n", 1, "64 hex digits"),
        ("teleport: {auth_servers: {a: b}}\n", 1, "a text, or a list of texts"),
        ("teleport: {auth_servers: ['https://a']}\n", 1, "a scheme or path has no place here"),
        ("teleport: {advertise_ip: 0.0.0.0}\n", 1, "not an address that others can connect to"),
        (
            "proxy_service: {public_addr: ':443'}\n",
            1,
            "a port without a host. Write the host before it: example.com:443.",
        ),
        ("proxy_service: {ssh_public_addr: 3023}\n", 1, "a port without a host"),
        ("teleport: {advertise_ip: 3022}\n", 1, "a port without a host"),
        ("teleport: {connection_limits: {max_users: -1}}\n", 1, "a whole number from 1"),
        ("teleport:\n  <<: 5\n", 2, "'<<' in teleport must name a section"),
        ("teleport: {connection_limits: {max_users: 1.5}}\n", 1, "a whole number from 1 to 1000000000, not '1.5'"),
        ("teleport: {log: {output: files}}\n", 1, "Use stderr, stdout, syslog or a path"),
        ("teleport: {log: {severity: loud}}\n", 1, "Possible: debug, info, warn, error"),
        ("teleport: {storage: {type: etcd}}\n", 1, "not available in this version. Possible: sqlite"),
        (
            "teleport: {ciphers: [aes128-cbc, 3des-cbc]}\n",
            1,
            "none of these is offered. Possible: aes256-gcm@openssh.com",
        ),
        (
            "teleport: {ciphers: [aes256-ctr, aes256-ctrl]}\n",
            1,
            "'aes256-ctrl' is not known. Did you mean 'aes256-ctr'?",
        ),
        ("teleport: {ciphers: aes256-ctr}\n", 1, "must be a list"),
        ("teleport: {mac_algos: [hmac-sha1]}\n", 1, "none of these is offered"),
        ("auth_service: {enabled: maybe}\n", 1, "auth_service.enabled must be yes or no, not 'maybe'"),
        ("auth_service: {cluster_name: 'a,b'}\n", 1, "not a usable name"),
        ("auth_service: {keep_alive_interval: 300}\n", 1, "300s or 300m. Or write: never."),
        ("auth_service: {keep_alive_interval: 0s}\n", 1, "longer than zero"),
        ("auth_service: {client_idle_timeout: soon}\n", 1, "is not a duration"),
        ("auth_service: {listen_addr: '0.0.0.0:99999'}\n", 1, "a number from 1 to 65535"),
        ("auth_service: {authentication: {type: saml}}\n", 1, "'saml' is not available in this version"),
        ("auth_service: {authentication: {second_factor: u2f}}\n", 1, "'u2f' is not available"),
        ("auth_service: {authentication: {second_factor: false}}\n", 1, "'false' is not known. Possible: otp, off."),
        ("auth_service: {session_recording: everywhere}\n", 1, "Possible: node, proxy, off"),
        ("auth_service: {tokens: ['nod:x']}\n", 1, "must be one of auth, node, proxy. Did you mean 'node'?"),
        ("auth_service: {tokens: ['node:']}\n", 1, "the token is empty"),
        ("auth_service: {tokens: ['just-a-value']}\n", 1, "a token is written as roles:value"),
        ("auth_service: {tokens: ['node:a b']}\n", 1, "one word"),
        ("auth_service: {tokens: ['node:/nowhere/token']}\n", 1, "/nowhere/token cannot be read: No such file"),
        ("auth_service: {tokens: ['node:/dev/null']}\n", 1, "/dev/null is empty"),
        ("ssh_service: {labels: [a]}\n", 1, "names and values"),
        ("ssh_service: {labels: {a: [b]}}\n", 1, "ssh_service.labels.a must have one text"),
        ("ssh_service: {labels: {'a b': c}}\n", 1, "label name 'a b' is not usable"),
        ('ssh_service: {labels: {a: "b\\nc"}}\n', 1, "on one line"),
        ("ssh_service: {permit_user_env: perhaps}\n", 1, "yes or no"),
        (
            "ssh_service: {gateway_ports: client}\n",
            1,
            "Did you mean 'clientspecified'? Possible: no, yes, clientspecified",
        ),
        ("ssh_service: {gateway_ports: [yes]}\n", 1, "must be one word"),
        ("ssh_service: {commands: [{name: a}]}\n", 1, "needs a command: a program"),
        ("ssh_service: {commands: [{name: a, command: []}]}\n", 1, "needs a command: a program"),
        ("ssh_service: {commands: [{name: a, command: ['', x]}]}\n", 1, "needs a command: a program"),
        ("ssh_service: {commands: [{name: a, command: [echo, [x]]}]}\n", 1, "must be one text"),
        ('ssh_service: {commands: [{name: a, command: [echo, "a\\0b"]}]}\n', 1, "holds a NUL character"),
        ("proxy_service: {https_key_file: /nowhere/k, https_cert_file: /dev/null}\n", 1, "/nowhere/k cannot be read"),
        ("proxy_service: {https_key_file: /etc/passwd}\n", 1, "needs https_cert_file as well"),
        ("proxy_service: {listen_addr: '127.0.0.1:3022'}\n", 1, "takes the port of ssh_service.listen_addr"),
        ("auth_service: {enabled: no}\n", 1, "No auth server is named"),
        ("teleport: {proxy_server: ''}\nauth_service: {enabled: no}\n", 1, "No auth server is named"),
        ("{auth_service: {enabled: no}, ssh_service: {enabled: no}, proxy_service: {enabled: no}}", 1, "are all off"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, line: int, said: str) -> None:
    """A wrong file is refused before anything starts; the message names the line and what would be right."""
    found = problems(text)
    assert any(file == "/etc/teleport.yaml" and at == line and said in sentence for file, at, sentence in found), found


@pytest.mark.parametrize("key", ["auth_servers: ['https://a']", "auth_server: a", "proxy_server: a:443"])
def test_one_error_for_one_cause(key: str) -> None:
    """A wrong auth server is told as that, and not also as a missing one."""
    assert len(problems(f"teleport: {{{key}}}\nauth_service: {{enabled: no}}\n")) == 1


def test_a_token_file_that_is_gone_is_no_error() -> None:
    """A host that has joined starts without its token's file; where one is needed, it is known why there is none."""
    text = "teleport: {auth_token: /nowhere/token, auth_servers: [a]}\nauth_service: {enabled: no}\n"
    config = load(text)
    assert config.teleport.auth_token is None
    assert "/nowhere/token cannot be read: No such file" in config.teleport.auth_token_problem
    assert [warning[1:] for warning in config.warnings] == [
        (1, f"teleport.auth_token: {config.teleport.auth_token_problem} A host that has joined needs none.")
    ]
    flagged = load(text, Flags(token=Secret("t")))
    assert (flagged.teleport.auth_token, flagged.teleport.auth_token_problem) == (Secret("t"), "")
    assert not flagged.warnings
    flagged = load("teleport: {auth_token: t}\n", Flags(token_problem="gone"))
    assert (flagged.teleport.auth_token, flagged.teleport.auth_token_problem) == (None, "gone")
    assert "one word" in problems("teleport: {auth_token: a b}\n")[0][2]


def test_everything_at_once() -> None:
    """Ten mistakes need one run to find, not ten; they are told in the order of the file."""
    text = """\
teleport:
  nodname: a
  data_dir: ~/x
  log: {severity: loud}
auth_service:
  enabled: perhaps
  tokens: ["nod:x", "node:"]
  authentication: {second_factor: of}
  keep_alive_interval: 300
ssh_service:
  labels: {a b: c}
  listen_addr: 0.0.0.0:0x
"""
    assert [line for _, line, _ in problems(text)] == [2, 3, 4, 6, 7, 7, 8, 9, 11, 12]


def test_messages_do_not_show_tokens() -> None:
    """A token with a typing mistake around it does not end up in a terminal's history or a ticket."""
    for item in (
        "SeCrEt",
        "SeCrEt:node",
        "nod:SeCrEt",
        "node:SeCrEt x",
        "node,SeCrEt:node",
        "[SeCrEt]",
        '"node:Se\\nCrEt"',
    ):
        assert "crEt" not in str(problems(f"auth_service: {{tokens: [{item}]}}\n"))
    assert "SeCrEt" not in str(problems("teleport: {auth_token: [SeCrEt], nodename: 'a b'}\n"))
    shown = repr(load("teleport: {auth_token: SeCrEt}\nauth_service: {tokens: ['node:SeCrEt']}\n"))
    assert "SeCrEt" not in shown


def test_keys_without_effect_are_accepted_with_a_warning() -> None:
    """A 4.2 file loads, and its administrator is told which of its settings do nothing here."""
    config = load("""\
teleport:
  ciphersuites: [tls-ecdhe-rsa-with-aes-128-gcm-sha256]
  cache: {type: sqlite, ttl: never}
  connection_limits: {rates: [{period: 1s, average: 2, burst: 3}]}
  storage: {type: dir, audit_sessions_uri: "s3://x"}
auth_service:
  session_recording: off
  client_idle_timeout: 30m
  disconnect_expired_cert: no
  proxy_checks_host_keys: yes
  license_file: /var/lib/teleport/license.pem
  tokens: ["node,trusted_cluster:x"]
ssh_service:
  permit_user_env: false
  commands: [{name: arch, command: [/bin/uname, -p], period: 1h0m0s}]
  enhanced_recording: {enabled: false}
  pam: {enabled: no, service_name: teleport}
proxy_service:
  tunnel_listen_addr: 0.0.0.0:3024
  tunnel_public_addr: proxy.example.com:3024
  kubernetes: {enabled: yes}
""")
    said = {sentence.split(" ")[0].rstrip(":") for _, _, sentence in config.warnings}
    assert said == {
        "teleport.ciphersuites", "teleport.cache", "teleport.connection_limits.rates", "teleport.storage.type",
        "teleport.storage.audit_sessions_uri", "auth_service.session_recording", "auth_service.client_idle_timeout",
        "auth_service.disconnect_expired_cert", "auth_service.proxy_checks_host_keys", "auth_service.license_file",
        "auth_service.tokens", "ssh_service.enhanced_recording",
        "proxy_service.tunnel_listen_addr", "proxy_service.tunnel_public_addr",
        "proxy_service.kubernetes",
    }  # fmt: skip
    assert [line for _, line, _ in config.warnings] == sorted(line for _, line, _ in config.warnings)
    assert config.auth_service.tokens == (StaticToken(("node",), Secret("x")),)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("yes", "yes"),
        ("no", "no"),
        ("clientspecified", "clientspecified"),
        ("ClientSpecified", "clientspecified"),
        ("true", "yes"),
        ("off", "no"),
        ("~", "no"),
    ],
)
def test_gateway_ports(written: str, read: str) -> None:
    """sshd's three words are understood, also as a program that writes YAML spells them; without one, none is open."""
    assert load(f"ssh_service: {{gateway_ports: {written}}}\n").ssh_service.gateway_ports == read


def test_label_commands_pam_and_variables() -> None:
    """Commands, PAM and variables arrive as they are written; each wrong one is told with its line."""
    ssh = load("""
ssh_service:
  permit_user_env: yes
  accept_env: [EDITOR, "GIT_*"]
  commands:
  - {name: arch, command: [/bin/uname, -p], period: 1h0m0s}
  - {name: up, command: [uptime]}
  pam: {enabled: yes, service_name: teleport}
""").ssh_service
    assert ssh.commands == (CommandLabel("arch", ("/bin/uname", "-p"), 3600), CommandLabel("up", ("uptime",), 60))
    assert (ssh.permit_user_env, ssh.pam_service, ssh.accept_env) == (True, "teleport", ("EDITOR", "GIT_*"))
    with pytest.raises(ConfigError) as caught:
        load("""
ssh_service:
  labels: {a b: x}
  accept_env: ["a b"]
  commands:
  - {name: arch, command: []}
  - {command: [id]}
  - {name: up, command: uptime, period: 5ms}
  - {name: "a b", command: [id]}
  pam: {enabled: yes, service_name: ../x}
""")
    said = str(caught.value)
    for line, part in (
        (3, "a b"),
        (4, "EDITOR"),
        (6, "needs a command"),
        (7, "needs a name"),
        (8, "must be a list"),
        (9, "a b"),
    ):
        assert any(problem.partition(":")[2].startswith(f"{line}:") and part in problem for problem in said.split("\n"))
    assert "not the name of a file in /etc/pam.d" in said


def test_warns_of_an_auth_server_that_was_not_meant() -> None:
    """The joining node of 4.2's guide, which leaves out 'auth_service: enabled: no', says what it is about to do."""
    text = "teleport: {auth_servers: [10.0.0.1]}\n"
    assert "auth_service.enabled: no" in load(text).warnings[0][2]
    assert load(text + "auth_service: {enabled: yes}\n").warnings == ()


def test_readable_secrets_are_warned_of(tmp_path: Path) -> None:
    """Tokens and keys that every user of the machine can read are pointed out."""
    token, key, cert = tmp_path / "token", tmp_path / "key.pem", tmp_path / "cert.pem"
    for file in (token, key, cert):
        file.write_text("x")
        file.chmod(0o644)
    file = tmp_path / "teleport.yaml"
    file.write_text(f"""
auth_service: {{tokens: ["node:{token}"]}}
proxy_service: {{https_key_file: key.pem, https_cert_file: cert.pem}}
""")
    file.chmod(0o644)
    config = read_config(str(file))
    assert len(config.warnings) == 3
    for (_, _, sentence), path in zip(config.warnings, (token, file, key), strict=True):
        assert f"chmod o-rwx {path}" in sentence
    assert config.proxy_service.https_cert_file == str(cert)
    for path in (file, token, key):
        path.chmod(0o600)
    assert read_config(str(file)).warnings == ()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a folder and a file that is no text are told by name."""
    binary = tmp_path / "binary"
    binary.write_bytes(b"teleport:\n  nodename: \xff\n")
    for path, line, said in (
        (tmp_path / "no", 1, "No such file"),
        (tmp_path, 1, "Is a directory"),
        (binary, 2, "UTF-8"),
    ):
        with pytest.raises(ConfigError) as caught:
            read_config(str(path))
        assert caught.value.problems[0][:2] == (str(path), line)
        assert said in str(caught.value)


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    """A file saved by an editor of Windows loads."""
    file = tmp_path / "bom.yaml"
    file.write_bytes(b"\xef\xbb\xbfteleport:\r\n  nodename: a\r\n")
    assert read_config(str(file)).teleport.nodename == "a"


def test_host_name_that_cannot_be_a_nodename() -> None:
    """A machine with an odd host name is asked to set nodename, instead of getting certificates that match nothing."""
    with pytest.raises(ConfigError, match=r"set teleport\.nodename"):
        load_config("teleport: {}\n", "x", hostname=lambda: "odd host")
    assert load_config("teleport: {nodename: a}\n", "x", hostname=lambda: "odd host").teleport.nodename == "a"


def test_flags_go_before_the_file() -> None:
    """What is typed on the command line wins over the file."""
    flags = Flags(
        roles=("node", "proxy"),
        nodename="flag",
        auth_servers=(Address("auth", 3025),),
        token=Secret("t"),
        ca_pin=(PIN,),
        advertise_ip="10.0.0.9",
        listen_ip="127.0.0.1",
        labels={"a": "flag"},
        pid_file="/run/x.pid",
    )
    config = load(
        "teleport: {nodename: file, auth_servers: [other], auth_token: o}\n"
        "ssh_service: {enabled: no, labels: {a: file, b: c}}\n",
        flags,
    )
    assert config.roles == ("proxy", "node")
    assert config.teleport.nodename == "flag"
    assert config.teleport.auth_servers == (Address("auth", 3025),)
    assert config.teleport.auth_token == Secret("t")
    assert config.teleport.ca_pin == (PIN,)
    assert config.teleport.advertise_ip == Address("10.0.0.9", 3022)
    assert config.teleport.pid_file == "/run/x.pid"
    assert config.ssh_service.labels == {"a": "flag", "b": "c"}
    assert str(config.ssh_service.listen_addr) == "127.0.0.1:3022"
    assert str(config.proxy_service.web_listen_addr) == "127.0.0.1:3080"


def test_auth_server_flag_turns_the_role_auth_off() -> None:
    """`teleport start --auth-server=A` joins A and runs no auth server of its own."""
    assert default_config(Flags(auth_servers=(Address("a", 3025),))).roles == ("proxy", "node")
    config = default_config(Flags(auth_servers=(Address("a", 3025),), roles=("auth", "node")))
    assert config.roles == ("node",)
    assert "--auth-server" in config.warnings[0][2]


def test_flags_alone() -> None:
    """Without any file all roles run; a node alone is told to name its auth server."""
    config = default_config(Flags())
    assert (config.filename, config.roles) == (None, ("auth", "proxy", "node"))
    with pytest.raises(BadParameter, match="--auth-server"):
        default_config(Flags(roles=("node",)))


def test_one_role_of_a_file() -> None:
    """`twistd teleport-node -c FILE` runs the node of an all-in-one file, and knows its auth server; a role that is off
    there is refused."""
    whole = load(
        "teleport: {nodename: a}\nauth_service: {listen_addr: '127.0.0.1:4025'}\nproxy_service: {enabled: no}\n"
    )
    node = whole.only("node")
    assert node.roles == ("node",)
    assert [str(a) for a in node.teleport.auth_servers] == ["127.0.0.1:4025"]
    assert evolve(node, auth_service=whole.auth_service) == whole
    with pytest.raises(BadParameter, match=r"/etc/teleport\.yaml turns proxy_service off"):
        whole.only("proxy")
