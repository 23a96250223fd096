"""The addresses by which others reach this cluster, as far as the auth server's own configuration tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from teleconch.config.addresses import Address
    from teleconch.config.values import Config

NO_PROXY: Final = "<proxy>"  # as Teleport prints it
_FAR: Final = "192.0.2.1"  # TEST-NET-1: routed like any distant address, and nobody's


def web_address(config: Config) -> str | None:
    """``host:port`` of the proxy's web address; ``None`` if the configuration neither says it nor runs a proxy."""
    from teleconch.config.addresses import Address

    proxy = config.proxy_service
    if proxy.public_addr:
        return str(proxy.public_addr[0])
    if not proxy.enabled:
        return None
    return str(Address(_host(config, proxy.web_listen_addr), proxy.web_listen_addr.port))


def web_note(config: Config) -> str:
    """What to check or set before users are given the address from :func:`web_address`."""
    from teleconch.resources.addresses import host_of, no_other_machine

    address = web_address(config)
    if address is None:
        return (
            f"replace {NO_PROXY} with the address of your proxy, which the user must be able to reach. If you set"
            " proxy_service.public_addr in this configuration (the proxy itself may stay off), that is printed instead."
        )
    if config.proxy_service.public_addr:
        return f"make sure that {address} is reachable for the user: it is the address of your proxy."
    if no_other_machine(host_of(address)):
        return (
            f"only this machine itself can reach {address}. For other users, set proxy_service.public_addr to the name"
            " by which they reach the proxy (and web_listen_addr to an address that is not loopback)."
        )
    return (
        f"{address} is a guess: set proxy_service.public_addr to the name by which users reach the proxy, such as"
        " proxy.example.com:3080."
    )


def ssh_address(config: Config) -> str:
    """``host:port`` of the proxy's SSH address, with :data:`NO_PROXY` for a host that is unknown here."""
    from teleconch.config.addresses import Address
    from teleconch.defaults import PROXY_PORT

    proxy = config.proxy_service
    if proxy.ssh_public_addr:
        return str(proxy.ssh_public_addr[0])
    if not proxy.enabled:
        return f"{proxy.public_addr[0].host if proxy.public_addr else NO_PROXY}:{PROXY_PORT}"
    host = proxy.public_addr[0].host if proxy.public_addr else _host(config, proxy.listen_addr)
    return str(Address(host, proxy.listen_addr.port))


def auth_address(config: Config) -> tuple[str, bool]:
    """``host:port`` where other hosts reach the auth server, and whether the configuration says so (otherwise it is a
    guess)."""
    from teleconch.config.addresses import Address
    from teleconch.outgoing import source_toward

    auth = config.auth_service
    if auth.public_addr:
        return str(auth.public_addr[0]), True
    if config.teleport.advertise_ip is not None:
        return str(Address(config.teleport.advertise_ip.host, auth.listen_addr.port)), True
    if not auth.listen_addr.any_host:
        return str(auth.listen_addr), True
    return str(Address(source_toward(_FAR) or config.teleport.nodename, auth.listen_addr.port)), False


def _host(config: Config, listens: Address) -> str:
    from teleconch.outgoing import source_toward
    from teleconch.resources.addresses import no_other_machine

    if config.teleport.advertise_ip is not None:
        return config.teleport.advertise_ip.host
    if not listens.any_host:
        return listens.host
    nodename = config.teleport.nodename
    return (no_other_machine(nodename) and source_toward(_FAR)) or nodename
