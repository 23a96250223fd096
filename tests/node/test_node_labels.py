"""Labels whose values commands print."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import task

from teleconch.errors import BadParameter
from teleconch.node.label_run import END_LIMIT
from teleconch.node.labels import VALUE_MAX, LabelCommand, Labels, one_line
from tests.worlds.logs import add_observer, remove_observer
from tests.worlds.node import alive, running_node
from tests.worlds.reactor import reactor
from tests.worlds.waiting import until


@pytest.fixture
def warnings() -> Iterator[list[dict[str, Any]]]:
    """What the labels have logged."""
    found: list[dict[str, Any]] = []

    def observe(event: dict[str, Any]) -> None:
        if event["log_namespace"] == "teleconch.node.labels":
            found.append(event)

    add_observer(observe)
    yield found
    remove_observer(observe)


class Watched:
    """Labels of one command whose clock only the test turns; the processes are real."""

    def __init__(self, *command: str, period: float = 60) -> None:
        self.changes = 0
        self.clock = cast("Any", task.Clock())
        self.clock.addReader = reactor.addReader
        self.clock.removeReader = reactor.removeReader
        self.labels = Labels(self.clock, {"env": "prod"}, [LabelCommand("x", command, period)], self._changed)

    def _changed(self) -> None:
        self.changes += 1

    @property
    def value(self) -> str:
        return self.labels.current()["x"]


@pytest_twisted.ensureDeferred
async def test_value_and_change(tmp_path: Path) -> None:
    """A label shows what its command prints, is asked again each period, and a change is told at once, once."""
    file = tmp_path / "value"
    file.write_text("one\n")
    watched = Watched("cat", str(file))
    assert watched.labels.current() == {"env": "prod", "x": ""}
    watched.labels.start()
    await until(lambda: watched.value == "one")
    assert watched.changes == 1
    for text, changes in (("one\n", 1), ("two\nmore\n", 2)):
        file.write_text(text)
        watched.clock.advance(59)
        assert watched.value == "one"
        watched.clock.advance(1)
        await until(lambda: watched.clock.getDelayedCalls()[-1].getTime() > watched.clock.seconds() + 30)
        assert watched.changes == changes
    assert watched.value == "two"
    watched.labels.stop()


@pytest_twisted.ensureDeferred
async def test_failing_command(tmp_path: Path, warnings: list[dict[str, Any]]) -> None:
    """A command that fails keeps the last value and warns once, with what it said; when it works again, it says so."""
    flag = tmp_path / "fail"
    script = f"[ -e {flag} ] && {{ echo no disk >&2; exit 3; }}; echo ok"
    watched = Watched("sh", "-c", script)
    watched.labels.start()
    await until(lambda: watched.value == "ok")
    flag.touch()
    for _ in range(3):
        watched.clock.advance(60)
        await until(lambda: watched.labels._commands[0]._running is None)
    (warning,) = warnings
    assert warning["error"] == "it ended with 3: no disk."
    assert watched.value == "ok"
    flag.unlink()
    watched.clock.advance(60)
    await until(lambda: len(warnings) == 2)
    watched.labels.stop()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("script", "error"), [("yes", "more than"), ("sleep 341", "did not end"), ("sleep 342 & sleep 343", "did not end")]
)
async def test_command_without_end(script: str, error: str, warnings: list[dict[str, Any]]) -> None:
    """A command that prints or runs for ever is ended, with all that it started, and never runs twice at once."""
    watched = Watched("sh", "-c", f"echo $$; {script}")
    watched.labels.start()
    pid = watched.labels._commands[0]._running._popen.pid
    if error == "did not end":
        watched.clock.advance(29)
        assert watched.labels._commands[0]._running is not None
        watched.clock.advance(2)
    await until(lambda: warnings)
    assert error in warnings[0]["error"]
    assert watched.value == ""
    states = subprocess.run(["ps", "-o", "state=", "-g", str(pid)], capture_output=True, text=True).stdout
    assert not states.replace("Z", "").strip()
    watched.labels.stop()


@pytest_twisted.ensureDeferred
async def test_command_that_is_not_there(warnings: list[dict[str, Any]]) -> None:
    """A command that cannot be run is a warning, and the node goes on."""
    watched = Watched("/nowhere/program")
    watched.labels.start()
    watched.clock.advance(0)
    assert warnings[0]["error"] == "/nowhere/program cannot be run: No such file or directory."
    watched.labels.stop()


@pytest_twisted.ensureDeferred
async def test_no_shell_and_a_clean_environment() -> None:
    """Nothing of a command is a shell's to interpret, and it sees none of the daemon's variables."""
    watched = Watched("echo", "$HOME;id", "*")
    watched.labels.start()
    await until(lambda: watched.value == "$HOME;id *")
    watched.labels.stop()
    os.environ["NODE_SECRET"] = "leak"
    try:
        watched = Watched("sh", "-c", "echo [$NODE_SECRET]")
        watched.labels.start()
        await until(lambda: watched.value == "[]")
        watched.labels.stop()
    finally:
        del os.environ["NODE_SECRET"]


@pytest_twisted.ensureDeferred
async def test_daemon_left_behind(warnings: list[dict[str, Any]]) -> None:
    """A child that holds the output does not keep the label from its value."""
    apart = "until [ $(ps -o sid= $!) -eq $! ]; do :; done"  # before, it is killed with the command's group
    watched = Watched("sh", "-c", f"setsid sleep 344 & {apart}; echo $!")
    watched.labels.start()
    await until(lambda: watched.value)
    assert alive(int(watched.value))
    os.kill(int(watched.value), 9)
    watched.labels.stop()


@pytest_twisted.ensureDeferred
async def test_stop_ends_what_runs() -> None:
    """A node that stops leaves no command running."""
    watched = Watched("sleep", "345")
    watched.labels.start()
    pid = watched.labels._commands[0]._running._popen.pid
    watched.labels.stop()
    watched.labels.stop()
    assert not alive(pid)
    assert not watched.clock.getDelayedCalls()


@given(st.binary(max_size=2000))
def test_any_output(output: bytes) -> None:
    """Whatever a command prints, the label is one line of at most 255 characters without control characters."""
    value = one_line(output)
    assert len(value) <= VALUE_MAX
    assert value.isprintable()
    assert value == value.strip()


def test_bad_commands() -> None:
    """A label without command, with a period below a second, or with an odd name is refused."""
    for bad in (LabelCommand("a", (), 60), LabelCommand("a", ("x",), 0.5), LabelCommand("a b", ("x",), 60)):
        with pytest.raises(BadParameter):
            Labels(reactor, {}, [bad])


@pytest_twisted.ensureDeferred
async def test_change_pings(tmp_path: Path) -> None:
    """The cluster learns of a new value with a ping at once, not a minute later."""
    file = tmp_path / "value"
    file.write_text("blue")
    world = await running_node(tmp_path, commands=[LabelCommand("colour", ("cat", str(file)), 1.0)])
    pings = world.member.client.pings
    await until(lambda: pings and pings[-1][0].labels == {"colour": "blue"})
    count = len(pings)
    file.write_text("green")
    await until(lambda: pings[-1][0].labels == {"colour": "green"})
    assert len(pings) == count + 1
    await world.close()


def test_held_commands_at_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that cannot be ended hold up a stop as long as one of them does, however many there are."""
    now, waited, killed = 0.0, [], []

    def wait(self: subprocess.Popen[bytes], timeout: float) -> None:
        nonlocal now
        waited.append(timeout)
        now += timeout
        raise subprocess.TimeoutExpired(self.args, timeout)

    commands = [LabelCommand(f"c{number}", ("sleep", "60"), 60) for number in range(5)]
    labels = Labels(reactor, {}, commands)
    labels.start()
    running = [each._running._popen for each in labels._commands if each._running is not None]
    with monkeypatch.context() as patched:
        patched.setattr(subprocess.Popen, "wait", wait)
        patched.setattr(time, "monotonic", lambda: now)
        patched.setattr(os, "killpg", lambda pid, number: killed.append((pid, len(waited))))
        labels.stop()
    for process in running:
        process.kill()
        process.wait()
    assert len(waited) == 5
    assert sum(waited) <= END_LIMIT
    assert {(process.pid, 0) for process in running} <= set(killed), "all are told before one is waited for"
