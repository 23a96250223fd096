"""The ``teleport`` section: what applies to every role."""

from __future__ import annotations

import os
from collections.abc import Callable

from teleconch import defaults
from teleconch.config.addresses import Address, check_host_name, is_host_name, parse_reachable
from teleconch.config.algorithms import CIPHERS, KEX_ALGOS, MAC_ALGOS
from teleconch.config.flags import Flags
from teleconch.config.secrets import check_pin, read_token
from teleconch.config.section import Section
from teleconch.config.values import ConnectionLimits, Log, Storage, TeleportSection

DEFAULT_DATA_DIR = "/var/lib/teleport"

_OUTPUTS = {"stderr": "stderr", "error": "stderr", "2": "stderr", "stdout": "stdout", "out": "stdout", "1": "stdout"}
_SEVERITIES = {"warning": "warn", "err": "error"}  # 4.2 takes these as well


def read_teleport(section: Section, ssh_port: int, flags: Flags, hostname: Callable[[], str]) -> TeleportSection:
    """The ``teleport`` section. ``hostname`` is asked only where neither file nor flags name the host."""
    section.later("ciphersuites", "ca_signature_algo", "seed_config", "cache")
    data_dir = section.file_path("data_dir", DEFAULT_DATA_DIR)
    assert data_dir is not None
    token = section.text("auth_token", None, secret=True)
    line = section.findings.line_of("teleport.auth_token")
    auth_token = (
        section.checked(line, "auth_token", lambda: read_token(token, section.findings, line)) if token else None
    )
    return TeleportSection(
        nodename=_nodename(section, flags, hostname),
        data_dir=data_dir,
        auth_token=auth_token,
        ca_pin=_pins(section),
        advertise_ip=_advertise_ip(section, ssh_port),
        auth_servers=section.addresses("auth_servers", defaults.AUTH_PORT),
        connection_limits=_limits(section.section("connection_limits")),
        log=_log(section.section("log")),
        storage=_storage(section.section("storage"), data_dir),
        pid_file=section.file_path("pid_file", None),
        ciphers=section.some_of("ciphers", CIPHERS),
        kex_algos=section.some_of("kex_algos", KEX_ALGOS),
        mac_algos=section.some_of("mac_algos", MAC_ALGOS),
    )


def _nodename(section: Section, flags: Flags, hostname: Callable[[], str]) -> str:
    given = section.text("nodename", None)
    if given is not None:
        line = section.findings.line_of("teleport.nodename")
        return section.checked(line, "nodename", lambda: check_host_name(given)) or "localhost"
    if flags.nodename is not None:
        return flags.nodename
    name = hostname()
    if not is_host_name(name):
        line = section.findings.line_of("teleport")
        section.findings.error(line, f"This machine's host name {name!r} is not usable here: set teleport.nodename.")
    return name


def _pins(section: Section) -> tuple[str, ...]:
    pins = []
    for line, text in section.texts("ca_pin", single=True):
        pin = section.checked(line, "ca_pin", lambda text=text: check_pin(text))  # type: ignore[misc]
        if pin is not None:
            pins.append(pin)
    return tuple(pins)


def _advertise_ip(section: Section, ssh_port: int) -> Address | None:
    text = section.text("advertise_ip", None)
    if text is None:
        return None
    line = section.findings.line_of("teleport.advertise_ip")
    return section.checked(line, "advertise_ip", lambda: parse_reachable(text, ssh_port))


def _limits(section: Section) -> ConnectionLimits:
    section.later("rates")
    return ConnectionLimits(
        max_connections=section.integer("max_connections", defaults.MAX_CONNECTIONS),
        max_users=section.integer("max_users", defaults.MAX_USERS),
    )


def _log(section: Section) -> Log:
    output = section.one_text("output") or "stderr"
    known = _OUTPUTS.get(output.lower(), output.lower() if output.lower() == "syslog" else None)
    if known is None and "/" not in output:
        line = section.findings.line_of("teleport.log.output")
        section.findings.error(
            line, f"teleport.log.output: {output!r} is not known. Use stderr, stdout, syslog or a path."
        )
    severity = _severity(section)
    path = section.file_path("output", None) if known is None else known
    return Log(output=path or "stderr", severity=severity.upper())


def _severity(section: Section) -> str:
    text = section.one_text("severity")
    alias = _SEVERITIES.get(text.lower()) if text is not None else None
    return alias or section.one_of("severity", ("debug", "info", "warn", "error"), "info")


def _storage(section: Section, data_dir: str) -> Storage:
    section.later("audit_events_uri", "audit_sessions_uri")
    kind = section.one_of("type", ("sqlite", "dir"), "sqlite", not_yet=("bolt", "etcd", "dynamodb", "firestore"))
    if kind == "dir":
        line = section.findings.line_of("teleport.storage.type")
        section.findings.warn(line, "teleport.storage.type: state is kept in SQLite; 'dir' is read as 'sqlite'.")
    # those of other back-ends in 4.2
    section.later("peers", "prefix", "tls_cert_file", "tls_key_file", "tls_ca_file", "insecure", "username")
    section.later("password_file", "region", "table_name", "access_key", "secret_key", "read_capacity_units")
    section.later("write_capacity_units", "audit_table_name", "credentials_path", "project_id", "collection_name")
    path = section.file_path("path", os.path.join(data_dir, "backend"))
    assert path is not None
    return Storage(type="sqlite", path=path)
