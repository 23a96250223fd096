"""``tsh ssh`` with forwarding, with only forwarding (``-N``), or on several nodes at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from teleconch.cli.tsh_command import SSHCommand
from teleconch.cli.tsh_flags import Given
from teleconch.cli.tsh_request import escape_character
from teleconch.client.background import go_on_in_background
from teleconch.client.forward.specs import Forward, Place, parse_dynamic, parse_forward
from teleconch.errors import ConnectionProblem, TeleconchError

if TYPE_CHECKING:
    from teleconch.client.reach import ProxyConnection
    from teleconch.client.session import SessionRequest
    from teleconch.client.terminal import RawTerminal
    from teleconch.ssh.channel import Channel
    from teleconch.ssh.client import ClientConnection

Say = Callable[[str, str], None]


class Forwards:
    """Everything that the command line asks to forward."""

    def __init__(self, command: SSHCommand) -> None:
        given = command.given
        self.agent = bool(given.forward_agent)
        self.strict = bool(given.exit_on_failure)
        self.here: list[Forward] = [parse_forward("-L", text) for text in given.forward or ()]
        self.here += [parse_dynamic("-D", text) for text in given.dynamic_forward or ()]
        if given.gateway_ports:
            self.here = [_open_to_all(forward) for forward in self.here]
        self.there: list[Forward] = [parse_forward("-R", text) for text in given.remote_forward or ()]

    def __bool__(self) -> bool:
        return bool(self.agent or self.here or self.there)


def _open_to_all(forward: Forward) -> Forward:
    """The same forward on all addresses of this machine, unless it names one."""
    place = forward.listen
    return forward if place.path or place.host is not None else Forward(Place("", place.port), forward.target)


async def run(
    reactor: Any,
    proxy: ProxyConnection,
    command: SSHCommand,
    host: str,
    port: int,
    login: str,
    request: SessionRequest,
    raw: RawTerminal,
    say: Say,
) -> int:
    """Returns the exit status of the session on one node, or of the local command, or 0. A TeleconchError."""
    from teleconch.client.forward.inward import Inward

    given = command.given
    forwards = Forwards(command)
    warn: Callable[[str], None] = lambda text: say("WARNING", text)  # noqa: E731
    agent = os.environ.get("SSH_AUTH_SOCK") if forwards.agent else None
    if forwards.agent and not agent:
        warn("There is no ssh-agent to forward: SSH_AUTH_SOCK is not set.")
    inward = Inward(reactor, agent, warn)
    connection = await proxy.to_node(host, port, login, inward)
    closing = await _begin(reactor, connection, forwards, inward, say)
    try:
        if given.local:
            return await _here(reactor, command.command or "", connection)
        if given.no_exec:
            if given.background:
                go_on_in_background(detach=True)
            await connection.disconnected
            raise ConnectionProblem(f"The connection to {host} was lost.")
        return await _session(reactor, connection, request, raw, agent is not None, given, warn)
    finally:
        for close in closing:
            close()
        connection.transport.loseConnection()


async def _begin(
    reactor: Any, connection: ClientConnection, forwards: Forwards, inward: Any, say: Say
) -> list[Callable[[], Any]]:
    from teleconch.client.forward.outward import listen

    closing: list[Callable[[], Any]] = []
    for forward in (*forwards.here, *forwards.there):
        try:
            if forward in forwards.here:
                closing.append(listen(reactor, connection, forward, lambda text: say("WARNING", text)))
            else:
                port = await inward.ask(connection, forward)
                if port:
                    to = forward.target or "where SOCKS says"
                    say("Allocated port", f"{port} for remote forward to {to}")
        except TeleconchError as error:
            if forwards.strict:
                for close in closing:
                    close()
                raise
            say("WARNING", str(error))
    return closing


async def _session(
    reactor: Any,
    connection: ClientConnection,
    request: SessionRequest,
    raw: RawTerminal,
    agent: bool,
    given: Given,
    warn: Callable[[str], None],
) -> int:

    from teleconch.client.reactor_console import ReactorConsole
    from teleconch.client.session_channel import SessionChannel

    escape = escape_character(given)
    console = ReactorConsole(reactor, request._replace(agent=agent), raw, warn, escape, bool(given.background))
    session = console.session
    signal.signal(signal.SIGWINCH, lambda _number, _frame: reactor.callFromThread(session.resize))
    try:
        await _open(connection, SessionChannel(session, console, console.window))
        return await console.over
    finally:
        signal.signal(signal.SIGWINCH, signal.SIG_DFL)
        console.close()


async def _open(connection: ClientConnection, channel: Channel) -> None:
    """Open the channel. ConnectionProblem."""
    from twisted.internet.error import ConnectionLost

    from teleconch.ssh.problems import ChannelRefused

    try:
        await connection.open(channel)
    except ChannelRefused as refused:
        raise ConnectionProblem(f"The node opens no session: {refused.sentence}") from None
    except ConnectionLost as lost:
        raise ConnectionProblem("The node closed the connection; try again.") from lost


async def _here(reactor: Any, command: str, connection: ClientConnection) -> int:
    """Run a command on this machine while the connection is up. Returns its exit status."""
    from twisted.internet.defer import Deferred
    from twisted.internet.protocol import ProcessProtocol

    ended: Deferred[int] = Deferred()

    class Command(ProcessProtocol):
        def processEnded(self, reason: Any) -> None:
            value = reason.value
            ended.callback(128 + value.signal if getattr(value, "signal", None) else value.exitCode or 0)

    reactor.spawnProcess(Command(), "/bin/sh", ["sh", "-c", command], None, childFDs={0: 0, 1: 1, 2: 2})
    return await ended


async def run_on_all(proxy: ProxyConnection, nodes: list[Any], port: int, login: str, command: str, say: Say) -> int:
    """Run a command on all nodes at once; each line of output begins with the node's name. Returns the worst exit
    status."""
    from twisted.internet.defer import Deferred, FirstError, gatherResults

    names = [status.node.nodename for status in nodes]
    shown = [
        name if names.count(name) == 1 else f"{name} {status.node.uuid}"
        for name, status in zip(names, nodes, strict=True)
    ]
    width = max(len(name) for name in shown)

    broken = False

    async def one(name: str, uuid: str) -> int:
        try:
            return await _lines(proxy, uuid, port, login, command, name.ljust(width))
        except TeleconchError as error:
            if not broken:
                say("ERROR", f"{name}: {error}")
            return 255

    running = [Deferred.fromCoroutine(one(name, status.node.uuid)) for name, status in zip(shown, nodes, strict=True)]
    try:
        statuses: list[int] = await gatherResults(running, consumeErrors=True)
    except FirstError as first:  # our output has no reader any more, or the disk is full
        broken = True
        first.subFailure.raiseException()
    return max(statuses)


async def _lines(proxy: ProxyConnection, uuid: str, port: int, login: str, command: str, name: str) -> int:
    from teleconch.client.lines import LinesScreen
    from teleconch.client.session_channel import SessionChannel

    connection = await proxy.to_node(uuid, port, login)
    screen = LinesScreen(command, name, sys.stdout.buffer, sys.stderr.buffer)
    try:
        await _open(connection, SessionChannel(screen.session))
        return await screen.over
    finally:
        connection.transport.loseConnection()
