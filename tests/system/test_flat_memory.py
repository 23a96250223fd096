"""Whoever does not read costs a fixed amount of memory; nobody else's session waits for him."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.worlds.checks import found
from tests.worlds.cluster import Daemon, run
from tests.worlds.pair import ME, Pair

ALLOWED = 16 << 20
pytestmark = pytest.mark.program("ssh")


def rss(daemon: Daemon) -> int:
    """Resident memory of one process, without its children, in bytes."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(found(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(tmp_path_factory.mktemp("flat"))
    for road in (made.direct, made.jump):  # what is allocated once is no growth
        run(*road, "head -c 64M /dev/zero", text=False)
        run(*road, "cat > /dev/null", stdin=bytes(64 << 20), text=False)
    yield made
    made.stop()


@contextmanager
def stuck(arguments: list[Any], seconds: float, push: int = 0, read: bool = False) -> Iterator[None]:
    """A client that does not read, or one that pushes ``push`` bytes; both for a while."""
    client = subprocess.Popen(
        [str(each) for each in arguments],
        stdin=subprocess.PIPE if push else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if read else subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"TELECONCH_TEST_DAEMON": "1", "PATH": "/usr/bin:/bin"},
    )
    pushing = None
    if push:
        assert client.stdin is not None

        def pushed() -> None:
            block = bytes(1 << 20)
            try:
                for _ in range(push >> 20):
                    client.stdin.write(block)
            except (OSError, ValueError):
                pass  # the client was ended

        pushing = threading.Thread(target=pushed, daemon=True)
        pushing.start()
    try:
        time.sleep(seconds)  # as long as a flood would need to do harm
        yield
    finally:
        client.kill()
        client.wait()
        if pushing is not None:
            pushing.join(10)
        for pipe in (client.stdin, client.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    pass


def _flat(pair: Pair, arguments: list[Any], size: int, seconds: float, **how: Any) -> None:
    before = rss(pair.node), rss(pair.front)
    with stuck(arguments, seconds, **how):
        began = time.monotonic()
        assert run(*pair.jump, "echo still here", timeout=20).stdout == "still here\n"
        waited = time.monotonic() - began
        grown = rss(pair.node) - before[0], rss(pair.front) - before[1]
    assert max(grown) <= ALLOWED, f"grown by {grown} bytes"
    assert waited < 15, waited


@pytest.mark.parametrize("road", ["direct", "jump"])
@pytest.mark.parametrize("size", [256 << 20, pytest.param(4 << 30, marks=pytest.mark.soak)])
def test_a_client_that_stopped_reading(pair: Pair, road: str, size: int) -> None:
    """A log that scrolls toward a closed laptop does not fill the node's memory."""
    seconds = 3 if size < 1 << 30 else 20
    _flat(pair, [*getattr(pair, road), f"head -c {size} /dev/zero"], size, seconds)


@pytest.mark.parametrize("road", ["direct", "jump"])
@pytest.mark.parametrize("size", [256 << 20, pytest.param(4 << 30, marks=pytest.mark.soak)])
def test_a_process_that_does_not_read(pair: Pair, road: str, size: int) -> None:
    """A copy to a stopped process does not fill the node's memory."""
    seconds = 3 if size < 1 << 30 else 20
    _flat(pair, [*getattr(pair, road), "sleep 60"], size, seconds, push=size, read=True)


@pytest.mark.parametrize("size", [256 << 20, pytest.param(4 << 30, marks=pytest.mark.soak)])
def test_a_target_that_never_reads(pair: Pair, size: int) -> None:
    """A forwarded port whose server hangs does not fill the node's memory."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        target = f"127.0.0.1:{deaf.getsockname()[1]}"
        command = [*pair.direct[:-1], "-W", target, pair.direct[-1]]
        _flat(pair, command, size, 3 if size < 1 << 30 else 20, push=size, read=True)


FILLED = 192 << 20  # one user's budget, 128 MiB, and what Python makes of it
FILLER = Path(__file__).with_name("filler.py")


@pytest.mark.parametrize("where", ["node", "proxy"])
def test_a_user_who_fills_everything(pair: Pair, where: str) -> None:
    """One user, many connections, thousands of sessions with windows, variables and terminals: the user's budget, and
    others get in meanwhile."""
    daemon = pair.node if where == "node" else pair.front
    before = rss(daemon)
    mallory = pair.cluster.folder / "mallory"
    if not mallory.exists():
        pair.cluster.tctl("users", "add", "mallory", ME)
        pair.cluster.sign("mallory", mallory)
    client = subprocess.Popen(
        [sys.executable, FILLER, str(getattr(pair.cluster, where)), ME, mallory, "9"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert client.stdout is not None
        said = []
        for line in client.stdout:
            said.append(line)
            if line == "full\n":
                break
        assert said[-1:] == ["full\n"], said
        grown = rss(daemon) - before
        assert grown <= FILLED, f"grown by {grown} bytes"
        assert run(*pair.jump, "echo still here", timeout=20).stdout == "still here\n"
    finally:
        client.kill()
        client.wait()
        client.stdout.close()
