"""scp, sftp and rsync as clients of a node in the test's reactor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from attrs import define

from tests.worlds.node import ME, Client, Result, World
from tests.worlds.reactor import reactor

DEADLINE = 30


@define
class FilesWorld:
    """A node, and how to reach it."""

    world: World

    def options(self) -> list[str]:
        """``-o`` and what follows, for ssh and for all that run it."""
        line = self.world.ssh_line()
        known = next(word for word in line if word.startswith("UserKnownHostsFile="))
        return [
            *("-F", "/dev/null", "-o", known, "-o", "GlobalKnownHostsFile=/dev/null", "-o", "BatchMode=yes"),
            *("-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes", "-o", f"IdentityFile={self.world.key()}"),
            *("-o", f"Port={self.world.port}"),
        ]

    def start(
        self, *line: str | bytes, stdin: bytes | None = b"", deadline: float = DEADLINE, cwd: Path | None = None
    ) -> Client:
        """Run a client program."""
        client = Client(stdin)
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.world.path), "LC_ALL": "C.UTF-8"}
        reactor.spawnProcess(client, line[0], line, environment, path=None if cwd is None else str(cwd))
        client.done.addTimeout(deadline, reactor)
        self.world.clients.append(client)
        return client

    async def run(self, *line: str | bytes, **how: Any) -> Result:
        return await self.start(*line, **how).done

    async def scp(self, *arguments: str | bytes, **how: Any) -> Result:
        """scp, where ``HOST:`` at the front of an argument is the node."""
        return await self.run("scp", "-q", *self.options(), *arguments, **how)

    async def sftp(self, *commands: str | bytes, login: str = ME, options: tuple[str, ...] = (), **how: Any) -> Result:
        """sftp with a batch of commands."""
        batch = b"\n".join(os.fsencode(each) for each in commands) + b"\n"
        line = ["sftp", *self.options(), *options, "-b", "-", f"{login}@127.0.0.1"]
        return await self.run(*line, stdin=batch, **how)

    async def rsync(self, *arguments: str | bytes, **how: Any) -> Result:
        return await self.run("rsync", "-e", " ".join(["ssh", *self.options()]), *arguments, **how)

    async def ssh(self, *command: str, login: str = ME, **how: Any) -> Result:
        return await self.run("ssh", *self.options(), "-l", login, "127.0.0.1", *command, **how)

    def moved(self, event: str) -> list[tuple[str, str, int, bool]]:
        """Path, action, size and result of each file that the node's log tells of."""
        return [(each["path"], each["action"], each["size"], each["success"]) for each in self.world.logged(event)]

    async def close(self) -> None:
        for client in self.world.clients:
            if not client.done.called:
                client.kill()
                await client.done
        await self.world.close()
