"""One command on several nodes, in a cluster with two of them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worlds.checks import found
from tests.worlds.client import BIN, World

JOIN = """
teleport:
  nodename: beta
  data_dir: {folder}/data
  auth_servers: ["127.0.0.1:{auth}"]
  auth_token: {token}
  ca_pin: "{pin}"
  log: {{output: stderr, severity: INFO}}
auth_service: {{enabled: no}}
proxy_service: {{enabled: no}}
ssh_service:
  enabled: yes
  listen_addr: 127.0.0.1:{port}
  labels: {{pair: both}}
"""


@pytest.fixture
def two(world: World, tmp_path: Path) -> Iterator[World]:
    """The same cluster with a second node, beta, which has the same label."""
    import time

    from tests.worlds.cluster import free_ports

    token = found(r"\b[0-9a-f]{32}\b", world.tctl("nodes", "add", "--roles=node"))[0]
    (port,) = free_ports(1)
    config = tmp_path / "beta.yaml"
    config.write_text(JOIN.format(folder=tmp_path, auth=world.auth, token=token, pin=world.pin, port=port))
    config.chmod(0o600)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [BIN / "teleport", "start", "-c", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        until = time.monotonic() + 40
        while b"beta" not in world.tsh("ls").stdout:
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(0.2)
        yield world
    finally:
        process.terminate()
        process.wait(30)


def test_several_nodes(two: World) -> None:
    """A command for a label runs on all nodes that have it: whole lines behind their names, the worst exit status."""
    world = two
    done = world.tsh("ssh", f"{world.login}@pair=both", "echo one; printf two; echo err >&2")
    assert sorted(done.stdout.splitlines()) == [b"alpha: one", b"alpha: two", b"beta : one", b"beta : two"]
    assert sorted(done.stderr.splitlines()) == [b"alpha: err", b"beta : err"]
    assert done.returncode == 0
    where = "tr '\\0' '\\n' < /proc/$PPID/cmdline | grep -q beta.yaml && exit 9; exit 4"
    assert world.tsh("ssh", f"{world.login}@pair=both", where).returncode in (4, 9)
    done = world.tsh("ssh", f"{world.login}@pair=both", "cat; kill -9 $$", stdin=b"not for them")
    assert (done.returncode, done.stdout) == (255, b"")
    assert done.stderr.count(b"was ended by the signal KILL") == 2
    done = world.tsh("ssh", f"{world.login}@pair=both")
    assert (done.returncode, done.stdout) == (255, b"")
    assert re.match(rb"ERROR: 2 nodes have the label pair=both; name the one you mean: alpha .*; beta ", done.stderr)
    line = f'"{BIN}/tsh" ssh {world.login}@pair=both yes | head -1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", line], env=world.env, timeout=30, capture_output=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 141, done
