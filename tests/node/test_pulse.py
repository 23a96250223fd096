"""A user whose FUSE file system does not answer holds up the daemon for a second, and then nobody but themself."""

from __future__ import annotations

import ctypes
import os
import select
import shlex
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import task

from teleconch.errors import LimitExceeded
from teleconch.node.launch import pulse
from teleconch.node.launch.pulse import Control, Pulse, Refusals, Waiting, subordinates, whose
from tests.worlds.node import Client, running_node
from tests.worlds.reactor import reactor
from tests.worlds.waiting import until

# Serves one file, and answers everything but one kind of request, or that only so often; ends after a minute.
SERVER = r"""
import os, signal, struct, sys
fuse, uid, said, withheld, left = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:])
signal.alarm(60)
INIT, LOOKUP, GETATTR, OPEN, READ, INTERRUPT, FORGET, FORGETS = 26, 1, 3, 14, 15, 36, 2, 42
def attributes(number, mode, size):
    return struct.pack("<6Q10I", number, size, 8, 0, 0, 0, 0, 0, 0, mode, 1, uid, uid, 0, 4096, 0)
folder, file = attributes(1, 0o40755, 0), attributes(2, 0o100644, 4096)
answers = {
    INIT: lambda node: struct.pack("<4I2H2I2H8I", 7, 31, 0, 0, 0, 0, 65536, 1, 0, 0, *[0] * 8),
    LOOKUP: lambda node: struct.pack("<4Q2I", 2, 0, 100, 100, 0, 0) + file,
    GETATTR: lambda node: struct.pack("<Q2I", 100, 0, 0) + (folder if node == 1 else file),
    OPEN: lambda node: struct.pack("<Q2I", 1, 0, 0),
    READ: lambda node: bytes(4096),
}
while True:
    _, kind, id, node = struct.unpack_from("<2I2Q", os.read(fuse, 1 << 18))
    left -= kind == withheld
    if kind == withheld and left < 0:
        open(said, "w").close()
    elif kind in answers:
        body = answers[kind](node)
        os.write(fuse, struct.pack("<IiQ", 16 + len(body), 0, id) + body)
    elif kind not in (INTERRUPT, FORGET, FORGETS):
        os.write(fuse, struct.pack("<IiQ", 16, -38, id))
"""
READ, FLUSH = 15, 25
SPLICE = """
import os, sys, time
print("ready", flush=True)
while not os.path.exists(sys.argv[2]):
    time.sleep(0.01)
file = os.open(sys.argv[1], os.O_RDWR)
os.splice(file, 1, 4096, offset_src=0)
try:
    os.pwrite(file, bytes(4096), 0)
except OSError:
    os.pread(file, 4096, 0)
"""
WRITE = """exec /usr/bin/python3 -I -S -c '
import mmap, os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
file = os.open(sys.argv[1], os.O_RDONLY)
os.write(1, mmap.mmap(file, 4096, prot=mmap.PROT_READ))' """


# Gives a TCP socket away that takes its time to close: 60 s, since its peer reads nothing.
LINGERING = """
import array, os, socket, struct, sys, time
listening = socket.create_server(("127.0.0.1", 0))
given = socket.create_connection(listening.getsockname())
peer = listening.accept()
given.setblocking(False)
try:
    while True:
        given.send(bytes(65536))
except BlockingIOError:
    given.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
def give(to):
    to.sendmsg([b"hi"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [given.fileno()]))])
    given.close()
"""
RECEIVES = """
import signal
signal.signal(signal.SIGCHLD, lambda number, frame: None)
ours, theirs = socket.socketpair()
give(theirs)
print(time.monotonic(), flush=True)
ours.recv(2)
print(time.monotonic())
"""
LISTENS = """
at = socket.socket(socket.AF_UNIX)
at.bind(os.path.expanduser("~/socket"))
at.listen()
print("ready", flush=True)
to = at.accept()[0]
give(to)
time.sleep(60)
"""


@pytest_twisted.ensureDeferred
async def test_socket_that_lingers() -> None:
    """A socket that comes with what is read, and is closed here, holds a process up only until the launcher looks."""
    client = Client(b"")
    client.done.addTimeout(30, reactor)
    line = [sys.executable, "-c", LINGERING + RECEIVES]
    process = reactor.spawnProcess(client, line[0], line, os.environ)
    await client.until(b"\n")
    look = Pulse(process.pid).look
    while not client.done.called:
        look()
        await task.deferLater(reactor, 0.05)
    assert (await client.done).out.count(b"\n") == 2


@pytest.mark.program("ssh")
@pytest.mark.root
@pytest_twisted.ensureDeferred
async def test_socket_that_is_given_to_a_forwarding(tmp_path: Path, other_user: str) -> None:
    """The node takes nothing that a user's program sends it over a Unix socket, and does not wait for what it was."""
    world = await running_node(tmp_path)
    world.allow(other_user, "root")
    here = tmp_path / "here"
    script = f"exec /usr/bin/python3 -I -S -c {shlex.quote(LINGERING + LISTENS)}"
    try:
        forward = ("-L", f"{here}:/home/{other_user}/socket")
        holder = world.start(script, options=forward, login=other_user, stdin=None)
        await holder.until(b"ready")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(here))
            client.setblocking(False)
            await until(lambda: select.select([client], [], [], 0)[0])
            assert client.recv(9) == b"hi"
        assert (await world.ssh("echo in")).out == b"in\n"
    finally:
        await world.close()


@pytest.fixture
def mounted(request: pytest.FixtureRequest, other_user: str, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A file of a FUSE file system of ``other_user``'s, mounted as fusermount does it, and what is there once its
    content (or what the parameter says) was asked for. (In a chroot, as here, nobody may make own namespaces.)"""
    device, folder, said = Path("/dev/fuse"), Path(f"~{other_user}").expanduser() / "mount", tmp_path / "asked"
    made = not device.exists()
    if made:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(10, 229))
    try:
        fuse = os.open(device, os.O_RDWR)
    except OSError as error:
        pytest.skip(f"The kernel has no FUSE here ({error.strerror}): modprobe fuse.")
    finally:
        if made:
            device.unlink()
    uid, gid = folder.parent.stat().st_uid, folder.parent.stat().st_gid
    folder.mkdir()
    os.chown(folder, uid, -1)
    options = f"fd={fuse},rootmode=40000,user_id={uid},group_id={gid}".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"held", bytes(folder), b"fuse", 0, options):
        pytest.fail(f"FUSE cannot be mounted: {os.strerror(ctypes.get_errno())}")
    withheld = map(str, getattr(request, "param", (READ, 0)))
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(fuse), str(uid), str(said), *withheld], pass_fds=[fuse]
    )
    os.close(fuse)
    yield str(folder / "file"), said
    libc.umount2(bytes(folder), 2)
    server.kill()
    server.wait()


@pytest.mark.program("ssh")
@pytest.mark.root
@pytest.mark.parametrize("terminal", [False, True])
@pytest_twisted.ensureDeferred
async def test_file_system_that_does_not_answer(
    tmp_path: Path, other_user: str, mounted: tuple[str, Path], terminal: bool
) -> None:
    """The page is held, the client goes, and the daemon closes: others get in, the user does not."""
    file, asked = mounted
    world = await running_node(tmp_path)
    world.allow(other_user, "root")
    try:
        beside = world.start("echo here; exec sleep 600", login=other_user, stdin=None)
        await beside.until(b"here")
        holder = world.start(*["-tt"] * terminal, WRITE + file, login=other_user, stdin=None)
        await until(asked.exists)
        holder.kill()
        await until(lambda: world.logged("session.end", login=other_user))  # a client that starts would inherit the end
        assert (await world.ssh("echo in")).out == b"in\n"
        (held,) = world.logged("node.held")
        assert (held["login"], held["user"], held["success"]) == (other_user, "alice", False)
        assert (await beside.done).code == 255
        refused = await world.ssh("echo in", login=other_user)
        assert (refused.out, refused.code) == (b"", 255)
        assert b"FUSE" in refused.err
        assert (await world.ssh("echo in")).out == b"in\n"
    finally:
        await world.close()


GIVES_FILE = """
import array, os, socket, sys, time
given = os.open(sys.argv[1], os.O_RDWR)
at = socket.socket(socket.AF_UNIX)
at.bind(os.path.expanduser("~/socket"))
at.listen()
print("ready", flush=True)
to = at.accept()[0]
to.sendmsg([b"hi"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [given]))])
time.sleep(60)
"""


@pytest.mark.program("ssh")
@pytest.mark.root
@pytest.mark.parametrize("mounted", [(FLUSH, 0)], indirect=True)
@pytest_twisted.ensureDeferred
async def test_file_that_is_given_to_a_forwarding(tmp_path: Path, other_user: str, mounted: tuple[str, Path]) -> None:
    """To look at or to close a FUSE file that came over a Unix socket would be to wait for who serves it: it is not
    taken."""
    file, asked = mounted
    world = await running_node(tmp_path)
    world.allow(other_user, "root")
    here = tmp_path / "here"
    script = f"exec /usr/bin/python3 -I -S -c {shlex.quote(GIVES_FILE)} {file}"
    try:
        holder = world.start(script, options=("-L", f"{here}:/home/{other_user}/socket"), login=other_user, stdin=None)
        await holder.until(b"ready")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(here))
            client.setblocking(False)
            await until(lambda: select.select([client], [], [], 0)[0])
            assert client.recv(9) == b"hi"
        assert (await world.ssh("echo in")).out == b"in\n"
        assert not asked.exists()
    finally:
        await world.close()


@pytest.mark.program("ssh")
@pytest.mark.root
@pytest.mark.parametrize("mounted", [(READ, 1)], indirect=True)
@pytest_twisted.ensureDeferred
async def test_page_that_is_read_anew(tmp_path: Path, other_user: str, mounted: tuple[str, Path]) -> None:
    """A page in a pipe that a failed write has made invalid, and that is being read again, holds the pipe's reader."""
    file, asked = mounted
    world = await running_node(tmp_path)
    world.allow(other_user, "root")
    go = Path(file).parents[1] / "go"
    try:
        script = f"exec /usr/bin/python3 -I -S -c {shlex.quote(SPLICE)} {file} {go}"
        holder = world.start(script, login=other_user, stdin=None)
        await holder.until(b"ready")
        go.touch()
        for _ in range(1000):  # in which the reactor, and with it the node, reads nothing
            if asked.exists():
                break
            time.sleep(0.01)
        await until(lambda: world.logged("node.held", login=other_user))
        assert (await world.ssh("echo in")).out == b"in\n"
        assert b"FUSE" in (await world.ssh("echo in", login=other_user)).err
    finally:
        await world.close()


@pytest.mark.root
@pytest_twisted.ensureDeferred
async def test_end_that_is_held(mounted: tuple[str, Path]) -> None:
    """A daemon that is killed closes what it has open; the launcher sees to it that it can."""
    file, asked = mounted
    master, slave = os.openpty()
    daemon = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], pass_fds=[master])
    os.close(master)
    home = Path(file).parents[1].stat()
    holder = subprocess.Popen(
        ["/bin/sh", "-c", WRITE + file], stdout=slave, user=home.st_uid, group=home.st_gid, extra_groups=[]
    )
    os.close(slave)
    await until(asked.exists)
    daemon.kill()
    stuck = Pulse(daemon.pid)
    await until(lambda: Path(f"/proc/{daemon.pid}/wchan").read_text() == "tty_ldisc_lock")
    stuck.see_off()
    assert daemon.wait(0) == -9
    holder.wait()


# --- by hand ---------------------------------------------------------------------------------------------------------


class Kernel(Control):
    """A process in a folder like ``/proc``, and connections: who owns each, and what waits there, look by look."""

    def __init__(self, proc: Path, connections: dict[str, tuple[int, list[int]]], guilty: str) -> None:
        self._task = proc / "7" / "task" / "7"
        self._task.mkdir(parents=True)
        self._connections = connections
        self._guilty = guilty
        self.aborted: list[str] = []
        self._looks = 0
        self.sleep()

    def sleep(self, state: str = "D", where: str = "anon_pipe_read", slept: int = 1) -> None:
        (self._task / "stat").write_text(f"7 (a) b) {state} 1 7 7 0 -1 {4 if state == 'X' else 0} 0\n")
        (self._task / "wchan").write_text(where)
        (self._task / "status").write_text(f"voluntary_ctxt_switches:\t{slept}\n")

    def read(self) -> dict[str, Waiting]:
        self._looks += 1
        return {
            name: Waiting(owner, waits[self._looks % len(waits)])
            for name, (owner, waits) in self._connections.items()
            if name not in self.aborted
        }

    def abort(self, name: str) -> None:
        self.aborted.append(name)
        if name == self._guilty:
            self.sleep("S", "ep_poll", 2)

    def close(self) -> None:
        pass


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LIMIT": 0, "SAMPLE": 0.0, "MOVES_WITHIN": 0.0, "SAMPLES": 6}.items():
        monkeypatch.setattr(pulse, name, value)
    monkeypatch.setattr(pulse, "subordinates", lambda: (("bob", range(100000, 165536)),))


def _looks(kernel: Kernel, proc: Path, count: int = 2) -> list[str | None]:
    look = Pulse(7, str(proc), lambda: kernel).look
    return [look() for _ in range(count)]


def test_honest_ones_come_last(tmp_path: Path, quick: None) -> None:
    """What was answered meanwhile is left alone, and so is what moves as long as something stands still."""
    connections = {"1": (1001, [1, 0, 1]), "2": (1002, [3, 2, 3, 1]), "3": (1003, [2]), "4": (1003, [0])}
    kernel = Kernel(tmp_path, connections, "3")
    assert _looks(kernel, tmp_path) == [None, "1003"]
    assert kernel.aborted == ["3", "4"], "all of that user's, since more may be prepared, and nobody else's"


def test_one_that_looks_honest(tmp_path: Path, quick: None) -> None:
    """Whoever feeds other requests to the same file system is found after those that stand still."""
    kernel = Kernel(tmp_path, {"1": (1001, [2]), "2": (1002, [2, 1])}, "2")
    assert _looks(kernel, tmp_path) == [None, "1002"]
    assert kernel.aborted == ["1", "2"]


def test_subordinate_ids(tmp_path: Path, quick: None) -> None:
    """A user who mounts as many different ids is one user."""
    connections = {str(n): (100000 + n, [1]) for n in range(5)}
    kernel = Kernel(tmp_path, connections | {"9": (1001, [1, 2])}, "3")
    assert _looks(kernel, tmp_path) == [None, "bob"]
    assert sorted(kernel.aborted) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("state", "where"), [("D", "folio_wait_bit_common"), ("D", "0"), ("S", "pipe_read"), ("R", "0")]
)
def test_other_waits(tmp_path: Path, quick: None, state: str, where: str) -> None:
    """A slow disk is not a reason to end anybody's file system, and neither is a wait that a signal ends."""
    kernel = Kernel(tmp_path, {"1": (1001, [1])}, "1")
    kernel.sleep(state, where)
    assert _looks(kernel, tmp_path, 4) == [None] * 4
    assert kernel.aborted == []


def test_waits_that_end(tmp_path: Path, quick: None) -> None:
    """Many short waits are not a long one."""
    kernel = Kernel(tmp_path, {"1": (1001, [1])}, "1")
    look = Pulse(7, str(tmp_path), lambda: kernel).look
    for slept in range(5):
        kernel.sleep(slept=slept)
        assert look() is None
    assert kernel.aborted == []


def test_no_fuse(tmp_path: Path, quick: None) -> None:
    """A kernel without FUSE has nothing to abort, and the launcher goes on."""

    def control() -> Control:
        raise OSError

    Kernel(tmp_path, {}, "")
    look = Pulse(7, str(tmp_path), control).look
    assert [look() for _ in range(3)] == [None] * 3


def test_refusals() -> None:
    """Twice as long each time, an hour at the most; a day later it is the first time again."""
    now = [0.0]
    refusals = Refusals(lambda: now[0])
    assert [refusals.add("1001") for _ in range(9)] == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]
    refusals.check("carol", 1002)
    refusals.check("1001", 1005)  # a name that another's number is
    with pytest.raises(LimitExceeded, match="3601 seconds"):
        refusals.check("dave", 1001)
    now[0] = 3600
    refusals.check("dave", 1001)
    now[0] = 24 * 3600 + 1
    assert refusals.add("1001") == 30
    refusals.add("bob")
    with pytest.raises(LimitExceeded):
        refusals.check("bob", 1005)


def test_subuid(tmp_path: Path) -> None:
    """What cannot be read of subuid(5) belongs to nobody else."""
    (tmp_path / "subuid").write_text("bob:100000:65536\n\n# carol\n1002:165536:10\nx:y:z\n")
    found = tuple(subordinates(str(tmp_path / "subuid")))
    assert [whose(id, found) for id in (100000, 165535, 165536, 165546, 7)] == ["bob", "bob", "1002", "165546", "7"]
    assert tuple(subordinates(str(tmp_path / "none"))) == ()
