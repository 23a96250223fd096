"""The user's child of one connection: it makes sockets with the user's rights and passes them to the daemon.

The daemon never opens a path that a user names. What the user dials is dialled as the user, as with sshd: a
service on loopback that asks the kernel for its peer's uid gets the right answer, and a firewall's owner rules hold.

Protocol, one JSON datagram each over a ``SOCK_SEQPACKET`` pair, bytes as latin-1 text:

- ``{"id", "do": "dial", "host", "port"}`` and ``{"id", "do": "dial-unix", "path"}``: one connected socket
- ``{"id", "do": "listen", "hosts", "port"}``: listening sockets, and ``port``
- ``{"id", "do": "listen-unix", "path"}``: a listening socket
- ``{"id", "do": "agent"}``: a listening socket, and its ``path``, in a folder of its own
- ``{"id", "do": "display"}``: listening sockets, and the display's ``number``
- ``{"id", "do": "remove", "path"}``: take away a socket made here; no answer
- back: ``{"id", ...}`` with the sockets as descriptors (SCM_RIGHTS), or ``{"id", "error", "short"}``; ``short`` if
  the machine has no means left. A bug here is reported as ``{"id", "error", "detail"}``.

When the daemon's end is gone, for whatever reason, what was made in the file system is removed and the process ends.
Imports the standard library only: it is a fork of the launcher.
"""

from __future__ import annotations

import _thread
import errno
import json
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from teleconch.node.forward import listening
from teleconch.node.forward.dialling import Address, Dial

MESSAGE_MAX: Final = 16 * 1024
LOOKUPS: Final = 16  # names that are looked up at the same time
NO_MEANS: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS)


class Work:
    """Everything that is asked for over one ``control`` socket."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._poll = select.poll()
        self._dials: dict[int, Dial] = {}  # by id
        self._waiting: dict[int, Dial] = {}  # by descriptor
        self._made: dict[bytes, tuple[int, int]] = {}  # path: device and inode, so that only our own is removed
        self._folders: list[str] = []
        self._names: deque[tuple[int, bytes, int]] = deque()
        self._looking_up = 0
        self._found: deque[tuple[int, list[Address], str]] = deque()
        self._ending = False
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._does: dict[str, Callable[[int, dict[str, Any]], None]] = {
            "dial": self._dial,
            "dial-unix": self._dial_unix,
            "listen": self._listen,
            "listen-unix": self._listen_unix,
            "agent": self._agent,
            "display": self._display,
            "remove": self._remove,
        }

    def run(self) -> None:
        """Work until the daemon's end is closed, or a signal comes."""
        control = self._control.fileno()
        self._poll.register(control, select.POLLIN)
        self._poll.register(self._woken, select.POLLIN)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._end)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        try:
            while not self._ending:
                ready = {fd for fd, _ in self._poll.poll(self._patience())}
                for fd in ready.intersection(self._waiting):  # first: what follows may give numbers new meanings
                    self._turn(self._waiting.get(fd), Dial.ready, fd)
                for dial in list(self._dials.values()):
                    self._turn(dial, Dial.pass_time)
                if self._woken in ready:
                    self._take_names()
                if control in ready and not self._obey():
                    return
        except ConnectionError:
            pass  # the daemon is gone
        finally:
            self.clean()

    def _end(self, number: int, frame: object) -> None:
        self._ending = True

    def _patience(self) -> float | None:
        if not self._dials:
            return None
        due = min(dial.due for dial in self._dials.values())
        return max(0.0, due - time.monotonic()) * 1000 + 1

    def _obey(self) -> bool:
        message = self._control.recv(MESSAGE_MAX)
        if not message:
            return False
        asked = json.loads(message)
        id = asked["id"]
        try:
            self._does[asked["do"]](id, asked)
        except OSError as error:
            self._fail(id, error.errno or errno.EINVAL, error.strerror or str(error))
        except Exception as error:  # noqa: BLE001 - one errand's fault must not end the others; the daemon logs it
            self._tell({"id": id, "error": "it did not work", "detail": repr(error)[:1000]})
        return True

    def _tell(self, answer: dict[str, Any], *sockets: socket.socket) -> None:
        """Answer, and let go of the sockets, which are the daemon's now."""
        try:
            socket.send_fds(self._control, [json.dumps(answer).encode()], [sock.fileno() for sock in sockets])
        except OSError as error:  # an ordinary user's descriptors under way are limited: this errand fails, no other
            if not sockets:
                raise
            self._fail(answer["id"], error.errno or errno.EINVAL)
        finally:
            listening.close_all(sockets)

    def _fail(self, id: int, number: int, text: str | None = None) -> None:
        self._tell({"id": id, "error": text or os.strerror(number), "short": number in NO_MEANS})

    # --- dialling ----------------------------------------------------------------------------------------------------

    def _dial(self, id: int, asked: dict[str, Any]) -> None:
        host, port = asked["host"].encode("latin-1"), asked["port"]
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except OSError:
            self._names.append((id, host, port))
            self._look_up_more()
        else:
            self._begin(id, [(family, address) for family, _, _, _, address in found])

    def _dial_unix(self, id: int, asked: dict[str, Any]) -> None:
        self._begin(id, [(socket.AF_UNIX, asked["path"].encode("latin-1"))])

    def _begin(self, id: int, addresses: list[Address]) -> None:
        dial = self._dials[id] = Dial(id, addresses, time.monotonic())
        self._follow(dial)

    def _turn(self, dial: Dial | None, act: Callable[..., None], *about: int) -> None:
        now = time.monotonic()
        if dial is None or (not about and dial.due > now):
            return
        for fd in dial.sockets:
            self._poll.unregister(fd)
            del self._waiting[fd]
        act(dial, *about, now)
        self._follow(dial)

    def _follow(self, dial: Dial) -> None:
        for fd in dial.sockets:
            self._poll.register(fd, select.POLLOUT)
            self._waiting[fd] = dial
        if dial.over:
            del self._dials[dial.id]
        if dial.won is not None:
            self._tell({"id": dial.id}, dial.won)
        elif dial.error is not None:
            self._fail(dial.id, dial.error)

    def _look_up_more(self) -> None:
        while self._names and self._looking_up < LOOKUPS:
            self._looking_up += 1
            _thread.start_new_thread(self._look_up, self._names.popleft())

    def _look_up(self, id: int, host: bytes, port: int) -> None:
        """In a thread of its own: a slow name server holds up nothing else."""
        addresses: list[Address] = []
        problem = ""
        try:
            for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                addresses.append((family, address))
        except OSError as error:
            problem = error.strerror or str(error)
        self._found.append((id, addresses, problem))
        os.write(self._wake, b"\0")

    def _take_names(self) -> None:
        os.read(self._woken, 4096)
        while self._found:
            id, addresses, problem = self._found.popleft()
            self._looking_up -= 1
            if addresses:
                self._begin(id, addresses)
            else:
                self._fail(id, errno.EADDRNOTAVAIL, problem)
        self._look_up_more()

    # --- listening ---------------------------------------------------------------------------------------------------

    def _listen(self, id: int, asked: dict[str, Any]) -> None:
        sockets, port = listening.listen_tcp(asked["hosts"], asked["port"])
        self._tell({"id": id, "port": port}, *sockets)

    def _listen_unix(self, id: int, asked: dict[str, Any]) -> None:
        self._tell({"id": id}, self._at(asked["path"].encode("latin-1")))

    def _agent(self, id: int, asked: dict[str, Any]) -> None:
        folder = listening.agent_folder()
        self._folders.append(folder)
        path = f"{folder}/agent.{os.getpid()}"
        self._tell({"id": id, "path": path}, self._at(os.fsencode(path)))

    def _display(self, id: int, asked: dict[str, Any]) -> None:
        sockets, number = listening.listen_display()
        self._tell({"id": id, "number": number}, *sockets)

    def _at(self, path: bytes) -> socket.socket:
        sock = listening.listen_unix(path)
        status = os.lstat(path)
        self._made[path] = (status.st_dev, status.st_ino)
        return sock

    # --- the end -----------------------------------------------------------------------------------------------------

    def _remove(self, id: int, asked: dict[str, Any]) -> None:
        self._take_away(asked["path"].encode("latin-1"))

    def _take_away(self, path: bytes) -> None:
        made = self._made.pop(path, None)
        try:
            status = os.lstat(path)
            if made == (status.st_dev, status.st_ino):
                os.unlink(path)
        except OSError:  # the user came first
            pass

    def clean(self) -> None:
        """Remove what was made in the file system, unless something else is there now."""
        for path in list(self._made):
            self._take_away(path)
        for folder in self._folders:
            try:
                os.rmdir(folder)
            except OSError:  # the user keeps something there
                pass


def main() -> None:
    """Entry point, as the user: the control socket is descriptor 0."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.chdir("/")
    Work(socket.socket(fileno=os.dup(0))).run()
