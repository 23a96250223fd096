"""``teleport start``: flags and file become what the services run with. The services themselves: tests/system."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from teleconch.cli import boundary, teleport_start
from teleconch.cli.teleport import teleport
from teleconch.config.addresses import Address
from teleconch.config.values import CommandLabel
from teleconch.resources.secret import Secret

PIN = "sha256:" + "7e" * 32


class Started:
    """Stands where the services would start, and keeps what they are given."""

    def __init__(self) -> None:
        self.config: Any = None
        self.options: dict[str, Any] = {}

    def run(self, config: Any, **options: Any) -> int:
        self.config, self.options = config, options
        return 0


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Started:
    """No service starts, and no /etc/teleport.yaml of this machine is read."""
    found = Started()
    module = types.ModuleType("teleconch.service.run")
    module.run = found.run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "teleconch.service.run", module)
    monkeypatch.setattr(teleport_start, "_DEFAULT_FILE", str(tmp_path / "etc-teleport.yaml"))
    return found


def start(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        boundary.run(teleport, "teleport", ["start", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_line_of_the_guide(started: Started, tmp_path: Path) -> None:
    """`teleport start --roles=node --token=T --ca-pin=P --auth-server=A` joins A as a node."""
    token = tmp_path / "token"
    token.write_text("secret\n")
    token.chmod(0o600)
    assert start("--roles=node", f"--token={token}", f"--ca-pin={PIN}", "--auth-server=10.12.0.6") == 0
    config = started.config
    assert config.roles == ("node",)
    assert config.teleport.auth_token == Secret("secret")
    assert config.teleport.ca_pin == (PIN,)
    assert config.teleport.auth_servers == (Address("10.12.0.6", 3025),)
    assert started.options == {"debug": False, "pid_file": None, "diag_addr": None, "insecure": False}


def test_every_other_flag(started: Started, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each flag of 4.2 reaches the services, or says that it has no effect."""
    labels = 'env=prod,os="Debian 12",up=[1m:"uptime -p"]'
    status = start(
        "-d", "-r", "proxy, node", "--auth-server=[::1]:4025", "--auth-server=b", "--nodename=one", "-l", "127.0.0.1",
        "--advertise-ip=10.0.0.9", f"--labels={labels}", "--pid-file=x.pid", "--diag-addr=:3000", "--insecure",
        "--insecure-no-tls", "--permit-user-env",
    )  # fmt: skip
    assert status == 0
    config = started.config
    assert config.roles == ("proxy", "node")
    assert config.teleport.nodename == "one"
    assert config.teleport.auth_servers == (Address("::1", 4025), Address("b", 3025))
    assert config.teleport.advertise_ip == Address("10.0.0.9", 3022)
    assert config.ssh_service.labels == {"env": "prod", "os": "Debian 12"}
    assert config.ssh_service.listen_addr == Address("127.0.0.1", 3022)
    assert started.options == {
        "debug": True,
        "pid_file": str(Path("x.pid").absolute()),
        "diag_addr": Address("127.0.0.1", 3000),
        "insecure": True,
    }
    said = capsys.readouterr().err
    assert "--insecure-no-tls has no effect" in said
    assert "--permit-user-env" not in said
    assert config.ssh_service.permit_user_env
    assert config.ssh_service.commands == (CommandLabel("up", ("uptime", "-p"), 60),)


def test_flag_wins_over_file(started: Started, tmp_path: Path) -> None:
    """A flag on the command line goes before the file; the rest of the file stays."""
    file = tmp_path / "teleport.yaml"
    file.write_text("teleport: {nodename: file, pid_file: file.pid}\nssh_service: {labels: {a: b}}\n")
    assert start("-c", str(file), "--nodename=flag") == 0
    assert started.config.teleport.nodename == "flag"
    assert started.config.ssh_service.labels == {"a": "b"}
    assert started.options["pid_file"] == str(tmp_path / "file.pid")


def test_default_file_may_be_missing(started: Started, tmp_path: Path) -> None:
    """Without -c, /etc/teleport.yaml is read if it is there; a file named with -c must be there."""
    assert start() == 0
    assert started.config.filename is None
    assert started.config.roles == ("auth", "proxy", "node")
    (tmp_path / "etc-teleport.yaml").write_text("proxy_service: {enabled: no}\n")
    assert start() == 0
    assert started.config.roles == ("auth", "node")
    assert start("-c", str(tmp_path / "other.yaml")) == 1


def test_nothing_starts_with_a_wrong_file(started: Started, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong configuration ends with status 1 and all problems, and nothing was started."""
    file = tmp_path / "teleport.yaml"
    file.write_text("teleport: {nodname: file}\nssh_service: {enabled: 7}\n")
    assert start("-c", str(file)) == 1
    assert started.config is None
    assert "2 errors" in capsys.readouterr().err


def test_a_token_file_that_is_gone(started: Started, capsys: pytest.CaptureFixture[str]) -> None:
    """`--token=FILE` in a unit stays when FILE was removed after use: the host has joined."""
    assert start("--roles=node", "--token=/nowhere/token", "--auth-server=a") == 0
    assert started.config.teleport.auth_token is None
    assert "/nowhere/token cannot be read" in started.config.teleport.auth_token_problem
    assert "WARNING: --token: the token file /nowhere/token cannot be read" in capsys.readouterr().err


def test_a_token_leaves_the_process_list(tmp_path: Path) -> None:
    """`ps` shows no token for the node's whole life: the program puts it where only its own user reads it. Of several
    none is shown, whichever counts."""
    secret = "a-secret-word-0123456789"
    (tmp_path / "file").write_text(secret)
    config = tmp_path / "t.yaml"
    config.write_text(
        f"teleport: {{nodename: n, data_dir: {tmp_path}/data, auth_servers: ['127.0.0.1:1']}}\n"
        "auth_service: {enabled: no}\nproxy_service: {enabled: no}\nssh_service: {listen_addr: '127.0.0.1:0'}\n"
    )
    for words in (
        [f"--token={secret}"],
        ["--token", secret],
        [f"--token={secret}1", "--token", f"{secret}2", f"--token={secret}"],
        ["--token", secret, f"--token={tmp_path}/file"],
        [f"--token={tmp_path}/file", "--token", secret],
        ["--token", f"--token={secret}", f"--token={secret}"],
    ):
        program = [str(Path(sys.executable).parent / "teleport"), "start", "-c", str(config), *words]
        log = tmp_path / "log"
        with log.open("wb") as out, subprocess.Popen(program, stderr=out, stdin=subprocess.DEVNULL) as process:
            try:
                while b"cannot join the cluster yet" not in log.read_bytes():
                    assert process.poll() is None, log.read_text()
                    select.select([], [], [], 0.02)
                shown = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
                assert secret.encode() not in b" ".join(shown)
                assert b"start" in shown
                held = [os.readlink(each) for each in Path(f"/proc/{process.pid}/fd").iterdir()]
                assert not [each for each in held if "memfd" in each], "read, and closed"
                launchers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                for each in launchers:
                    assert secret.encode() not in Path(f"/proc/{each}/cmdline").read_bytes()
            finally:
                process.terminate()
                process.wait(30)


def test_a_token_on_standard_input(started: Started, tmp_path: Path) -> None:
    """`--token=/proc/self/fd/0` reads the token, and leaves the stream: what is opened next must not take its place."""
    (tmp_path / "token").write_text("a-secret-word\n")
    kept = os.dup(0)
    try:
        with (tmp_path / "token").open() as file:
            os.dup2(file.fileno(), 0)
        assert start("--roles=node", "--token=/proc/self/fd/0", "--auth-server=a") == 0
        assert started.config.teleport.auth_token.reveal() == "a-secret-word"
        assert os.readlink("/proc/self/fd/0") == str(tmp_path / "token")
    finally:
        os.dup2(kept, 0)
        os.close(kept)


def test_an_auth_server_at_every_address(started: Started, capsys: pytest.CaptureFixture[str]) -> None:
    """`--auth-server=0.0.0.0` is the auth server of this host, with a warning."""
    assert start("--roles=node", "--token=t", "--auth-server=0.0.0.0", "--auth-server=:4025") == 0
    assert [str(server) for server in started.config.teleport.auth_servers] == ["127.0.0.1:3025", "127.0.0.1:4025"]
    assert "--auth-server=0.0.0.0:3025 is read as this host's own 127.0.0.1:3025." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--roles=nod"], "'nod' is not a role. Possible: proxy, node, auth."),
        (["--ca-pin=abc"], "64 hex digits"),
        (["--auth-server=https://a"], "a scheme or path has no place here"),
        (["--advertise-ip=0.0.0.0"], "not an address that others can connect to"),
        (["--token="], "the token is empty"),
        (["--nodename=a b"], "not a usable name"),
        (["--labels=a"], "write name=value"),
        (["--labels=a b=c"], "is not usable"),
        (["--listen-ip=a b"], "neither an IP address nor a DNS name"),
        (["--diag-addr=x:y"], "is not a port"),
        (["--fips"], "--fips is not available"),
        (["--bootstrap=f"], "--bootstrap is not available"),
        (["--rolls=node"], "--rol"),
        (["extra"], "extra"),
    ],
)
def test_wrong_usage(started: Started, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    """A flag that makes no sense is status 2 with a sentence, and nothing starts."""
    assert start(*arguments) == 2
    assert started.config is None
    assert said in capsys.readouterr().err


def test_a_node_without_auth_server(started: Started, capsys: pytest.CaptureFixture[str]) -> None:
    """A node that was told of no auth server says which flag it lacks."""
    assert start("--roles=node") == 1
    assert started.config is None
    assert "--auth-server=HOST" in capsys.readouterr().err
