"""``tsh ssh``: a shell or a command on a node.

It starts in a fraction of a second because it loads little: no click, no TLS, no YAML; and it dials while it loads.
Exit status: the remote command's; 255 where there was none (as OpenSSH's client); 2 for wrong usage.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from teleconch.cli.tsh_flags import SSHCommand, WrongUsage
from teleconch.client.address import ProxyAddress, parse_proxy, split_address
from teleconch.client.tcp import Dialling
from teleconch.defaults import PROXY_PORT
from teleconch.errors import BadParameter, TeleconchError

if TYPE_CHECKING:
    from teleconch.client.dial import Credentials
    from teleconch.client.session import SessionChannel
    from teleconch.client.standing import Standing

FAILED = 255
_STARTED = time.perf_counter()
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOCALE = ("LANG", "LC_")


class Phases:
    """With ``-d``: how many milliseconds after the start each step ended."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted

    def done(self, what: str) -> None:
        if self._wanted:
            sys.stderr.write(f"tsh: {(time.perf_counter() - _STARTED) * 1000:7.1f} ms  {what}\n")


class Interrupted(BaseException):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run_ssh(command: SSHCommand) -> int:
    """Run the command; its exit status. Errors are printed here."""
    try:
        return _run(command)
    except WrongUsage as error:
        say("ERROR", f"{error} Try `tsh help ssh`.")
        return 2
    except TeleconchError as error:
        _traceback(command)
        say("ERROR", str(error))
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    except OSError as error:
        _traceback(command)
        what = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        say("ERROR", f"{what}{error.strerror or error}.")
    except Interrupted as interrupted:
        signal.signal(interrupted.number, signal.SIG_DFL)
        os.kill(os.getpid(), interrupted.number)  # so that the shell sees what ended us
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:  # noqa: BLE001 -- the last boundary: a user is told what to do, -d shows the rest
        _traceback(command)
        hint = "" if command.given.debug else " Run it again with -d to see where, and report that."
        say("ERROR", f"tsh failed in a way that nobody expected ({type(error).__name__}).{hint}")
    return FAILED


def say(kind: str, sentence: str) -> None:
    """One line on stderr. What a peer may have put into it cannot steer the terminal."""
    text = "".join(c if c.isprintable() or c == "\n" else "?" for c in sentence)
    try:
        sys.stderr.write(f"{kind}: {text}\n")
        sys.stderr.flush()
    except OSError:
        pass


def _traceback(command: SSHCommand) -> None:
    if command.given.debug:
        import traceback

        traceback.print_exc(file=sys.stderr)


def _run(command: SSHCommand) -> int:
    given = command.given
    phases = Phases(bool(given.debug))
    for warning in command.warnings:
        say("WARNING", warning)
    login, host = _destination(command.destination)
    port = _port(given.port)
    proxy_text = given.text("proxy")
    proxy = parse_proxy(proxy_text) if proxy_text else None
    dialling = _dial_early(given, proxy)
    phases.done("command line and profile read")

    # From here on modules are loaded that take their time, while the proxy already answers.
    from teleconch.client.standing import choose_login

    standing = _standing(given, proxy)
    _check_cluster(given.text("cluster"), standing)
    login = choose_login(standing.summary, login or given.text("login"))
    phases.done("certificate read")
    if "=" not in host:
        _no_tls()
    from teleconch.client import dial

    credentials = dial.Credentials(
        standing.private_key, standing.certificate, standing.authorities, bool(given.insecure)
    )
    if given.insecure:
        say("WARNING", "With --insecure nobody checks who the proxy and the node are.")
    address = split_address(standing.profile.ssh_proxy_addr, PROXY_PORT)
    dialling = dialling or Dialling(*address)
    session = _Session(command, login, host, port, standing, credentials, phases)
    phases.done("modules loaded")
    return run_reactor(lambda reactor: session.run(reactor, dialling, address[0]), session)


def _destination(text: str) -> tuple[str | None, str]:
    login, at, host = text.rpartition("@")
    if not host or (at and not login) or host.startswith("-"):
        raise WrongUsage(f"{text!r} is no [LOGIN@]NODE.")
    return login or None, host


def _port(text: str | None) -> int:
    if text is None:
        return 0
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise WrongUsage(f"-p {text}: ports go from 1 to 65535.")
    return int(text)


def _dial_early(given: Any, proxy: ProxyAddress | None) -> Dialling | None:
    """Start to dial before anything is checked, where the profile tells the address."""
    from teleconch.client.profile import Profiles, home

    profiles = Profiles(home())
    profile = profiles.current() if proxy is None else None
    if proxy is not None and given.identity is None:
        profile = profiles.find(proxy)
    return Dialling(*split_address(profile.ssh_proxy_addr, PROXY_PORT)) if profile is not None else None


def _standing(given: Any, proxy: ProxyAddress | None) -> Standing:
    from teleconch.client.profile import Profiles, home
    from teleconch.client.standing import from_file, remembered

    if given.identity is not None:
        return from_file(given.identity, Profiles(home()), proxy, time.time())
    return remembered(Profiles(home()), proxy, given.text("user"), time.time())


def _check_cluster(cluster: str | None, standing: Standing) -> None:
    if cluster and cluster != standing.profile.cluster:
        raise BadParameter(
            f"This proxy serves the cluster {standing.profile.cluster}, not {cluster}: log in to that cluster's proxy."
        )


def _no_tls() -> None:
    """Twisted's TCP loads pyOpenSSL if it can, which takes as long as a whole SSH handshake; this road has no TLS
    (but for labels, which ask the auth API). Twisted goes on without where the import fails."""
    if "twisted.internet.tcp" not in sys.modules:
        sys.modules.setdefault("OpenSSL", None)  # type: ignore[arg-type]


class _Session:
    """One run of ``tsh ssh``: from the open socket to the exit status."""

    def __init__(
        self,
        command: SSHCommand,
        login: str,
        host: str,
        port: int,
        standing: Standing,
        credentials: Credentials,
        phases: Phases,
    ) -> None:
        self._command = command
        self._login = login
        self._host = host
        self._port = port
        self._standing = standing
        self._credentials = credentials
        self._phases = phases
        self._channel: SessionChannel | None = None

    def resized(self) -> None:
        if self._channel is not None:
            self._channel.resized()

    async def run(self, reactor: Any, dialling: Dialling, proxy_name: str) -> int:
        from teleconch.client import dial

        connected = dialling.wait()
        self._phases.done("TCP connection to the proxy")
        proxy = await dial.to_proxy(reactor, connected, proxy_name, self._login, self._credentials)
        self._phases.done("logged in to the proxy")
        host = self._host
        if "=" in host:
            from teleconch.client.cluster import node_with_label

            host = await node_with_label(reactor, proxy, self._standing, host)
            self._phases.done("node found by its label")
        node = await dial.through_proxy(reactor, proxy, host, self._port, self._login, self._credentials)
        self._phases.done("logged in to the node")
        try:
            if self._command.given.local:
                return await self._run_here()
            return await self._run_there(reactor, node)
        finally:
            self._phases.done("session ended")
            node.transport.loseConnection()
            proxy.transport.loseConnection()

    async def _run_here(self) -> int:
        import subprocess

        from twisted.internet.threads import deferToThread

        if self._command.command is None:
            raise WrongUsage("--local needs a COMMAND.")
        return await deferToThread(subprocess.call, self._command.command, shell=True)  # noqa: S604 -- the user's own

    async def _run_there(self, reactor: Any, node: Any) -> int:
        from teleconch.client.session import SessionChannel, SessionRequest, run_session
        from teleconch.client.terminal import RawTerminal

        given = self._command.given
        on_terminal = os.isatty(0)
        terminal = not given.no_tty and (bool(given.tty) or (self._command.command is None and on_terminal))
        if given.no_input:
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            on_terminal = False
        environment = tuple((name, value) for name, value in os.environ.items() if name.startswith(_LOCALE))
        request = SessionRequest(self._command.command, terminal, bool(given.tty), environment)
        if not (terminal and on_terminal):
            self._channel = SessionChannel(reactor, request, None, lambda text: say("WARNING", text))
            return await run_session(node, self._channel)
        with RawTerminal(0) as raw:
            self._channel = SessionChannel(reactor, request, raw, lambda text: say("WARNING", text))
            return await run_session(node, self._channel)


def run_reactor(main: Callable[[Any], Coroutine[Any, Any, int]], session: _Session) -> int:
    """Run ``main(reactor)`` to its end. SIGINT, SIGTERM and SIGHUP cancel it, so that it cleans up, and raise
    :class:`Interrupted`; SIGWINCH tells the session."""
    from twisted.internet import reactor as installed
    from twisted.internet.defer import Deferred

    reactor: Any = installed
    outcome: list[int | BaseException] = []
    signalled: list[int] = []

    async def watched() -> None:
        try:
            outcome.append(await main(reactor))
        except BaseException as error:  # noqa: BLE001 -- raised again below, outside the reactor
            outcome.append(error)
        reactor.callLater(0, reactor.stop)

    running: list[Deferred[None]] = []

    def begin() -> None:
        running.append(Deferred.fromCoroutine(watched()))

    def cancel() -> None:
        for each in running:
            each.cancel()

    def interrupted(number: int, _frame: object) -> None:
        signalled.append(number)
        reactor.callFromThread(cancel)

    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, interrupted)
    signal.signal(signal.SIGWINCH, lambda *_: reactor.callFromThread(session.resized))
    reactor.callWhenRunning(begin)
    reactor.run(installSignalHandlers=False)
    if signalled:
        raise Interrupted(signalled[0])
    result = outcome[0]
    if isinstance(result, BaseException):
        raise result
    return result
