"""Fixtures of the forwarding tests: the node's world, and programs to forward to."""

from __future__ import annotations

import secrets
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_twisted

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


def _account(made: list[str]) -> str:
    name = f"tf{secrets.token_hex(3)}"
    subprocess.run(["useradd", "-m", "-s", "/bin/bash", name], check=True)
    made.append(name)
    return name


@pytest.fixture
def users() -> Iterator[tuple[str, str]]:
    """Two OS users made for the test."""
    made: list[str] = []
    yield _account(made), _account(made)
    for number in ("-TERM", "-KILL"):  # a forwarding process that is still there cleans up on the first
        for name in made:
            subprocess.run(["pkill", number, "-u", name], check=False)
        time.sleep(0.05)
    for name in made:
        subprocess.run(["userdel", "-f", "-r", name], check=False, capture_output=True)
