"""tctl where it does not get as far as the auth server: usage, configuration, the admin identity."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from teleconch import __version__
from teleconch.ca.authority import new_authority
from teleconch.ca.keys import new_tls_key
from teleconch.ca.tls import issue_host_tls
from teleconch.cli import boundary
from teleconch.cli.tctl import tctl
from teleconch.cli.tctl_admin import _admin_tls
from teleconch.cli.tctl_documents import read_documents
from teleconch.cli.tctl_nodes import status_text
from teleconch.cli.tctl_status import clock_text
from teleconch.cli.tctl_where import auth_address, ssh_address, web_address, web_note
from teleconch.config.load import load_config
from teleconch.errors import BadParameter
from teleconch.resources.node import Node, NodeStatus

UUID = str(uuid.UUID(int=7))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs tctl in this process; gives exit status, stdout and stderr."""

    def run(*arguments: object) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as ended:
            boundary.run(tctl, "tctl", [str(each) for each in arguments])
        shown = capsys.readouterr()
        return ended.value.code, shown.out, shown.err

    return run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration of an auth server that never ran, on a port where nothing listens."""
    path = tmp_path / "teleport.yaml"
    path.write_text(
        f"teleport:\n  data_dir: {tmp_path}/data\nauth_service:\n  listen_addr: 127.0.0.1:1\n  cluster_name: main\n"
    )
    return path


def write_admin(folder: Path, *, life: float = 3600.0) -> None:
    """An admin's identity as the auth service writes it."""
    now = time.time()
    authority = new_authority("host", "main", now)
    private, public = new_tls_key()
    cert = issue_host_tls(
        authority, uuid=UUID, roles=("admin",), dns_names=(), public_key=public,
        valid_after=now - 60, valid_before=now + life, serial=1,
    )  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "tls.key").write_text(private.reveal())
    (folder / "tls.crt").write_text(cert)
    (folder / "ca.crt").write_text(authority.tls_cert)


def test_version_and_help(run: Callable[..., Any]) -> None:
    """`tctl version`, `tctl help` and `tctl help users add` answer anywhere, without a configuration."""
    assert run("version") == (0, f"tctl (teleconch) {__version__}\n", "")
    status, out, _ = run("help")
    assert status == 0
    for verb in ("users", "nodes", "tokens", "auth", "status", "get", "create", "rm", "version"):
        assert f"\n  {verb} " in out
    assert "LOGINS" in run("help", "users", "add")[1]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["usrs"], "Did you mean users?"),
        (["users", "ad"], "Did you mean add?"),
        (["users", "add"], "Missing argument 'ACCOUNT'"),
        (["users", "rm", ","], "it is empty"),
        (["users", "add", "joe", "--ttl=72h"], "at most 48h"),
        (["users", "add", "joe", "--ttl=0"], "more than 0"),
        (["users", "add", "joe", "--ttl=3d"], "is not a duration like 30s, 5m or 1h30m"),
        (["users", "add", "joe", "--ttl=30"], "30s or 30m"),
        (["nodes", "add", "--roles=nod"], "did you mean 'node'?"),
        (["nodes", "add", "--roles=signup"], "possible: auth, node, proxy"),
        (["tokens", "add"], "Missing option '--type'"),
        (["tokens", "add", "--type=signup"], "use `tctl users add`"),
        (["get", "rols"], "There is no kind of resource called 'rols'"),
        (["get", "uzers"], "Did you mean user?"),
        (["get", "user/"], "names nothing after the slash"),
        (["rm", "users"], "Say which user: user/NAME"),
        (["auth", "sign", "--out=f"], "either --user=USER or --host=NAME"),
        (["auth", "sign", "--user=a", "--host=b", "--out=f"], "either --user=USER or --host=NAME"),
        (["auth", "sign", "--user=a"], "--out=FILE"),
        (["auth", "sign", "--host=a", "--format=file"], "--format=openssh"),
        (["auth", "sign", "--user=a", "--out=f", "--ttl=87601h"], "at most 87600h"),
        (["auth", "export", "--type=ssh"], "'ssh' is not one of"),
    ],
)
def test_wrong_usage(run: Callable[..., Any], arguments: list[str], part: str) -> None:
    """Wrong usage ends with 2, and a sentence that says what would be right."""
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert part in err


def test_no_configuration(run: Callable[..., Any], tmp_path: Path) -> None:
    """A file that is not there is named, with the flag for another."""
    assert run("status", "-c", tmp_path / "none.yaml") == (
        1, "", f"ERROR: There is no file {tmp_path}/none.yaml: name the auth server's configuration with -c FILE.\n",
    )  # fmt: skip


@pytest.mark.skipif(os.path.exists("/etc/teleport.yaml"), reason="a cluster is configured on this machine")
@pytest.mark.skipif(os.path.exists("/var/lib/teleport"), reason="a cluster ran on this machine")
def test_not_on_the_auth_host(run: Callable[..., Any]) -> None:
    """On any other machine, tctl says where it has to run."""
    status, _, err = run("users", "ls")
    assert status == 1
    assert "Run tctl on the host of the auth server" in err


def test_configuration_with_errors(run: Callable[..., Any], config: Path) -> None:
    """Every error of the configuration is told, with its line."""
    config.write_text("teleport:\n  data_dirr: /x\nauth_service:\n  listen_addr: nowhere:port\n")
    status, _, err = run("-c", config, "status")
    assert status == 1
    assert f"{config}:2:" in err
    assert f"{config}:4:" in err


def test_auth_server_never_started(run: Callable[..., Any], config: Path) -> None:
    """Without the admin identity, tctl says who writes it and how."""
    status, _, err = run("-c", config, "status")
    assert status == 1
    assert f"teleport start -c {config}" in err


def test_configuration_of_a_node(run: Callable[..., Any], config: Path, tmp_path: Path) -> None:
    """With a node's configuration, tctl does not pretend that the auth server is missing here."""
    config.write_text(
        f"teleport:\n  data_dir: {tmp_path}/data\n  auth_servers: [10.0.0.1]\n"
        "auth_service: {enabled: no}\nproxy_service: {enabled: no}\n"
    )
    status, _, err = run("status", "-c", config)
    assert status == 1
    assert "auth_service is off" in err


def test_identity_of_somebody_else(
    run: Callable[..., Any], config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who may not read the identity is told as whom to run tctl."""

    def refuse(path: str, *arguments: Any, **keywords: Any) -> Any:
        if str(path).startswith(str(tmp_path / "data")):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **keywords)

    real = open
    write_admin(tmp_path / "data/admin")
    monkeypatch.setattr("builtins.open", refuse)  # the tests may run as root, who may read everything
    status, _, err = run("status", "-c", config)
    assert status == 1
    assert "run tctl as root, or as the user that runs teleport" in err


@pytest.mark.parametrize("name", ["tls.key", "tls.crt", "ca.crt"])
def test_damaged_identity(run: Callable[..., Any], config: Path, tmp_path: Path, name: str) -> None:
    """A damaged file is told as such, with what repairs it, and no traceback."""
    write_admin(tmp_path / "data/admin")
    (tmp_path / "data/admin" / name).write_text("-----BEGIN NOTHING-----\n")
    status, _, err = run("status", "-c", config)
    assert status == 1
    assert "is damaged. Restart teleport" in err
    assert "Traceback" not in err


def test_identity_that_is_being_replaced(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tctl that starts along with the auth server does not call the identity damaged because it is half written."""
    folder = tmp_path / "data/admin"
    write_admin(folder)
    whole = (folder / "tls.crt").read_text()
    (folder / "tls.crt").write_text("")
    monkeypatch.setattr(time, "sleep", lambda _: (folder / "tls.crt").write_text(whole))
    assert _admin_tls(load_config(config.read_text(), str(config))) is not None


def test_expired_identity(run: Callable[..., Any], config: Path, tmp_path: Path) -> None:
    """An identity that ended while teleport was off is not shown to the auth server; the remedy is named."""
    write_admin(tmp_path / "data/admin", life=-1.0)
    status, _, err = run("status", "-c", config)
    assert status == 1
    assert "Restart teleport" in err


@pytest.mark.parametrize(
    ("proxy", "expected"),
    [
        ("enabled: no", None),
        ("web_listen_addr: 0.0.0.0:8080", "graviton:8080"),
        ("web_listen_addr: 127.0.0.1:8080", "127.0.0.1:8080"),
        ("public_addr: tele.example.com:443", "tele.example.com:443"),
        ("public_addr: tele.example.com", "tele.example.com:3080"),
        ("{enabled: no, public_addr: tele.example.com}", "tele.example.com:3080"),
    ],
)
def test_web_address(proxy: str, expected: str | None) -> None:
    """The sign-up link has the address under which people reach the proxy."""
    text = f"teleport: {{nodename: graviton}}\nauth_service: {{cluster_name: main}}\nproxy_service:\n  {proxy}\n"
    assert web_address(load_config(text, "f")) == expected


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        ("{enabled: no}", ["<proxy>", "proxy_service.public_addr"]),
        ("{enabled: no, public_addr: tele.example.com}", ["tele.example.com:3080 is reachable"]),
        ("{web_listen_addr: '0.0.0.0:3080'}", ["graviton:3080 is a guess", "set proxy_service.public_addr"]),
        ("{web_listen_addr: '127.0.0.1:3080'}", ["only this machine", "set proxy_service.public_addr"]),
        ("{web_listen_addr: '[::1]:3080'}", ["only this machine", "web_listen_addr"]),
        ("{public_addr: tele.example.com}", ["tele.example.com:3080 is reachable"]),
    ],
)
def test_what_to_set_for_sign_up_links(proxy: str, said: list[str]) -> None:
    """A link that users cannot open comes with the key that makes it a better one."""
    text = f"teleport: {{nodename: graviton}}\nauth_service: {{cluster_name: main}}\nproxy_service: {proxy}\n"
    config = load_config(text, "f")
    for words in said:
        assert words in web_note(config)
    if "tele" in proxy:
        assert ssh_address(config) == "tele.example.com:3023"


@pytest.mark.parametrize(
    ("teleport", "auth", "expected"),
    [
        ("nodename: g", "public_addr: auth.example.com", ("auth.example.com:3025", True)),
        ("advertise_ip: 10.0.0.5", "listen_addr: 0.0.0.0:4025", ("10.0.0.5:4025", True)),
        ("nodename: g", "listen_addr: 10.0.0.6", ("10.0.0.6:3025", True)),
        ("nodename: g", "listen_addr: '[2001:db8::1]:3025'", ("[2001:db8::1]:3025", True)),
    ],
)
def test_auth_address(teleport: str, auth: str, expected: tuple[str, bool]) -> None:
    """The command for a new host names where it reaches the auth server."""
    text = f"teleport:\n  {teleport}\nauth_service:\n  cluster_name: main\n  {auth}\n"
    assert auth_address(load_config(text, "f")) == expected


def test_auth_address_guessed() -> None:
    """Where the configuration does not say it, the address is offered as a guess."""
    address, certain = auth_address(load_config("auth_service: {cluster_name: main}\n", "f"))
    assert not certain
    assert address.endswith(":3025")
    assert not address.startswith("0.0.0.0")


def test_status_text() -> None:
    """A node that is away shows since when."""
    node = Node(UUID, "web-1", "main", "10.0.0.1:3022")
    assert status_text(NodeStatus(node, 1000.0, True, 2000.0), 1060.0) == "online"
    away = status_text(NodeStatus(node, 1537834860.0, False, 2e9), 1537834860.0 + 200)
    assert away == "offline since 25 Sep 18 00:21 UTC (3m20s)"


def test_clock_text() -> None:
    """Clocks that differ are named with what to do."""
    assert "is 2m ahead of this machine's" in clock_text(120)
    assert "is 10s behind this machine's" in clock_text(-10)


TOKEN = "kind: token\nversion: v2\nmetadata: {{name: t{0}, expires: '{1}'}}\nspec: {{roles: [node]}}\n"


def test_documents_that_cannot_be_created(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a backup, what makes itself or has ended is left out, each with its reason; the rest is created."""
    path = tmp_path / "state.yaml"
    user = "kind: user\nversion: v2\nmetadata: {name: joe}\nspec: {}\n"
    node = (
        f"kind: node\nversion: v2\nmetadata: {{name: {UUID}, expires: '2026-11-22T20:55:07Z'}}\n"
        "spec: {hostname: web-1, cluster: main, addr: '10.0.0.1:3022'}\n"
        "status: {state: online, last_seen: '2026-11-22T20:55:07Z'}\n"
    )
    static = "kind: token\nversion: v2\nmetadata: {name: t}\nspec: {roles: [node]}\n"
    signup = static.replace("[node]", "[signup], user: joe")
    ended = TOKEN.format(1, "2001-01-01T00:00:00Z")
    path.write_text("---\n".join([user, node, static, signup, ended, TOKEN.format(2, "2999-01-01T00:00:00Z")]))
    assert len(read_documents(str(path))) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 4
    for part in ("nodes register themselves", "auth_service.tokens", "tctl users reset joe", "expired already"):
        assert any(part in line for line in told)


def test_what_is_not_taken_over_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a user as Teleport prints it, each key that means nothing here is named on stderr with its line."""
    path = tmp_path / "state.yaml"
    path.write_text(
        "kind: user\nversion: v2\nmetadata: {name: joe}\nspec:\n  local_auth: {}\n  created_by: null\n"
        "---\nkind: user\nversion: v2\nmetadata: {name: ann}\nspec: {expires: '2001-01-01T00:00:00Z'}\n"
    )
    assert [each.name for each in read_documents(str(path))] == ["joe"]
    told = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[0] for line in told] == [f"{path}:{line}" for line in (5, 6, 11)]
    assert "tctl users reset joe" in told[0]
    assert "ann is left out" in told[2]


@pytest.mark.parametrize(("content", "part"), [(b"", "holds no documents"), (b"\xff", "is not UTF-8")])
def test_files_without_documents(tmp_path: Path, content: bytes, part: str) -> None:
    """An empty or a binary file is named."""
    path = tmp_path / "f"
    path.write_bytes(content)
    with pytest.raises(BadParameter, match=part):
        read_documents(str(path))


def test_sign_looks_before_it_asks(run: Callable[..., Any], config: Path, tmp_path: Path) -> None:
    """What stands in the way of writing is said before anything is signed; files are not replaced silently."""
    there = tmp_path / "there"
    there.write_text("precious")
    for out, part in (
        (there, "exists already: give --overwrite"),
        (tmp_path / "no/f", "There is no directory"),
        ("/dev/null", "is not an ordinary file"),
        (tmp_path, "is not an ordinary file"),
    ):
        status, _, err = run("auth", "sign", "--user=joe", "--out", out, "-c", config)
        assert status == 1
        assert part in err
    assert there.read_text() == "precious"
