"""An agent whose keys are for some hosts alone (ssh-add -h), over two nodes (OpenSSH's PROTOCOL.agent, section 1)."""

from __future__ import annotations

import os
import subprocess

import pytest
import pytest_twisted
from twisted.internet.endpoints import TCP4ServerEndpoint

from teleconch.ca.keys import new_ssh_key
from teleconch.node.settings import NodeSettings
from teleconch.service.events import LogEmitter
from teleconch.service.node import node_server
from tests.worlds.certificates import host_cert
from tests.worlds.forward import ssh_agent
from tests.worlds.node import ME, Auth, Client, Member, Result, World
from tests.worlds.reactor import port_of, reactor

pytestmark = pytest.mark.program("ssh", "ssh-agent", "ssh-add")


class Second(Member):
    """Another node, ``two``."""

    def renew(self) -> None:
        private, public = new_ssh_key()
        self.keys = (
            private,
            host_cert(self.authority.host, public, uuid=self.uuid, nodename="two"),
        )


def run(world: World, agent: dict[str, str], *line: str) -> Client:
    client = Client(b"")
    environment = {"PATH": os.environ["PATH"], "HOME": str(world.path)} | agent
    reactor.spawnProcess(client, line[0], line, environment)
    client.done.addTimeout(30, reactor)
    world.clients.append(client)
    return client


@pytest_twisted.ensureDeferred
async def test_keys_for_some_hosts_only(world: World) -> None:
    """A key that its agent holds for this way alone (`ssh-add -h box -h box>two`) logs in at both, and nowhere else."""
    endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    member = Second(world.authorities, Auth(), uuid="b1d2e46a-372f-494b-bdd9-a1d25b9d6dec")
    two = node_server(reactor, member, endpoint, NodeSettings("two", stop_deadline=0), emitter=LogEmitter())
    two.startService()
    at_two = port_of(await two.listening)
    known = world.path / "known_hosts"
    known.write_text(f"@cert-authority * {world.authorities.host.ssh_public_key}\n")
    ssh = (
        "ssh",
        "-F",
        "none",
        "-o",
        "BatchMode=yes",
        "-o",
        f"UserKnownHostsFile={known}",
        "-o",
        "PasswordAuthentication=no",
    )
    onward = (*ssh, "-p", str(at_two), f"{ME}@127.0.0.1", "echo there")

    async def through(agent: dict[str, str]) -> Result:
        return await run(
            world, agent, *ssh, "-A", "-p", str(world.port), f"{ME}@127.0.0.1", *onward[:-1], "'echo there'"
        ).done

    try:
        with ssh_agent(world.path / "agent") as agent:
            for ways, direct, hop in (((), True, True), (("box", "box>two"), False, True), (("box",), False, False)):
                added = [part for way in ways for part in ("-h", way)]
                subprocess.run(["ssh-add", "-q", "-D"], env=os.environ | agent, check=True, capture_output=True)
                line = ["ssh-add", "-q", "-H", str(known), *added, str(world.key())]
                subprocess.run(line, env=os.environ | agent, check=True)
                # OpenSSH's client would sign for a certificate with the plain key, which a restricted agent refuses.
                subprocess.run(["ssh-add", "-q", "-k", "-d", str(world.key())], env=os.environ | agent, check=True)
                assert (await run(world, agent, *onward).done).out == b"there\n" * direct
                result = await through(agent)
                assert result.out == b"there\n" * hop, (ways, result.err)
                assert (
                    await run(world, agent, *ssh, "-p", str(world.port), f"{ME}@127.0.0.1", "echo box").done
                ).out == b"box\n"
    finally:
        await two.stopService()
