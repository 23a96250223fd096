"""What a person sees on the screen: the same keys are typed in two windows of tmux, one on sshd and one on the node."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted
from conformance import Side, sides
from twisted.internet import reactor, task, utils

pytestmark = [pytest.mark.program("ssh", "sshd", "tmux"), pytest.mark.root]


class Screens:
    """Two windows with a login each."""

    def __init__(self, path: Path, both: tuple[Side, Side]) -> None:
        self._socket = f"teleconch-{secrets.token_hex(4)}"
        self._path = path
        self._both = both

    async def tmux(self, *words: str) -> str:
        """tmux's answer."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self._path), "LANG": "C.UTF-8", "TERM": "xterm-256color"}
        line = ["-u", "-L", self._socket, "-f", "/dev/null", *words]
        out, err, _ = await utils.getProcessOutputAndValue("tmux", line, environment)
        return str(out.decode() + err.decode())

    async def open(self) -> None:
        for side in self._both:
            words = [*side.world.ssh_line("-t", login=side.user), "127.0.0.1"]
            await self.tmux("new-session", "-d", "-s", side.name, "-x", "100", "-y", "30", "exec " + " ".join(words))
        await self.shows("$")

    async def type(self, *keys: str) -> None:
        """Type in both; names such as Enter and C-c are keys."""
        for side in self._both:
            await self.tmux("send-keys", "-t", side.name, *keys)

    async def size(self, columns: int, rows: int) -> None:
        for side in self._both:
            await self.tmux("resize-window", "-t", side.name, "-x", str(columns), "-y", str(rows))

    async def _screen(self, side: Side) -> str:
        text = await self.tmux("capture-pane", "-e", "-p", "-t", side.name)
        return re.sub(r"pts/\d+", "pts/N", text.replace(side.user, "USER"))

    async def shows(self, text: str) -> None:
        """Wait until both screens show ``text``."""
        for side in self._both:
            for _ in range(100):
                if text in await self._screen(side):
                    break
                await task.deferLater(reactor, 0.1)
            else:
                raise AssertionError(f"{side.name} does not show {text!r}:\n{await self._screen(side)}")

    async def equal(self) -> str:
        """The screen, when both show the same."""
        for _ in range(50):
            one, other = [await self._screen(side) for side in self._both]
            if one == other:
                return one
            await task.deferLater(reactor, 0.1)
        raise AssertionError(f"sshd shows\n{one}\nand the node\n{other}")

    async def close(self) -> None:
        await self.tmux("kill-server")


@pytest_twisted.async_yield_fixture
async def screens(tmp_path: Path) -> AsyncIterator[Screens]:
    """Two shells that are ready, with a coloured prompt and a file ``f`` of 500 lines."""
    tmp_path.chmod(0o755)
    async with sides(tmp_path, pam=False) as both:
        screens = Screens(tmp_path, both)
        try:
            await screens.open()
            await screens.type("export LANG=C.UTF-8; seq 1 500 > f; PS1='\\e[38;5;208mready\\e[0m> '; clear", "Enter")
            await screens.shows("ready")
            await screens.equal()
            yield screens
        finally:
            await screens.close()


@pytest_twisted.ensureDeferred
async def test_prompt_and_letters(screens: Screens) -> None:
    """A prompt of 256 colours and letters beyond ASCII, typed and deleted, look as on sshd."""
    await screens.type("echo ä€𝄞漢字")
    await screens.type("BSpace", "BSpace", "x", "Enter")
    await screens.shows("ä€𝄞x")
    assert "38;5;208" in await screens.equal()


@pytest_twisted.ensureDeferred
async def test_full_screen_programs(screens: Screens) -> None:
    """less, top, tmux and vim draw, follow a resize, and leave the screen as it was."""
    await screens.type("less f", "Enter")
    await screens.type("G")
    await screens.shows("500")
    await screens.equal()
    await screens.size(70, 20)
    await screens.equal()
    await screens.type("q")
    await screens.type("clear; top", "Enter")
    await screens.shows("%CPU")
    await screens.type("q")
    await screens.type("clear; tmux -L inner -f /dev/null new", "Enter")
    await screens.shows("[0]")
    await screens.type("echo $((41+1))_", "Enter")
    await screens.shows("42_")
    await screens.type("exit", "Enter")
    await screens.shows("[exited]")
    if shutil.which("vim"):
        await screens.type("clear; vim -u NONE f", "Enter")
        await screens.shows("10\n")
        await screens.type("5Gohello ä€𝄞", "Escape")
        await screens.shows("hello ä€𝄞")
        await screens.size(90, 25)
        await screens.equal()
        await screens.type(":wq", "Enter")
        await screens.shows("ready")
    await screens.equal()


@pytest_twisted.ensureDeferred
async def test_interrupts_and_jobs(screens: Screens) -> None:
    """Ctrl-C ends a full-speed yes, Ctrl-Z stops and fg goes on, Ctrl-\\ quits, Ctrl-D leaves."""
    await screens.type("yes", "Enter")
    await task.deferLater(reactor, 0.5)
    await screens.type("C-c")
    await screens.type("echo =$?", "Enter")
    await screens.shows("=130")
    await screens.type("clear", "Enter")
    await screens.type("sleep 100", "Enter")
    await task.deferLater(reactor, 0.2)
    await screens.type("C-z")
    await screens.shows("Stopped")
    await screens.type("fg", "Enter")
    await task.deferLater(reactor, 0.2)
    await screens.type("C-c")
    await screens.type("jobs; read -s secret", "Enter")
    await screens.type("not shown", "Enter")
    await screens.type("echo done_", "Enter")
    await screens.shows("done_\n")
    assert "not shown" not in await screens.equal()
