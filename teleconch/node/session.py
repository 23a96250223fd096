"""One ``session`` channel: a shell or a command as an OS user (RFC 4254 section 6).

States: *asking* (``pty-req`` and ``env`` are taken) → *running* (``shell`` or ``exec``; once) → *over*. The end comes
from one of three sides:

- The process: its exit status is told as soon as it has ended and nothing of its output waits, EOF and CLOSE follow
  behind the last byte. A background child that holds the pipes keeps the channel open, as with sshd; one that holds the
  terminal does not, since the kernel hangs a terminal up when its session's leader ends.
- The peer closes the channel, or the connection is lost: pipes and terminal are closed, the process group gets SIGHUP.
- The node stops: likewise, after a deadline.

The bytes themselves go through :class:`teleconch.node.wires.Wires`.
"""

from __future__ import annotations

import os
import signal
import struct
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch.access.kinds import Kind
from teleconch.access.permit import AccessPermit
from teleconch.codec import boolean, string
from teleconch.errors import AccessDenied, BadParameter, TeleconchError, quoted
from teleconch.node import pty
from teleconch.node.environment import ENTRY_COST, Requested, SessionFacts, address
from teleconch.node.files.child import SFTP
from teleconch.node.files.programs import is_scp
from teleconch.node.files.transfers import Transfers
from teleconch.node.forward.session import X11_REQUEST, SessionForwarding
from teleconch.node.gate import Gate, asked
from teleconch.node.launch import rc
from teleconch.node.place import Place
from teleconch.node.process import Process
from teleconch.node.start import Request
from teleconch.node.starting import NO_MEMORY
from teleconch.node.streams import SINK_HIGH
from teleconch.node.wires import STDERR, Wires
from teleconch.ssh.channel import Answer, Channel
from teleconch.ssh.reader import Reader

END_OF_WRITE: Final = b"eow@openssh.com"  # OpenSSH's PROTOCOL, section 2.1
NOT_STARTED: Final = 255  # exit status of a session that could not be started, as ssh's own for its failures
TERMINAL_COST: Final = 16 * 1024  # bytes of memory, about, that a terminal's modes and descriptors take
RUNNING_COST: Final = SINK_HIGH  # of what a process has not read yet
COMMAND_SHOWN: Final = 4096  # bytes of a command that the log shows
SIGNALS: Final = {
    name: getattr(signal, f"SIG{name}")
    for name in ("ABRT", "ALRM", "FPE", "HUP", "ILL", "INT", "KILL", "PIPE", "QUIT", "SEGV", "TERM", "USR1", "USR2")
}
SIGNAL_NAMES: Final = {number: name.encode() for name, number in SIGNALS.items()}

log = Logger()


class SessionChannel(Channel):
    """A session that ``permit`` allows; without a permit there is none."""

    name = b"session"

    def __init__(
        self,
        permit: AccessPermit,
        gate: Gate,
        place: Place[SessionChannel],
        peer: IAddress,
        host: IAddress,
        forwarding: SessionForwarding,
    ) -> None:
        """``permit`` opened the channel. It may be kept for long before it is used, so ``gate`` is asked again for each
        thing that is asked for."""
        if not isinstance(permit, AccessPermit):
            raise TypeError("a session needs a permit")
        super().__init__()
        self.id_text = place.new_id()
        self._gate = gate
        self._place = place
        self._facts = SessionFacts(
            session_id=self.id_text,
            user=permit.identity.user,
            host_uuid=place.host_uuid,
            cluster=place.cluster,
            peer=peer,
            host=host,
        )
        self._fields = {
            "user": permit.identity.user,
            "login": permit.login,
            "server_id": place.host_uuid,
            "sid": self.id_text,
            "addr_remote": "{}:{}".format(*address(peer)),
        }
        self._forwarding = forwarding
        self._requested = Requested(place.accept_env)
        self._terminal: pty.Terminal | None = None
        self._process: Process | None = None
        self._transfers: Transfers | None = None
        self._wires = Wires(place.reactor, self, self._check_end, self._input_lost)
        self._begun = False
        self._started = False
        self._ended = False  # the process, reaped
        self._status: int | None = None
        self._status_told = False
        self._over = False
        self.pauseProducing()  # what a hasty client sends waits until there is a process

    # --- asking ------------------------------------------------------------------------------------------------------

    def request_pty_req(self, data: bytes) -> bool:
        """A terminal, before the process (RFC 4254 section 6.2)."""
        if self._begun or self._terminal is not None:
            return False
        try:
            self._gate.ask(Kind.PTY)
        except AccessDenied as error:
            return self._refuse(str(error))
        if not self.charge(TERMINAL_COST):
            return self._refuse(NO_MEMORY)
        try:
            self._terminal = pty.Terminal(pty.parse_request(data))
        except BadParameter as error:
            self.uncharge(TERMINAL_COST)
            return self._refuse(str(error))
        except OSError as error:
            self.uncharge(TERMINAL_COST)
            return self._refuse(f"This node has no terminal left ({error}); try again later.")
        return True

    def request_env(self, data: bytes) -> bool:
        """One variable, by allow-list (section 6.4)."""
        reader = Reader(data)
        name, value = reader.string(), reader.string()
        reader.end()
        size = len(name) + len(value) + ENTRY_COST
        if self._begun or not self.charge(size):
            return False
        before = self._requested.cost(name)
        taken = self._requested.set(name, value)
        self.uncharge(before if taken else size)
        return taken

    def request_shell(self, data: bytes) -> bool:
        """The login shell (section 6.5)."""
        return self._begin(None)

    def request_exec(self, data: bytes) -> bool:
        """A command, run by the user's shell (section 6.5)."""
        reader = Reader(data)
        command = reader.string()
        reader.end()
        if b"\0" in command:
            return self._refuse("A command cannot hold a zero byte.")
        return self._begin(command)

    def request_subsystem(self, data: bytes) -> bool:
        """``sftp`` (section 6.5)."""
        reader = Reader(data)
        name = reader.string()
        reader.end()
        if name != b"sftp":
            return self._refuse(f"The subsystem {quoted(name[:64])} is not there on this node.")
        return self._begin(None, SFTP)

    def requestReceived(self, requestType: bytes, data: bytes) -> Answer:
        """Forwarding's requests go there, all others to the methods of their names."""
        if not self._begun:
            if requestType == X11_REQUEST and not self.charge(len(data)):  # the cookie is kept
                return self._refuse(NO_MEMORY)
            answer = self._forwarding.request(requestType, data)
            if answer is not None:
                return answer
        elif requestType == END_OF_WRITE:
            return self._output_unread()
        return super().requestReceived(requestType, data)

    def _refuse(self, sentence: str) -> bool:
        log.warn(
            "session request refused: {error}", event="session.start", success=False, error=sentence, **self._fields
        )
        return False

    # --- running -----------------------------------------------------------------------------------------------------

    def _begin(self, command: bytes | None, serve: str | None = None) -> bool:
        if self._begun:
            return self._refuse("A session runs one thing: open another session for the next.")
        try:
            permit = self._gate.ask(*((Kind.SFTP,) if serve == SFTP else asked(command)))
        except AccessDenied as error:
            return self._refuse(str(error))
        if not self.charge(RUNNING_COST):
            return self._refuse(NO_MEMORY)
        self._begun = True
        self._place.live.add(self)
        try:
            self._process = self._launch(permit, command, serve)
        except (TeleconchError, OSError) as error:
            self._place.reactor.callLater(0, self._not_started, error)  # behind the answer to this request
            return True
        self.registerProducer(self._wires, True)
        if not self._producer_paused:
            self._wires.resumeProducing()
        self.resumeProducing()
        shown = None if command is None else command[:COMMAND_SHOWN].decode("utf-8", "replace")
        Deferred.fromCoroutine(self._watch(self._process, shown, serve)).addErrback(self._broken)
        return True

    def _launch(self, permit: AccessPermit, command: bytes | None, serve: str | None) -> Process:
        """Start the process on terminal or pipes. Whatever fails, no descriptor of the process's side is left."""
        terminal, place = self._terminal, self._place
        programs = None
        if serve is not None or (terminal is None and command is not None and is_scp(command)):
            self._transfers = Transfers(place.reactor, self._fields)
            programs = place.programs.folder()
        variables = dict(self._requested.variables)
        variables.update(self._facts.variables(None if terminal is None else terminal.path))
        variables.update(self._forwarding.environment())
        if terminal is None:
            ends = self._wires.on_pipes()
        else:
            variables[b"TERM"] = terminal.request.term.encode("ascii")
            ends = self._wires.on_terminal(terminal)
        request = Request(
            permit.login,
            command,
            variables,
            terminal is not None,
            serve,
            programs,
            rc=rc.USER if Kind.USER_RC in permit.kinds and serve is None else rc.SYSTEM,
            cookie=self._forwarding.cookie,
        )
        report = None if self._transfers is None else self._transfers.take_child_end()
        return place.launcher.spawn(request, *ends, report, owner=self.conn.account)

    async def _watch(self, process: Process, command: str | None, serve: str | None) -> None:
        try:
            facts = await process.started
        except TeleconchError as error:
            self._say(str(error))
            await process.ended
            self._status = NOT_STARTED << 8
        else:
            self._started = True
            log.info(
                "session started: {user} as {login}",
                event="session.start",
                success=True,
                pid=facts.pid,
                terminal=None if self._terminal is None else self._terminal.path,
                command=command,
                subsystem=serve,
                **self._fields,
            )
            self._status = await process.ended
        self._has_ended()

    def _not_started(self, error: Exception) -> None:
        self._say(str(error) if isinstance(error, TeleconchError) else f"This node cannot start a process: {error}.")
        self._wires.close()
        self._status = NOT_STARTED << 8
        self._has_ended()

    def _say(self, sentence: str) -> None:
        """Tell the user why there is no session, and the log."""
        self._refuse(sentence)
        line = sentence.encode() + b"\r\n"
        if self._terminal is None:
            self.writeExtended(STDERR, line)
        else:
            self.write(line)

    def _broken(self, failure: Failure) -> None:
        log.failure("session {sid} broke", failure, sid=self.id_text)
        self._finish("internal error")
        self.abortConnection()

    # --- bytes -------------------------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        self._wires.to_process(data)

    def eofReceived(self) -> None:
        self._wires.end_input()

    def _output_unread(self) -> bool:
        """The peer's user reads no more (OpenSSH's PROTOCOL, section 2.1): the process is to learn it from its next
        write."""
        self._wires.end_output()
        return True

    def _input_lost(self) -> None:
        """The process reads no more; OpenSSH's client stops sending when told (PROTOCOL section 2.1)."""
        version = getattr(self.conn.transport, "otherVersionString", b"")
        if self._terminal is None and b"OpenSSH" in version and not self.eof_received:
            self.conn.sendRequest(self, END_OF_WRITE, b"")

    # --- requests while running --------------------------------------------------------------------------------------

    def request_window_change(self, data: bytes) -> bool:
        """A new window size (section 6.7)."""
        if self._terminal is None:
            return False
        try:
            self._terminal.resize(pty.parse_size(data))
        except BadParameter:
            return False
        return True

    def request_signal(self, data: bytes) -> bool:
        """A signal for the process group (section 6.9)."""
        number = SIGNALS.get(Reader(data).string()[:16].decode("ascii", "replace"))
        if number is None or self._process is None:
            return False
        self._process.signal(number)
        return True

    def request_break(self, data: bytes) -> bool:
        """A break on the terminal's line (RFC 4335)."""
        if self._terminal is None:
            return False
        self._terminal.send_break()
        return True

    # --- the end -----------------------------------------------------------------------------------------------------

    def _has_ended(self) -> None:
        if self._transfers is not None:
            self._transfers.close()
        self._ended = self._wires.watched = True
        self._check_end()

    def _check_end(self) -> None:
        """Tell the exit status when no output waits, and close when none can come any more."""
        if not self._ended or self._over or self._unsent_bytes:
            return
        if not self._status_told and self._wires.quiet():
            self._status_told = True
            self._tell_status()
        if self._status_told and self._wires.over():
            self.loseWriteConnection()
            self.loseConnection()
            self._finish("its process was lost with the launcher" if self._status is None else None)

    def _tell_status(self) -> None:
        status = self._status
        if status is None:
            self.conn.sendRequest(self, b"exit-status", struct.pack(">L", NOT_STARTED))
        elif os.WIFSIGNALED(status):
            name = SIGNAL_NAMES.get(os.WTERMSIG(status), b"SIG@openssh.com")
            body = string(name) + boolean(os.WCOREDUMP(status)) + string(b"") + string(b"")
            self.conn.sendRequest(self, b"exit-signal", body)
        else:
            self.conn.sendRequest(self, b"exit-status", struct.pack(">L", os.WEXITSTATUS(status)))

    def closed(self) -> None:
        """The peer closed the channel or the connection is gone."""
        self._finish("the connection was closed")

    def hang_up(self) -> None:
        """The node stops: end this session now."""
        self._finish("the node stops")
        self.abortConnection()

    def _finish(self, error: str | None) -> None:
        """Let go of everything. Idempotent; ``error`` is ``None`` when the process ended by itself."""
        if self._over:
            return
        self._over = True
        self._wires.close()
        if self._terminal is not None:
            self._terminal.close()
        self._forwarding.close()
        if self._process is not None and not self._ended:
            self._process.hang_up()
        self._place.live.discard(self)
        if not self._started:
            return
        code = None if self._status is None else os.waitstatus_to_exitcode(self._status)
        log.info(
            "session ended: {user} as {login}",
            event="session.end",
            success=error is None,
            exit_code=code,
            error=error,
            **self._fields,
        )
