"""Sessions through OpenSSH's ssh: what a user sees."""

from __future__ import annotations

import pytest
import pytest_twisted
from node_world import World

pytestmark = pytest.mark.program("ssh")


@pytest_twisted.ensureDeferred
async def test_exec(world: World) -> None:
    """`ssh HOST command` runs it, and gives its output, its errors apart, and its exit status."""
    result = await world.ssh("echo out; echo err >&2; exit 7")
    assert (result.out, result.err, result.code) == (b"out\n", b"err\n", 7)
