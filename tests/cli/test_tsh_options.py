"""What -o means to `tsh ssh`."""

import pytest

from teleconch.cli.tsh_flags import WrongUsage, find_verb, parse_ssh


def read(*options):
    words = [word for option in options for word in ("-o", option)]
    given, _, rest = find_verb(["ssh", *words, "node"])
    return parse_ssh(given, rest)


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
def test_options_that_mean_something(option, field, value):
    """Scripts that give OpenSSH's options get what they ask for."""
    command = read(option)
    assert command.warnings == ()
    assert command.given.values[field] == value


def test_forwards_are_cleared():
    """ClearAllForwardings, which scp and sftp give, is stronger than -L."""
    given, _, rest = find_verb(["ssh", "-L", "1:h:2", "-D", "3", "-o", "ClearAllForwardings=yes", "node"])
    assert not parse_ssh(given, rest).given.forward
    assert not given.dynamic_forward


def test_flag_wins():
    """A flag is stronger than -o, wherever it stands."""
    given, _, rest = find_verb(["ssh", "-o", "Port=1", "-p", "2", "node"])
    assert parse_ssh(given, rest).given.port == "2"


@pytest.mark.parametrize(
    "option", ["Compression=yes", "EnableEscapeCommandline=yes", "ProxyJump=x", "StrictHostKeyChecking=no"]
)
def test_without_meaning(option):
    """An option without effect is named; host keys are checked whatever -o says."""
    command = read(option)
    assert len(command.warnings) == 1
    assert option in command.warnings[0]
    assert not command.given.insecure


@pytest.mark.parametrize("option", ["Port", "=x", "LogLevel=LOUD", "EscapeChar=ab"])
def test_wrong_options(option):
    """What is no option is said."""
    with pytest.raises(WrongUsage):
        read(option)
