"""What a scanner says of node and proxy as they are by default."""

from __future__ import annotations

import re
from pathlib import Path

from tests.worlds.cluster import BIN, Cluster, run


def test_a_scanner_finds_nothing(tmp_path: Path) -> None:
    """ssh-audit: no fail, and no warning but the missing post-quantum part of the two plain curve25519 exchanges."""
    cluster = Cluster(tmp_path / "c", second_factor="off")
    daemon = cluster.start().ready()
    try:
        for port in (cluster.node, cluster.proxy):
            done = run(BIN / "ssh-audit", "--no-colors", "-p", str(port), "127.0.0.1", check=False)
            assert "mlkem768x25519-sha256" in done.stdout
            assert "kex-strict-s-v00@openssh.com" in done.stdout
            assert "[fail]" not in done.stdout
            warned = re.findall(r"^\((\w+)\) (\S+).*\[warn\] (.*)$", done.stdout, re.MULTILINE)
            assert {(kind, name) for kind, name, _ in warned} == {
                ("kex", "curve25519-sha256"),
                ("kex", "curve25519-sha256@libssh.org"),
            }
            assert all("post-quantum" in what for _, _, what in warned)
    finally:
        assert daemon.stop() == 0
