"""`tsh ssh` to a real node through a real proxy."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from signal import Signals
from typing import Any

import pytest

from tests.worlds.checks import found
from tests.worlds.client import BIN, World, terminal_run


def test_output_error_and_status(world: World) -> None:
    """A script sees the remote command's output, errors and exit status, each where it belongs."""
    done = world.tsh("ssh", f"{world.login}@alpha", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


@pytest.mark.parametrize("name", ["alpha", "ALPHA", "alpha.example.test", "[alpha]", "env=test", "env=test,pair=both"])
def test_names_of_a_node(world: World, name: str) -> None:
    """A node is reached by its name in any case, with the cluster behind it, and by a label of its own."""
    assert world.tsh("ssh", f"{world.login}@{name}", "echo", "here").stdout == b"here\n"


def test_node_by_uuid(world: World) -> None:
    """The UUID that `tsh ls -v` shows leads to the node."""
    uuid = world.tsh("ls", "-v").stdout.split(b"\n")[2].split()[1].decode()
    assert world.tsh("ssh", f"{world.login}@{uuid}", "true").returncode == 0


def test_megabytes_in_and_out(world: World) -> None:
    """What is piped through comes out as it went in, in both directions at once."""
    data = os.urandom(20_000_000)
    done = world.tsh("ssh", f"{world.login}@alpha", "cat", stdin=data)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


def test_files_and_null_as_standard_streams(world: World, tmp_path: Path) -> None:
    """Input from a file or /dev/null and output into a file work as with a pipe."""
    (tmp_path / "in").write_bytes(b"x" * 300_000)
    command = [str(BIN / "tsh"), "ssh", f"{world.login}@alpha", "cat"]
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as sink:
        assert subprocess.run(command, stdin=source, stdout=sink, env=world.env, timeout=60).returncode == 0
    assert (tmp_path / "out").read_bytes() == b"x" * 300_000
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=world.env, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(world: World, closed: str) -> None:
    """A daemon without standard streams can run tsh."""
    line = f'exec "{BIN}/tsh" ssh {world.login}@alpha "cat; echo x; echo y >&2; exit 3" {closed}'
    assert subprocess.run(line, shell=True, env=world.env, timeout=60, stdin=subprocess.DEVNULL).returncode == 3


def test_reader_that_leaves(world: World) -> None:
    """`tsh ssh ... yes | head -1` ends, as it does with a local command."""
    line = f'"{BIN}/tsh" ssh {world.login}@alpha yes | head -1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", line], env=world.env, timeout=30, capture_output=True, stdin=subprocess.DEVNULL
    )
    assert done.stdout == b"y\n"
    assert done.returncode == 141


def test_full_disk(world: World) -> None:
    """Output that cannot be written is an error, not silence."""
    with open("/dev/full", "wb") as full:
        command = [str(BIN / "tsh"), "ssh", f"{world.login}@alpha", "echo x"]
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, env=world.env, timeout=30, stdin=subprocess.DEVNULL
        )
    assert done.returncode == 255
    assert b"No space left" in done.stderr


def test_slow_reader_costs_no_memory(world: World) -> None:
    """A reader that rests makes the sender rest."""
    process = subprocess.Popen(
        [BIN / "tsh", "ssh", f"{world.login}@alpha", "head -c 200000000 /dev/zero"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=world.env,
    )  # fmt: skip
    try:
        process.stdout.read(1)
        sizes = []
        for _ in range(5):
            time.sleep(0.2)
            status = Path(f"/proc/{process.pid}/status").read_text()
            sizes.append(int(found(r"VmRSS:\s+(\d+)", status)[1]))
        assert max(sizes) < 80_000, sizes
        count = 1
        while piece := process.stdout.read(1 << 20):
            count += len(piece)
        assert count == 200_000_000
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def test_late_input(world: World) -> None:
    """Input that comes later than the command's start reaches it, and its end too."""
    process = subprocess.Popen(
        [BIN / "tsh", "ssh", f"{world.login}@alpha", "read a; echo got $a; cat"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=world.env,
    )  # fmt: skip
    process.stdin.write(b"one\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"got one\n"
    out, _ = process.communicate(b"two\n", timeout=20)
    assert (out, process.returncode) == (b"two\n", 0)


def test_script_on_standard_input(world: World) -> None:
    """`tsh ssh NODE < script` runs a shell without a terminal."""
    done = world.tsh("ssh", f"{world.login}@alpha", stdin=b"tty; exit 5\n")
    assert (done.returncode, done.stdout) == (5, b"not a tty\n")


def test_shell_at_a_terminal(world: World) -> None:
    """A shell has a terminal of the local kind and size; a change of size arrives; keys pass as they are."""

    def talk(
        write: Callable[..., Any], expect: Callable[..., Any], terminal: int, process: subprocess.Popen[bytes]
    ) -> None:
        expect(rb"[#$] ")
        write(b"stty size; echo $TERM\r")
        expect(rb"33 101\r+\n.*xterm-256color")
        termios.tcsetwinsize(terminal, (40, 120))
        write(b"sleep 0.3; stty size\r")
        expect(rb"40 120")
        write(b"echo go; sed -u s/x/Y/\r")
        expect(rb"go\r*\n")
        write(b"x\r")
        expect(rb"Y\r*\n")  # it runs
        write(b"\x03")
        expect(rb"\^C[^$#]*[#$] ")  # what is typed before the prompt is back may be lost
        write(b"exit 9\r")

    assert terminal_run(world, "ssh", f"{world.login}@alpha", talk=talk, size=(33, 101)) == 9


def test_command_with_terminal(world: World) -> None:
    """-t gives a command a terminal, -tt also one that a program starts; without them there is none."""
    seen = []

    def talk(
        write: Callable[..., Any], expect: Callable[..., Any], terminal: int, process: subprocess.Popen[bytes]
    ) -> None:
        seen.append(expect(rb"/dev/pts/\d+"))

    assert terminal_run(world, "ssh", "-t", f"{world.login}@alpha", "tty", talk=talk) == 0
    assert world.tsh("ssh", "-tt", f"{world.login}@alpha", "tty").stdout.startswith(b"/dev/pts/")
    done = world.tsh("ssh", "-t", f"{world.login}@alpha", "tty")
    assert (done.returncode, done.stdout) == (1, b"not a tty\n")
    assert done.stderr.startswith(b"WARNING: The command gets no terminal")
    assert world.tsh("ssh", f"{world.login}@alpha", "tty").stdout == b"not a tty\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_signal_ends_the_session(world: World, number: Signals) -> None:
    """A tsh that is told to end puts the terminal back and ends by that signal; the remote command hangs up."""

    def talk(
        write: Callable[..., Any], expect: Callable[..., Any], terminal: int, process: subprocess.Popen[bytes]
    ) -> None:
        expect(rb"[#$] ")
        # In the foreground when it says so: what bash is just starting survives a hang-up, with sshd too.
        write(b"bash -c 'echo $((6*7)) ready; exec sleep 1234.%d'\r" % number)
        expect(rb"42 ready")
        process.send_signal(number)

    assert terminal_run(world, "ssh", f"{world.login}@alpha", talk=talk) == -number
    until = time.monotonic() + 10
    while subprocess.run(["pgrep", "-f", f"sleep 1234.{int(number)}$"], stdout=subprocess.DEVNULL).returncode == 0:
        assert time.monotonic() < until, "the remote command still runs"
        time.sleep(0.1)


def test_escape_leaves(world: World) -> None:
    """Enter ~. leaves a session that hangs."""

    def talk(
        write: Callable[..., Any], expect: Callable[..., Any], terminal: int, process: subprocess.Popen[bytes]
    ) -> None:
        expect(rb"[#$] ")
        write(b"sleep 1000\r~.")
        expect(rb"Connection to alpha closed\.")

    assert terminal_run(world, "ssh", f"{world.login}@alpha", talk=talk) == 255


def test_escape_suspends_and_tells(world: World) -> None:
    """Enter ~^Z stops tsh with a sane terminal, fg goes on; ~? and ~# tell, and nothing of it reaches the node."""

    def talk(
        write: Callable[..., Any], expect: Callable[..., Any], terminal: int, process: subprocess.Popen[bytes]
    ) -> None:
        expect(rb"[#$] ")
        write(b"\r~?")
        expect(rb"(?s)Supported escape sequences:\r\n.*~\^Z")
        write(b"~#")
        expect(rb"#0 session")
        write(b"~\x1a")
        expect(rb"(?s) icanon.*tsh.* ssh")
        write(b"echo $((6*7))on; exit 3\r")
        expect(rb"42on")

    line = f'"{BIN}/tsh" ssh {world.login}@alpha; stty -a | grep -o " icanon"; fg; exit $?'
    assert terminal_run(world, "-mc", line, talk=talk, program="/bin/bash") == 3


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (("nosuch", "true"), 255, rb"ERROR: No node with the name or address nosuch is registered"),
        (("other@alpha", "true"), 255, rb"ERROR: joe may not log in as other; the certificate allows"),
        (("env=prod", "true"), 255, rb"ERROR: No node has the label env=prod"),
        (("--cluster=other", "alpha", "true"), 255, rb"ERROR: This proxy serves the cluster example.test"),
        (("-L", "1", "alpha"), 255, rb"ERROR: -L 1: give it as \[BIND:\]PORT:HOST:PORT"),
        (("-N", "alpha", "true"), 2, rb"ERROR: -N runs no COMMAND"),
        (("-p", "x", "alpha"), 2, rb"ERROR: -p x: ports go from 1 to 65535"),
        (("--local", "alpha"), 2, rb"ERROR: --local needs a COMMAND"),
        (("--proxy=localhost:1", "alpha", "true"), 255, rb"ERROR: You are not logged in to localhost"),
    ],
)
def test_refusals_are_sentences(world: World, arguments: tuple[str, ...], status: int, sentence: bytes) -> None:
    """Whatever does not work is said in one sentence, with an exit status that rsync and git know."""
    done = world.tsh("ssh", *arguments)
    assert done.returncode == status
    assert re.match(sentence, done.stderr), done.stderr
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == 1


def test_proxy_that_is_away(world: World) -> None:
    """A proxy that does not run is named, with its port."""
    done = world.tsh("ssh", "--proxy=localhost:,1", f"{world.login}@alpha", "true")
    assert done.returncode == 255
    assert done.stderr.startswith(b"ERROR: The proxy localhost accepts no connection on port 1")


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (["echo", "a  b", "$((1+1))", "'x y'"], b"a b 2 x y\n"),
        (["--", "echo", "-x"], b"-x\n"),
        (["-n", "cat"], b""),
        (["-q", "-x", "-C", "-4", "-o", "ConnectTimeout=9", "-e", "none", "echo", "-v"], b"-v\n"),
        (["-o", "SetEnv=LC_A=1 LC_B='2 3'", "echo $LC_A$LC_B"], b"12 3\n"),
        (["-o", "SendEnv=-LC_*", "echo", ".$LC_C."], b"..\n"),
        (["-o", "RemoteCommand=echo rc"], b"rc\n"),
    ],
)
def test_words_of_ssh(world: World, words: list[str], out: bytes) -> None:
    """A line that was written for OpenSSH's client does the same; the words of a command are joined by a blank."""
    done = world.tsh("ssh", f"{world.login}@alpha", *words, stdin=b"input", env=world.env | {"LC_C": "3"})
    assert (done.returncode, done.stdout, done.stderr) == (0, out, b"")


def test_two_dashes_before_the_host(world: World) -> None:
    """Behind `tsh ssh -- HOST` all is the command, also what looks like a flag."""
    done = world.tsh("ssh", "--", f"{world.login}@alpha", "-x")
    assert done.returncode == 2
    assert b"-c: option requires an argument" in done.stderr


def test_into_the_background(world: World) -> None:
    """-f comes back once the command runs; it goes on by itself."""
    begun = time.monotonic()
    done = world.tsh("ssh", "-f", f"{world.login}@alpha", "sleep 1; echo late; exit 3", stdin=b"unread")
    assert (done.returncode, done.stdout) == (0, b"late\n")  # the output's pipe is open until the command ends
    assert time.monotonic() - begun > 1
    begun = time.monotonic()
    line = f'"{BIN}/tsh" ssh -f {world.login}@alpha "sleep 1.5; echo late" >/dev/null 2>&1; echo $?'
    done = subprocess.run(["sh", "-c", line], env=world.env, capture_output=True, timeout=30)
    assert done.stdout == b"0\n"
    assert time.monotonic() - begun < 1.5
    assert world.tsh("ssh", "-f", f"{world.login}@alpha").stderr.startswith(b"ERROR: -f needs a COMMAND, or -N.")


def test_subsystem_and_way_through(world: World) -> None:
    """-s starts a subsystem and -W leads through, as sftp and ProxyCommand want it of their ssh."""
    done = world.tsh("ssh", "-oForwardX11=no", "-s", "--", f"{world.login}@alpha", "sftp", stdin=b"\0\0\0\5\1\0\0\0\3")
    assert (done.returncode, done.stdout[4:9]) == (0, b"\2\0\0\0\3")
    done = world.tsh("ssh", "-W", f"127.0.0.1:{world.ssh}", f"{world.login}@alpha", stdin=b"nonsense\r\n")
    assert (done.returncode, done.stdout[:8]) == (0, b"SSH-2.0-")
    done = world.tsh("ssh", "-W", "nonsense", f"{world.login}@alpha")
    assert (done.returncode, done.stderr[:28]) == (2, b"ERROR: -W nonsense: give it ")


@pytest.mark.program("sftp")
def test_as_the_ssh_of_other_programs(world: World, tmp_path: Path) -> None:
    """sftp -S and git find in tsh, under the name of ssh, what they need."""
    (tmp_path / "ssh").symlink_to(BIN / "tsh")
    (tmp_path / "f").write_text("x")
    env = world.env | {"PATH": f"{tmp_path}:{world.env['PATH']}"}
    done = subprocess.run(
        ["sftp", "-q", "-b", "-", "-S", tmp_path / "ssh", f"{world.login}@alpha"],
        input=f"get {tmp_path}/f {tmp_path}/g\n".encode(), env=env, capture_output=True, timeout=30,
    )  # fmt: skip
    assert (done.returncode, (tmp_path / "g").read_text()) == (0, "x"), done.stderr
    told = subprocess.run(["ssh", "-G", "-p", "9", "joe@alpha"], env=env, capture_output=True, timeout=30, text=True)
    assert (told.returncode, "port 9\n" in told.stdout, "user joe\n" in told.stdout) == (0, True, True)
    assert subprocess.run(["ssh", "-V"], env=env, capture_output=True).stderr.startswith(b"tsh (teleconch)")


def test_local_command(world: World) -> None:
    """--local runs the command here once the node was reached, and not if it was not."""
    done = world.tsh("ssh", "--local", f"{world.login}@alpha", "echo here; exit 4")
    assert (done.returncode, done.stdout) == (4, b"here\n")
    done = world.tsh("ssh", "--local", f"{world.login}@nosuch", "echo here")
    assert (done.returncode, done.stdout) == (255, b"")


def test_foreign_authority(world: World, tmp_path: Path) -> None:
    """A proxy that another cluster certified is not talked to."""
    from teleconch.ca.authority import new_authority, trusted
    from teleconch.client.known_hosts import authority_lines

    env = {**world.env, "TELEPORT_HOME": str(tmp_path / "tsh")}
    subprocess.run(["cp", "-a", world.home / ".tsh", tmp_path / "tsh"], check=True)
    (known,) = (tmp_path / "tsh" / "keys").glob("*/known_hosts")
    foreign = trusted(new_authority("host", "example.test", time.time()))
    known.write_text("\n".join(authority_lines(foreign)) + "\n")
    done = world.tsh("ssh", f"{world.login}@alpha", "echo in", env=env)
    assert (done.returncode, done.stdout) == (255, b"")
    assert b"not signed by a host authority of this cluster" in done.stderr
    done = world.tsh("ssh", "--insecure", f"{world.login}@alpha", "echo in", env=env)
    assert done.stdout == b"in\n"
    assert done.stderr.startswith(b"WARNING: With --insecure")


@pytest.mark.program("faketime")
def test_expired_certificate(world: World) -> None:
    """An expired login is told with the command that renews it."""
    done = subprocess.run(
        ["faketime", "-f", "+3d", BIN / "tsh", "ssh", f"{world.login}@alpha", "true"],
        env=world.env, capture_output=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 255
    assert b"ERROR: The certificate of joe expired at " in done.stderr
    line = f"log in again with `tsh login --proxy=localhost:{world.web} --user=joe`."
    assert line.encode() in done.stderr


def test_ansible_through_a_link(world: World, tmp_path: Path) -> None:
    """Ansible runs tsh as its ssh, with the user from the inventory, whom it puts in quotes."""
    (tmp_path / "ssh").symlink_to(BIN / "tsh")
    (tmp_path / "hosts").write_text(f"alpha ansible_user={world.login} ansible_python_interpreter={sys.executable}\n")
    env = {
        **world.env,
        "ANSIBLE_SSH_EXECUTABLE": str(tmp_path / "ssh"),
        "ANSIBLE_HOME": str(tmp_path / "home"),
        "ANSIBLE_SCP_IF_SSH": "False",
        "ANSIBLE_SSH_TRANSFER_METHOD": "piped",
    }
    done = subprocess.run(
        [BIN / "ansible", "-i", tmp_path / "hosts", "all", "-m", "ping"], env=env, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert b'"ping": "pong"' in done.stdout
