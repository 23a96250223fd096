"""What -o means to `tsh ssh`."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teleconch.cli.tsh_command import SSHCommand, find_verb, parse_ssh
from teleconch.cli.tsh_flags import WrongUsage
from teleconch.cli.tsh_options import _split


def read(*options: str) -> SSHCommand:
    words = [word for option in options for word in ("-o", option)]
    flags, _, rest = find_verb(["ssh", *words, "node"])
    command = parse_ssh(flags, rest)
    assert command is not None
    return command


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        ("ForwardAgent=yes", "forward_agent", True),
        ("forwardagent no", "forward_agent", False),
        ("AddKeysToAgent = yes", "add_keys", True),
        ("RequestTTY=force", "tty", 2),
        ("RequestTTY=yes", "tty", 1),
        ("SetEnv=A=b", "set_env", ["A=b"]),
        ("GatewayPorts=yes", "gateway_ports", True),
        ("SessionType=none", "no_exec", True),
        ("RequestTTY no", "no_tty", True),
        ("LogLevel=QUIET", "quiet", True),
        ("LogLevel=DEBUG2", "debug", True),
        ("Port=22", "port", "22"),
        ("User joe", "login", "joe"),
        ("LocalForward=8080 localhost:80", "forward", ["8080:localhost:80"]),
        ("DynamicForward=1080", "dynamic_forward", ["1080"]),
        ("EscapeChar=none", "escape", b""),
        ("EscapeChar=^b", "escape", b"\2"),
    ],
)
def test_options_that_mean_something(option: str, field: str, value: Any) -> None:
    """Scripts that give OpenSSH's options get what they ask for."""
    command = read(option)
    assert command.warnings == ()
    assert command.given.values[field] == value


SPELLINGS = ("{}={}", "{} {}", '{}="{}"', '{} "{}"', '{} = "{}"', "{}='{}'", "  {}\t=\t{}  # why", "{}={} #")


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(
    ("name", "word", "field", "value"),
    [
        ("User", "root", "login", "root"),
        ("Port", "22", "port", "22"),
        ("ForwardAgent", "yes", "forward_agent", True),
        ("AddKeysToAgent", "no", "add_keys", False),
        ("ExitOnForwardFailure", "yes", "exit_on_failure", True),
        ("GatewayPorts", "yes", "gateway_ports", True),
        ("StdinNull", "yes", "no_input", True),
        ("ForkAfterAuthentication", "yes", "background", True),
        ("ClearAllForwardings", "yes", "clear_forwards", True),
        ("RequestTTY", "no", "no_tty", True),
        ("LogLevel", "ERROR", "quiet", True),
        ("SessionType", "none", "no_exec", True),
        ("EscapeChar", "none", "escape", b""),
        ("DynamicForward", "1080", "dynamic_forward", ["1080"]),
        ("SendEnv", "LC_ALL", "send_env", ["LC_ALL"]),
        ("SetEnv", "A=b", "set_env", ["A=b"]),
    ],
)
def test_spellings(spelling: str, name: str, word: str, field: str, value: Any) -> None:
    """Every option is read as ssh_config has it, quotes and all: Ansible puts every value in quotes."""
    command = read(spelling.format(name, word))
    assert command.warnings == ()
    assert command.given.values[field] == value


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        ('LocalForward="8080" "localhost:80"', "forward", ["8080:localhost:80"]),
        ('SetEnv "A=b c" D=e', "set_env", ["A=b c", "D=e"]),
        (r'User="CORP\\kim"', "login", r"CORP\kim"),
        (r"User=CORP\kim", "login", r"CORP\kim"),
        ('RemoteCommand=echo "a  b" # c', "remote_command", 'echo "a  b" # c'),
    ],
)
def test_words(option: str, field: str, value: list[str] | str) -> None:
    """Blanks, quotes and backslashes mean what they mean to OpenSSH; a command stays as it was typed."""
    assert read(option).given.values[field] == value


@pytest.mark.program("ssh")
@settings(max_examples=60, deadline=None)
@given(st.sampled_from("= \t"), st.text(st.sampled_from("ab \t\"'\\\\=#"), max_size=12))
def test_read_as_openssh_reads_it(separator: str, text: str) -> None:
    """What stands after an option's name is the words that OpenSSH's client finds there, or an error as there."""
    option = f"HostKeyAlias{separator}{text}"
    shown = subprocess.run(
        ["ssh", "-G", "-F", "none", "-o", option, "host"], capture_output=True, text=True, check=False
    )
    lines = shown.stdout.splitlines() if shown.returncode == 0 else []
    expected = next((line.split(" ", 1)[1] for line in lines if line.startswith("hostkeyalias ")), None)
    try:
        name, _, words = _split(option)
    except WrongUsage:
        name, words = "", []
    found = words[0] if name == "HostKeyAlias" and len(words) == 1 and words[0] else None
    assert found == expected


def test_forwards_are_cleared() -> None:
    """ClearAllForwardings, which scp and sftp give, is stronger than -L."""
    flags, _, rest = find_verb(["ssh", "-L", "1:h:2", "-D", "3", "-o", "ClearAllForwardings=yes", "node"])
    assert not parse_ssh(flags, rest).given.forward
    assert not flags.dynamic_forward


def test_flag_wins() -> None:
    """A flag is stronger than -o, wherever it stands."""
    flags, _, rest = find_verb(["ssh", "-o", "Port=1", "-p", "2", "node"])
    assert parse_ssh(flags, rest).given.port == "2"


@pytest.mark.parametrize(
    "option", ["Compression=yes", "EnableEscapeCommandline=yes", "ProxyJump=x", "StrictHostKeyChecking=no"]
)
def test_without_meaning(option: str) -> None:
    """An option without effect is named; host keys are checked whatever -o says."""
    command = read(option)
    assert len(command.warnings) == 1
    assert option in command.warnings[0]
    assert not command.given.insecure


@pytest.mark.parametrize(
    "option",
    ["Port", "=x", "LogLevel=LOUD", "EscapeChar=ab", 'User="', "User=", 'User=""', "User=a b", "Port 1 2", "Port=#1"],
)
def test_wrong_options(option: str) -> None:
    """What is no option is said."""
    with pytest.raises(WrongUsage):
        read(option)
