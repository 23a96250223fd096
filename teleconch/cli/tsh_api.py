"""tsh's questions to the auth API, asked through the proxy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from teleconch.cli import boundary

if TYPE_CHECKING:
    from teleconch.api.interface import AuthAPI
    from teleconch.client.standing import Standing

T = TypeVar("T")


def ask_cluster(standing: Standing, insecure: bool, question: Callable[[AuthAPI], Awaitable[T]]) -> T:
    """Returns what ``question`` returns, with the auth API as this user. Runs the reactor, so call it once per process.
    A TeleconchError."""
    return boundary.run_reactor(lambda reactor: _ask(reactor, standing, insecure, question))


async def _ask(reactor: Any, standing: Standing, insecure: bool, question: Callable[[AuthAPI], Awaitable[T]]) -> T:
    from teleconch.client.cluster import identity_of
    from teleconch.client.reach import ProxyConnection

    identity_of(standing)  # before anything is dialled
    proxy = await ProxyConnection.reach(reactor, standing, insecure, standing.summary.principals[0])
    try:
        return await proxy.ask(question)
    finally:
        proxy.close()
