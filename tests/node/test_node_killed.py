"""`kill -9` of a node: what is left of it and of its sessions, at once and after the next start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pytest_twisted

from teleconch.node.files.programs import Programs
from tests.worlds.node import World, alive

NODE = """
import json, sys
from pathlib import Path
import pytest_twisted  # the reactor as the tests have it
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from tests.worlds.node import running_node
from teleconch.node.start import LoginRules

async def begin():
    world = await running_node(Path(sys.argv[1]), rules=LoginRules(sys.argv[3] or None))
    world.allow(sys.argv[2])
    print(json.dumps([world.ssh_line(login=sys.argv[2]), world.node.parts.launcher.pid]), flush=True)

Deferred.fromCoroutine(begin()).addErrback(lambda failure: (failure.printTraceback(), reactor.stop()))
reactor.run()
"""
FOLDER = """
import os, sys
from teleconch.node.files.programs import Programs
programs = Programs([sys.argv[1]])
print(programs.folder(), flush=True)
sys.stdin.read()
"""


def _until(holds: Callable[[], object], what: str, state: Callable[[], object] = lambda: "") -> None:
    deadline = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < deadline, f"{what}: {state()}"
        time.sleep(0.02)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Callable[[], tuple[subprocess.Popen[str], Path]]]:
    """Starts a process that has a folder of programs in ``tmp_path / "run"``."""
    (tmp_path / "run").mkdir()
    started: list[subprocess.Popen[str]] = []

    def start() -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen(
            [sys.executable, "-c", FOLDER, str(tmp_path / "run")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path.cwd(),
        )
        started.append(process)
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_folder_of_a_killed_node(tmp_path: Path, holder: Callable[[], tuple[subprocess.Popen[str], Path]]) -> None:
    """The next node to start removes what a killed one left in /run, and nothing of one that lives beside it."""
    killed, left = holder()
    _, kept = holder()
    assert {each.name for each in left.iterdir()} == {"scp", "sftp-server"}
    killed.kill()
    killed.wait()
    assert left.exists()
    Programs([str(tmp_path / "run")]).sweep()
    assert not left.exists()
    assert {each.name for each in kept.iterdir()} == {"scp", "sftp-server"}


@pytest.mark.root
def test_sweeping_takes_nothing_else(tmp_path: Path) -> None:
    """Others' folders, links, and folders with anything else in them stay, whatever they are called."""
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    for folder in (run, elsewhere):
        folder.mkdir()
        (folder / "scp").touch()
    for name in ("theirs", "more", "ours", "deep"):
        (run / f"teleconch-programs-{name}").mkdir()
        (run / f"teleconch-programs-{name}" / "scp").touch()
    os.chown(run / "teleconch-programs-theirs", 65534, 65534)
    (run / "teleconch-programs-more" / "letter").touch()
    (run / "teleconch-programs-deep" / "sftp-server").mkdir()
    (run / "teleconch-programs-deep" / "sftp-server" / "letter").touch()
    (run / "teleconch-programs-link").symlink_to(elsewhere)
    (run / "teleconch-programs-file").touch()
    (run / "teleconch-1").mkdir()
    everybodys = tmp_path / "everybodys"
    (everybodys / "teleconch-programs-old").mkdir(parents=True)
    everybodys.chmod(0o1777)
    Programs([str(run), str(tmp_path / "nowhere"), str(everybodys)]).sweep()
    assert (everybodys / "teleconch-programs-old").exists()  # users could put a file system there that never answers
    left = {each.name.removeprefix("teleconch-programs-") for each in run.iterdir()}
    assert left == {"scp", "theirs", "more", "deep", "link", "file", "teleconch-1"}
    assert (elsewhere / "scp").exists()
    assert (run / "teleconch-programs-more" / "scp").exists()
    assert (run / "teleconch-programs-deep" / "sftp-server" / "letter").exists()


@pytest.mark.parametrize(("also_launcher", "pam"), [(False, True), (True, True), (True, False)])
@pytest.mark.program("ssh", "who")
@pytest.mark.root
def test_nothing_stays_of_a_killed_node(tmp_path: Path, other_user: str, also_launcher: bool, pam: bool) -> None:
    """`kill -9` of the daemon, and of its launcher with it, leaves no process, no socket and nobody logged in: neither
    of a login, a command, sftp, forwarding, nor of PAM."""
    stack = Path("/etc/pam.d", f"teleconch-test-{other_user}")
    log = tmp_path / "pam.log"
    hook = tmp_path / "hook"
    hook.write_text(f'#!/bin/sh\necho "$PAM_TYPE" >> {log}\n')
    hook.chmod(0o755)
    stack.write_text(f"account required pam_permit.so\nsession required pam_exec.so quiet {hook}\n")
    utmp = Path("/run/utmp")
    made = not utmp.exists()
    if made:
        utmp.touch(0o664)
    arguments = [str(tmp_path), other_user, stack.name if pam else ""]
    daemon = subprocess.Popen(
        [sys.executable, "-c", NODE, *arguments], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    # Its number may have been another's, of whom something is left.
    before = subprocess.run(["pgrep", "-u", other_user], capture_output=True, text=True, check=False).stdout.split()
    clients: list[subprocess.Popen[bytes]] = []
    agent = tmp_path / "agent"
    try:
        assert daemon.stdout is not None
        ssh, launcher = json.loads(daemon.stdout.readline())

        def client(*options: str, stdin: bytes = b"", command: tuple[str, ...] = ()) -> None:
            process = subprocess.Popen(
                [ssh[0], *options, *ssh[1:], "127.0.0.1", *command],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env={"PATH": os.environ["PATH"], "SSH_AUTH_SOCK": str(agent)},
            )  # fmt: skip
            clients.append(process)
            assert process.stdin is not None
            process.stdin.write(stdin)
            process.stdin.flush()

        subprocess.run(["ssh-agent", "-a", str(agent)], check=True, stdout=subprocess.DEVNULL)
        client("-tt", stdin=b"touch login; sleep 371\n")
        client("-A", "-R", "0:127.0.0.1:1", command=("echo $SSH_AUTH_SOCK > agent; touch command; exec sleep 372",))
        client("-s", command=("sftp",))
        home = Path(f"~{other_user}").expanduser()

        def running() -> list[str]:
            found = subprocess.run(["pgrep", "-a", "-u", other_user], capture_output=True, text=True, check=False)
            pids = [(each, each.split()[0]) for each in found.stdout.splitlines()]
            return [each for each, pid in pids if pid not in before and alive(int(pid))]

        def here() -> str:
            """Of a record whose process has ended nobody thinks that it is a login."""
            said = subprocess.run(["who", "-u", utmp], capture_output=True, text=True, check=True).stdout
            lines = [line for line in said.splitlines() if line.startswith(other_user)]
            return "".join(line for line in lines if alive(int(line.split()[-2])))

        _until(lambda: (home / "login").exists() and (home / "command").exists(), "no sessions")
        if pam:  # the child that forwards has a session, too
            _until(lambda: log.exists() and len(log.read_text().splitlines()) >= 4, "no PAM sessions")
        _until(here, "nobody is here")
        socket = Path((home / "agent").read_text().strip())
        assert socket.exists()
        attending = subprocess.run(["pgrep", "-P", str(launcher)], capture_output=True, text=True, check=True).stdout
        daemon.kill()
        if also_launcher:
            os.kill(launcher, signal.SIGKILL)
        daemon.wait()
        _until(lambda: not alive(launcher), "the launcher stays")
        _until(lambda: not running(), "processes stay", running)
        _until(lambda: not any(alive(int(pid)) for pid in attending.split()), "processes beside PAM stay")
        _until(lambda: not socket.parent.exists(), "the agent's socket stays")
        said = log.read_text().splitlines() if pam else []
        assert said.count("open_session") == said.count("close_session")
        assert not here()
    finally:
        daemon.kill()
        daemon.communicate()
        for process in clients:
            process.kill()
            process.communicate()
        subprocess.run(["pkill", "-f", f"^ssh-agent -a {agent}$"], check=False)
        stack.unlink()
        if made:
            utmp.unlink()


@pytest.mark.program("ssh")
@pytest_twisted.ensureDeferred
async def test_killed_launcher(world: World) -> None:
    """`kill -9` of the launcher alone: who was at work reads 255, the log says why, and the next session works."""
    client = world.start("echo $$.; exec sleep 373", stdin=None)
    await client.until(b".\n")
    assert world.node.parts.launcher.pid is not None
    os.kill(world.node.parts.launcher.pid, signal.SIGKILL)
    assert (await client.done).code == 255
    (event,) = world.logged("session.end")
    assert (event["success"], event["exit_code"]) == (False, None)
    assert "launcher" in event["error"]
    _until(lambda: not alive(int(client.out[:-2])), "the command stays")
    assert (await world.ssh("echo in")).out == b"in\n"
