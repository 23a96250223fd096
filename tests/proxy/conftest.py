from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from tests.worlds.proxy import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A proxy's world; the test starts it."""
    world = World(tmp_path)
    yield world
    pytest_twisted.blockon(Deferred.fromCoroutine(world.stop()))
