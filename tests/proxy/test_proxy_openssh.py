"""Real OpenSSH clients through the proxy to a real OpenSSH server."""

from __future__ import annotations

import hashlib
import os

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from tests.worlds.proxy import CLUSTER, World, new_uuid, node, run, status

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


@pytest_twisted.ensureDeferred
async def test_what_a_refused_user_sees(world: World) -> None:
    """ssh prints the proxy's sentence, whichever way it asked."""
    world.sshd(1, "web-1")
    world.nodes.put(
        node(2, "twin"), node(3, "twin"), node(4, "down", "127.0.0.1:1"), status(node(5, "off", "127.0.0.1:1"), False)
    )
    await world.start()
    await world.watched(5)
    for jump in (True, False):
        for name, port, says in (
            ("nope", 22, "No node with the name or address nope is registered in example.test: see `tsh ls`"),
            ("127.0.0.1", 3025, "No node with the name or address 127.0.0.1:3025 is registered in example.test"),
            ("169.254.169.254", 80, "No node with the name or address 169.254.169.254:80 is registered"),
            ("twin", 22, f"2 nodes match twin; use the UUID of the one you mean: twin {new_uuid(2)} 10.0.0.1:3022;"),
            ("web-1", 2222, "leave the port out, or use"),
            ("down", 22, "The proxy cannot reach down at 127.0.0.1:1. Is the node running there?"),
            ("off", 22, "off at 127.0.0.1:1 is offline since "),
        ):
            _, err, code = await world.ssh(*world.through(jump=jump), "-p", str(port), f"root@{name}", "true")
            assert code == 255
            assert says in err, (jump, name, err)
            assert "Traceback" not in err


@pytest_twisted.ensureDeferred
async def test_no_shell_on_the_proxy(world: World) -> None:
    """`ssh proxy` tells what to type instead, on a terminal too; commands, sftp, scp and -R get nothing."""
    await world.start()
    straight = ["-p", str(world.port), *world.options()]
    for more in (["-T"], ["-tt"]):
        out, err, code = await world.ssh(*straight, *more, "root@127.0.0.1")
        assert (out, code) == ("", 1)
        assert err.startswith("This is the proxy of example.test: there is no shell, command or file transfer on it.")
        assert "`tsh ssh LOGIN@NODE`" in err
    marker = world.folder / "marker"
    out, _, code = await world.ssh(*straight, "root@127.0.0.1", f"touch {marker}; id")
    assert (out, code) == ("", 1)
    assert not marker.exists()
    assert (await world.ssh(*straight, "root@127.0.0.1", "-s", "sftp"))[2] == 255
    for extra in ([], ["-O"]):
        ported = ["-P", str(world.port), *world.options()]
        assert (await run("scp", *extra, *ported, "/etc/hostname", f"root@127.0.0.1:{marker}"))[2] != 0
    assert not marker.exists()
    _, err, code = await world.ssh(
        *straight, "-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:22", "root@127.0.0.1"
    )
    assert code == 255
    assert "remote port forwarding failed" in err


@pytest_twisted.ensureDeferred
async def test_files_through_the_proxy(world: World) -> None:
    """scp both ways and a big pipe through the proxy arrive whole."""
    world.sshd(1, "web-1")
    await world.start()
    await world.watched(1)
    data = os.urandom(1 << 20) * 24
    source, there, back = (world.folder / name for name in ("source", "there", "back"))
    source.write_bytes(data)
    for jump in (True, False):
        options = world.through(jump=jump)
        assert await run("scp", *options, str(source), f"root@web-1:{there}") == ("", "", 0)
        assert await run("scp", *options, f"root@web-1:{there}", str(back)) == ("", "", 0)
        assert hashlib.sha256(back.read_bytes()).digest() == hashlib.sha256(data).digest()
        there.unlink()
        back.unlink()


@pytest_twisted.ensureDeferred
async def test_many_sessions_on_one_connection(world: World) -> None:
    """ControlMaster to the proxy: several jumps share one connection, and do not disturb each other."""
    world.sshd(1, "web-1")
    await world.start()
    await world.watched(1)
    control = world.folder / "control"
    master = ["-p", str(world.port), *world.options(), "-o", f"ControlPath={control}"]
    assert (await world.ssh(*master, "-M", "-f", "-N", "-o", "ControlPersist=60", "root@127.0.0.1"))[2] == 0
    try:
        through = [*world.options(), "-o", f"ProxyCommand=ssh {' '.join(map(str, master))} -W [%h]:%p root@127.0.0.1"]
        answers = await gatherResults(
            Deferred.fromCoroutine(world.ssh(*through, "root@web-1", f"sleep 0.2; echo {n}")) for n in range(6)
        )
        assert answers == [(f"{n}\n", "", 0) for n in range(6)]
        assert len(world.server._factory.connections) == 1
    finally:
        await world.ssh(*master, "-O", "exit", "root@127.0.0.1")
