"""The stores under test: each test of the acceptance suite runs once with each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from teleconch.backend.interface import Backend
from teleconch.backend.memory import MemoryBackend
from teleconch.backend.sqlite import SqliteBackend
from tests.worlds.reactor import reactor


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.advance(1_700_000_000)
    return clock


@pytest.fixture(params=["memory", "sqlite"])
def backend(request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> Iterator[Backend]:
    """An empty store whose time is ``clock``'s."""
    if request.param == "memory":
        store: Backend = MemoryBackend(clock.seconds)
    else:
        store = SqliteBackend(tmp_path / "backend" / "state.db", reactor, clock.seconds)
    yield store
    pytest_twisted.blockon(Deferred.fromCoroutine(store.close()))
