"""``tsh ssh``: a shell or a command on a node.

It starts in a fraction of a second because it loads little (no Twisted, click, TLS or YAML) and dials while it loads.
The exit status is the remote command's; 255 if there was none (as with OpenSSH's client); 2 for wrong usage.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from teleconch.cli.tsh_command import SSHCommand
from teleconch.cli.tsh_flags import WrongUsage
from teleconch.cli.tsh_reactor import SIGNALS, Interrupted
from teleconch.client.address import ProxyAddress, parse_proxy, split_address
from teleconch.client.tcp import Dialling
from teleconch.defaults import PROXY_PORT
from teleconch.errors import TeleconchError, quoted
from teleconch.text import shown

if TYPE_CHECKING:
    from teleconch.client.session import SessionRequest
    from teleconch.client.standing import Standing

FAILED = 255
_COLOURS = {"ERROR": 31, "WARNING": 33}
_STARTED = time.perf_counter()


class Phases:
    """With ``-d``: how many milliseconds after the start each step ended, and how much CPU time we had used by then."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted

    def done(self, what: str) -> None:
        if self._wanted:
            passed, worked = (time.perf_counter() - _STARTED) * 1000, time.process_time() * 1000
            sys.stderr.write(f"tsh: {passed:7.1f} ms, {worked:7.1f} ms of work: {what}\n")


def run_ssh(command: SSHCommand) -> int:
    """Run the command. Returns its exit status. Errors are printed here."""
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
        if interrupted.number == signal.SIGQUIT:
            import resource

            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # our memory holds keys
        signal.signal(interrupted.number, signal.SIG_DFL)
        os.kill(os.getpid(), interrupted.number)  # so that the shell sees what ended this process
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:  # noqa: BLE001 -- the last boundary: a user is told what to do, -d shows the rest
        _traceback(command)
        hint = "" if command.given.debug else " Run it again with -d to see where, and report that."
        say("ERROR", f"tsh failed unexpectedly ({type(error).__name__}).{hint}")
    return FAILED


def say(kind: str, sentence: str, end: str = "\n", separator: str = ": ") -> None:
    """Print one line on stderr. Whatever a peer may have put into it cannot control the terminal."""
    text = shown(sentence, keep="\n", mark="?")
    colour = _COLOURS.get(kind)
    if colour and sys.stderr.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb":
        kind, separator = f"\x1b[{colour};1m{kind}:\x1b[0m", " "
    try:
        sys.stderr.write(f"{kind}{separator}{text}{end}")
        sys.stderr.flush()
    except OSError:
        pass


def _traceback(command: SSHCommand) -> None:
    if command.given.debug:
        import traceback

        traceback.print_exc(file=sys.stderr)


class Goal(NamedTuple):
    """What a command line leads to, once it is known who is asking. ``host`` may be a label."""

    command: SSHCommand
    standing: Standing
    login: str
    host: str
    port: int
    insecure: bool


def _run(command: SSHCommand) -> int:
    given = command.given
    phases = Phases(bool(given.debug))
    for warning in command.warnings:
        _warn(given, warning)
    login, host = _destination(command.destination)
    port = _port(given.port)
    _check(command)
    if given.background:
        given.values["no_input"] = True
    if given.show_configuration:
        return _show_configuration(command, login, host, port)
    proxy_text = given.text("proxy")
    proxy = parse_proxy(proxy_text) if proxy_text else None
    by_reactor = _needs_reactor(command, host)
    dialling = None if by_reactor else _dial_early(given, proxy)
    phases.done("command line and profile read")

    # The modules from here on take a while to load; the proxy answers meanwhile.
    from teleconch.client.profile import Profiles, home
    from teleconch.client.standing import choose_login, find_standing

    user, cluster = given.text("user"), given.text("cluster")
    standing = find_standing(Profiles(home()), proxy, user, given.identity, cluster, time.time())
    login = choose_login(standing.summary, login or given.text("login"))
    phases.done("certificate read")
    insecure = bool(given.insecure)
    if insecure:
        say("WARNING", "With --insecure nobody checks who the proxy and the node are.")
    if given.add_keys:
        _add_keys(standing, given)
    goal = Goal(command, standing, login, host, port, insecure)
    return _go_by_reactor(goal) if by_reactor else _go(goal, dialling, phases)


def _check(command: SSHCommand) -> None:
    """WrongUsage unless the flags go together."""
    given = command.given
    if given.local and command.command is None:
        raise WrongUsage("--local needs a COMMAND.")
    if given.no_exec and command.command is not None and not given.local:
        raise WrongUsage("-N runs no COMMAND: leave one of them out.")
    if given.subsystem and command.command is None:
        raise WrongUsage("-s needs the name of a subsystem: tsh ssh -s [LOGIN@]NODE sftp.")
    if given.background and command.command is None and not given.no_exec:
        raise WrongUsage("-f needs a COMMAND, or -N.")


def _go(goal: Goal, dialling: Dialling | None, phases: Phases) -> int:
    """Run one plain session, without a reactor. Returns its exit status."""
    command, standing, login, host, port, insecure = goal
    given = command.given
    if "=" in host:
        host = _node_with_label(standing, host, insecure)
        phases.done("node found by its label")
    _end_on_signals()
    from teleconch.ca.keys import public_blob
    from teleconch.cli.tsh_request import escape_character, session_request
    from teleconch.client.console import Console
    from teleconch.client.road import Key, Road
    from teleconch.client.terminal import RawTerminal
    from teleconch.ssh.signatures import load_private_key

    phases.done("modules loaded")
    address = split_address(standing.profile.ssh_proxy_addr, PROXY_PORT)
    connected = (dialling or Dialling(*address)).wait()
    phases.done("TCP connection to the proxy")
    key = Key(load_private_key(standing.private_key.reveal()), public_blob(standing.certificate), login)
    if given.no_input:
        _close_input()
    request = session_request(command, lambda text: _warn(given, text))
    with connected, RawTerminal(0) as raw:
        wanted = None if given.local else request
        console = Console(wanted, raw, lambda text: _warn(given, text), escape_character(given), bool(given.background))
        road = Road(
            connected,
            address[0],
            host,
            port,
            key,
            lambda name: standing.host_check(name, insecure, time.time),
            wanted,
            console,
            phases.done,
        )
        gc.freeze()  # what is loaded stays: the collector need not look at it again
        gc.enable()
        status = road.run()
        phases.done("session ended")
    _say_closed(command, request, host)
    return _run_here(command.command) if given.local else status


def _go_by_reactor(goal: Goal) -> int:
    """Run forwarding, with or without a session, or a command on several nodes. Returns the exit status."""
    gc.enable()
    from teleconch.cli import tsh_forward, tsh_reactor
    from teleconch.cli.tsh_request import session_request
    from teleconch.client.terminal import RawTerminal

    command, standing, login, host, port, insecure = goal
    forwards = tsh_forward.Forwards(command)
    given = command.given
    if given.no_input:
        _close_input()
    request = session_request(command, lambda text: _warn(given, text))
    with RawTerminal(0) as raw:

        def tell(kind: str, text: str) -> None:
            if kind != "WARNING" or not given.quiet:
                say(kind, text, "\r\n" if raw.entered else "\n")

        async def main(reactor: Any) -> int:
            from teleconch.client.reach import ProxyConnection

            proxy = await ProxyConnection.reach(reactor, standing, insecure, login)
            try:
                name = host
                if "=" in name:
                    from teleconch.client.cluster import nodes_with_label, the_one

                    found = await proxy.ask(lambda client: nodes_with_label(client, host))
                    if len(found) > 1 and command.command is not None and not forwards and not given.local:
                        return await tsh_forward.run_on_all(proxy, found, port, login, command.command, tell)
                    name = the_one(host, found)
                return await tsh_forward.run(reactor, proxy, command, name, port, login, request, raw, tell)
            finally:
                proxy.close()

        status = tsh_reactor.run(main)
    if not (given.local or given.no_exec):
        _say_closed(command, request, host)
    return status


def _close_input() -> None:
    """Make standard input empty from now on."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


def _warn(given: Any, text: str, end: str = "\n") -> None:
    if not given.quiet:
        say("WARNING", text, end)


def _needs_reactor(command: SSHCommand, host: str) -> bool:
    """Whether more than one plain session is wanted."""
    given = command.given
    several = "=" in host and command.command is not None
    forwards = given.forward or given.remote_forward or given.dynamic_forward or given.forward_agent
    return bool(several or (forwards and not given.stdio_forward) or given.no_exec)


def _add_keys(standing: Standing, given: Any) -> None:
    """``-o AddKeysToAgent=yes``: add the certificate to the ssh-agent for as long as it is valid."""
    from teleconch.client.agent import agent_path, offer_key

    path = agent_path()
    if path is None:
        return
    left = standing.summary.valid_before - time.time()
    problem = offer_key(path, standing.profile, standing.private_key, standing.certificate, left)
    if problem:
        _warn(given, problem)


def _destination(text: str) -> tuple[str | None, str]:
    login, at, host = text.rpartition("@")
    if not host or (at and not login) or host.startswith("-"):
        raise WrongUsage(f"{quoted(text)} is not [LOGIN@]NODE.")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return login or None, host


def _port(text: str | None) -> int:
    if text is None:
        return 0
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise WrongUsage(f"-p {text}: ports go from 1 to 65535.")
    return int(text)


def _dial_early(given: Any, proxy: ProxyAddress | None) -> Dialling | None:
    """Start dialling before anything is checked, if the profile has the address."""
    from teleconch.client.profile import Profiles, home

    profiles = Profiles(home())
    profile = profiles.current() if proxy is None else None
    if proxy is not None and given.identity is None:
        profile = profiles.find(proxy)
    return Dialling(*split_address(profile.ssh_proxy_addr, PROXY_PORT)) if profile is not None else None


def _node_with_label(standing: Standing, label: str, insecure: bool) -> str:
    """The UUID of the one node with a label, according to the auth server, so that the node itself can be verified."""
    from teleconch.cli.tsh_api import ask_cluster
    from teleconch.client.cluster import node_with_label

    return ask_cluster(standing, insecure, lambda client: node_with_label(client, label))


def _say_closed(command: SSHCommand, request: SessionRequest, host: str) -> None:
    """Say that a terminal session has ended, since its prompts look like the local ones."""
    if request.terminal and not command.given.quiet:
        say("Connection to", f"{host} closed.", separator=" ")


def _show_configuration(command: SSHCommand, login: str | None, host: str, port: int) -> int:
    """``-G``: print the configuration. git uses it to find out whether it may use ``-p``."""
    from teleconch.client.standing import os_login

    login = login or command.given.text("login") or os_login()
    sys.stdout.write(f"host {host}\nuser {login}\nhostname {host}\nport {port or 3022}\n")
    return 0


def _run_here(command: str | None) -> int:
    import subprocess

    if command is None:
        raise WrongUsage("--local needs a COMMAND.")
    return subprocess.call(command, shell=True)  # noqa: S602 -- the user's own command on the user's own machine


def _end_on_signals() -> None:
    def interrupted(number: int, _frame: object) -> None:
        raise Interrupted(number)

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, interrupted)
