"""Files of the shapes that people publish for Teleport 4 to 18, with names of our own: each loads, with warnings at
most, or is refused for the lines that deserve it and for no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from teleconch.config.document import Notice
from teleconch.config.load import load_config
from teleconch.errors import ConfigError

# Name, roles, lines with warnings, lines with errors and a part of what is said there. TLS stands for a folder with
# key.pem and cert.pem, TOKEN for a file with a token.
FILES: dict[str, tuple[tuple[str, ...], set[int], dict[int, str], str]] = {
    "teleport configure of 4.2, as printed": (
        ("auth", "proxy", "node"), {4, 11, 12}, {}, """\
teleport:
  nodename: anvil
  auth_token: cc3a4bd2ae0e4d7ba0d8e0ad8df9ce2cbd6c1ed9cc9b23ff
  ca_pin: sha256:ca-pin-hash-goes-here
  data_dir: /var/lib/teleport
  auth_servers: ["127.0.0.1:3025"]
  log: {output: stderr, severity: INFO}
auth_service:
  enabled: "yes"
  listen_addr: 0.0.0.0:3025
  license_file: /path/to/license-if-using-teleport-enterprise.pem
  tokens: ["proxy,node,trusted_cluster:cc3a4bd2ae0e4d7ba0d8e0ad8df9ce2cbd6c1ed9cc9b23ff"]
ssh_service:
  enabled: "yes"
  labels: {db_role: master, db_type: postgres}
  commands:
  - {name: hostname, command: [/usr/bin/hostname], period: 1m0s}
  - {name: arch, command: [/usr/bin/uname, -p], period: 1h0m0s}
"""),
    "teleport configure of 5, as printed": (
        ("auth", "proxy", "node"), {6, 11, 19}, {}, """\
teleport:
  nodename: anvil
  data_dir: /var/lib/teleport
  auth_servers: ["127.0.0.1:3025"]
  log: {output: stderr, severity: INFO}
  ca_pin: ""
auth_service:
  enabled: "yes"
  listen_addr: 0.0.0.0:3025
  cluster_name: forge
  license_file: /var/lib/teleport/license.pem
ssh_service:
  enabled: "yes"
  labels: {env: staging}
  commands: [{name: hostname, command: [hostname], period: 1m0s}]
proxy_service:
  enabled: "yes"
  listen_addr: 0.0.0.0:3023
  https_keypairs: []
"""),
    "teleport configure of 7, as printed": (
        ("auth", "proxy", "node"), {4, 5, 13, 14}, {}, """\
teleport:
  nodename: anvil
  data_dir: /var/lib/teleport
  log: {output: stderr, severity: INFO, format: {output: text}}
  ca_pin: ""
auth_service: {enabled: "yes", listen_addr: "0.0.0.0:3025"}
ssh_service:
  enabled: "yes"
  labels: {env: staging}
proxy_service:
  enabled: "yes"
  listen_addr: 0.0.0.0:3023
  https_keypairs: []
  acme: {}
"""),
    "teleport configure --acme of 8": (
        (), {1, 6, 7, 8, 19}, {12: "SSH have a port each", 20: "https_key_file and https_cert_file"}, """\
version: v2
teleport:
  nodename: anvil
  data_dir: /var/lib/teleport
  log:
    format: {output: text}
  ca_pin: ""
  diag_addr: ""
auth_service:
  enabled: "yes"
  cluster_name: tele.example.com
  proxy_listener_mode: multiplex
ssh_service:
  enabled: "yes"
proxy_service:
  enabled: "yes"
  web_listen_addr: 0.0.0.0:443
  public_addr: tele.example.com:443
  https_keypairs: []
  acme:
    enabled: "yes"
    email: ops@example.com
"""),
    "teleport node configure of 10": (
        (), {1, 9, 10, 11}, {4: "auth_token with the token"}, """\
version: v2
teleport:
  nodename: anvil
  join_params:
    token_name: 0123456789abcdef
    method: token
  auth_servers: ["tele.example.com:443"]
  data_dir: /var/lib/teleport
  log: {output: stderr, severity: INFO, format: {output: text}}
  ca_pin: ""
  diag_addr: ""
auth_service: {enabled: "no"}
ssh_service:
  enabled: "yes"
  commands: [{name: hostname, command: [hostname], period: 1m0s}]
proxy_service: {enabled: "no", https_keypairs: [], acme: {}}
"""),
    "a node of 12 and later that joins by the proxy": (
        (), {1, 6}, {5: "auth_servers, with its port 3025"}, """\
version: v3
teleport:
  nodename: anvil
  auth_token: TOKEN
  proxy_server: tele.example.com:443
  log: {output: stderr, severity: INFO, format: {output: text}}
auth_service: {enabled: no}
ssh_service: {enabled: true, labels: {env: staging}}
proxy_service: {enabled: false}
"""),
    "a cluster of 17 behind a reverse proxy": (
        (), {1, 3, 4, 12, 14, 15, 16},
        {8: "a port each", 13: "There is no such thing here", 17: "There is no such thing here",
         18: "no access to Kubernetes"}, """\
version: v3
teleport:
  ca_pin: ""
  diag_addr: ""
auth_service:
  enabled: "yes"
  cluster_name: tele.example.com
  proxy_listener_mode: multiplex
proxy_service:
  enabled: "yes"
  public_addr: tele.example.com:443
  acme: {}
  trust_x_forwarded_for: true
  https_keypairs_reload_interval: 0s
  tunnel_listen_addr: 0.0.0.0:3024
  tunnel_public_addr: tele.example.com:3024
  peer_listen_addr: 0.0.0.0:3021
  kube_public_addr: tele.example.com:3026
"""),
    "the guide's node of 4.x": (
        ("node",), set(), {}, """\
# the node
teleport:
    auth_token: TOKEN
    ca_pin: "sha256:1111111111111111111111111111111111111111111111111111111111111111"
    advertise_ip: 10.1.0.5
    auth_servers:
        - 10.1.0.20:3025
        - auth.example.com
    connection_limits: {max_connections: 1000, max_users: 250}
    log:
        output: /var/lib/teleport/teleport.log
        severity: ERROR
auth_service:
    enabled: no
proxy_service:
    enabled: no
ssh_service:
    enabled: yes
    labels: {role: leader, type: postgres}
    commands:
    - name: arch
      command: ['/bin/uname', '-p']
      period: 1h0m0s
    permit_user_env: false
    pam: {enabled: no, service_name: teleport}
"""),
    "the whole reference file of 4.2": (
        ("auth", "proxy", "node"), {4, 5, 6, 8, 10, 11, 14, 18, 19, 20, 21, 23, 26, 29, 30, 33}, {}, """\
teleport:
  log: {output: stderr, severity: ERROR}
  storage:
    type: dir
    audit_events_uri: ['file:///var/lib/teleport/log', 'stdout://']
    audit_sessions_uri: 's3://example.com/path/to/bucket?region=us-east-1'
  ciphers: [aes128-ctr, aes192-ctr, aes256-ctr, aes128-gcm@openssh.com, chacha20-poly1305@openssh.com]
  kex_algos: [curve25519-sha256@libssh.org, ecdh-sha2-nistp256, ecdh-sha2-nistp384, diffie-hellman-group14-sha1]
  mac_algos: [hmac-sha2-256-etm@openssh.com, hmac-sha2-256]
  ciphersuites: [tls-ecdhe-rsa-with-aes-128-gcm-sha256]
  ca_signature_algo: "rsa-sha2-512"
auth_service:
  cluster_name: "main"
  authentication: {type: local, second_factor: otp, u2f: {app_id: "https://localhost:3080", facets: []}}
  listen_addr: 0.0.0.0:3025
  public_addr: auth.example.com:3025
  tokens: ["proxy,node:xxxxx", "auth:yyyy"]
  session_recording: "node"
  proxy_checks_host_keys: yes
  client_idle_timeout: never
  disconnect_expired_cert: no
  keep_alive_interval: 5m
  license_file: /var/lib/teleport/license.pem
ssh_service:
  public_addr: node.example.com:3022
  enhanced_recording: {enabled: false, command_buffer_size: 8, cgroup_path: /cgroup2}
proxy_service:
  listen_addr: 0.0.0.0:3023
  tunnel_listen_addr: 0.0.0.0:3024
  tunnel_public_addr: proxy.example.com:3024
  https_key_file: TLS/key.pem
  https_cert_file: TLS/cert.pem
  kubernetes: {enabled: yes, listen_addr: "0.0.0.0:3026", public_addr: ['kube.example.com:3026']}
"""),
    "the joining node that forgets to turn auth off": (
        ("auth", "proxy", "node"), {2}, {}, """\
teleport:
  auth_servers: ["auth.example.com:3025"]
  auth_token: 0123456789abcdef
"""),
    "AWS: auth servers that share a table": (
        (), {9, 10, 11, 12, 15}, {8: "'dynamodb' is not available in this version. Possible: sqlite"}, """\
teleport:
  nodename: ip-10-0-3-17.ec2.internal
  advertise_ip: 10.0.3.17
  log: {output: syslog, severity: INFO}
  data_dir: /var/lib/teleport
  cache: ~
  storage:
    type: dynamodb
    region: eu-west-1
    table_name: forge
    audit_events_uri: dynamodb://forge-events
    audit_sessions_uri: s3://forge-sessions/records
auth_service:
  listen_addr: 0.0.0.0:3025
  license_file: /var/lib/teleport/license.pem
  authentication: {second_factor: otp}
  cluster_name: forge
ssh_service: {enabled: no}
proxy_service: {enabled: no}
"""),
    "AWS: a node, one storage section for all": (
        ("node",), {5}, {}, """\
teleport:
  nodename: ip-10-0-4-9.ec2.internal
  auth_token: TOKEN
  ca_pin: sha256:2222222222222222222222222222222222222222222222222222222222222222
  storage: {type: dynamodb, region: eu-west-1, table_name: forge, audit_sessions_uri: "s3://forge"}
  auth_servers: [forge-nlb-0a1b2c3d.elb.eu-west-1.amazonaws.com:3025]
auth_service: {enabled: no}
proxy_service: {enabled: no}
ssh_service: {enabled: yes, listen_addr: "0.0.0.0:3022"}
"""),
    "AWS: a pin that a script was to fill in": (
        (), set(), {4: "64 hex digits"}, """\
teleport:
  auth_servers: [auth.example.com]
  auth_token: TOKEN
  ca_pin: CA_PIN_GOES_HERE
auth_service: {enabled: no}
"""),
    "AWS: a proxy": (
        ("proxy",), {9, 10}, {}, """\
teleport:
  auth_token: TOKEN
  auth_servers: [forge-nlb.example.com:3025]
auth_service: {enabled: no}
ssh_service: {enabled: no}
proxy_service:
  listen_addr: 0.0.0.0:3023
  web_listen_addr: 0.0.0.0:3080
  tunnel_listen_addr: 0.0.0.0:3024
  tunnel_public_addr: tele.example.com:3024
  public_addr: tele.example.com:443
  ssh_public_addr: tele.example.com:3023
  https_key_file: TLS/key.pem
  https_cert_file: TLS/cert.pem
"""),
    "docker-compose: everything in one container": (
        ("auth", "proxy", "node"), {5, 10, 11, 13}, {}, """\
teleport:
  nodename: one
  auth_token: hunter
  auth_servers: ["localhost:3025"]
  cache: {enabled: false}
  data_dir: /var/lib/teleport
  storage: {path: /var/lib/teleport/backend}
auth_service:
  enabled: yes
  license_file: /var/lib/teleport/license.pem
  tokens: ["node,auth,proxy:hunter", "trustedcluster:bar", "node,auth:other"]
  cluster_name: one
  session_recording: proxy
ssh_service: {enabled: yes, labels: {cluster: docker}, public_addr: ["localhost", "one"]}
proxy_service: {enabled: yes, public_addr: ["one:3080", "localhost:3080"]}
"""),
    "docker-compose: all roles, auth at 0.0.0.0": (
        ("auth", "proxy", "node"), {2, 5}, {}, """\
teleport:
  auth_servers: ["0.0.0.0:3025"]
  auth_token: 0123456789abcdef
auth_service:
  tokens: ["proxy,node:0123456789abcdef", "auth:0123456789abcdef"]
  enabled: true
"""),
    "Ansible: a role whose variables are not set": (
        ("node",), {3, 4, 11, 14, 15}, {}, """\
teleport:
  nodename: ""
  auth_token: ""
  ca_pin: ""
  advertise_ip: ""
  auth_servers: ["auth.example.com:3025", ""]
  pid_file: ""
  log: {output: "", severity: ""}
auth_service: {enabled: "no", cluster_name: "", tokens: [], session_recording: "", public_addr: ""}
ssh_service:
  enabled: ""
  labels: {}
  commands: []
  enhanced_recording: {enabled: "no"}
  pam: {enabled: "", service_name: ""}
proxy_service: {enabled: "no", public_addr: "", https_key_file: "", https_cert_file: "", listen_addr: ""}
"""),
    "Ansible: one template for every host": (
        ("node",), {4, 7, 10}, {}, """\
teleport:
  auth_servers: [auth.example.com]
  auth_token: 0123456789abcdef
  storage: {type: etcd, peers: ["https://10.0.0.2:4001"], prefix: /forge/}
auth_service:
  enabled: no
  authentication: {type: github}
  tokens: ['node:x', 'proxy:x']
proxy_service: {enabled: no, https_key_file: /nonexistent/k.pem, https_cert_file: /nonexistent/c.pem,
  https_keypairs: [{key_file: /nonexistent/k.pem, cert_file: /nonexistent/c.pem}]}
ssh_service: {enabled: yes}
"""),
    "Puppet: booleans and numbers as Ruby prints them": (
        ("node",), set(), {}, """\
---
teleport:
  nodename: web01.example.com
  data_dir: '/var/lib/teleport'
  auth_token: '0123456789'
  auth_servers:
    - 10.1.0.20:3025
  connection_limits: {max_connections: 1000, max_users: 250}
  log: {output: syslog, severity: WARN}
auth_service:
  enabled: false
proxy_service:
  enabled: false
ssh_service:
  enabled: true
  listen_addr: 0.0.0.0:3022
  labels:
    release: 7
    vagrant: false
    since: 2019-01-01
"""),
    "Chef: commands that are scripts": (
        ("node",), set(), {}, """\
teleport: {auth_servers: [auth.example.com], auth_token: 0123456789abcdef}
auth_service: {enabled: no}
proxy_service: {enabled: no}
ssh_service:
  commands:
  - name: uptime
    command: ["/bin/sh", "-c", "uptime -p | sed 's/up //'"]
    period: 5m
  - name: disk
    period: 10m
    command:
    - /bin/bash
    - -c
    - |
      df -h / |
        awk 'NR == 2 {print $5}'
  - {name: ip, command: [cut, -d, " ", -f1, /var/lib/ip], period: 1h}
"""),
    "commands as one text": (
        (), set(), {5: "must be a list of a program and its arguments, such as [uname, -r]"}, """\
teleport: {auth_servers: [auth.example.com], auth_token: 0123456789abcdef}
auth_service: {enabled: no}
ssh_service:
  commands:
  - {name: kernel, command: "uname -r", period: 1h}
"""),
    "Helm: a chart's cluster with Kubernetes": (
        (), {2}, {6: "There is no access to Kubernetes", 11: "Kubernetes", 12: "There is no such thing here"}, """\
teleport:
  log: {severity: INFO, output: stderr, format: {output: text, extra_fields: [timestamp, level, component, caller]}}
auth_service:
  enabled: true
  cluster_name: tele.example.com
kubernetes_service:
  enabled: true
  listen_addr: 0.0.0.0:3027
proxy_service:
  public_addr: 'tele.example.com:443'
  kube_listen_addr: 0.0.0.0:3026
  mysql_listen_addr: 0.0.0.0:3036
  enabled: true
"""),
    "Helm: an agent, all services named": (
        ("node",), {7, 8, 9, 10, 11}, {}, """\
teleport:
  auth_token: "TOKEN"
  auth_servers: ["tele.example.com:3025"]
ssh_service: {enabled: "yes"}
auth_service: {enabled: false}
proxy_service: {enabled: false}
kubernetes_service: {enabled: false}
app_service: {enabled: false}
db_service: {enabled: false}
windows_desktop_service: {enabled: no}
discovery_service: {enabled: no}
"""),
    "applications and databases": (
        (), set(), {4: "There is no access to web applications here", 7: "no access to databases"}, """\
teleport: {auth_servers: [auth.example.com], auth_token: 0123456789abcdef}
auth_service: {enabled: no}
proxy_service: {enabled: no}
app_service:
  enabled: yes
  apps: [{name: grafana, uri: "http://127.0.0.1:3000"}]
db_service:
  enabled: yes
  databases: [{name: ledger, protocol: postgres, uri: "db.example.com:5432"}]
"""),
    "single sign-on and security keys": (
        (), set(), {3: "'github' is not available", 4: "'webauthn' is not available", 5: "second_factor: otp",
                    6: "at tsh login only"}, """\
auth_service:
  authentication:
    type: github
    second_factor: webauthn
    webauthn: {rp_id: tele.example.com}
    require_session_mfa: yes
"""),
    "a hardened node of a later release": (
        (), set(), {4: "not of a node", 5: "cannot be turned off", 6: "no such thing", 7: "its auth does not"}, """\
teleport: {auth_servers: [auth.example.com], auth_token: 0123456789abcdef}
auth_service: {enabled: no}
ssh_service:
  port_forwarding: false
  ssh_file_copy: no
  restricted_session: {enabled: yes}
  pam: {enabled: yes, use_pam_auth: true}
"""),
    "slips of the hand": (
        (), set(), {2: "Did you mean 'auth_servers'?", 4: "It belongs in auth_service.", 6: "Did you mean 'commands'?",
                    7: "Did you mean 'proxy_service'?"}, """\
teleport:
  auth_sever: [auth.example.com]
  nodename: anvil
  cluster_name: forge
ssh_service:
  comands: []
proxy_services: {enabled: no}
"""),
    "ports alone": (
        (), set(), {5: "a port without a host. Write the host before it: example.com:443."}, """\
auth_service: {listen_addr: 3025}
ssh_service: {listen_addr: ":3022"}
proxy_service:
  web_listen_addr: 443
  public_addr: ":443"
"""),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_published_files(name: str, tmp_path: Path) -> None:
    """The file starts its roles, or each line that keeps it from that says why; nobody is told of another line."""
    roles, warned, refused, text = FILES[name]
    for file in ("key.pem", "cert.pem", "token"):
        (tmp_path / file).write_text("x\n")
        (tmp_path / file).chmod(0o600)
    text = text.replace("TLS/", f"{tmp_path}/").replace("TOKEN", f"{tmp_path}/token")
    problems: list[Notice] = []
    started: tuple[str, ...] = ()
    try:
        config = load_config(text, "/etc/teleport.yaml", hostname=lambda: "graviton")
    except ConfigError as e:
        problems, warnings = e.problems, e.warnings
    else:
        started, warnings = config.roles, config.warnings
    assert ({line for _, line, _ in problems}, started) == (set(refused), roles), problems
    for line, part in refused.items():
        assert any(part in sentence for _, at, sentence in problems if at == line), problems
    assert {line for _, line, _ in warnings} == warned, warnings
