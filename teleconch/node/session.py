"""One ``session`` channel: its requests, and by what right they are granted (RFC 4254 section 6).

::

    asking ── pty-req, env, forwarding's ──▶ asking
       └───── shell, exec, subsystem ──────▶ running ── window-change, signal, break, eow; data and EOF ──▶ running
       │                                        │
       └──────────── CLOSE, or the connection is lost; or from running: the session is over ──────────────▶ over

Once only, and not before the gate has allowed it, the channel begins a session (:mod:`teleconch.session.live`) and
takes part in it. From then on, what is asked of it goes to its seat there. Anything else is refused.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IAddress

from teleconch.access.kinds import Kind
from teleconch.access.permit import AccessPermit
from teleconch.audit.events import Peer, SessionStart
from teleconch.errors import AccessDenied, BadParameter, NotFound, quoted
from teleconch.node import pty
from teleconch.node.environment import ENTRY_COST, Requested, SessionFacts
from teleconch.node.files.child import SFTP
from teleconch.node.forward.session import X11_REQUEST, SessionForwarding
from teleconch.node.gate import Gate, asked
from teleconch.node.launch import rc
from teleconch.node.parts import NodeParts
from teleconch.node.program import UserProgram
from teleconch.node.start import Request
from teleconch.node.starting import NO_MEMORY
from teleconch.node.streams import SINK_HIGH
from teleconch.session.channel_party import END_OF_WRITE, SIGNALS, ChannelParty
from teleconch.session.live import Live
from teleconch.session.parties import Right
from teleconch.ssh.channel import Answer, Channel
from teleconch.ssh.reader import Reader

TERMINAL_COST: Final = 16 * 1024  # about how many bytes of memory a terminal's modes and descriptors take
RUNNING_COST: Final = SINK_HIGH  # of what a process has not read yet


class SessionChannel(Channel):
    """A session that ``permit`` allows; without a permit there is none."""

    name = b"session"

    def __init__(
        self,
        permit: AccessPermit,
        gate: Gate,
        parts: NodeParts,
        who: Peer,
        peer: IAddress,
        host: IAddress,
        forwarding: SessionForwarding,
    ) -> None:
        """``permit`` opened the channel. The channel may stay open long before it is used, so ``gate`` is asked again
        for each request."""
        if not isinstance(permit, AccessPermit):
            raise TypeError("a session needs a permit")
        super().__init__()
        self.id_text = parts.new_id()
        self._gate = gate
        self._parts = parts
        self._facts = SessionFacts(
            session_id=self.id_text,
            user=permit.identity.user,
            host_uuid=parts.host_uuid,
            cluster=parts.cluster,
            peer=peer,
            host=host,
        )
        self._who = who
        self._forwarding = forwarding
        self._requested = Requested(parts.accept_env)
        self._terminal: pty.Terminal | None = None  # until there is a program on it
        self._party: ChannelParty | None = None
        self.pauseProducing()  # what a hasty client sends waits until there is a session

    # --- asking ------------------------------------------------------------------------------------------------------

    def request_pty_req(self, data: bytes) -> bool:
        """A terminal, before the process (RFC 4254 section 6.2)."""
        if self._party is not None or self._terminal is not None:
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
        if self._party is not None or not self.charge(size):
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
        """Forwarding's requests go there, all others to the methods with their names."""
        if self._party is None:
            if requestType == X11_REQUEST and not self.charge(len(data)):  # the cookie is kept
                return self._refuse(NO_MEMORY)
            answer = self._forwarding.request(requestType, data)
            if answer is not None:
                return answer
        elif requestType == END_OF_WRITE:
            self._party.seat.end_output()  # the peer's user reads no more
            return True
        return super().requestReceived(requestType, data)

    def _refuse(self, sentence: str) -> bool:
        self._parts.emitter.emit(SessionStart(peer=self._who, sid=self.id_text, error=sentence))
        return False

    # --- the session -------------------------------------------------------------------------------------------------

    def _begin(self, command: bytes | None, serve: str | None = None) -> bool:
        if self._party is not None:
            return self._refuse("A session runs one thing: open another session for the next.")
        try:
            permit = self._gate.ask(*((Kind.SFTP,) if serve == SFTP else asked(command)))
        except AccessDenied as error:
            return self._refuse(str(error))
        if not self.charge(RUNNING_COST):
            return self._refuse(NO_MEMORY)
        terminal, self._terminal = self._terminal, None
        variables = dict(self._requested.variables)
        variables.update(self._facts.variables(None if terminal is None else terminal.path))
        variables.update(self._forwarding.environment())
        if terminal is not None:
            variables[b"TERM"] = terminal.request.term.encode("ascii")
        request = Request(
            permit.login,
            command,
            variables,
            terminal is not None,
            serve,
            rc=rc.USER if Kind.USER_RC in permit.kinds and serve is None else rc.SYSTEM,
            cookie=self._forwarding.cookie,
        )
        program = UserProgram(self._parts, terminal, self._who, self.id_text)
        live = self._parts.live.begin(self.id_text, program, program.session_over)
        program.start(request, owner=self.conn.account)
        self.take_part(live, Right.WRITE)
        return True

    def take_part(self, live: Live, right: Right) -> None:
        """Be a party of ``live``: what the peer sends goes there, and its output comes here. NotFound once it is
        over."""
        self._party = ChannelParty(self, over=self._forwarding.close)
        try:
            live.join(self._party, right)
        except NotFound:
            self._party = None
            raise

    def dataReceived(self, data: bytes) -> None:
        if self._party is not None:
            self._party.seat.write(data)

    def eofReceived(self) -> None:
        if self._party is not None:
            self._party.seat.end_input()

    def request_window_change(self, data: bytes) -> bool:
        """A new window size (section 6.7)."""
        try:
            size = pty.parse_size(data)
        except BadParameter:
            return False
        if self._party is not None:
            return self._party.seat.resize(size)
        if self._terminal is None:
            return False
        self._terminal.resize(size)
        return True

    def request_signal(self, data: bytes) -> bool:
        """A signal for the process group (section 6.9)."""
        number = SIGNALS.get(Reader(data).string()[:16].decode("ascii", "replace"))
        return number is not None and self._party is not None and self._party.seat.signal(number)

    def request_break(self, data: bytes) -> bool:
        """A break on the terminal's line (RFC 4335)."""
        if self._party is not None:
            return self._party.seat.send_break()
        if self._terminal is None:
            return False
        self._terminal.send_break()
        return True

    def closed(self) -> None:
        """The peer closed the channel, or the connection is gone."""
        if self._party is not None:
            self._party.seat.leave()
        self._forwarding.close()
        if self._terminal is not None:
            self._terminal.close()
