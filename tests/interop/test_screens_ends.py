"""How a session at a terminal ends, and how soon Ctrl-C is obeyed: ssh to sshd, ssh through the proxy, and tsh ssh."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.interop.screens import PATH, Place, Road

ON_ITS_WAY = 1_500_000  # bytes: the window that OpenSSH's client gives a terminal is 1 MiB, and pipes hold some

pytestmark = [pytest.mark.program("ssh", "sshd"), pytest.mark.root]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("ends"))
    yield made
    made.close()


class Terminal:
    """A terminal in which ``go box`` runs and has shown its prompt."""

    def __init__(self, road: Road, ours: int, theirs: int) -> None:
        self.ours, self.theirs = ours, theirs
        self._is_tsh = road.name == "tsh"
        self.modes = termios.tcgetattr(theirs)
        self.process = subprocess.Popen(
            [road.go, "box"], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={"PATH": PATH, "TERM": "xterm", "LANG": "C.UTF-8", "HOME": "/nonexistent"},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self.read_until(b"> ")

    def type(self, text: bytes) -> None:
        os.write(self.ours, text)

    def read_until(self, text: bytes, rest: float = 0.0) -> int:
        """How many bytes came up to ``text``; ``rest`` is how long this terminal rests after each 4 KiB."""
        until, count, tail = time.monotonic() + 20, 0, b""
        while text not in tail:
            assert time.monotonic() < until, tail
            if select.select([self.ours], [], [], 0.2)[0]:
                data = os.read(self.ours, 4096)
                count, tail = count + len(data), (tail + data)[-4200:]
                time.sleep(rest)
        return count

    def read_for(self, seconds: float, rest: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if select.select([self.ours], [], [], 0.05)[0]:
                os.read(self.ours, 4096)
                time.sleep(rest)

    @property
    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.theirs)[3] & termios.ICANON

    def hears(self, number: int) -> None:
        """Wait until the client, which was sent this signal, ends by it.

        OpenSSH's client overlooks one that comes between a look whether one came and its next wait: tell it again.
        """
        for _ in range(20):
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(20 if self._is_tsh else 1)
                return
            assert not self._is_tsh, "tsh goes on"
            self.process.send_signal(number)

    def ended(self) -> int:
        """The client's exit status. The terminal has to be as it was."""
        status = self.process.wait(20)
        assert termios.tcgetattr(self.theirs) == self.modes, "the terminal was not put back"
        return status


@contextmanager
def at_a_terminal(road: Road) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    made = None
    try:
        made = Terminal(road, ours, theirs)
        yield made
    finally:
        if made is not None:
            made.process.kill()
            made.process.wait()
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("rest", [0.0, 0.005])
def test_ctrl_c_stops_yes(place: Place, rest: float) -> None:
    """Ctrl-C in a full-speed `yes` is obeyed as soon as with sshd, on a quick terminal and on a slow one."""
    took, came = {}, {}
    for road in place.roads:
        with at_a_terminal(road) as terminal:
            terminal.type(b"yes\r")
            terminal.read_for(0.7, rest)
            pressed = time.monotonic()
            terminal.type(b"\x03")
            came[road.name] = terminal.read_until(b"ready", rest)
            took[road.name] = time.monotonic() - pressed
            terminal.type(b"exit\r")
            assert terminal.ended() == 130
    for name in ("ssh", "tsh"):
        assert took[name] < 5 * took["sshd"] + 0.5, took
        assert came[name] < 5 * came["sshd"] + ON_ITS_WAY, came
    if rest:  # what is on its way to a slow terminal is bounded by the client's window
        assert came["tsh"] < 600_000, came


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_signals(place: Place, number: int) -> None:
    """A client that is told to end puts the terminal back. (ssh then exits with 255, tsh by the signal.)"""
    for road in place.roads:
        with at_a_terminal(road) as terminal:
            assert terminal.is_raw
            terminal.process.send_signal(number)
            terminal.hears(number)
            assert terminal.ended() == (-number if road.name == "tsh" else 255)


def test_terminal_that_is_closed(place: Place) -> None:
    """Whoever closes the terminal's window leaves neither a client here nor a program there."""
    for road in place.roads:
        with at_a_terminal(road) as terminal:
            terminal.type(b"trap '' HUP; echo begun_$((6*7)); sleep 543\r")
            terminal.read_until(b"begun_42")
            closed, terminal.ours = terminal.ours, os.open(os.devnull, os.O_RDONLY)
            os.dup2(terminal.ours, closed)
            os.close(terminal.ours)
            terminal.hears(signal.SIGHUP)
            assert terminal.process.wait(1) != 0
        subprocess.run(["pkill", "-KILL", "-u", road.user, "sleep"], check=False)


def test_node_that_dies(place: Place) -> None:
    """The node's death ends sessions with 255, a sentence, and a sane terminal. The last of these tests."""
    with at_a_terminal(place.roads[1]) as ssh, at_a_terminal(place.roads[2]) as tsh:
        place.daemon.kill()
        for terminal in (ssh, tsh):
            assert terminal.ended() == 255
        tsh.read_until(b"was lost")
