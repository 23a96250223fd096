"""Three machines' worth of processes under twistd: joined by token and pin, reached by plain OpenSSH."""

from __future__ import annotations

import getpass
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worlds.checks import found
from tests.worlds.cluster import BIN, STATIC, Cluster, Daemon, Home, free_ports, run

ME = getpass.getuser()
pytestmark = pytest.mark.program("ssh")


class Apart:
    """auth, two nodes and a proxy, each a ``twistd`` of its own with its own data_dir."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cluster = Cluster(folder, second_factor="off")
        self.cluster.config = self.cluster.write(folder / "auth.yaml", "authhost", "auth")
        self.auth = self.twistd("auth").ready()
        self.pin = self.cluster.pin()
        told = self.cluster.tctl("nodes", "add", "--roles=node,proxy", "--ttl=5m").stdout
        self.token = found(r"--token=(\S+)", told)[1]
        self.daemons = [self.auth]
        self.ports = {"web1": self.cluster.node, "web2": free_ports(12)[-1]}
        for name, port in self.ports.items():
            self.cluster.node = port
            self.cluster.write(folder / f"{name}.yaml", name, "ssh", extra=self.join())
            self.daemons.append(self.twistd("node", name))
        self.cluster.write(folder / "proxy.yaml", "proxyhost", "proxy", extra=self.join())
        self.daemons.append(self.twistd("proxy"))
        for daemon in self.daemons:
            daemon.ready()

    def join(self, token: str | None = None, pin: str | None = None) -> str:
        return (
            f"  auth_token: {token or self.token}\n  ca_pin: '{pin or self.pin}'\n"
            f"  auth_servers: ['127.0.0.1:{self.cluster.auth}']\n"
        )

    def twistd(self, role: str, name: str = "") -> Daemon:
        name = name or role
        return Daemon(
            [BIN / "twistd", "-n", "--pidfile", self.folder / f"{name}.pid", f"teleport-{role}", "-c",
             self.folder / f"{name}.yaml"],
            self.folder / f"{name}.log",
        )  # fmt: skip

    def stop(self) -> None:
        for daemon in reversed(self.daemons):
            daemon.kill()


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    made = Apart(tmp_path_factory.mktemp("apart"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def config(apart: Apart) -> Path:
    apart.cluster.tctl("users", "add", "joe", ME)
    deadline = time.monotonic() + 20
    while apart.cluster.tctl("nodes", "ls").stdout.count("online") < 2:
        assert time.monotonic() < deadline
    return apart.cluster.ssh_config(apart.folder, apart.cluster.sign("joe", apart.folder / "joe"))


def test_both_roads_reach_each_node(apart: Apart, config: Path) -> None:
    """`ssh -J` and the `proxy:` subsystem reach each node, host keys verified by the exported authority alone."""
    proxy = f"{ME}@localhost"
    for name, port in apart.ports.items():
        uuid = (apart.folder / f"{name}.data" / "host_uuid").read_text().strip()
        for target in (name, f"{name}.main", uuid, f"{uuid}.main"):
            ask = "echo $SSH_TELEPORT_HOST_UUID $SSH_TELEPORT_CLUSTER_NAME $SSH_TELEPORT_USER"
            jumped = run("ssh", "-F", config, "-J", f"{proxy}:{apart.cluster.proxy}", f"{ME}@{target}", ask)
            assert jumped.stdout == f"{uuid} main joe\n"
            command = f"ssh -F {config} -p {apart.cluster.proxy} %r@localhost -s proxy:%h:%p"
            through = run("ssh", "-F", config, "-o", f"ProxyCommand={command}", "-p", str(port), f"{ME}@{target}", ask)
            assert through.stdout == jumped.stdout


def test_a_node_comes_back_as_itself(apart: Apart, config: Path) -> None:
    """A node that restarts has the same UUID and certificate, and its token is not asked for."""
    before = {path.name: path.read_bytes() for path in (apart.folder / "web1.data/node").iterdir()}
    apart.daemons[1].stop()
    apart.cluster.node = apart.ports["web1"]
    assert re.search(r"web1 .*offline", apart.cluster.tctl("nodes", "ls").stdout)
    apart.cluster.write(apart.folder / "web1.yaml", "web1", "ssh", extra=apart.join(token="no-such-token-any-more"))
    apart.daemons[1] = apart.twistd("node", "web1").ready()
    after = {path.name: path.read_bytes() for path in (apart.folder / "web1.data/node").iterdir()}
    assert after == before
    deadline = time.monotonic() + 10
    while not re.search(r"web1 .*online", apart.cluster.tctl("nodes", "ls").stdout):
        assert time.monotonic() < deadline


def test_auth_away(apart: Apart, config: Path) -> None:
    """While the auth server is down, users with valid certificates get in, also to a node that restarts meanwhile."""
    jump = ["ssh", "-F", config, "-J", f"{ME}@localhost:{apart.cluster.proxy}"]
    apart.daemons[0].kill()
    try:
        assert run(*jump, f"{ME}@web2", "echo in").stdout == "in\n"
        apart.daemons[2].kill()
        apart.daemons[2] = apart.twistd("node", "web2").ready()
        assert run(*jump, f"{ME}@web2", "echo in again").stdout == "in again\n"
    finally:
        apart.daemons[0] = apart.twistd("auth").ready()
    deadline = time.monotonic() + 60
    while apart.cluster.tctl("nodes", "ls").stdout.count("online") < 2:
        assert time.monotonic() < deadline


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"token": "wrong-token-wrong-token"}, "token"),
        ({"pin": "sha256:" + "0" * 64}, "pin"),
    ],
)
def test_refused_joins(apart: Apart, tmp_path: Path, changes: dict[str, str], sentence: str) -> None:
    """A wrong token and a wrong pin: one sentence, status 1, nothing in data_dir but keys."""
    apart.cluster.node = free_ports(20)[-1]
    path = apart.cluster.write(tmp_path / "bad.yaml", "bad", "ssh", extra=apart.join(**changes))
    started = [BIN / "teleport", "start", "-c", path]
    done = run(*started, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ERROR: ")
    assert sentence in last
    assert "Traceback" not in done.stderr
    assert {each.name for each in (tmp_path / "bad.data/node").iterdir()} <= {"ssh_key", "tls_key.pem"}
    twisted = run(BIN / "twistd", "-n", "--pidfile", tmp_path / "pid", "teleport-node", "-c", path, check=False)
    assert twisted.returncode == 1
    assert sentence in twisted.stdout + twisted.stderr


def test_a_token_for_another_role(apart: Apart, tmp_path: Path) -> None:
    """A token for proxies makes no node."""
    told = apart.cluster.tctl("nodes", "add", "--roles=proxy").stdout
    token = found(r"--token=(\S+)", told)[1]
    apart.cluster.node = free_ports(20)[-1]
    path = apart.cluster.write(tmp_path / "bad.yaml", "bad", "ssh", extra=apart.join(token=token))
    done = run(BIN / "teleport", "start", "-c", path, check=False)
    assert done.returncode == 1
    assert "proxy" in done.stderr.splitlines()[-1]


@pytest.mark.program("faketime")
def test_a_clock_that_is_off(apart: Apart, tmp_path: Path) -> None:
    """A new node whose clock is minutes off is told so, with the amount."""
    for offset in ("-5m", "+5m"):
        apart.cluster.node = free_ports(20)[-1]
        path = apart.cluster.write(tmp_path / f"bad{offset}.yaml", "bad", "ssh", extra=apart.join())
        done = run("faketime", "-f", offset, BIN / "teleport", "start", "-c", path, check=False)
        assert done.returncode == 1
        assert "clock" in done.stderr.splitlines()[-1]
        assert re.search(r"\b[2-5]m", done.stderr.splitlines()[-1])


def test_static_tokens_and_any_node_lists_all(apart: Apart, tmp_path: Path) -> None:
    """A static token from the configuration works too; a second node of one name takes nothing from the first."""
    apart.cluster.node = free_ports(20)[-1]
    path = apart.cluster.write(tmp_path / "twin.yaml", "web1", "ssh", extra=apart.join(token=STATIC))
    twin = Daemon([BIN / "teleport", "start", "-c", path], tmp_path / "twin.log")
    try:
        twin.ready()
        deadline = time.monotonic() + 20
        while apart.cluster.tctl("nodes", "ls").stdout.count("web1") < 2:
            assert time.monotonic() < deadline
        uuid = (tmp_path / "twin.data/host_uuid").read_text().strip()
        conf = apart.cluster.ssh_config(tmp_path, apart.folder / "joe")
        jump = ["ssh", "-F", conf, "-J", f"{ME}@localhost:{apart.cluster.proxy}"]
        deadline = time.monotonic() + 20
        asked = "echo $SSH_TELEPORT_HOST_UUID"
        while (reached := run(*jump, f"{ME}@{uuid}", asked, check=False)).returncode:
            assert time.monotonic() < deadline  # the proxy hears of the twin a moment later
        assert reached.stdout.strip() == uuid
        first = (apart.folder / "web1.data/host_uuid").read_text().strip()
        for name in ("web1", "web1.main", "WEB1.main"):
            assert run(*jump, f"{ME}@{name}", asked).stdout.strip() == first
        assert "reached by its UUID" in twin.output()
        apart.cluster.tctl("rm", f"node/{uuid}")
        assert uuid not in apart.cluster.tctl("nodes", "ls").stdout
    finally:
        twin.stop()


def test_the_plugins_are_in_a_wheel(tmp_path: Path) -> None:
    """`pip install` of the wheel gives all three twistd plugins and the three programs."""
    tree = Path(__file__).resolve().parents[2]
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, tree, timeout=300)
    wheel = next(tmp_path.glob("teleconch-*.whl"))
    target = tmp_path / "site"
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, wheel, timeout=300)
    env = {**os.environ, "PYTHONPATH": str(target), "HOME": str(tmp_path)}
    listed = run(BIN / "twistd", "--help", env=env, cwd=tmp_path).stdout
    for role in ("auth", "node", "proxy"):
        assert f"teleport-{role}" in listed
    where = run(sys.executable, "-c", "import teleconch; print(teleconch.__file__)", env=env, cwd=tmp_path).stdout
    assert where.startswith(str(target))
    assert {"teleport", "tsh", "tctl"} <= {path.name for path in (target / "bin").iterdir()}
    assert (target / "teleconch/web/static/style.css").is_file()


def test_tsh_through_three_processes(apart: Apart, config: Path, tmp_path: Path) -> None:
    """`tsh` logs in at the proxy and works where auth, proxy and nodes are different machines."""
    home = Home(tmp_path / "home")
    link = apart.cluster.tctl("users", "add", "ann", ME).stdout
    token = found(r"/web/newuser/(\S+)", link)[1]
    home.sign_up(f"https://localhost:{apart.cluster.web}/web/newuser/{token}", f"--ca-pin={apart.pin}")
    home.log_in(f"--proxy=localhost:{apart.cluster.web}", "--user=ann", f"--ca-pin={apart.pin}")
    listed = home.run("tsh", "ls").stdout
    assert "web1" in listed
    assert "web2" in listed
    assert home.run("tsh", "ssh", f"{ME}@web2", "echo $SSH_TELEPORT_USER").stdout == "ann\n"
    refused = home.run("tsh", "ssh", f"{ME}@169.254.169.254", "true", check=False)
    assert refused.returncode == 255
    assert "registered" in refused.stderr


def test_a_wrong_file_under_twistd(tmp_path: Path) -> None:
    """All errors of the file, each with its line, status 1, no traceback."""
    path = tmp_path / "bad.yaml"
    path.write_text("teleport: {data_dirr: 3}\nssh_service: {listen_addr: 'x:99999'}\n")
    done = run(BIN / "twistd", "-n", "--pidfile", tmp_path / "pid", "teleport-node", "-c", path, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("ERROR: ")
    assert f"{path}:1:" in done.stderr
    assert f"{path}:2:" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
