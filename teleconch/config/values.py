"""What teleport.yaml says, as frozen values. Durations are seconds; paths are absolute."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve, frozen

from teleconch.config.addresses import Address
from teleconch.config.document import Notice
from teleconch.errors import BadParameter
from teleconch.resources.secret import Secret

ROLES = ("auth", "proxy", "node")


@frozen
class ConnectionLimits:
    """Per listener: all connections, and connections of one user."""

    max_connections: int
    max_users: int


@frozen
class Log:
    """``output`` is ``stderr``, ``stdout``, ``syslog`` or a path; ``severity`` one of DEBUG, INFO, WARN, ERROR."""

    output: str
    severity: str


@frozen
class Storage:
    """Where the auth server keeps the cluster's state: ``type`` is ``sqlite``, ``path`` a folder."""

    type: str
    path: str


@frozen
class TeleportSection:
    """What applies to every role. ``None`` for the algorithms means teleconch's own list.

    ``auth_servers`` is never empty: if none is named and the auth server runs in this process, it holds that one.
    ``advertise_ip`` carries the node's port unless it names another. ``auth_token_problem`` says why the file that
    ``auth_token`` names gave no token, which matters only to a host that has not joined.
    """

    nodename: str
    data_dir: str
    auth_token: Secret | None
    ca_pin: tuple[str, ...]
    advertise_ip: Address | None
    auth_servers: tuple[Address, ...]
    connection_limits: ConnectionLimits
    log: Log
    storage: Storage
    pid_file: str | None
    ciphers: tuple[str, ...] | None
    kex_algos: tuple[str, ...] | None
    mac_algos: tuple[str, ...] | None
    auth_token_problem: str = ""


@frozen
class StaticToken:
    """A join token from the configuration: for hosts with any of ``roles``. It never expires."""

    roles: tuple[str, ...]
    value: Secret


@frozen
class Authentication:
    """``type`` is ``local``; ``second_factor`` is ``otp`` or ``off``."""

    type: str
    second_factor: str


@frozen
class AuthSection:
    """``cluster_name`` is ``None`` if the auth server is to make one up on its first start.

    ``keep_alive_interval`` is ``None`` for never. It and ``keep_alive_count_max`` apply to the SSH connections that
    this process serves, whichever roles it runs.
    """

    enabled: bool
    cluster_name: str | None
    listen_addr: Address
    public_addr: tuple[Address, ...]
    tokens: tuple[StaticToken, ...]
    authentication: Authentication
    keep_alive_interval: float | None
    keep_alive_count_max: int


@frozen
class CommandLabel:
    """A label whose value a command prints, every ``period`` seconds."""

    name: str
    command: tuple[str, ...]
    period: float


@frozen
class SSHSection:
    """The node. ``labels`` are the static ones; ``pam_service`` is ``None`` if PAM is off; ``accept_env`` holds
    patterns of variables that clients may set in addition to the usual ones; ``gateway_ports`` is ``no``, ``yes`` or
    ``clientspecified``."""

    enabled: bool
    listen_addr: Address
    public_addr: tuple[Address, ...]
    labels: Mapping[str, str]
    commands: tuple[CommandLabel, ...] = ()
    permit_user_env: bool = False
    pam_service: str | None = None
    accept_env: tuple[str, ...] = ()
    gateway_ports: str = "no"


@frozen
class ProxySection:
    """The proxy. The certificate and key files are both given, or both ``None``."""

    enabled: bool
    listen_addr: Address
    web_listen_addr: Address
    public_addr: tuple[Address, ...]
    ssh_public_addr: tuple[Address, ...]
    https_key_file: str | None
    https_cert_file: str | None


@frozen
class Config:
    """The whole configuration. ``filename`` is ``None`` if there were only flags; ``warnings`` are (file, line,
    sentence)."""

    filename: str | None
    teleport: TeleportSection
    auth_service: AuthSection
    ssh_service: SSHSection
    proxy_service: ProxySection
    warnings: tuple[Notice, ...] = ()

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that are on, in the order in which they start."""
        on = {
            "auth": self.auth_service.enabled,
            "proxy": self.proxy_service.enabled,
            "node": self.ssh_service.enabled,
        }
        return tuple(role for role in ROLES if on[role])

    def with_roles(self, *roles: str) -> Config:
        """The same, with exactly these roles on."""
        return evolve(
            self,
            auth_service=evolve(self.auth_service, enabled="auth" in roles),
            proxy_service=evolve(self.proxy_service, enabled="proxy" in roles),
            ssh_service=evolve(self.ssh_service, enabled="node" in roles),
        )

    def only(self, role: str) -> Config:
        """This role alone, as ``twistd teleport-ROLE`` runs it. :class:`BadParameter` if the file turns it off."""
        if role not in self.roles:
            section = {"auth": "auth_service", "proxy": "proxy_service", "node": "ssh_service"}[role]
            raise BadParameter(f"{self.filename or 'The configuration'} turns {section} off: set enabled: yes there.")
        return self.with_roles(role)
