"""The stores under test: each test of the acceptance suite runs once with each."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from teleconch.backend.memory import MemoryBackend
from teleconch.backend.sqlite import SqliteBackend


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(1_700_000_000)
    return clock


@pytest.fixture(params=["memory", "sqlite"])
def backend(request, clock, tmp_path):
    """An empty store whose time is ``clock``'s."""
    if request.param == "memory":
        store = MemoryBackend(clock.seconds)
    else:
        store = SqliteBackend(tmp_path / "backend" / "state.db", reactor, clock.seconds)
    yield store
    pytest_twisted.blockon(Deferred.fromCoroutine(store.close()))
