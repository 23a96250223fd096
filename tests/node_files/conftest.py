"""A running node, and OpenSSH's programs for files as its clients."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_twisted

from tests.worlds.files import FilesWorld
from tests.worlds.node import running_node


@pytest_twisted.async_yield_fixture
async def files(tmp_path: Path) -> AsyncIterator[FilesWorld]:
    """A running node that lets root in."""
    (tmp_path / "world").mkdir()
    world = FilesWorld(await running_node(tmp_path / "world"))
    yield world
    await world.close()


@pytest.fixture
def other_user() -> Iterator[str]:
    """An OS user made for the test."""
    name = f"tc{secrets.token_hex(3)}"
    subprocess.run(["useradd", "-m", "-s", "/bin/bash", name], check=True)
    yield name
    subprocess.run(["pkill", "-KILL", "-u", name], check=False)
    subprocess.run(["userdel", "-f", "-r", name], check=False, capture_output=True)
    shutil.rmtree(f"/home/{name}", ignore_errors=True)  # a test may have given the account another home
