from __future__ import annotations

from collections.abc import Iterator

import pytest
import pytest_twisted

from tests.worlds.api import InProcess, Log, OnTheWire, World
from tests.worlds.waiting import spawn


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    pytest_twisted.blockon(spawn(world.start()))
    yield world
    pytest_twisted.blockon(spawn(world.stop()))


@pytest.fixture(params=[InProcess, OnTheWire], ids=["in-process", "wire"])
def peers(request: pytest.FixtureRequest, world: World) -> InProcess | OnTheWire:
    kind: type[InProcess | OnTheWire] = request.param
    return kind(world)


@pytest.fixture
def log() -> Iterator[Log]:
    with Log() as log:
        yield log
