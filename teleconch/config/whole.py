"""Checks of the configuration as a whole, once file and flags are combined."""

from __future__ import annotations

from collections.abc import Collection

from attrs import evolve

from teleconch.config.addresses import Address
from teleconch.config.document import Findings
from teleconch.config.values import Config

_SERVERS = ("teleport.auth_servers", "'auth_server' in teleport", "'proxy_server' in teleport")  # what an error names


def check_whole(config: Config, running: Collection[str], findings: Findings) -> Config:
    """``config`` with its auth servers filled in. What does not fit together in the roles that this process runs is
    noted in ``findings``."""
    if not config.roles:
        line = findings.line_of("auth_service.enabled", "ssh_service.enabled", "proxy_service.enabled")
        findings.error(line, "Nothing is to be started: auth_service, ssh_service and proxy_service are all off.")
    _listeners(config, running, findings)
    return _auth_servers(config, findings)


def _auth_servers(config: Config, findings: Findings) -> Config:
    auth, teleport = config.auth_service, config.teleport
    if teleport.auth_servers:
        if auth.enabled and "teleport.auth_servers" in findings.lines and "auth_service.enabled" not in findings.lines:
            findings.warn(
                findings.line_of("teleport.auth_servers"),
                "This process runs an auth server of its own, although auth_servers names one. "
                "To join that one, set auth_service.enabled: no; otherwise set it to yes.",
            )
        return config
    if not auth.enabled:
        told = any(sentence.startswith(_SERVERS) for _, _, sentence in findings.problems)
        if config.roles and not told:
            findings.error(
                findings.line_of("teleport", "auth_service.enabled"),
                "No auth server is named, and none runs in this process: "
                "set teleport.auth_servers (or give --auth-server=HOST).",
            )
        return config
    return evolve(config, teleport=evolve(teleport, auth_servers=(auth.listen_addr.local,)))


def _listeners(config: Config, running: Collection[str], findings: Findings) -> None:
    auth, ssh, proxy = config.auth_service, config.ssh_service, config.proxy_service
    open_: list[tuple[str, Address]] = []
    listeners = (
        ("auth", "auth_service.listen_addr", auth.listen_addr),
        ("node", "ssh_service.listen_addr", ssh.listen_addr),
        ("proxy", "proxy_service.listen_addr", proxy.listen_addr),
        ("proxy", "proxy_service.web_listen_addr", proxy.web_listen_addr),
    )
    for role, key, address in listeners:
        if role not in running or not address.port:
            continue
        for other_key, other in open_:
            if other.port == address.port and (other.host == address.host or other.any_host or address.any_host):
                line = findings.line_of(key, other_key)
                findings.error(line, f"{key} ({address}) takes the port of {other_key} ({other}). Give each its own.")
        open_.append((key, address))
