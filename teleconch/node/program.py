"""A process of an OS user as a session's program: process, pipes or terminal, and the record of moved files."""

from __future__ import annotations

import os
from typing import Final

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch.audit.events import Peer, SessionEnd, SessionStart
from teleconch.errors import TeleconchError
from teleconch.node.files.programs import is_scp
from teleconch.node.files.transfers import Transfers
from teleconch.node.parts import NodeParts
from teleconch.node.process import NOT_STARTED, Process
from teleconch.node.pty import Terminal
from teleconch.node.start import Request
from teleconch.node.wires import Wires
from teleconch.session.live import Outcome
from teleconch.session.program import ProgramEvents, Take, WindowSize
from teleconch.ssh.account import Account

COMMAND_SHOWN: Final = 4096  # bytes of a command that the log shows
LOST: Final = "its process was lost with the launcher"

log = Logger()


class UserProgram:
    """A :class:`teleconch.session.program.Program`, which emits events for its start and for the end of its session:
    ``sid``, of ``who``.

    A failed start looks like a program that ended at once: it is told after :meth:`start` has returned, so that the
    request is answered first.
    """

    def __init__(self, parts: NodeParts, terminal: Terminal | None, who: Peer, sid: str) -> None:
        """``terminal`` is this program's from now on."""
        self._parts = parts
        self._terminal = terminal
        self._who = who
        self._sid = sid
        self._process: Process | None = None
        self._transfers: Transfers | None = None
        self._started = self._ended = False

    @property
    def terminal(self) -> bool:
        return self._terminal is not None

    def tell(self, events: ProgramEvents) -> None:
        self._events = events
        self._wires = Wires(self._parts.reactor, events, events.output_over, events.input_lost)
        self.output_to, self.is_over, self.quiet = self._wires.output_to, self._wires.over, self._wires.quiet
        self.pause_output, self.resume_output = self._wires.pause, self._wires.resume
        self.end_output = self._wires.end_output

    # --- the start ---------------------------------------------------------------------------------------------------

    def start(self, request: Request, owner: Account) -> None:
        """Start what ``request`` asks for. ``owner`` is the account of the asking connection."""
        try:
            process = self._process = self._launch(request, owner)
        except (TeleconchError, OSError) as error:
            self._wires.close()
            self._parts.reactor.callLater(0, self._not_started, error)
        except BaseException:
            self._events.hang_up("internal error")
            raise
        else:
            Deferred.fromCoroutine(self._watch(process, request)).addErrback(self._broken)

    def _launch(self, request: Request, owner: Account) -> Process:
        """Start the process on a terminal or pipes. Whatever fails, no descriptor of the process's side is left
        open."""
        moves_files = request.serve is not None or (
            self._terminal is None and request.command is not None and is_scp(request.command)
        )
        report = None
        if moves_files:
            self._transfers = Transfers(self._parts.reactor, self._parts.emitter, self._who, self._sid)
            request = evolve(request, programs=self._parts.programs.folder())
        terminal = self._terminal
        ends = self._wires.on_pipes() if terminal is None else self._wires.on_terminal(terminal)
        if self._transfers is not None:
            report = self._transfers.take_child_end()
        return self._parts.launcher.spawn(request, *ends, report, owner=owner)

    async def _watch(self, process: Process, request: Request) -> None:
        try:
            facts = await process.started
        except TeleconchError as error:
            self._fail(str(error))
            await process.ended
            self._end(NOT_STARTED)
            return
        self._started = True
        command = request.command
        self._parts.emitter.emit(
            SessionStart(
                peer=self._who,
                sid=self._sid,
                pid=facts.pid,
                terminal="" if self._terminal is None else self._terminal.path,
                command="" if command is None else command[:COMMAND_SHOWN].decode("utf-8", "replace"),
                subsystem=request.serve or "",
            )
        )
        self._end(await process.ended)

    def _not_started(self, error: Exception) -> None:
        self._fail(str(error) if isinstance(error, TeleconchError) else f"This node cannot start a process: {error}.")
        self._end(NOT_STARTED)

    def _fail(self, sentence: str) -> None:
        self._parts.emitter.emit(SessionStart(peer=self._who, sid=self._sid, error=sentence))
        self._events.failed(sentence)

    def _broken(self, failure: Failure) -> None:
        log.failure("session {sid} broke", failure, sid=self._sid)
        self._events.hang_up("internal error")

    # --- while it runs -----------------------------------------------------------------------------------------------

    @property
    def write(self) -> Take:
        return self._wires.write

    def end_input(self) -> None:
        """A terminal cannot be half-closed: as with sshd, only Ctrl-D ends what reads from it."""
        if self._terminal is None:
            self._wires.end_input()

    def resize(self, size: WindowSize) -> bool:
        if self._terminal is None:
            return False
        self._terminal.resize(size)
        return True

    def signal(self, number: int) -> bool:
        """For the process group, with the user's rights."""
        if self._process is None:
            return False
        self._process.signal(number)
        return True

    def send_break(self) -> bool:
        if self._terminal is None:
            return False
        self._terminal.send_break()
        return True

    # --- the end -----------------------------------------------------------------------------------------------------

    def _end(self, status: int | None) -> None:
        if self._transfers is not None:
            self._transfers.close()
        self._ended = True
        self._events.ended(status, LOST if status is None else None)

    def hang_up(self) -> None:
        """Pipes and terminal are closed; a running process gets SIGHUP."""
        self._wires.close()
        if self._terminal is not None:
            self._terminal.close()
        if self._process is not None and not self._ended:
            self._process.hang_up()

    def session_over(self, end: Outcome) -> None:
        """Emit the end, if there was a start."""
        if not self._started:
            return
        code = None if end.status is None else os.waitstatus_to_exitcode(end.status)
        self._parts.emitter.emit(SessionEnd(peer=self._who, sid=self._sid, exit_code=code, error=end.error or ""))
