"""The launcher: a small process beside the daemon that starts, signals and reaps the users' processes.

Why a process of its own, and no fork in the daemon:

- A fork of the daemon copies the page tables of a big, multi-threaded process, and the code between fork and exec may
  touch no lock. This process is small and has one thread: ``fork`` takes a fraction of a millisecond and plain Python
  may run behind it (account look-up, controlling terminal, dropping rights, home directory).
- Its children inherit nothing of the daemon: no host key in memory, no environment, no file descriptor.
- Look-ups through NSS run in the child that needs them; the reactor never waits for a directory server.
- Reaping costs the daemon one small message. When the daemon dies in whatever way, this process sees its socket end
  and hangs up every session.

Protocol, one datagram each over a ``SOCK_SEQPACKET`` pair; the daemon is trusted, nobody else has the socket:

- ``start ID`` with descriptors ``request, reply, stdin, stdout, stderr`` (for a terminal, all three the slave).
  ``request`` is a readable file with JSON (:class:`Request`); ``reply`` is the writing end of a pipe, on which the
  child tells one JSON object: ``{"pid", "uid", "home", "shell"}`` when all is ready for exec, or
  ``{"code", "error"}``. A second object follows only when exec itself fails. It ends with exec.
- ``signal ID NUMBER UID``: to the process group, with the rights of that user.
- ``kill ID``: the process alone, for a start that takes too long.
- back: ``exit ID STATUS``, STATUS as from ``wait()``.

Imports the standard library only: it is run with ``python -I -S``.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import select
import signal
import socket
import sys
import termios
from typing import Any, NoReturn

from teleconch.errors import TeleconchError
from teleconch.node import accounts
from teleconch.node.forward import child as forwarding

PATH = "/usr/local/bin:/usr/bin:/bin:/usr/games"
ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STDERR = 2
REPLY = 3  # where the reply pipe stands between dup2 and exec
SERVED = {"forward": forwarding.main}  # what a child does without an exec, as the user; imported while that is allowed


def text(data: bytes) -> str:
    """Bytes as JSON text, one to one."""
    return data.decode("latin-1")


def data(text: str) -> bytes:
    """The reverse of :func:`text`."""
    return text.encode("latin-1")


def environment(account: accounts.Account, session: dict[str, str]) -> dict[bytes, bytes]:
    """The session's variables (chosen by the daemon's allow-list) with the login's own above them."""
    variables = {
        b"USER": account.login,
        b"LOGNAME": account.login,
        b"HOME": account.home,
        b"SHELL": account.shell,
        b"PATH": ROOT_PATH if account.uid == 0 else PATH,
        b"MAIL": f"/var/mail/{account.login}",
    }
    result = {name: os.fsencode(value) for name, value in variables.items()}
    return {data(name): data(value) for name, value in session.items()} | result


def arguments(account: accounts.Account, command: str | None) -> list[bytes]:
    """A login shell (``-bash``), or ``bash -c COMMAND``."""
    name = os.fsencode(os.path.basename(account.shell))
    return [b"-" + name] if command is None else [name, b"-c", data(command)]


def _tell(reply: int, **message: object) -> None:
    os.write(reply, json.dumps(message).encode() + b"\n")


def _go_home(account: accounts.Account) -> None:
    try:
        os.chdir(account.home)
    except OSError as error:
        word = f"Could not change to the home directory {account.home}: {error.strerror}; going on in /.\r\n"
        os.write(STDERR, os.fsencode(word))
        os.chdir("/")


def _session(request: dict[str, Any]) -> NoReturn:
    """Become the user and exec; descriptors 0 to 2 and :data:`REPLY` are in place."""
    account = accounts.look_up(request["login"])
    accounts.check(account)
    if request["terminal"]:
        accounts.give_terminal(0, account)
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # session leader without a terminal: this one becomes it
    accounts.become(account)
    os.umask(0o022)
    _go_home(account)
    variables = environment(account, request["environment"])
    _tell(REPLY, pid=os.getpid(), uid=account.uid, home=account.home, shell=account.shell)
    for number in range(1, signal.NSIG):
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            continue  # KILL, STOP and those that libc keeps
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if request["serve"] is not None:
        signal.set_wakeup_fd(-1)
        os.close(REPLY)
        SERVED[request["serve"]]()
        os._exit(0)
    try:
        os.execve(account.shell, arguments(account, request["command"]), variables)  # noqa: S606 - the user's own
    except OSError as error:
        raise TeleconchError(f"{account.shell} could not be run: {error.strerror}.") from None


def _child(descriptors: list[int]) -> NoReturn:
    try:
        os.setsid()
        request, reply, stdin, stdout, stderr = descriptors
        with open(request, "rb", closefd=False) as file:
            asked = json.loads(file.read())
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in (stdin, stdout, stderr, reply)]
        for place, fd in enumerate(high):
            os.dup2(fd, place, inheritable=place != REPLY)
        os.closerange(REPLY + 1, 256)  # all are close-on-exec, and few; this is the second bolt
    except BaseException:  # noqa: BLE001 - nothing may unwind into the launcher's loop
        os._exit(255)
    try:
        _session(asked)
    except TeleconchError as error:
        _tell(REPLY, code=error.code, error=str(error))
    except BaseException as error:  # noqa: BLE001 - fail closed; the daemon logs it, the peer gets a sentence
        _tell(REPLY, code="error", error="This node could not start the session.", detail=repr(error)[:1000])
    finally:
        os._exit(255)


class Loop:
    """What the launcher does all day."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pids: dict[str, int] = {}
        self._ids: dict[int, str] = {}

    def run(self) -> None:
        """Serve until the daemon's end of the socket is gone; then hang up what still runs."""
        wake, notify = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(notify, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(wake, select.POLLIN)
        try:
            while True:
                for fd, _ in poll.poll():
                    if fd == wake:
                        os.read(wake, 4096)
                        self._reap()
                    elif not self._obey():
                        return
        except (BrokenPipeError, ConnectionError):
            pass  # the daemon is gone
        finally:
            for pid in self._ids:
                _kill_group(pid, signal.SIGHUP)

    def _obey(self) -> bool:
        message, descriptors, _, _ = socket.recv_fds(self._control, 256, 5, socket.MSG_CMSG_CLOEXEC)
        if not message:
            return False
        verb, id, *rest = message.decode("ascii").split()
        if verb == "start":
            self._start(id, descriptors)
        elif id not in self._pids:
            pass  # its end is on the way
        elif verb == "kill":
            os.kill(self._pids[id], signal.SIGKILL)
        else:
            self._signal(self._pids[id], int(rest[0]), int(rest[1]))
        return True

    def _start(self, id: str, descriptors: list[int]) -> None:
        try:
            pid = os.fork()
        except OSError:
            pid = -1  # the reply pipe closes without a word, and the status tells
        if pid == 0:
            _child(descriptors)
        for fd in descriptors:
            os.close(fd)
        if pid < 0:
            self._control.send(f"exit {id} {255 << 8}".encode())
            return
        self._pids[id] = pid
        self._ids[pid] = id

    def _signal(self, group: int, number: int, uid: int) -> None:
        # A child signals with the user's rights: as root one could kill what sudo runs in the same group.
        pid = os.fork()
        if pid == 0:
            try:
                if os.geteuid() == 0:
                    os.setgroups([])
                    os.setresgid(65534, 65534, 65534)
                    os.setresuid(uid, uid, uid)
                _kill_group(group, number)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)

    def _reap(self) -> None:
        while self._ids:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            id = self._ids.pop(pid)
            del self._pids[id]
            self._control.send(f"exit {id} {status}".encode())


def _kill_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass


def main() -> None:
    """Entry point: the control socket is descriptor 0."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # Ctrl-C and a service's stop are the daemon's; its end is ours
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.chdir("/")
    gc.freeze()  # children share these pages longer
    gc.disable()
    Loop(control).run()
    sys.exit(0)
