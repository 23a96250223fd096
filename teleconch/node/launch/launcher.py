"""The launcher: a small process beside the daemon that starts, signals and reaps the users' processes.

Why a process of its own, not a fork of the daemon:

- A fork of the daemon copies the page tables of a big, multi-threaded process, and the code between fork and exec may
  touch no lock. This process is small and has one thread: ``fork`` takes a fraction of a millisecond and plain Python
  may run after it (account look-up, controlling terminal, dropping rights, home directory).
- Its children inherit nothing of the daemon: no host key in memory, no environment, no file descriptor.
- Look-ups through NSS run in the child that needs them; the reactor never waits for a directory server.
- Reaping costs the daemon one small message. However the daemon dies, this process sees its socket end
  and hangs up every session.

Protocol, one datagram each over a ``SOCK_SEQPACKET`` pair; the daemon is trusted, nobody else has the socket:

- ``start ID KIND...`` with descriptors ``request, reply, stdin, stdout, stderr`` (for a terminal, all three the slave).
  A sixth may follow, for reports of moved files (``files.report``). ``request`` is a readable file with JSON
  (:class:`Request`); ``reply`` is the writing end of a pipe, on which the child writes one JSON object:
  ``{"pid", "uid", "home", "shell"}`` when all is ready for exec, or ``{"code", "error"}``. A second object
  follows only when exec itself fails. It ends with exec. KIND is ``login`` for what runs on a terminal and is in utmp
  and wtmp, and ``attended`` where PAM is used; none, one or both.
- ``signal ID NUMBER UID PID``: to the process group PID, with the rights of that user. (With PAM, the launcher's child
  stays as root to close the session, and PID is the child's child.)
- ``kill ID``: for a start that takes too long. What attends it is told to end the process, and is killed after a while.
- ``rest``: until the next start, the daemon holds nothing of any user's.
- back: ``exit ID STATUS``, STATUS as from ``wait()``; ``held SECONDS USER`` when USER (a number, or a name of
  subuid(5)) had kept the daemon waiting (:mod:`teleconch.node.launch.pulse`), and will be refused for SECONDS.

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
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from teleconch.errors import TeleconchError, Unavailable
from teleconch.node.files import child as files
from teleconch.node.launch import accounts, apart, greeting, login, oom, pulse, rc, records, variables
from teleconch.node.launch.attend import END, HARMLESS, Note, follow_parent
from teleconch.node.launch.signals import Signals, kill_group

PATH = "/usr/local/bin:/usr/bin:/bin:/usr/games"
ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STDERR = 2
START_LIMIT = 70  # seconds; the daemon gives up earlier: this is for when it cannot say so
NO_PROCESS = "This node could not start the session: the machine has no process or memory left; try again later."
REPLY = 3  # where the reply pipe is between dup2 and exec
RETRY = 500  # milliseconds until what needs a process is tried again, or a limit is looked at
END_LIMIT = 10  # seconds in which a session that PAM has opened may close, once its start is to end


Served = Mapping[str, Callable[[], object]]


def text(data: bytes) -> str:
    """Bytes as JSON text, one to one."""
    return data.decode("latin-1")


def data(text: str) -> bytes:
    """The reverse of :func:`text`."""
    return text.encode("latin-1")


def environment(entered: login.Entered, session: dict[str, str], own: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Defaults, then the client's (by the daemon's allow-list), the user's file, PAM's, and over all of them what the
    node itself says."""
    account = entered.account
    defaults = {b"PATH": ROOT_PATH if account.uid == 0 else PATH, b"MAIL": f"/var/mail/{account.login}"}
    fixed = {b"USER": account.login, b"LOGNAME": account.login, b"HOME": account.home, b"SHELL": account.shell}
    asked = {data(name): data(value) for name, value in session.items()}
    said = {name: value for name, value in asked.items() if name.startswith(b"SSH_") or name in (b"TERM", b"DISPLAY")}
    return {
        **{name: os.fsencode(value) for name, value in defaults.items()},
        **asked,
        **own,
        **entered.variables,
        **said,
        **{name: os.fsencode(value) for name, value in fixed.items()},
    }


def _own_variables(account: accounts.Account) -> dict[bytes, bytes]:
    found, words = variables.read_file(account.home)
    for word in words:
        os.write(STDERR, word.encode() + b"\r\n")
    return found


def arguments(account: accounts.Account, command: str | None) -> list[bytes]:
    """A login shell (``-bash``), or ``bash -c COMMAND``."""
    name = os.fsencode(os.path.basename(account.shell))
    return [b"-" + name] if command is None else [name, b"-c", data(command)]


def _tell(reply: int, **message: object) -> None:
    os.write(reply, json.dumps(message).encode() + b"\n")


def _say_no_more() -> None:
    """The session has started, as far as the daemon is concerned: what comes now may take as long as it likes."""
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null, REPLY, inheritable=False)
    os.close(null)


def _go_home(account: accounts.Account) -> None:
    try:
        os.chdir(account.home)
    except OSError as error:
        word = f"Could not change to the home directory {account.home}: {error.strerror}; going on in /.\r\n"
        os.write(STDERR, os.fsencode(word))
        os.chdir("/")


def _session(request: dict[str, Any], note: Note | None, served: Served, refusals: pulse.Refusals) -> NoReturn:
    """Become the user and exec, or serve; descriptors 0 to 2 and :data:`REPLY` are in place."""
    entered = login.enter(request, note, refusals)
    account = entered.account
    accounts.become(account)
    if not follow_parent():
        os._exit(255)
    apart.forbid_tracing()
    _go_home(account)
    environ = environment(
        entered, request["environment"], _own_variables(account) if request["user_environment"] else {}
    )
    command = request["command"]
    if entered.new_password:
        command, request["serve"] = text(login.NEW_PASSWORD), None
    _tell(REPLY, pid=os.getpid(), uid=account.uid, home=account.home, shell=account.shell)
    if login.is_login(request) and not greeting.hushed(account.home):
        greeting.show(entered.said + (b"" if request["pam"] else greeting.message_of_the_day()))
    signal.alarm(0)
    signal.set_wakeup_fd(-1)
    for number in range(1, signal.NSIG):
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            continue  # KILL, STOP and those that libc keeps
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if request["serve"] == files.SFTP and files.needs_shell(account.shell):
        command, request["serve"] = files.sftp_command(request["programs"]), None
    script = None if entered.new_password else rc.find(request["rc"], account.home)
    if script is not None:
        _say_no_more()
        rc.run(script, account.shell, environ, data(request["cookie"]))
    if request["serve"] is not None:
        os.close(REPLY)
        os.environb.clear()
        os.environb.update(environ)
        served[request["serve"]]()
        os._exit(0)
    if request["programs"] is not None:
        files.lend_scp(environ, request["programs"], REPLY)
    try:
        os.execve(account.shell, arguments(account, command), environ)  # noqa: S606 - the user's own
    except OSError as error:
        sentence = f"The shell {account.shell} could not be run ({error.strerror}); ask the administrator."
        if script is not None:
            os.write(STDERR, sentence.encode() + b"\r\n")
        raise TeleconchError(sentence) from None


def _child(
    descriptors: list[int], note: Note | None, score: int | None, served: Served, refusals: pulse.Refusals
) -> NoReturn:
    try:
        fcntl.lockf(descriptors[0], fcntl.LOCK_SH)  # until the launcher has closed its copies, below
        oom.give_back(score)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGALRM, *HARMLESS):
            signal.signal(number, signal.SIG_DFL)
        signal.alarm(START_LIMIT)
        os.setsid()
        request, reply, stdin, stdout, stderr, *report = descriptors
        with open(request, "rb", closefd=False) as file:
            asked = json.loads(file.read())
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in (stdin, stdout, stderr, reply, *report)]
        for place, fd in enumerate(high):
            os.dup2(fd, place, inheritable=place < REPLY)
        os.closerange(REPLY + 1 + len(report), 256)  # all are close-on-exec, and few; this is the second bolt
    except BaseException:  # noqa: BLE001 - nothing may unwind into the launcher's loop
        os._exit(255)
    try:
        _session(asked, note, served, refusals)
    except TeleconchError as error:
        _tell(REPLY, code=error.code, error=str(error))
    except BaseException as error:  # noqa: BLE001 - fail closed; the daemon logs it, the peer gets a sentence
        _tell(REPLY, code="error", error="This node could not start the session.", detail=repr(error)[:1000])
    finally:
        os._exit(255)


class Loop:
    """What the launcher does all day."""

    def __init__(self, control: socket.socket, score: int | None, served: Served) -> None:
        self._control = control
        self._score = score
        self._served = served
        self._pids: dict[str, int] = {}
        self._ids: dict[int, str] = {}
        self._lines: dict[int, str] = {}  # terminals of logins
        self._notes: dict[int, Note] = {}
        self._signals = Signals()
        self._doomed: dict[int, float] = {}  # when those that should have ended are killed
        self._unwritten: dict[int, str] = {}  # logouts
        self._unsent: deque[bytes] = deque()  # to the daemon; at most one for each process, and few others
        self._pulse = pulse.Pulse(os.getppid()) if os.geteuid() == 0 else None  # only root has the means to end a wait
        self._refusals = pulse.Refusals()
        self._resting = True
        self._next_look = 0.0

    def run(self) -> None:
        """Serve until the daemon's end of the socket is gone; then hang up what is still running."""
        wake, notify = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(notify, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(wake, select.POLLIN)
        try:
            while True:
                poll.modify(self._control, select.POLLIN | (select.POLLOUT if self._unsent else 0))
                for fd, event in poll.poll(self._patience()):
                    if fd == wake:
                        os.read(wake, 4096)
                        self._reap()
                    elif event != select.POLLOUT and not self._obey():
                        return
                self._watch()
                self._send()
                self._signals.send()
                self._try_again()
        except (BrokenPipeError, ConnectionError):
            pass  # the daemon is gone
        finally:
            for pid in self._ids:
                for number in (signal.SIGHUP, signal.SIGCONT):
                    kill_group(pid, number)
            for pid, line in (self._lines | self._unwritten).items():
                self._log_out(pid, line)
            if self._pulse is not None:
                self._pulse.see_off()

    def _patience(self) -> int | None:
        """Milliseconds until something must be looked at, whatever comes."""
        if self._watching():
            return int(pulse.EVERY * 1000)
        return RETRY if self._signals or self._unwritten or self._doomed else None

    def _watching(self) -> bool:
        return self._pulse is not None and not (self._resting and not self._pids)

    def _watch(self) -> None:
        now = time.monotonic()
        if self._pulse is None or not self._watching() or now < self._next_look:
            return
        user = self._pulse.look()
        self._next_look = time.monotonic() + pulse.EVERY * 0.9
        if user is not None:
            self._report(f"held {self._refusals.add(user)} {user[:128]}")

    def _report(self, message: str) -> None:
        self._unsent.append(message.encode())
        self._send()

    def _send(self) -> None:
        # A daemon that is held reads nothing, and this process must not wait for it.
        while self._unsent:
            try:
                self._control.send(self._unsent[0], socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            self._unsent.popleft()

    def _obey(self) -> bool:
        message, descriptors, _, _ = socket.recv_fds(self._control, 256, 6, socket.MSG_CMSG_CLOEXEC)
        if not message:
            return False
        verb, *words = message.decode("ascii").split()
        self._resting = verb == "rest"
        if self._resting:
            return True
        id, *rest = words
        if verb == "start":
            self._start(id, descriptors, "login" in rest and os.geteuid() == 0, "attended" in rest)
        elif id not in self._pids:
            pass  # its end is on the way
        elif verb == "kill":
            self._end(self._pids[id])
        else:
            number, uid, group = map(int, rest)
            self._signals.add(id, group, number, uid)
        return True

    def _end(self, pid: int) -> None:
        if pid in self._notes and pid not in self._doomed:
            os.kill(pid, END)  # as root; the user may hold the process itself
            self._doomed[pid] = time.monotonic() + END_LIMIT
        else:
            os.kill(pid, signal.SIGKILL)

    def _start(self, id: str, descriptors: list[int], login: bool, attended: bool) -> None:
        try:
            note = Note() if attended else None
            # A user can hold up whoever closes a pipe last. The child waits for this lock, which no fork hands on and
            # which goes with the first descriptor of the file: so the launcher is never the last.
            fcntl.lockf(descriptors[0], fcntl.LOCK_EX)
            pid = os.fork()
        except (OSError, ValueError):
            pid = -1
            try:
                _tell(descriptors[1], code=Unavailable.code, error=NO_PROCESS)
            except OSError:  # the daemon no longer waits; to take that for its end would hang up every session
                pass
        if pid == 0:
            _child(descriptors, note, self._score, self._served, self._refusals)
        line = _line(descriptors[4]) if login else None
        for fd in reversed(descriptors):
            os.close(fd)
        if pid < 0:
            self._report(f"exit {id} {255 << 8}")
            return
        self._pids[id] = pid
        self._ids[pid] = id
        if note is not None:
            self._notes[pid] = note
        if line is not None:
            self._lines[pid] = line

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._signals.ended(pid, status):
                continue
            id = self._ids.pop(pid, None)
            if id is None:
                continue  # has written a logout
            del self._pids[id]
            self._doomed.pop(pid, None)
            self._signals.forget(id)
            note = self._notes.pop(pid, None)
            status = status if note is None else note.read(status)
            line = self._lines.pop(pid, None)
            if line is not None:
                self._log_out(pid, line)
            self._report(f"exit {id} {status}")

    def _log_out(self, pid: int, line: str) -> None:
        # In a child: any user can lock the records for a while.
        try:
            child = os.fork()
        except OSError:
            self._unwritten[pid] = line
            return
        if child == 0:
            try:
                records.logout(line, pid)
            finally:
                os._exit(0)

    def _try_again(self) -> None:
        for pid, due in self._doomed.items():
            if due <= time.monotonic():
                os.kill(pid, signal.SIGKILL)
        unwritten, self._unwritten = self._unwritten, {}
        for pid, line in unwritten.items():
            self._log_out(pid, line)


def _line(terminal: int) -> str | None:
    """The terminal's name in the records; ``None`` if its client was gone before the start."""
    try:
        return os.ttyname(terminal).removeprefix("/dev/")
    except OSError:
        return None


def main(served: Served) -> None:
    """Entry point: the control socket is descriptor 0. ``argv[2]`` is the sessions' OOM score, if the daemon has
    another. ``served`` is what a child does without an exec, by the name in its request."""
    # Ctrl-C and a service's stop are the daemon's; its end is ours. `systemctl kill` signals every process of a unit.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, *HARMLESS):
        signal.signal(number, signal.SIG_IGN)
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.chdir("/")
    gc.freeze()  # children share these pages longer
    gc.disable()
    Loop(control, int(sys.argv[2]) if len(sys.argv) > 2 else None, served).run()
    sys.exit(0)
