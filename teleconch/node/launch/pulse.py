"""Watch over the daemon: end the wait that a user's file system forces on it.

While a process writes a page of a FUSE file to a pipe or terminal (or reads into one), the kernel keeps the pipe's lock
or a reference to the terminal until the file system's server has answered. The server is the user's, and may never
answer. Whoever touches the other end meanwhile waits in the kernel, non-blocking or not; no signal ends that, and not
even killing the process does. Aborting the FUSE connection does.

A page that was spliced into a pipe does the same once it is no longer valid and is read again: whoever reads the pipe
waits for that page, as for one on a disk.

So the launcher looks every :data:`EVERY` seconds whether the daemon waits, unmoved, for a pipe or terminal (a wait for
a disk has another name, or another stack). After :data:`LIMIT` seconds it aborts connections that have requests
waiting, user by user, those where nothing moves first, until the daemon moves. Root's connections are never aborted: no
user can make one.

A TCP socket that a user has sent over a Unix socket, with SO_LINGER set, makes whoever closes it last wait as long as
the user likes, and the kernel closes what nobody took. A signal ends that wait, and the daemon gets one at once.

Everything read here answers at once, whatever users do, including the daemon's ``stack``. (``/proc/PID/stack``,
``maps`` or ``cmdline`` of a user's process would not.) Runs in the launcher, and so imports the standard library only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from teleconch.errors import LimitExceeded

EVERY: Final = 0.25  # seconds between two looks
LIMIT: Final = 0.75  # seconds that the daemon may wait for one lock
SAMPLES: Final = 30  # of what waits, before anything is aborted
SAMPLE: Final = 0.01  # seconds between them
SAMPLING_LIMIT: Final = 0.5  # seconds for all, where a user has very many connections
MOVES_WITHIN: Final = 0.1  # seconds until the effect of an abort shows
REFUSED: Final = 30  # seconds for which the user's sessions are refused; twice as long each further time
REFUSED_MAX: Final = 3600
FORGOTTEN: Final = 24 * 3600  # seconds after which a first time is a first time again

_CONNECTIONS: Final = "/sys/fs/fuse/connections"
_LOCKS: Final = (
    b"pipe",
    b"tty",
    b"pty",
    b"ldisc",
    b"ldsem",
)  # in the names of kernel functions that wait for such a lock
_PAGE: Final = b"pipe_buf_confirm"  # on the kernel's stack of a process that waits for a page in a pipe
_LINGERS: Final = b"wait_woken"  # closing a socket; the daemon's first thread waits there for nothing else
_PF_EXITING: Final = 4  # linux/sched.h
_FSOPEN, _FSCONFIG, _FSMOUNT, _CREATE, _CLOEXEC = 430, 431, 432, 6, 1  # linux/mount.h; one number on all machines
_LIBC = ctypes.CDLL(None, use_errno=True)


class Waiting(NamedTuple):
    """A FUSE connection: whose it is, and how many of its requests have no answer yet."""

    owner: int
    requests: int


class Control:
    """The kernel's list of FUSE connections, of all namespaces (fusectl)."""

    def __init__(self, directory: int) -> None:
        self._directory = directory

    @classmethod
    def opened(cls) -> Control:
        """Through a mount of our own that is attached nowhere, so that nobody needs to have mounted it. OSError."""
        try:
            return cls(_mounted())
        except OSError:  # before Linux 5.2, or forbidden
            return cls(os.open(_CONNECTIONS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def close(self) -> None:
        os.close(self._directory)

    def read(self) -> dict[str, Waiting]:
        """Users' connections by their number. Those that end meanwhile are left out."""
        found = {}
        for name in os.listdir(self._directory):
            try:
                owner = os.stat(name, dir_fd=self._directory).st_uid
                if owner != 0:
                    found[name] = Waiting(owner, int(self._file(f"{name}/waiting", os.O_RDONLY)))
            except (OSError, ValueError):
                continue
        return found

    def abort(self, name: str) -> None:
        """Every request of the connection fails from now on. Nothing happens if it has ended."""
        try:
            self._file(f"{name}/abort", os.O_WRONLY)
        except OSError:
            pass

    def _file(self, path: str, how: int) -> bytes:
        fd = os.open(path, how | os.O_CLOEXEC, dir_fd=self._directory)
        try:
            if how == os.O_RDONLY:
                return os.read(fd, 64)
            os.write(fd, b"1")
            return b""
        finally:
            os.close(fd)


def _mounted() -> int:
    """A directory with fusectl's root. OSError."""
    context = _called(_FSOPEN, b"fusectl", _CLOEXEC)
    try:
        _called(_FSCONFIG, context, _CREATE, None, None, 0)
        mount = _called(_FSMOUNT, context, _CLOEXEC, 0)
    finally:
        os.close(context)
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
    finally:
        os.close(mount)


def _called(number: int, *arguments: bytes | int | None) -> int:
    result = int(_LIBC.syscall(number, *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def subordinates(file: str = "/etc/subuid") -> Iterator[tuple[str, range]]:
    """Subordinate ids (subuid(5)): name or number of the user, and the ids that are also theirs."""
    try:
        with open(file, encoding="utf-8", errors="replace") as lines:
            text = lines.read()
    except OSError:
        return
    for line in text.splitlines():
        try:
            user, first, count = line.strip().split(":")
            yield user, range(int(first), int(first) + int(count))
        except ValueError:
            continue


def whose(owner: int, subordinate: Iterable[tuple[str, range]]) -> str:
    """A user's number, or the name (or number) of the user whose subordinate id this is: they can mount as any."""
    return next((user for user, ids in subordinate if owner in ids), str(owner))


def is_whose(user: str, login: str, uid: int) -> bool:
    """Whether ``user``, as :func:`whose` says it, is this account. A login that looks like a number is not one."""
    return user == str(uid) or (user == login and not login.isdecimal())


class Refusals:
    """Who is kept out for a while, by the names that :func:`whose` gives."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._held: dict[str, tuple[float, float, float]] = {}  # until when; for how long; since when

    def add(self, user: str) -> int:
        """Keep ``user`` out; returns for how many seconds."""
        now = self._now()
        self._held = {name: held for name, held in self._held.items() if held[2] + FORGOTTEN > now}
        last = self._held[user][1] if user in self._held else REFUSED / 2
        seconds = min(2 * last, REFUSED_MAX)
        self._held[user] = (now + seconds, seconds, now)
        return int(seconds)

    def check(self, login: str, uid: int) -> None:
        """LimitExceeded for a user who is kept out."""
        now = self._now()
        left = max((held[0] - now for user, held in self._held.items() if is_whose(user, login, uid)), default=0)
        if left > 0:
            raise LimitExceeded(
                "A FUSE file system of yours held up this node: your sessions are refused for a while. "
                f"Try again in {int(left) + 1} seconds, and write nothing from files there that do not answer."
            )


class Pulse:
    """Looks at process ``pid``. ``proc`` and ``control`` say where."""

    def __init__(self, pid: int, proc: str = "/proc", control: Callable[[], Control] = Control.opened) -> None:
        self._process = f"{proc}/{pid}"
        self._main = str(pid)
        self._control = control
        self._pid = pid
        self._last: frozenset[tuple[str, bytes]] = frozenset()
        self._since = 0.0

    def look(self, ending: bool = False) -> str | None:
        """Let the process go on if it is held; returns whose file system did it (as :func:`whose`), if any.

        Call every :data:`EVERY` seconds. ``ending`` looks at every thread, since any of them may close descriptors at
        the end; otherwise only at the first, which alone touches what is a user's.
        """
        now = time.monotonic()
        if self._lingers():
            os.kill(self._pid, signal.SIGCHLD)  # which means only "look whether a child has ended"
            return None
        held = self._held(os.listdir(f"{self._process}/task") if ending else (self._main,))
        if not held or not held & self._last:
            self._last, self._since = held, now
            return None
        self._last &= held
        if now - self._since < LIMIT:
            return None
        self._since = now
        try:
            control = self._control()
        except OSError:  # no FUSE, or not ours to end
            return None
        try:
            return self._release(control)
        finally:
            control.close()

    def see_off(self) -> None:
        """Look until the process has ended, if it is about to: closing what it has open can be held up, too."""
        while self._exits():
            try:
                self.look(ending=True)
            except OSError:
                return
            time.sleep(EVERY)

    def _exits(self) -> bool:
        try:
            tasks = os.listdir(f"{self._process}/task")
        except OSError:
            return False
        stats = [self._stat(task) for task in tasks]
        return any(len(stat) > 6 and stat[0] not in b"ZX" and int(stat[6]) & _PF_EXITING for stat in stats)

    def _stat(self, task: str) -> list[bytes]:
        return self._read(task, "stat").rpartition(b")")[2].split()

    def _read(self, task: str, name: str) -> bytes:
        try:
            with open(f"{self._process}/task/{task}/{name}", "rb", buffering=0) as file:
                return file.read(4096) or b""
        except OSError:
            return b""

    def _held(self, tasks: Iterable[str]) -> frozenset[tuple[str, bytes]]:
        """Tasks that wait for a pipe's or terminal's lock or for a page in a pipe, and how often each has slept."""
        held = set()
        for task in tasks:
            if self._stat(task)[:1] != [b"D"]:
                continue
            where = self._read(task, "wchan")
            if not any(name in where for name in _LOCKS) and _PAGE not in self._read(task, "stack"):
                continue
            lines = self._read(task, "status").splitlines()
            held.add((task, b"".join(line for line in lines if b"ctxt_switches" in line)))
        return frozenset(held)

    def _lingers(self) -> bool:
        return self._stat(self._main)[:1] == [b"S"] and self._read(self._main, "wchan") == _LINGERS

    def _still(self) -> bool:
        return self._held(task for task, _ in self._last) >= self._last

    def _release(self, control: Control) -> str | None:
        seen: dict[str, list[Waiting]] = {}
        end = time.monotonic() + SAMPLING_LIMIT
        for count in range(SAMPLES):
            waiting = {name: each for name, each in control.read().items() if each.requests}
            seen = {name: [*seen.get(name, ()), each] for name, each in waiting.items() if count == 0 or name in seen}
            time.sleep(SAMPLE)
            if not seen or not self._still():
                return None
            if time.monotonic() > end:
                break
        subordinate = tuple(subordinates())
        users: dict[str, list[str]] = {}
        for name in sorted(seen, key=lambda name: len(set(seen[name]))):  # one that moves is more likely honest
            users.setdefault(whose(seen[name][0].owner, subordinate), []).append(name)
        for user, names in users.items():
            for name in names:
                control.abort(name)
            if self._moves():
                for name, each in control.read().items():  # what else the user may have prepared
                    if whose(each.owner, subordinate) == user:
                        control.abort(name)
                return user
        return None

    def _moves(self) -> bool:
        end = time.monotonic() + MOVES_WITHIN
        while self._still():
            if time.monotonic() >= end:
                return False
            time.sleep(SAMPLE / 4)
        return True
