"""An auth server on each store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from teleconch.backend.interface import Backend
from teleconch.backend.memory import MemoryBackend
from teleconch.backend.sqlite import SqliteBackend
from tests.worlds.auth import Cluster
from tests.worlds.reactor import reactor
from tests.worlds.waiting import spawn


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.advance(1_700_000_010)
    return clock


@pytest.fixture(params=["memory", "sqlite"])
def state_backend(request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> Iterator[Backend]:
    if request.param == "memory":
        backend: Backend = MemoryBackend(clock.seconds)
    else:
        backend = SqliteBackend(tmp_path / "state.db", reactor, clock.seconds)
    yield backend
    pytest_twisted.blockon(spawn(backend.close()))


@pytest.fixture
def cluster(clock: Clock, state_backend: Backend) -> Iterator[Cluster]:
    cluster = Cluster(clock, state_backend)
    pytest_twisted.blockon(spawn(cluster.server.start()))
    yield cluster
    pytest_twisted.blockon(spawn(cluster.server.stop()))
