"""Ping once as each host that has joined below a folder, without a token; print the UUIDs that were answered.

``python members.py AUTH_ADDRESS FOLDER``
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet.task import react

from teleconch.api.membership import Membership
from teleconch.resources.node import Node


async def main(reactor: Any) -> None:
    address, folder = sys.argv[1:]
    for data_dir in sorted(Path(folder).iterdir()):
        if not (data_dir / "node" / "membership.json").exists():
            continue  # killed before the answer was there
        member = Membership(
            reactor, data_dir=data_dir, role="node", nodename=data_dir.name, addresses=(), auth_servers=[address],
            token=None, ca_pins=(), now=time.time,
        )  # fmt: skip
        await member.start()
        node = Node(uuid=member.uuid, nodename=data_dir.name, cluster="main", addr="127.0.0.1:1")
        await member.client.heartbeat(node, "another-instance")
        sys.stdout.write(f"{member.uuid}\n")
        member.stop()


react(main)
