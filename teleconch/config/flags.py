"""Flags of ``teleport start``. A flag that is given overrides the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import evolve, field, frozen

from teleconch.config.addresses import Address, parse_reachable
from teleconch.config.document import Findings
from teleconch.config.values import CommandLabel, Config
from teleconch.resources.secret import Secret


@frozen
class Flags:
    """``None`` or empty means not given. ``token_problem`` says why the file that ``--token`` names gave no token.
    ``advertise_ip`` is ``host[:port]``; labels are added to the file's. ``auth_servers`` may hold addresses that stand
    for every address of a machine: they mean this machine's loopback."""

    roles: tuple[str, ...] | None = None
    nodename: str | None = None
    auth_servers: tuple[Address, ...] = ()
    token: Secret | None = None
    token_problem: str = ""
    ca_pin: tuple[str, ...] = ()
    advertise_ip: str | None = None
    listen_ip: str | None = None
    labels: Mapping[str, str] = field(factory=dict)
    commands: tuple[CommandLabel, ...] = ()
    permit_user_env: bool = False
    pid_file: str | None = None


NO_FLAGS = Flags()


def roles_with(flags: Flags, roles: Iterable[str]) -> tuple[str, ...]:
    """The roles that run when the file alone says ``roles``: ``--auth-server`` turns the auth role off, since the auth
    server is elsewhere."""
    chosen = roles if flags.roles is None else flags.roles
    return tuple(role for role in chosen if not (role == "auth" and flags.auth_servers))


def apply_flags(config: Config, flags: Flags, findings: Findings) -> Config:
    """``config`` with the flags applied."""
    teleport, ssh = config.teleport, config.ssh_service
    given = {*flags.labels, *(each.name for each in flags.commands)}
    config = evolve(
        config,
        teleport=evolve(
            teleport,
            nodename=flags.nodename or teleport.nodename,
            auth_servers=tuple(server.local for server in flags.auth_servers) or teleport.auth_servers,
            auth_token=flags.token or (None if flags.token_problem else teleport.auth_token),
            auth_token_problem=flags.token_problem or ("" if flags.token else teleport.auth_token_problem),
            ca_pin=flags.ca_pin or teleport.ca_pin,
            advertise_ip=(
                parse_reachable(flags.advertise_ip, ssh.listen_addr.port)
                if flags.advertise_ip is not None
                else teleport.advertise_ip
            ),
            pid_file=flags.pid_file or teleport.pid_file,
        ),
        ssh_service=evolve(
            ssh,
            labels={name: value for name, value in ssh.labels.items() if name not in given} | dict(flags.labels),
            commands=(*(each for each in ssh.commands if each.name not in given), *flags.commands),
            permit_user_env=ssh.permit_user_env or flags.permit_user_env,
        ),
    )
    if flags.auth_servers and "auth" in (flags.roles or ()):
        findings.warn(1, "--auth-server names an auth server elsewhere, so the auth role in --roles is left out.")
    for server in flags.auth_servers:
        if server.any_host:
            findings.warn(1, f"--auth-server={server} is read as this host's own {server.local}.")
    config = config.with_roles(*roles_with(flags, config.roles))
    return config if flags.listen_ip is None else _listen_on(config, flags.listen_ip)


def _listen_on(config: Config, host: str) -> Config:
    auth, ssh, proxy = config.auth_service, config.ssh_service, config.proxy_service
    return evolve(
        config,
        auth_service=evolve(auth, listen_addr=evolve(auth.listen_addr, host=host)),
        ssh_service=evolve(ssh, listen_addr=evolve(ssh.listen_addr, host=host)),
        proxy_service=evolve(
            proxy,
            listen_addr=evolve(proxy.listen_addr, host=host),
            web_listen_addr=evolve(proxy.web_listen_addr, host=host),
        ),
    )
