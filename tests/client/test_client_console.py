"""The console of `tsh ssh`: the standard streams of a process of its own, which is a terminal's or a pipe's."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
from collections.abc import Iterator
from typing import Any

import pytest

# A console whose link notes what it is asked for on one descriptor. Commands come on another, a line each.
PROGRAM = """
import os, sys
from teleconch.client.console import Console
from teleconch.client.session import SessionRequest
from teleconch.client.terminal import RawTerminal

notes, commands = map(int, sys.argv[1:])

def note(text):
    os.write(notes, (text + "\\n").encode())

class Wire:
    def write(self, data): note(f"write {data}")
    def write_eof(self): note("eof")
    def close(self): note("close")
    def credit(self, count): note(f"credit {count}")
    def send_request(self, name, data, wants_answer): note(f"ask {name.decode()}")
    def rekey(self): note("rekey")
    def ways(self): return ["session", "direct-tcpip db:5432"]

with RawTerminal(0) as raw:
    console = Console(SessionRequest(None, os.isatty(0)), raw, lambda text: note(f"warn {text}"))
    session = console.session
    session.opened(Wire())
    for line in os.fdopen(commands):
        verb, _, rest = line.rstrip("\\n").partition(" ")
        if verb == "answer":
            session.answered(rest == "yes")
        elif verb == "read":
            console.input_ready()
        elif verb == "output":
            console.output(rest.encode())
        elif verb == "wants":
            note(f"wants {console.wants_input}")
        elif verb == "done":
            note(f"done {console.done}")
    console.close()
if session.problem:
    note(f"problem {session.problem}")
elif session.status is not None:
    note(f"status {session.status}")
"""


class Process:
    """The program, its notes and its terminal, if it has one."""

    def __init__(self, **streams: Any) -> None:
        read, notes = os.pipe()
        commands, self._commands = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(notes), str(commands)],
            pass_fds=(notes, commands),
            start_new_session=True,
            env={**os.environ, "TERM": "xterm"},
            **streams,
        )
        os.close(notes)
        os.close(commands)
        self._notes, self._noted = read, b""

    def do(self, *lines: str) -> None:
        os.write(self._commands, "".join(line + "\n" for line in lines).encode())

    def note(self) -> str:
        while b"\n" not in self._noted:
            assert select.select([self._notes], [], [], 20)[0], "no note came"
            more = os.read(self._notes, 4096)
            assert more, "it ended"
            self._noted += more
        line, _, self._noted = self._noted.partition(b"\n")
        return line.decode()

    def end(self) -> list[str]:
        """What it noted until its end."""
        os.close(self._commands)
        self.process.wait(20)
        with open(self._notes, "rb") as notes:
            return (self._noted + notes.read()).decode().splitlines()


class Terminal(Process):
    """On a terminal with ``ours`` as its other end."""

    def __init__(self) -> None:
        self.ours, theirs = pty.openpty()
        self._theirs = theirs
        self.before = termios.tcgetattr(theirs)
        super().__init__(stdin=theirs, stdout=theirs, stderr=theirs)

    def raw(self) -> bool:
        return not termios.tcgetattr(self._theirs)[3] & termios.ECHO

    def type(self, keys: bytes) -> None:
        """Type, and let the console read it."""
        os.write(self.ours, keys)
        self.do("read")

    def shows(self, text: bytes) -> bytes:
        """What is shown up to ``text``."""
        seen = b""
        while text not in seen:
            assert select.select([self.ours], [], [], 20)[0], seen
            seen += os.read(self.ours, 65536)
        return seen

    def end(self) -> list[str]:
        rest = super().end()
        assert termios.tcgetattr(self._theirs) == self.before
        os.close(self.ours)
        os.close(self._theirs)
        return rest


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.process.kill()
    made.process.wait(20)


def begin(terminal: Terminal) -> None:
    assert [terminal.note() for _ in range(2)] == ["ask pty-req", "ask shell"]
    assert not terminal.raw()
    terminal.do("wants", "answer yes", "answer yes", "wants")
    assert [terminal.note() for _ in range(2)] == ["wants False", "wants True"]
    assert terminal.raw()


def test_keys_and_picture(terminal: Terminal) -> None:
    """Raw from when the node has made a terminal; every key passes; what is shown is credited; at the end as before."""
    begin(terminal)
    terminal.type(b"\x03ls\r")
    assert terminal.note() == r"write b'\x03ls\r'"
    terminal.do("output hello")
    assert b"hello" in terminal.shows(b"hello")
    assert terminal.note() == "credit 5"
    assert terminal.end() == []


def test_escapes(terminal: Terminal) -> None:
    """~? ~# ~B ~R answer here; what they show is nobody's credit; ~. leaves with status 255."""
    begin(terminal)
    terminal.type(b"~#")
    assert b"#1 direct-tcpip db:5432\r\n" in terminal.shows(b"5432\r\n")
    terminal.type(b"~B")
    assert terminal.note() == "ask break"
    terminal.type(b"~R")
    assert terminal.note() == "rekey"
    terminal.do("output hello")
    assert terminal.note() == "credit 5"
    terminal.type(b"~?")
    terminal.shows(b"typing it twice")
    terminal.type(b"a\r~.b")
    terminal.do("done")
    assert terminal.note() == "done True"
    assert terminal.end() == ["status 255"]


def test_pipes() -> None:
    """Without a terminal nothing is an escape, and the end of input is passed on."""
    process = Process(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.note() == "ask shell"
    process.do("answer yes")
    assert process.process.stdin is not None
    process.process.stdin.write(b"~.\n")
    process.process.stdin.flush()
    process.do("read")
    assert process.note() == r"write b'~.\n'"
    process.process.stdin.close()
    process.do("read", "wants")
    assert [process.note() for _ in range(2)] == ["eof", "wants False"]
    process.do("output hello")
    assert process.note() == "credit 5"
    assert process.end() == []
    assert process.process.stdout is not None
    assert process.process.stdout.read() == b"hello"
    process.process.stdout.close()


def test_output_that_nobody_takes() -> None:
    """Where the disk is full, or nobody reads any more, the session ends with that."""
    with open("/dev/full", "wb") as full:
        process = Process(stdin=subprocess.DEVNULL, stdout=full)
        assert process.note() == "ask shell"
        process.do("answer yes", "output hello", "done")
        assert [process.note() for _ in range(3)] == ["credit 5", "close", "done False"]
        assert process.end() == ["problem [Errno 28] No space left on device"]
