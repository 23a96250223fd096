"""The sections ``auth_service``, ``ssh_service`` and ``proxy_service``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from teleconch import defaults
from teleconch.config.addresses import Address, check_host_name
from teleconch.config.labels import check_label, command_label
from teleconch.config.secrets import static_token, warn_if_public
from teleconch.config.section import Section
from teleconch.config.values import Authentication, AuthSection, CommandLabel, ProxySection, SSHSection, StaticToken
from teleconch.errors import BadParameter, quoted

_PERIOD = 60.0  # seconds between two runs of a label's command
_PAM_SERVICE = "sshd"
_GATEWAY_PORTS = ("no", "yes", "clientspecified")  # sshd's words
_BOOLEANS = {"off": "no", "false": "no", "on": "yes", "true": "yes"}  # what programs that write YAML turn them into
_ANY_FACTOR = {"on": "otp"}  # Teleport 6 and later: any factor
_ANY = "0.0.0.0"  # noqa: S104 -- servers listen on every address unless told otherwise, as in 4.2


def read_auth(section: Section) -> AuthSection:
    """``auth_service``. Its keep-alives apply to every SSH connection that the process serves."""
    listen = section.address("listen_addr", Address(_ANY, defaults.AUTH_PORT))
    cluster_name = section.text("cluster_name", None)
    if cluster_name is not None:
        line = section.findings.line_of("auth_service.cluster_name")
        section.checked(line, "cluster_name", lambda: check_host_name(cluster_name))
    section.one_of(
        "session_recording", ("node", "proxy", "off", "node-sync", "proxy-sync"), "node", same={"false": "off"}
    )
    section.boolean("proxy_checks_host_keys", True)
    section.duration("client_idle_timeout", None, never=True)
    section.boolean("disconnect_expired_cert", False)
    section.later("session_recording", "proxy_checks_host_keys", "client_idle_timeout", "disconnect_expired_cert")
    section.later("proxy_protocol", "license_file", "kubeconfig_file", "dynamic_config", "u2f")
    section.later("authorities", "reverse_tunnels", "trusted_clusters", "oidc_connectors")
    return AuthSection(
        enabled=section.boolean("enabled", True),
        cluster_name=cluster_name,
        listen_addr=listen,
        public_addr=section.addresses("public_addr", listen.port or defaults.AUTH_PORT),
        tokens=_tokens(section),
        authentication=_authentication(section.section("authentication")),
        keep_alive_interval=section.duration("keep_alive_interval", defaults.KEEP_ALIVE_INTERVAL, never=True),
        keep_alive_count_max=section.integer("keep_alive_count_max", defaults.KEEP_ALIVE_COUNT_MAX, most=1000),
    )


def read_ssh(section: Section) -> SSHSection:
    """``ssh_service``: the node."""
    listen = section.address("listen_addr", Address(_ANY, defaults.NODE_PORT))
    section.later("namespace", "enhanced_recording")
    labels = {}
    for line, name, value in section.pairs("labels"):
        try:
            check_label(name, value)
        except BadParameter as e:
            section.findings.error(line, f"ssh_service.labels: {e}")
        labels[name] = value
    commands = _commands(section, labels)
    printed = {each.name for each in commands}
    return SSHSection(
        enabled=section.boolean("enabled", True),
        listen_addr=listen,
        public_addr=section.addresses("public_addr", listen.port or defaults.NODE_PORT),
        labels={name: value for name, value in labels.items() if name not in printed},
        commands=commands,
        permit_user_env=section.boolean("permit_user_env", False),
        pam_service=_pam_service(section.section("pam")),
        accept_env=_accept_env(section),
        gateway_ports=section.one_of("gateway_ports", _GATEWAY_PORTS, "no", same=_BOOLEANS),
    )


def _commands(section: Section, labels: Mapping[str, str]) -> tuple[CommandLabel, ...]:
    """The labels that are commands. The last of one name counts, and takes precedence over a static label, as in
    4.2."""
    found: dict[str, CommandLabel] = {}
    for entry in section.sections("commands"):
        name = entry.text("name", "")
        command = entry.argv("command")
        period = entry.duration("period", _PERIOD)
        line = section.findings.line_of(f"{entry.path}.name", f"{entry.path}.command", "ssh_service.commands")
        if not name:
            section.findings.error(line, f"{entry.path} needs a name, such as: name: kernel.")
            continue
        if name in labels or name in found:
            section.findings.warn(line, f"{entry.path}: the label {quoted(name)} is there already; this one counts.")
        if command is None:
            continue
        try:
            found[name] = command_label(name, command, _PERIOD if period is None else period)
        except BadParameter as e:
            section.findings.error(line, f"{entry.path}: {e}")
    return tuple(found.values())


def _pam_service(section: Section) -> str | None:
    enabled = section.boolean("enabled", False)
    name = section.text("service_name", _PAM_SERVICE)
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", name, re.ASCII) is None:
        line = section.findings.line_of("ssh_service.pam.service_name")
        section.findings.error(
            line, f"{section.path}.service_name: {quoted(name)} is not the name of a file in /etc/pam.d."
        )
    return name if enabled else None


def _accept_env(section: Section) -> tuple[str, ...]:
    patterns = []
    for line, pattern in section.texts("accept_env"):
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_*?]{0,127}", pattern, re.ASCII) is None:
            section.findings.error(
                line, f"ssh_service.accept_env: {quoted(pattern)} is not a name like EDITOR or GIT_*."
            )
        patterns.append(pattern)
    return tuple(patterns)


def read_proxy(section: Section) -> ProxySection:
    """``proxy_service``. Public addresses without a port get their listener's."""
    listen = section.address("listen_addr", Address(_ANY, defaults.PROXY_PORT))
    tunnel = section.address("tunnel_listen_addr", Address(_ANY, defaults.TUNNEL_PORT))
    web = section.address("web_listen_addr", Address(_ANY, defaults.WEB_PORT))
    section.addresses("tunnel_public_addr", tunnel.port or defaults.TUNNEL_PORT)
    section.later("tunnel_listen_addr", "tunnel_public_addr", "proxy_protocol", "kubernetes")
    key, certificate = _tls_files(section)
    return ProxySection(
        enabled=section.boolean("enabled", True),
        listen_addr=listen,
        web_listen_addr=web,
        public_addr=section.addresses("public_addr", web.port or defaults.WEB_PORT),
        ssh_public_addr=section.addresses("ssh_public_addr", listen.port or defaults.PROXY_PORT),
        https_key_file=key,
        https_cert_file=certificate,
    )


def _tokens(section: Section) -> tuple[StaticToken, ...]:
    """Static tokens. Those with the same value become one token, for the roles of all of them."""
    tokens: dict[str, StaticToken] = {}
    for line, text in section.texts("tokens", secret=True):
        try:
            token = static_token(text, section.findings, line)
        except BadParameter as e:
            section.findings.error(line, f"auth_service.tokens: {e}")
            continue
        if not token.roles:
            continue
        value = token.value.reveal()
        if value in tokens:
            roles = tuple(dict.fromkeys((*tokens[value].roles, *token.roles)))
            token = StaticToken(roles, token.value)
            section.findings.warn(
                line,
                f"auth_service.tokens: this value is in the list already; it is one token, for {', '.join(roles)}.",
            )
        tokens[value] = token
    return tuple(tokens.values())


def _authentication(section: Section) -> Authentication:
    section.boolean("local_auth", True)
    section.later("local_auth", "connector_name", "u2f")
    return Authentication(
        type=section.one_of("type", ("local",), "local", not_yet=("github", "oidc", "saml")),
        second_factor=section.one_of(
            "second_factor", ("otp", "off"), "otp", not_yet=("u2f", "webauthn", "optional"), same=_ANY_FACTOR
        ),
    )


def _tls_files(section: Section) -> tuple[str | None, str | None]:
    findings = section.findings
    paths = {key: section.file_path(key, None) for key in ("https_key_file", "https_cert_file")}
    key, certificate = paths.values()
    for name, path in paths.items():
        if path is None or findings.idle is not None:  # the files of an idle role are none of our business
            continue
        line = findings.line_of(f"proxy_service.{name}")
        try:
            with open(path, "rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                pem = file.read(1)
        except (OSError, ValueError) as e:
            reason = e.strerror if isinstance(e, OSError) else "it is not a path"
            findings.error(line, f"proxy_service.{name}: {path} cannot be read: {reason}.")
            continue
        if not pem:
            findings.error(line, f"proxy_service.{name}: {path} is empty.")
        if name == "https_key_file":
            warn_if_public(path, mode, findings, line, "the private key of the web certificate")
    if (key is None) != (certificate is None):
        here, other = ("https_cert_file", "https_key_file") if key is None else ("https_key_file", "https_cert_file")
        findings.error(findings.line_of(f"proxy_service.{here}"), f"proxy_service.{here} needs {other} as well.")
    return key, certificate
