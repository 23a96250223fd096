"""How the command line of tsh is read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleconch.cli.tsh_command import SSHCommand, find_verb, parse_ssh
from teleconch.cli.tsh_flags import Given, WrongUsage

TSH = Path(sys.executable).parent / "tsh"


def read(line: list[str]) -> SSHCommand:
    given, verb, rest = find_verb(line)
    assert verb == "ssh"
    command = parse_ssh(given, rest)
    assert command is not None
    return command


@pytest.mark.parametrize(
    "line",
    [
        ["--proxy=p", "-l", "joe", "ssh", "-p", "22", "node", "ls", "-l"],
        ["ssh", "--proxy", "p", "--login=joe", "-p22", "node", "ls", "-l"],
        ["ssh", "node", "-p", "22", "--proxy=p", "-ljoe", "ls", "-l"],
        ["-l", "joe", "ssh", "--proxy=p", "node", "-p22", "--", "ls", "-l"],
    ],
)
def test_flags_before_and_behind_verb_and_host(line: list[str]) -> None:
    """Flags stand where users of Teleport and OpenSSH put them; the command's own flags stay with the command."""
    command = read(line)
    assert command.destination == "node"
    assert command.command == "ls -l"
    assert (command.given.proxy, command.given.login, command.given.port) == ("p", "joe", "22")


def test_switches_join() -> None:
    """-tT and -dn are several switches."""
    command = read(["ssh", "-tn", "-d", "node"])
    assert command.given.tty
    assert command.given.no_input
    assert command.given.debug
    assert command.command is None


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (["-J", "jump"], "--jumphost"),
        (["--jumphost=jump"], "--jumphost"),
        (["--cert-format", "oldssh"], "--cert-format"),
        (["--gops"], "--gops"),
        (["--gops-addr=127.0.0.1:1"], "--gops-addr"),
        (["--no-use-local-ssh-agent"], "--no-use-local-ssh-agent"),
    ],
)
def test_flags_that_mean_nothing_here(flags: list[str], name: str) -> None:
    """Flags that scripts bring from Teleport are taken, before and after the verb, and said to have no effect."""
    for line in ([*flags, "ssh", "node", "ls"], ["ssh", *flags, "node", "ls"], ["ssh", "node", *flags, "ls"]):
        command = read(line)
        assert (command.destination, command.command) == ("node", "ls")
        (warning,) = command.warnings
        assert warning.startswith(f"{name} has no effect: ")
    done = subprocess.run([TSH, "status", *flags], capture_output=True, text=True, env={"HOME": "/nonexistent"})
    assert f"WARNING: {name} has no effect: " in done.stderr


@pytest.mark.parametrize(
    "line", [["ssh"], ["ssh", "-Z", "n"], ["ssh", "--nope", "n"], ["ssh", "-p"], ["ssh", "--tty=1", "n"]]
)
def test_wrong_usage(line: list[str]) -> None:
    """What cannot be understood is said, not guessed."""
    with pytest.raises(WrongUsage):
        read(line)


def test_forwards_may_be_repeated() -> None:
    """-L, -R, -D and -o may be given several times."""
    command = read(["ssh", "-L", "1:a:2", "-L3:b:4", "-R", "5:c:6", "-D", "7", "-AN", "node"])
    given = command.given
    assert (given.forward, given.remote_forward, given.dynamic_forward) == (["1:a:2", "3:b:4"], ["5:c:6"], ["7"])
    assert given.forward_agent
    assert given.no_exec


@given(st.lists(st.text(max_size=6), max_size=6))
def test_any_line_is_read_or_refused(line: list[str]) -> None:
    """No command line makes tsh fail in another way."""
    try:
        given, _verb, rest = find_verb(line)
        parse_ssh(given, rest)
    except WrongUsage:
        pass


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """TELEPORT_PROXY and TELEPORT_LOGIN stand for the flags; the flag wins."""
    monkeypatch.setenv("TELEPORT_LOGIN", "env")
    given = Given()
    assert given.text("login") == "env"
    given.values["login"] = "flag"
    assert given.text("login") == "flag"


def test_short_start() -> None:
    """`tsh ssh` loads none of what makes a start slow."""
    slow = {"twisted", "click", "rich", "yaml", "OpenSSL", "asyncio", "cattrs"}
    modules = "teleconch.cli.tsh, teleconch.cli.tsh_ssh, teleconch.cli.tsh_request, teleconch.cli.tsh_options"
    modules += ", teleconch.client.road, teleconch.client.standing, teleconch.client.background"
    code = f"import sys, {modules}; print(sorted({{name.split('.')[0] for name in sys.modules}} & {slow}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "line",
    [[], ["help"], ["help", "ssh"], ["ssh", "--help"], ["login", "-h"], ["--help"], ["version"], ["ls", "--help"]],
)
def test_help(line: list[str], tmp_path: Path) -> None:
    """Help is there for every verb."""
    done = subprocess.run([TSH, *line], env={"HOME": str(tmp_path)}, capture_output=True, text=True, timeout=60)
    assert "tsh" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == (0 if line else 2)


@pytest.mark.parametrize(
    ("line", "status", "sentence"),
    [
        (["bogus"], 2, "There is no command 'tsh bogus'"),
        (["stauts"], 2, "Did you mean status"),
        (["ssh", "-Z", "x"], 2, "There is no flag -Z"),
        (["ls"], 1, "You are not logged in: type `tsh login"),
        (["ssh", "x"], 255, "You are not logged in: type `tsh login"),
        (["config"], 1, "You are not logged in"),
        (["login"], 1, "Say where to log in"),
        (["login", "--proxy=a b"], 1, "give the proxy as HOST"),
        (["login", "--proxy=h", "--ttl=never"], 1, "not a duration"),
        (["signup", "nonsense"], 1, "not a sign-up link"),
        (["-i", "/etc/passwd", "--proxy=h", "ssh", "x"], 255, "lacks an SSH private key"),
        (["-i", "/nonexistent", "--proxy=h", "ssh", "x"], 255, "/nonexistent: No such file"),
    ],
)
def test_sentences(line: list[str], status: int, sentence: str, tmp_path: Path) -> None:
    """A mistake is one sentence, never a traceback."""
    done = subprocess.run([TSH, *line], env={"HOME": str(tmp_path)}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, sentence in done.stderr) == (status, True), done.stderr
    assert "Traceback" not in done.stderr


def test_verbs_of_teleport_that_are_not_built() -> None:
    """Who knows Teleport and types `tsh clusters` reads what to use instead, not a guess at a typing error."""
    done = subprocess.run([TSH, "clusters"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "tsh clusters is not available yet: `tsh status` shows" in done.stderr
    done = subprocess.run([TSH, "join", "x"], capture_output=True, text=True, check=False)
    assert "tsh join is not available yet." in done.stderr
