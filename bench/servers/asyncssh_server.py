"""AsyncSSH as an SSH server that runs commands: ``PORT HOST_KEY AUTHORIZED_KEYS``."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import asyncssh


class Server(asyncssh.SSHServer):
    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        return True


async def run(process: asyncssh.SSHServerProcess) -> None:
    child = await asyncio.create_subprocess_shell(
        process.command or "exec cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
    process.exit(await child.wait())


async def main() -> None:
    port, host_key, authorized = sys.argv[1:]
    await asyncssh.create_server(
        Server, "127.0.0.1", int(port), server_host_keys=[host_key], authorized_client_keys=authorized,
        process_factory=run, encoding=None, login_timeout=30,
    )  # fmt: skip
    await asyncio.Event().wait()


asyncio.run(main())
