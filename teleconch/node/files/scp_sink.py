"""scp's sink (``scp -t``): writes the files that a client sends.

Names come from the client and stay in the directory that they are for: one with ``/``, ``.``, ``..`` or nothing in it
ends the transfer, as do lines outside the protocol.
"""

from __future__ import annotations

import errno
import os
import stat

from teleconch.node.files import report, scp_wire
from teleconch.node.files.hung_up import HungUp
from teleconch.node.files.scp_wire import Lost, ProtocolError, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Fatal(Exception):
    """The transfer ends; the client was told why."""


class _Directory:
    """A directory that is being filled, and what is to be set once it is full."""

    __slots__ = ("mode", "path", "times")

    def __init__(self, path: bytes, mode: int | None, times: tuple[int, int] | None) -> None:
        self.path = path
        self.mode = mode
        self.times = times


class Sink:
    """Writes into one target. ``umask`` is applied where modes are not preserved."""

    def __init__(self, wire: Wire, to: report.Report, *, recursive: bool, preserve: bool, umask: int) -> None:
        self._wire = wire
        self._report = to
        self._recursive = recursive
        self._preserve = preserve
        self._kept_back = 0 if preserve else umask | 0o7000  # of modes

    def run(self, targets: list[bytes], must_be_directory: bool) -> None:
        """Take everything that the client sends. Fatal, Lost."""
        if len(targets) != 1:
            self._end(b"ambiguous target")
        target = targets[0]
        if must_be_directory:
            try:
                if not stat.S_ISDIR(os.stat(target).st_mode):
                    self._end(target + b": Not a directory")
            except OSError as error:
                self._end(_sentence(target, error))
        self._wire.ok()
        try:
            self._take(target)
        except ProtocolError as error:
            self._end(b"protocol error: " + str(error).encode())

    def _end(self, sentence: bytes) -> None:
        self._wire.error(sentence)
        raise Fatal

    def _take(self, target: bytes) -> None:
        entered: list[_Directory] = []
        into = target if os.path.isdir(target) else None  # the directory that names are for; None: the name is given
        times: tuple[int, int] | None = None
        first = True
        while (line := self._wire.line()) is not None:
            kind = line[:1]
            if not kind:
                raise ProtocolError("unexpected <newline>")
            if kind[0] in (scp_wire.ERROR, scp_wire.FATAL):
                if kind[0] == scp_wire.FATAL:
                    raise Fatal
                self._wire.errors += 1
            elif kind == b"E":
                self._wire.ok()
                if not entered:
                    return
                self._leave(entered.pop())
                into = entered[-1].path if entered else (target if os.path.isdir(target) else None)
            elif kind == b"T":
                times = scp_wire.parse_times(line)
                self._wire.ok()
            elif kind in (b"C", b"D"):
                path, mode, size = self._entry(line, target, into)
                if kind == b"C":
                    self._file(path, mode, size, times)
                elif not self._recursive:
                    raise ProtocolError("received directory without -r")
                elif (directory := self._enter(path, mode, times)) is not None:
                    entered.append(directory)
                    into = path
                times = None
            elif first:  # not scp but a shell's complaint
                self._end(line)
            else:
                raise ProtocolError("expected control record")
            first = False
        for directory in reversed(entered):
            self._leave(directory)

    def _entry(self, line: bytes, target: bytes, into: bytes | None) -> tuple[bytes, int, int]:
        """Where an entry goes, its mode and size."""
        mode, size, name = scp_wire.parse_entry(line)
        if not scp_wire.is_plain_name(name):
            self._end(b"error: unexpected filename: " + name)
        path = target if into is None else b"%s%s%s" % (into, b"" if into == b"/" else b"/", name)
        return path, mode & ~self._kept_back, size

    # --- directories -------------------------------------------------------------------------------------------------

    def _enter(self, path: bytes, mode: int, times: tuple[int, int] | None) -> _Directory | None:
        """Make the directory, or use the one that is there; ``None`` if neither works, which the client was told."""
        try:
            if os.path.exists(path):
                if not os.path.isdir(path):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                if self._preserve:
                    os.chmod(path, mode)
                set_mode = self._preserve
            else:
                os.mkdir(path, mode | stat.S_IRWXU)  # a directory that its owner may not write to is filled first
                set_mode = True
        except OSError as error:
            self._wire.error(_sentence(path, error))
            return None
        self._wire.ok()
        return _Directory(path, mode if set_mode else None, times)

    def _leave(self, directory: _Directory) -> None:
        try:
            if directory.times is not None:
                os.utime(directory.path, directory.times)
            if directory.mode is not None:
                os.chmod(directory.path, directory.mode)
        except OSError:
            pass  # as OpenSSH's: the directory's files are there, and the answer to E was given

    # --- files -------------------------------------------------------------------------------------------------------

    def _file(self, path: bytes, mode: int, size: int, times: tuple[int, int] | None) -> None:
        try:
            before: os.stat_result | None = os.stat(path)
        except OSError:
            before = None
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, mode | stat.S_IWUSR)
        except OSError as error:
            self._report.moved(path, report.WRITE, 0, error.strerror)
            self._wire.error(_sentence(path, error))
            return
        problems = _Problems(path)
        self._wire.ok()
        try:
            try:
                self._receive(fd, size, problems)
                if not problems.written_short and (before is None or stat.S_ISREG(before.st_mode)):
                    problems.attempt("truncate", lambda: os.ftruncate(fd, size))
                if self._sets_mode(before is None, mode):
                    problems.attempt("set mode", lambda: os.fchmod(fd, mode))
            finally:
                problems.attempt("close", lambda: os.close(fd))
            if not self._wire.accepted():
                problems.add("the other side failed", told=True)
            if times is not None and not problems.written_short:
                problems.attempt("set times", lambda: os.utime(path, times))
        except (Lost, HungUp):
            problems.add("the connection ended", told=True)
            raise
        finally:
            self._report.moved(path, report.WRITE, problems.written, problems.first)
            self._report.send_many()
        if problems.sentence is None:
            self._wire.ok()
        else:
            self._wire.error(problems.sentence)

    def _sets_mode(self, made: bool, mode: int) -> bool:
        """Whether to set the mode at the end: the file was made writable to be filled, or it was there before, with
        ``-p``."""
        return (made and not mode & stat.S_IWUSR) or (not made and self._preserve)

    def _receive(self, fd: int, size: int, problems: _Problems) -> None:
        """Take ``size`` bytes from the wire, and write them as long as that works."""
        left = size
        while left:
            try:
                data = self._wire.data(left)
            except Lost:
                self._wire.error(b"Broken pipe")
                raise
            left -= len(data)
            try:
                while data and not problems.written_short:
                    count = os.write(fd, data)
                    problems.written += count
                    data = data[count:]
            except OSError as error:
                problems.written_short = True
                problems.add(error.strerror or "")


class _Problems:
    """What went wrong with one file (the client hears the first problem), and how much was written."""

    def __init__(self, path: bytes) -> None:
        self._path = path
        self.first: str | None = None
        self.sentence: bytes | None = None
        self.written_short = False
        self.written = 0

    def add(self, what: str, told: bool = False) -> None:
        """``told``: the client knows already."""
        self.first = self.first or what
        if not told and self.sentence is None:
            self.sentence = b"%s: %s" % (self._path, os.fsencode(what))

    def attempt(self, what: str, step: Callable[[], None]) -> None:
        """Do a step; a failure is one of the problems."""
        try:
            step()
        except OSError as error:
            self.add(f"{what}: {error.strerror}")


def _sentence(path: bytes, error: OSError) -> bytes:
    return b"%s: %s" % (path, os.fsencode(error.strerror or str(error)))
