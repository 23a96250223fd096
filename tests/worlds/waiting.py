"""Waiting for what the reactor is about to do."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.worlds.reactor import reactor

T = TypeVar("T")
TURN = 0.01


async def until(holds: Callable[[], T], seconds: float = 30, what: str = "it did not come") -> T:
    """Let the reactor run until ``holds()``, and return what that returned."""
    for _ in range(int(seconds / TURN)):
        if result := holds():
            return result
        await deferLater(reactor, TURN)
    raise AssertionError(what)


def spawn(coroutine: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    return Deferred.fromCoroutine(coroutine)


async def reply(asked: Deferred[T] | None) -> T:
    """What the peer answers to a request; those that want no answer return None."""
    assert asked is not None
    return await asked
