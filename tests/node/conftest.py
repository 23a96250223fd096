"""Fixtures of the node's tests; what they give stands in ``tests.worlds.node``."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_twisted

from teleconch.ssh.connection import Connection
from tests.worlds.node import World, running_node


@pytest_twisted.async_yield_fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A running node that lets root in."""
    world = await running_node(tmp_path)
    yield world
    for client in world.clients:
        if not client.done.called:
            client.kill()
            await client.done
    await world.close()


@pytest_twisted.async_yield_fixture
async def connection(world: World) -> AsyncIterator[Connection]:
    """A logged-in connection of our own client."""
    connection = await world.connect()
    yield connection
    connection.close()
    await connection.disconnected


@pytest.fixture
def other_user() -> Iterator[str]:
    """An OS user made for the test, in a group of its own besides its primary one."""
    name = f"tc{secrets.token_hex(3)}"
    group = f"{name}g"
    subprocess.run(["groupadd", group], check=True)
    subprocess.run(["useradd", "-m", "-s", "/bin/bash", "-G", group, name], check=True)
    yield name
    subprocess.run(["pkill", "-KILL", "-u", name], check=False)
    subprocess.run(["userdel", "-f", "-r", name], check=False, capture_output=True)
    shutil.rmtree(f"/home/{name}", ignore_errors=True)  # a test may have given the account another home
    subprocess.run(["groupdel", group], check=False, capture_output=True)
