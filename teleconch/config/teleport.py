"""The ``teleport`` section: what applies to every role."""

from __future__ import annotations

import os
from collections.abc import Callable

from teleconch import defaults
from teleconch.config import algorithms
from teleconch.config.addresses import Address, check_host_name, is_host_name, parse_reachable
from teleconch.config.flags import Flags
from teleconch.config.secrets import TokenFileProblem, read_token
from teleconch.config.section import Section
from teleconch.config.values import ConnectionLimits, Log, Storage, TeleportSection
from teleconch.errors import BadParameter, quoted
from teleconch.resources.pin import check_pin

_STORES = ("bolt", "etcd", "dynamodb", "firestore", "postgres", "cockroachdb", "azure")
# Keys of other back-ends in 4.2 and later; 4.2 itself accepts any key there.
_OTHER_STORES = (
    *("peers", "prefix", "tls_cert_file", "tls_key_file", "tls_ca_file", "insecure", "username", "password_file"),
    *("dial_timeout", "etcd_max_client_msg_size_bytes", "region", "table_name", "access_key", "secret_key", "endpoint"),
    *("read_capacity_units", "write_capacity_units", "audit_table_name", "poll_stream_period", "retry_period"),
    *("continuous_backups", "auto_scaling", "read_min_capacity", "read_max_capacity", "read_target_value"),
    *("write_min_capacity", "write_max_capacity", "write_target_value", "billing_mode", "audit_retention_period"),
    *("retention_period", "credentials_path", "project_id", "database_id", "collection_name", "buffer_size"),
    *("purge_expired_documents_poll_interval", "conn_string", "auth_mode", "change_feed_conn_string"),
    *("change_feed_poll_interval", "change_feed_batch_size", "expiry_interval", "expiry_batch_size", "disable_expiry"),
    *("ttl_job_cron", "sync", "journal", "busy_timeout"),
)
DEFAULT_DATA_DIR = "/var/lib/teleport"

_OUTPUTS = {"stderr": "stderr", "error": "stderr", "2": "stderr", "stdout": "stdout", "out": "stdout", "1": "stdout"}
_SEVERITIES = {"warning": "warn", "err": "error"}  # 4.2 accepts these as well


def read_teleport(
    section: Section, ssh_port: int, flags: Flags, hostname: Callable[[], str], *, auth_here: bool
) -> TeleportSection:
    """The ``teleport`` section. ``hostname`` is called only if neither file nor flags name the host.

    ``auth_here`` says whether this process runs the auth server: ``storage`` concerns only the auth server, ``ca_pin``
    only the others.
    """
    section.later("ciphersuites", "ca_signature_algo", "seed_config", "cache")
    data_dir = section.file_path("data_dir", DEFAULT_DATA_DIR)
    assert data_dir is not None
    for key in ("auth_token", "ca_pin"):
        if section.blank(key):
            line = section.findings.line_of(f"teleport.{key}")
            section.findings.warn(line, f"teleport.{key} is empty, which is as if it were left out.")
    storage = section.section("storage")
    if not auth_here:
        storage.idle("no auth server runs here")
    token = section.text("auth_token", None, secret=True)
    line = section.findings.line_of("teleport.auth_token")
    auth_token, problem = None, ""
    try:
        if token:
            auth_token = read_token(token, section.findings, line)
    except TokenFileProblem as e:
        problem = str(e)
        if flags.token is None and not auth_here:
            section.findings.warn(line, f"teleport.auth_token: {e} A host that has joined needs none.")
    except BadParameter as e:
        section.findings.error(line, f"teleport.auth_token: {e}")
    return TeleportSection(
        nodename=_nodename(section, flags, hostname),
        data_dir=data_dir,
        auth_token=auth_token,
        auth_token_problem=problem,
        ca_pin=_pins(section, auth_here),
        advertise_ip=_advertise_ip(section, ssh_port),
        auth_servers=section.servers("auth_servers", defaults.AUTH_PORT),
        connection_limits=_limits(section.section("connection_limits")),
        log=_log(section.section("log")),
        storage=_storage(storage, data_dir),
        pid_file=section.file_path("pid_file", None),
        ciphers=section.some_of("ciphers", algorithms.CIPHERS, algorithms.OTHER_CIPHERS),
        kex_algos=section.some_of("kex_algos", algorithms.KEX_ALGOS, algorithms.OTHER_KEX_ALGOS),
        mac_algos=section.some_of("mac_algos", algorithms.MAC_ALGOS, algorithms.OTHER_MAC_ALGOS),
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
        section.findings.error(
            line, f"This machine's host name {quoted(name)} is not usable here: set teleport.nodename."
        )
    return name


def _pins(section: Section, auth_here: bool) -> tuple[str, ...]:
    findings = section.findings
    if auth_here:
        findings = findings.while_idle("the auth server runs here, so this host needs no pin")
    pins = []
    for line, text in section.texts("ca_pin", single=True):
        try:
            pins.append(check_pin(text))
        except BadParameter as e:
            findings.error(line, f"teleport.ca_pin: {e}")
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
    if known is None and not {"/", "."} & set(output):
        line = section.findings.line_of("teleport.log.output")
        section.findings.error(
            line, f"teleport.log.output: {quoted(output)} is not known. Use stderr, stdout, syslog or a path."
        )
    severity = section.one_of("severity", ("debug", "info", "warn", "error"), "info", same=_SEVERITIES)
    path = section.file_path("output", None) if known is None else known
    return Log(output=path or "stderr", severity=severity.upper())


def _storage(section: Section, data_dir: str) -> Storage:
    section.later("audit_events_uri", "audit_sessions_uri")
    kind = section.one_of("type", ("sqlite", "dir"), "sqlite", not_yet=_STORES)
    if kind == "dir":
        line = section.findings.line_of("teleport.storage.type")
        section.findings.warn(line, "teleport.storage.type: state is kept in SQLite; 'dir' is read as 'sqlite'.")
    section.later(*_OTHER_STORES)
    path = section.file_path("path", os.path.join(data_dir, "backend"))
    assert path is not None
    return Storage(type="sqlite", path=path)
