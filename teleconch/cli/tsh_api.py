"""Questions of tsh to the auth API, by way of the proxy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from teleconch.cli import boundary
from teleconch.client.address import split_address
from teleconch.defaults import PROXY_PORT

if TYPE_CHECKING:
    from teleconch.api.client import AuthClient
    from teleconch.client.standing import Standing

T = TypeVar("T")


def ask_cluster(standing: Standing, insecure: bool, question: Callable[[AuthClient], Awaitable[T]]) -> T:
    """What ``question`` gets out of the auth API as this user. Runs the reactor: once per process. A TeleconchError."""
    return boundary.run_reactor(lambda reactor: _ask(reactor, standing, insecure, question))


async def _ask(reactor: Any, standing: Standing, insecure: bool, question: Callable[[AuthClient], Awaitable[T]]) -> T:
    from twisted.internet.threads import deferToThread

    from teleconch.client import cluster, dial
    from teleconch.client.tcp import connect_tcp

    identity = cluster.identity_of(standing)
    credentials = dial.Credentials(standing.private_key, standing.certificate, standing.authorities, insecure)
    host, port = split_address(standing.profile.ssh_proxy_addr, PROXY_PORT)
    connected = await deferToThread(connect_tcp, host, port)
    proxy = await dial.to_proxy(reactor, connected, host, standing.summary.principals[0], credentials)
    try:
        return await cluster.ask(reactor, proxy, identity, question)
    finally:
        proxy.transport.loseConnection()
