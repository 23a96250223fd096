"""Real OpenSSH clients through the proxy to a real OpenSSH server."""

from __future__ import annotations

import pytest
import pytest_twisted
from proxy_world import CLUSTER, World, new_uuid

pytestmark = [pytest.mark.program("ssh", "sshd"), pytest.mark.root]


@pytest_twisted.ensureDeferred
async def test_jump(world: World) -> None:
    """`ssh -J` and `-s proxy:%h:%p` both reach the node, by each of its names."""
    world.sshd(1, "web-1", role="db")
    await world.start()
    await world.watched(1)
    for jump in (True, False):
        for name in ("web-1", f"web-1.{CLUSTER}", new_uuid(1), f"{new_uuid(1)}.{CLUSTER}", "WEB-1"):
            out = await world.ssh(*world.through(jump=jump), f"root@{name}", "echo it works; exit 7")
            assert out == ("it works\n", "", 7), (jump, name)
        alias = ["-o", f"HostKeyAlias={new_uuid(1)}"]
        out = await world.ssh(*world.through(jump=jump), *alias, "root@role=db", "echo it works")
        assert out == ("it works\n", "", 0)
