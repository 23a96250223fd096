"""Clusters for tests that load them or measure them: a node in a process of its own, or all roles in one."""

from __future__ import annotations

import getpass
import time
from pathlib import Path

from tests.worlds.cluster import BIN, STATIC, Cluster, Daemon, run

ME = getpass.getuser()


class Pair:
    """A node in one process, auth and proxy in another, and how ssh reaches the node directly and through the proxy."""

    def __init__(self, folder: Path) -> None:
        cluster = self.cluster = Cluster(folder, second_factor="off")
        cluster.config = cluster.write(folder / "front.yaml", "front", "auth", "proxy")
        self.front = Daemon([BIN / "teleport", "start", "-c", cluster.config], folder / "front.log").ready()
        join = f"  auth_token: {STATIC}\n  ca_pin: '{cluster.pin()}'\n  auth_servers: ['127.0.0.1:{cluster.auth}']\n"
        node = cluster.write(folder / "node.yaml", "node1", "ssh", extra=join)
        self.node = Daemon([BIN / "teleport", "start", "-c", node], folder / "node.log").ready()
        cluster.tctl("users", "add", "joe", ME)
        config = cluster.ssh_config(folder, cluster.sign("joe", folder / "joe"))
        self.direct = ["ssh", "-F", config, "-p", str(cluster.node), f"{ME}@localhost"]
        self.jump = ["ssh", "-F", config, "-J", f"{ME}@localhost:{cluster.proxy}", f"{ME}@node1"]
        deadline = time.monotonic() + 20
        while run(*self.jump, "true", check=False).returncode:
            assert time.monotonic() < deadline

    def stop(self) -> None:
        self.node.stop()
        self.front.stop()


class Alone:
    """All roles in one process; ``config`` is an ssh_config in which ``node1`` is the name of its node."""

    def __init__(self, folder: Path) -> None:
        cluster = self.cluster = Cluster(folder / "c", second_factor="off")
        self.daemon = cluster.start().ready()
        cluster.tctl("users", "add", "joe", ME)
        base = cluster.ssh_config(folder, cluster.sign("joe", folder / "id"))
        jump = f"ssh -F {base} -p {cluster.proxy} {ME}@localhost -s proxy:%h:%p"
        self.config = folder / "config"
        self.config.write_text(f"Host node1\n  User {ME}\n  ProxyCommand {jump}\n" + base.read_text())
        self.ssh = f"ssh -F {self.config}"
