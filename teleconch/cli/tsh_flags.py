"""tsh's flags in one table: for the ``ssh`` verb, which has to start fast and so is read here, and for click."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple


class Flag(NamedTuple):
    """``value`` names the flag's argument; a flag without one is a switch. ``many``: it may be repeated. A flag without
    a help text is accepted, but the help does not show it."""

    names: tuple[str, ...]
    field: str
    value: str | None
    help: str
    many: bool = False


GLOBAL_FLAGS = (
    Flag(("--proxy",), "proxy", "HOST[:HTTPS[,SSH]]", "Address of the cluster's proxy (default: the last login's)."),
    Flag(
        ("--user",), "user", "NAME", "Your user name in the cluster (default: the last login's, or else the OS user)."
    ),
    Flag(("-l", "--login"), "login", "LOGIN", "OS user on the node."),
    Flag(("--ttl",), "ttl", "DURATION", "How long a login is valid: 30m, 8h; a number alone is minutes."),
    Flag(("-i", "--identity"), "identity", "FILE", "Identity file, from `tctl auth sign` or `tsh login --out`."),
    Flag(("--cluster",), "cluster", "NAME", "Name of the cluster."),
    Flag(("--ca-pin",), "ca_pin", "sha256:HEX", "CA pin of the cluster, as `tctl status` shows it."),
    Flag(("--insecure",), "insecure", None, "Do not check who the proxy is. For trying things out only."),
    Flag(("--auth",), "auth", "TYPE", "Kind of login; only local is available."),
    Flag(("--skip-version",), "skip_version", None, "Do not compare versions (nothing is refused for them)."),
    Flag(("-d", "--debug"), "debug", None, "Log in detail to stderr."),
    # Flags of Teleport 4.2 and later; see WITHOUT_EFFECT.
    Flag(("-J", "--jumphost"), "jumphost", "[LOGIN@]HOST[:PORT]", ""),
    Flag(("--cert-format",), "cert_format", "FORMAT", ""),
    Flag(("--compat",), "compat", "FORMAT", ""),
    Flag(("--gops",), "gops", None, ""),
    Flag(("--gops-addr",), "gops_addr", "ADDRESS", ""),
    Flag(("--bind-addr",), "bind_addr", "ADDRESS", ""),
    Flag(("--browser",), "browser", "NAME", ""),
    Flag(("--namespace",), "namespace", "NAME", ""),
    Flag(("--use-local-ssh-agent",), "local_agent", None, ""),
    Flag(("--no-use-local-ssh-agent",), "no_local_agent", None, ""),
    Flag(("--enable-escape-sequences",), "escapes", None, ""),
    Flag(("--no-enable-escape-sequences",), "no_escapes", None, ""),
)

WITHOUT_EFFECT = {
    "jumphost": "tsh reaches nodes through the cluster's proxy, which --proxy=HOST:HTTPS,SSH names",
    "cert_format": "certificates are in the one format that OpenSSH and teleconch both read",
    "compat": "certificates are in the one format that OpenSSH and teleconch both read",
    "gops": "it is for programs in Go",
    "gops_addr": "it is for programs in Go",
    "bind_addr": "it is for logins in a browser, which are not available",
    "browser": "it is for logins in a browser, which are not available",
    "namespace": "a cluster has one namespace",
    "local_agent": "tsh uses the ssh-agent that SSH_AUTH_SOCK names, if there is one",
    "no_local_agent": "to keep a login out of the ssh-agent, use tsh login --no-agent",
    "escapes": "escapes are on; -e none turns them off",
    "no_escapes": "use -e none",
}
"""Flags that people bring from Teleport, by field, and why they change nothing here."""

SSH_FLAGS = (
    Flag(("-p", "--port"), "port", "PORT", "SSH port of the node, if two nodes share an address."),
    Flag(
        ("-t", "--tty"),
        "tty",
        None,
        "Ask for a terminal, even for a command; twice: even if standard input is not one.",
        many=True,
    ),
    Flag(("-T", "--no-tty"), "no_tty", None, "Ask for no terminal."),
    Flag(("-n",), "no_input", None, "Read standard input from /dev/null."),
    Flag(("-f",), "background", None, "Go into the background once the command is started."),
    Flag(("-q", "--quiet"), "quiet", None, "Print only errors."),
    Flag(("-e", "--escape"), "escape_character", "CHAR", "Escape character in sessions: ~ (the default), ^X or none."),
    Flag(("-s",), "subsystem", None, "COMMAND is the name of a subsystem, such as sftp."),
    Flag(("-W",), "stdio_forward", "HOST:PORT", "Connect standard input and output to HOST:PORT as the node sees it."),
    Flag(("--local",), "local", None, "Run COMMAND here once the node is reached."),
    Flag(("-N", "--no-exec"), "no_exec", None, "Run nothing: forward only, until Ctrl-C."),
    Flag(("-o", "--option"), "option", "NAME=VALUE", "An option of OpenSSH's client.", many=True),
    Flag(("-A", "--forward-agent"), "forward_agent", None, "Let the node use your ssh-agent."),
    Flag(
        ("-L", "--forward"),
        "forward",
        "[BIND:]PORT:HOST:PORT",
        "Connections to PORT here go to HOST:PORT as the node sees it. A path is a Unix socket.",
        many=True,
    ),
    Flag(
        ("-R", "--remote-forward"),
        "remote_forward",
        "[BIND:]PORT:HOST:PORT",
        "Connections to PORT on the node go to HOST:PORT as this machine sees it.",
        many=True,
    ),
    Flag(
        ("-D", "--dynamic-forward"),
        "dynamic_forward",
        "[BIND:]PORT",
        "A SOCKS proxy at PORT here that connects from the node.",
        many=True,
    ),
    Flag(("-g",), "gateway_ports", None, "Let other machines use the ports of -L and -D."),
    # Flags that programs pass to `ssh`, and that ask for what happens anyway:
    Flag(("-v",), "debug", None, ""),
    Flag(("-a",), "no_agent", None, ""),
    Flag(("-x", "-k", "-K", "-C", "-4", "-6"), "nothing", None, ""),
    Flag(("-X", "-Y"), "x11", None, ""),
    Flag(("-G",), "show_configuration", None, ""),
    Flag(("-V",), "show_version", None, ""),
)

ENVIRONMENT = {
    "proxy": "TELEPORT_PROXY",
    "user": "TELEPORT_USER",
    "login": "TELEPORT_LOGIN",
    "cluster": "TELEPORT_CLUSTER",
}


class WrongUsage(Exception):
    """The command line cannot be understood; exit status 2."""


def without_effect(given: Given) -> tuple[str, ...]:
    """A warning for each flag that was given and changes nothing."""
    return tuple(
        f"{flag.names[-1]} has no effect: {WITHOUT_EFFECT[flag.field]}."
        for flag in GLOBAL_FLAGS
        if flag.field in WITHOUT_EFFECT and given.values.get(flag.field)
    )


class Given:
    """The flags that were given, by field; ``None`` for what was not."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def __getattr__(self, field: str) -> Any:
        return self.values.get(field)

    def text(self, field: str) -> str | None:
        """A flag's value, or else its environment variable's, or else ``None``. An empty value counts as not given."""
        return self.values.get(field) or os.environ.get(ENVIRONMENT.get(field, ""), "") or None


def _table(flags: Sequence[Flag]) -> dict[str, Flag]:
    return {name: flag for flag in flags for name in flag.names}


def take_flags(arguments: Sequence[str], flags: Sequence[Flag], given: Given) -> int:
    """Read flags into ``given`` up to the first word that is not a flag. Returns how many words were read. WrongUsage.

    ``--help`` and ``-h`` set the field ``help``.
    """
    table = _table(flags)
    at = 0
    while at < len(arguments):
        word = arguments[at]
        if word == "--":
            return at + 1
        if not word.startswith("-") or word == "-":
            return at
        at += 1
        if word in ("-h", "--help"):
            given.values["help"] = True
        elif word.startswith("--"):
            at = _long(word, arguments, at, table, given)
        else:
            at = _short(word, arguments, at, table, given)
    return at


def _long(word: str, arguments: Sequence[str], at: int, table: dict[str, Flag], given: Given) -> int:
    name, equals, value = word.partition("=")
    flag = table.get(name)
    if flag is None:
        raise WrongUsage(f"There is no flag {name}.")
    if flag.value is None:
        if equals:
            raise WrongUsage(f"{name} takes no value.")
        _switch(given, flag)
        return at
    if not equals:
        value, at = _next(name, flag, arguments, at)
    _set(given, flag, value)
    return at


def _switch(given: Given, flag: Flag) -> None:
    given.values[flag.field] = given.values.get(flag.field, 0) + 1 if flag.many else True


def _set(given: Given, flag: Flag, value: str) -> None:
    given.values[flag.field] = [*given.values.get(flag.field, ()), value] if flag.many else value


def _short(word: str, arguments: Sequence[str], at: int, table: dict[str, Flag], given: Given) -> int:
    for place in range(1, len(word)):
        name = f"-{word[place]}"
        flag = table.get(name)
        if flag is None:
            raise WrongUsage(f"There is no flag {name}.")
        if flag.value is None:
            _switch(given, flag)
            continue
        value = word[place + 1 :]
        if not value:
            value, at = _next(name, flag, arguments, at)
        _set(given, flag, value)
        return at
    return at


def _next(name: str, flag: Flag, arguments: Sequence[str], at: int) -> tuple[str, int]:
    if at >= len(arguments):
        raise WrongUsage(f"{name} needs a value: {name} {flag.value}.")
    return arguments[at], at + 1
