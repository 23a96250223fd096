"""Lends this Python, as the user, to an ``scp`` that the user's shell starts.

A client of scp's old protocol runs ``scp -f 'pattern'`` through the user's shell, and the shell expands patterns,
tildes and quotes; so the shell must stay. But the user may not be able to run this node's interpreter, nor to read this
package. Hence a fork in the session's process::

    session's process ──fork──▶ the user's shell ──▶ `scp` of our folder (a few lines for sh)
          │  ◀──────────── its pid and arguments, on a pipe ──────────────────┘       ▲
          └──fork──▶ lender: takes on its streams, folder and umask, is scp ── exit status ┘

All of them run as the user and share a process group. The pipe asks for nothing that the users could not do themselves.
"""

from __future__ import annotations

import fcntl
import os
import resource
import select
import signal

from teleconch.node.files import scp, sftp_server
from teleconch.node.files.report import Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

ASK, ANSWER = 4, 5  # where the shell and its children find the pipes
KEPT = 6  # where `scp` of our folder keeps its three streams, while it says and hears something
_LIMITS = sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})
WORD_MAX = 128 * 1024  # Linux's MAX_ARG_STRLEN
ASKED_MAX = 2 * 1024 * 1024  # Linux's usual ARG_MAX

# $0 is the whole path, as it was found on PATH. -t and -f, alone among scp's own flags without values, are ours.
STUB = f"""#!/bin/sh
# The far end of an scp (-t, -f) is the node's own program, which waits for these arguments; all else is the system's.
name=${{0##*/}} folder=${{0%/*}} ours=
if [ "$name" = scp ]; then
  for word; do
    case $word in
    -*[!346ABCOTdfpqrtv12]*) break ;;
    -*[tf]*) ours=yes ;;
    -?*) ;;
    *) break ;;
    esac
  done
else
  ours=yes
fi
if [ "$ours" ]; then
  exec 6<&0 7>&1 8>&2
  {{ printf '%s\\0' "$#" "$$" "$name" "$@" >&{ASK} && read -r status <&{ANSWER}; }} 2>/dev/null && exit "$status"
  exec 6<&- 7>&- 8>&-
fi
[ "$name" = scp ] || exit 127
path=:$PATH:
while [ "$path" != "${{path#*:"$folder":}}" ]; do path=${{path%%:"$folder":*}}:${{path#*:"$folder":}}; done
path=${{path#:}} PATH=${{path%:}}
exec scp "$@"
"""
SCP, SFTP = NAMES = ("scp", "sftp-server")


def lend(to_close: int, report: int | None) -> None:
    """Fork: the child returns, and is to become the shell; the parent serves what the shell's children ask for, and
    ends as the shell ends. ``to_close`` is a descriptor that only the child needs."""
    ask, asking = os.pipe2(os.O_CLOEXEC)
    answering, answer = os.pipe2(os.O_CLOEXEC)
    high = [_above(fd) for fd in (asking, answering)]
    shell = os.fork()
    if shell == 0:
        for fd in (ask, answer, asking, answering):
            os.close(fd)
        for place, fd in zip((ASK, ANSWER), high, strict=True):
            os.dup2(fd, place)
            os.close(fd)
        return
    try:
        for fd in (asking, answering, *high, to_close):
            os.close(fd)
        _serve(shell, ask, answer, report)
    finally:
        os._exit(255)


def _above(fd: int) -> int:
    """The same descriptor at a number where nothing else is put."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64)


def _serve(shell: int, ask: int, answer: int, report: int | None) -> NoReturn:
    # The shell decides about signals to the group; this process lives as long as the shell does.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)
    ended = os.pidfd_open(shell)
    poll = select.poll()
    for fd in (ask, ended):
        poll.register(fd, select.POLLIN)
    lenders: dict[int, int] = {}  # by the descriptor that tells when it ends
    heard = bytearray()
    while True:
        ready = [fd for fd, _ in poll.poll()]
        for fd in lenders.keys() & ready:
            poll.unregister(fd)
            os.close(fd)
            _reap(lenders.pop(fd), answer)
        if ask in ready:
            data = os.read(ask, 64 * 1024)
            heard += data
            for words in requests(heard):
                lender = _start(words, answer, report)
                fd = os.pidfd_open(lender)
                lenders[fd] = lender
                poll.register(fd, select.POLLIN)
            if not data or len(heard) > ASKED_MAX:
                poll.unregister(ask)
        elif ended in ready:
            status = os.waitpid(shell, 0)[1]
            _wait_for_lenders()
            _end(status)


def _reap(lender: int, answer: int) -> None:
    """A lender that was killed could not answer, and ``scp`` of our folder waits."""
    status = os.waitpid(lender, 0)[1]
    if os.WIFSIGNALED(status):
        os.write(answer, b"%d\n" % (128 + os.WTERMSIG(status)))


def _wait_for_lenders() -> None:
    """They have a file to report; each ends when its streams do, or with the group's hang-up."""
    try:
        while True:
            os.wait()
    except ChildProcessError:
        return


def requests(heard: bytearray) -> list[list[bytes]]:
    """Take whole requests from the front: each is a count of arguments, a pid, a name, and the arguments, each ended by
    a zero byte. Anything else is thrown away."""
    found: list[list[bytes]] = []
    while heard:
        words = bytes(heard).split(b"\0")
        if len(words) < 2:
            break
        if not words[0].isdigit() or len(words[0]) > 7:
            heard.clear()
            break
        count = 3 + int(words[0])
        if len(words) <= count:
            break
        found.append(words[1:count])
        del heard[: sum(map(len, words[:count])) + count]
    return found


def _start(words: list[bytes], answer: int, report: int | None) -> int:
    """Fork a lender; returns its pid."""
    lender = os.fork()
    if lender:
        return lender
    status = 255
    try:
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        pid, name, *arguments = words
        _take_place(int(pid))
        if name == SCP.encode():
            status = scp.run(arguments, Report("scp", report))
        elif name == SFTP.encode():
            status = sftp_server.main(report)
    finally:
        os.write(answer, b"%d\n" % status)
        os._exit(status)


def _take_place(pid: int) -> None:
    """Take on the streams, the working directory, the umask and the limits of ``pid``, which waits for us."""
    for stream in range(3):
        where = f"/proc/{pid}/fd/{stream + KEPT}"
        if not os.path.samestat(os.stat(where), os.fstat(stream)):
            fd = os.open(where, os.O_WRONLY if stream else os.O_RDONLY)
            os.dup2(fd, stream)
            os.close(fd)
    os.chdir(f"/proc/{pid}/cwd")
    with open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith(b"Umask:"):
                os.umask(int(line.split()[1], 8))
    for limit in _LIMITS:
        resource.setrlimit(limit, resource.prlimit(pid, limit))


def _end(status: int) -> NoReturn:
    """End as the shell did."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
