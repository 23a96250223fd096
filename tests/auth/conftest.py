"""An auth server on each store."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import Clock

from teleconch.backend.memory import MemoryBackend
from teleconch.backend.sqlite import SqliteBackend
from tests.worlds.auth import Cluster, spawn


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(1_700_000_010)
    return clock


@pytest.fixture(params=["memory", "sqlite"])
def state_backend(request, clock, tmp_path):
    if request.param == "memory":
        backend = MemoryBackend(clock.seconds)
    else:
        backend = SqliteBackend(tmp_path / "state.db", reactor, clock.seconds)
    yield backend
    pytest_twisted.blockon(spawn(backend.close()))


@pytest.fixture
def cluster(clock, state_backend):
    cluster = Cluster(clock, state_backend, None)
    cluster.server = cluster.another()
    pytest_twisted.blockon(spawn(cluster.server.start()))
    yield cluster
    pytest_twisted.blockon(spawn(cluster.server.stop()))
