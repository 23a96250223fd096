"""AsyncSSH as an SSH server that runs commands: ``PORT HOST_KEY AUTHORIZED_KEYS``.

It copies by hand: AsyncSSH's own ``redirect()`` (2.24) does not get through these transfers. Given asyncio's streams it
starts a second reader after a pause, and the connection ends with "read() called while another coroutine is already
waiting for incoming data"; given plain pipes it drops the last bytes of standard input when EOF comes in a pause.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any

import asyncssh

SHELL = os.environ.get("SHELL", "/bin/sh")
PIECE = 128 * 1024


class Server(asyncssh.SSHServer):
    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        return True


async def copy(source: Any, sink: Any) -> None:
    try:
        while data := await source.read(PIECE):
            sink.write(data)
            await sink.drain()
    except (OSError, asyncssh.Error):  # the one end or the other is gone
        pass


async def feed(source: Any, sink: Any) -> None:
    await copy(source, sink)
    sink.close()


async def run(process: asyncssh.SSHServerProcess) -> None:
    child = await asyncio.create_subprocess_exec(
        SHELL, "-c", process.command or "exec cat",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, limit=2 * PIECE,
    )  # fmt: skip
    feeding = asyncio.create_task(feed(process.stdin, child.stdin))
    await asyncio.gather(copy(child.stdout, process.stdout), copy(child.stderr, process.stderr))
    process.exit(await child.wait())
    feeding.cancel()


async def main() -> None:
    port, host_key, authorized = sys.argv[1:]
    await asyncssh.create_server(
        Server, "127.0.0.1", int(port), server_host_keys=[host_key], authorized_client_keys=authorized,
        process_factory=run, encoding=None, login_timeout=30, backlog=1000,
    )  # fmt: skip
    await asyncio.Event().wait()


asyncio.run(main())
