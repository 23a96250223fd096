"""The cluster that tsh's tests share."""

from collections.abc import Iterator

import pytest

from tests.worlds.client import PASSWORD, World


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A cluster with the user joe, who has signed up."""
    world = World(tmp_path_factory.mktemp("world"))
    try:
        link = world.add_user("joe", f"{world.login},nobody")
        done = world.tsh("signup", f"--ca-pin={world.pin}", link, stdin=f"{PASSWORD}\n{PASSWORD}\n".encode())
        assert done.returncode == 0, done.stderr
        yield world
    finally:
        world.stop()


@pytest.fixture
def world(started: World) -> World:
    """The same, with joe logged in."""
    if started.tsh("status").returncode != 0:
        done = started.log_in("joe")
        assert done.returncode == 0, done.stderr
    return started
