"""Under which addresses others reach this cluster, as far as the auth server's own configuration tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from teleconch.config.addresses import Address
    from teleconch.config.values import Config

NO_PROXY: Final = "<proxy>"  # as Teleport prints it


def web_address(config: Config) -> str | None:
    """``host:port`` of the proxy's web address; ``None`` if no proxy runs with this configuration."""
    from teleconch.config.addresses import Address

    proxy = config.proxy_service
    if not proxy.enabled:
        return None
    if proxy.public_addr:
        return str(proxy.public_addr[0])
    return str(Address(_host(config, proxy.web_listen_addr), proxy.web_listen_addr.port))


def ssh_address(config: Config) -> str:
    """``host:port`` of the proxy's SSH address, with :data:`NO_PROXY` for a host that is not known here."""
    from teleconch.config.addresses import Address
    from teleconch.defaults import PROXY_PORT

    proxy = config.proxy_service
    if not proxy.enabled:
        return f"{NO_PROXY}:{PROXY_PORT}"
    if proxy.ssh_public_addr:
        return str(proxy.ssh_public_addr[0])
    host = proxy.public_addr[0].host if proxy.public_addr else _host(config, proxy.listen_addr)
    return str(Address(host, proxy.listen_addr.port))


def auth_address(config: Config) -> tuple[str, bool]:
    """``host:port`` where other hosts reach the auth server, and whether the configuration says so (else a guess)."""
    from teleconch.config.addresses import Address

    auth = config.auth_service
    if auth.public_addr:
        return str(auth.public_addr[0]), True
    if config.teleport.advertise_ip is not None:
        return str(Address(config.teleport.advertise_ip.host, auth.listen_addr.port)), True
    if not auth.listen_addr.any_host:
        return str(auth.listen_addr), True
    return str(Address(_own_address() or config.teleport.nodename, auth.listen_addr.port)), False


def _host(config: Config, listens: Address) -> str:
    if config.teleport.advertise_ip is not None:
        return config.teleport.advertise_ip.host
    return config.teleport.nodename if listens.any_host else listens.host


def _own_address() -> str | None:
    """The address that this machine uses toward the world. Nothing is sent."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1: routed like any far address, and no one's
            address: str = probe.getsockname()[0]
        except OSError:
            return None
    return address
