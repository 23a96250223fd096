import pytest
import pytest_twisted

from tests.worlds.api import InProcess, Log, OnTheWire, World, spawn


@pytest.fixture
def world():
    world = World()
    pytest_twisted.blockon(spawn(world.start()))
    yield world
    pytest_twisted.blockon(spawn(world.stop()))


@pytest.fixture(params=[InProcess, OnTheWire], ids=["in-process", "wire"])
def peers(request, world):
    return request.param(world)


@pytest.fixture
def log():
    with Log() as log:
        yield log
