"""What the conformance table is made of: behaviours, measured on OpenSSH's sshd and on the node, on one machine.

To add rows, write a module ``conformance_NAME.py`` here, name it in ``test_conformance.MODULES``, and in it::

    @behaviour("Files", "sftp: rename onto an existing file")
    async def rename(side: Side) -> str:
        ...do it with side.ssh(...), side.start(...), side.sftp_line(...) as side.user...
        return "refused"

The function is run twice, with the side of sshd and with the side of the node, and gives in a few words what was seen:
a text that is the same on every machine (no pids, times, ports). Both texts must be equal, or ``reason=`` must say why
not; a reason where nothing differs fails too. ``reason={"10.0": ...}`` is one for that release of OpenSSH alone.
``pam=True`` runs it on the sides with PAM; :class:`Settings` has more of that kind. Groups are the table's headings, in
the order of their first row. Each side has its own account ``side.user``, made for the group and its settings, with an
entry in the certificate; what a function changes on the machine, it puts back. ``conformance_table`` keeps the texts.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
from attrs import define, field, frozen
from twisted.internet import task

from teleconch.ca.keys import new_ssh_key
from teleconch.node.start import LoginRules
from teleconch.ssh.connection import Connection
from tests.interop import conformance_records as records
from tests.worlds import node as node_world
from tests.worlds.forward import free_port
from tests.worlds.node import Client, Result, World, alive, running_node
from tests.worlds.reactor import reactor

SSHD = "/usr/sbin/sshd"


@define
class Side:
    """One of the two servers. ``name`` is ``sshd`` or ``node``; ``stack`` is its PAM service's file, or ``None``."""

    name: str
    world: World
    user: str
    stack: Path | None = None
    facts: dict[str, Any] = field(factory=dict)

    async def ssh(self, *command: str, **how: Any) -> Result:
        """Run OpenSSH's ssh to its end (as ``user`` unless ``login=`` says otherwise)."""
        return await self.world.ssh(*command, **{"login": self.user} | how)

    def start(self, *command: str, **how: Any) -> Client:
        """Start OpenSSH's ssh."""
        return self.world.start(*command, **{"login": self.user} | how)

    async def connect(self, login: str = "") -> Connection:
        """Our own client, for what OpenSSH's would not do."""
        return await self.world.connect(login or self.user)

    @property
    def home(self) -> Path:
        return Path(os.path.expanduser(f"~{self.user}"))


@frozen
class Settings:
    """What both servers are told by their administrator."""

    pam: bool = False
    gateway_ports: str = "no"
    user_environment: bool = True


@frozen
class Behaviour:
    """One row."""

    group: str
    name: str
    measure: Callable[[Side], Coroutine[Any, Any, str]]
    reasons: str | dict[str, str] = field(hash=False)
    settings: Settings

    def reason(self, release: str) -> str:
        """Why the two may differ, beside the sshd of that release of OpenSSH; empty: they may not."""
        return self.reasons if isinstance(self.reasons, str) else self.reasons.get(release, "")


@frozen
class Row:
    """A row that was measured."""

    behaviour: Behaviour
    sshd: str
    node: str

    def problem(self, release: str) -> str | None:
        """Why this row fails beside the sshd of that release."""
        name, reason = f"{self.behaviour.group}: {self.behaviour.name}", self.behaviour.reason(release)
        if self.sshd != self.node and not reason:
            return f"{name}\n    sshd: {self.sshd}\n    node: {self.node}"
        if self.sshd == self.node and reason:
            return f"{name}\n    both: {self.sshd}\n    and yet there is a reason: {reason}"
        return None


BEHAVIOURS: list[Behaviour] = []


def behaviour(
    group: str, name: str, *, reason: str | dict[str, str] = "", **settings: Any
) -> Callable[[Callable[[Side], Coroutine[Any, Any, str]]], Callable[[Side], Coroutine[Any, Any, str]]]:
    """Register a row; see the module's docstring."""

    def register(measure: Callable[[Side], Coroutine[Any, Any, str]]) -> Callable[[Side], Coroutine[Any, Any, str]]:
        BEHAVIOURS.append(Behaviour(group, name, measure, reason, Settings(**settings)))
        return measure

    return register


async def until(condition: Callable[[], object], seconds: float = 10) -> bool:
    """Let time pass until ``condition()`` holds; whether it came to hold."""
    for _ in range(int(seconds / 0.02)):
        if condition():
            return True
        await task.deferLater(reactor, 0.02)
    return False


def processes(side: Side) -> list[str]:
    """What runs as the side's user, without the zombies that a PID 1 leaves (``tests.worlds.node.alive``)."""
    command = ["ps", "-o", "pid=,args=", "-u", side.user]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return [name for pid, name in (line.split(maxsplit=1) for line in lines) if alive(int(pid))]


async def usermod(side: Side, *change: str) -> None:
    """Change the account; ``usermod`` refuses a new home while processes of the user's end, so ask until it agrees."""
    command = ["usermod", *change, side.user]
    assert await until(lambda: subprocess.run(command, check=False, capture_output=True).returncode == 0), command


# --- the two servers -------------------------------------------------------------------------------------------------

_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {path}/host
HostCertificate {path}/host-cert.pub
TrustedUserCAKeys {path}/users
PidFile none
LogLevel ERROR
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM {pam}
{service}
PermitUserEnvironment {environment}
PrintMotd {motd}
AcceptEnv LANG LC_* COLORTERM TERM TELEPORT_SESSION
AllowStreamLocalForwarding yes
GatewayPorts {gateway_ports}
X11Forwarding yes
StrictModes no
MaxStartups 100
MaxSessions 100
Subsystem sftp /usr/lib/openssh/sftp-server
"""
_STACK = """
account required pam_unix.so
account required pam_nologin.so
session required pam_limits.so conf={path}/limits.conf
session required pam_env.so conffile=/dev/null envfile={path}/pam.env
session optional pam_umask.so umask=0027
session required pam_exec.so quiet {path}/hook
session optional pam_motd.so motd={motd}
"""


def _account() -> str:
    name = f"tc{secrets.token_hex(3)}"
    subprocess.run(["useradd", "-m", "-s", "/bin/bash", "-p", "*", name], check=True)
    records.forget(name)
    return name


def _forget(name: str) -> None:
    subprocess.run(["pkill", "-KILL", "-u", name], check=False)
    subprocess.run(["userdel", "-f", "-r", name], check=False, capture_output=True)


def _stack(path: Path, service: str) -> Path:
    (path / "limits.conf").write_text("* hard nofile 321\n")
    (path / "pam.env").write_text("FROM_PAM=yes\nLANG=en_GB.UTF-8\n")
    motd = Path(tempfile.gettempdir(), f"{service}.motd")  # read with the user's rights
    motd.write_text("The stack's word of the day\n")
    hook = path / "hook"
    hook.write_text(f'#!/bin/sh\necho "$PAM_TYPE $PAM_USER $PAM_RHOST $PAM_TTY $(id -u)" >> {path}/pam.log\n')
    hook.chmod(0o755)
    file = Path("/etc/pam.d", service)
    file.write_text(_STACK.format(path=path, motd=motd))
    return file


def release() -> str:
    """Which OpenSSH this machine has, such as ``9.2``."""
    said = subprocess.run([SSHD, "-V"], capture_output=True, text=True, check=False)
    found = re.search(r"OpenSSH_(\d+\.\d+)", said.stdout + said.stderr)
    assert found is not None, said
    return found[1]


@asynccontextmanager
async def sides(path: Path, settings: Settings) -> AsyncIterator[tuple[Side, Side]]:
    """Both servers, which trust the same authority. All is gone afterwards."""
    service = f"teleconch-test-{secrets.token_hex(4)}"
    stack = _stack(path, service) if settings.pam else None
    users = [_account(), _account()]
    rules = LoginRules(service if settings.pam else None, settings.user_environment)
    world = await running_node(path, rules=rules, gateway_ports=settings.gateway_ports)
    world.allow("root", *users)
    port = free_port()
    theirs = attrs.evolve(world, port=port, events=[], clients=[])
    daemon = None
    try:
        daemon = _sshd(path, world, port, service, settings)
        assert await until(lambda: _listens(port))
        yield Side("sshd", theirs, users[0], stack), Side("node", world, users[1], stack)
    finally:
        for client in theirs.clients:
            if not client.done.called:
                client.kill()
                await client.done
        if daemon is not None:
            daemon.terminate()
            daemon.wait()
        await world.close()
        for name in users:
            _forget(name)
        if stack is not None:
            stack.unlink()
            Path(tempfile.gettempdir(), f"{service}.motd").unlink()


def _sshd(path: Path, world: World, port: int, service: str, settings: Settings) -> subprocess.Popen[bytes]:
    private, public = new_ssh_key()
    (path / "host").touch(0o600)
    (path / "host").write_text(private.reveal())
    (path / "host-cert.pub").write_text(world.authorities.host_cert(public) + "\n")
    (path / "users").write_text(world.authorities.user.ssh_public_key + "\n")
    config = path / "sshd_config"
    words = {
        "pam": _word(settings.pam),
        "service": f"PAMServiceName {service}" if [*map(int, release().split("."))] >= [9, 8] else "",
        "motd": _word(not settings.pam),
        "environment": _word(settings.user_environment),
        "gateway_ports": settings.gateway_ports,
    }
    config.write_text(_CONFIG.format(port=port, path=path, **words))
    program = path / service  # before PAMServiceName, the service has the name of the program
    program.symlink_to(SSHD)
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    return subprocess.Popen([str(program), "-D", "-e", "-f", str(config)], env={"PATH": os.environ["PATH"]})


def _word(yes: bool) -> str:
    return "yes" if yes else "no"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


__all__ = [
    "BEHAVIOURS",
    "Behaviour",
    "Row",
    "Settings",
    "Side",
    "behaviour",
    "node_world",
    "processes",
    "release",
    "sides",
    "until",
    "usermod",
]
