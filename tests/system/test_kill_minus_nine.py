"""`kill -9` of the whole cluster at random moments under load: it starts again, and what was answered is there."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.worlds.checks import found
from tests.worlds.cluster import BIN, PASSWORD, STATIC, Cluster, Home, run, totp

MEMBERS = Path(__file__).with_name("members.py")
LOAD = Path(__file__).with_name("load.py")


def _survives(tmp_path: Path, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    cluster = Cluster(tmp_path / "c")
    daemon = cluster.start().ready()
    home = Home(tmp_path / "home")
    pin = f"--ca-pin={cluster.pin()}"
    home.sign_up(cluster.signup_link("joe", "joe"), pin)
    proxy = [f"--proxy=localhost:{cluster.web}", "--user=joe", pin]
    facts = tmp_path / "facts"
    with facts.open("wb") as out:
        load = subprocess.Popen(
            [sys.executable, LOAD, cluster.config.with_suffix(".data") / "admin", f"127.0.0.1:{cluster.auth}", STATIC,
             tmp_path / "hosts"],
            stdout=out, stderr=subprocess.PIPE, env={**os.environ, "TELECONCH_TEST_DAEMON": "1"},
        )  # fmt: skip
    try:
        for _ in range(kills):
            attempt = subprocess.Popen(
                ["tsh", "login", *proxy], env=home.env, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            assert attempt.stdin is not None
            attempt.stdin.write(f"{PASSWORD}\n000000\n")  # a wrong code: counted, if it was answered
            attempt.stdin.close()
            time.sleep(chance.random() * 0.7)
            daemon.kill()
            attempt.wait(30)
            daemon = cluster.start().ready()
            assert load.poll() is None, load.communicate()[1].decode()
        facts_by_kind: dict[str, set[str]] = {}
        time.sleep(1)
        load.terminate()
        load.wait(30)
        for line in facts.read_text().splitlines():
            kind, name = json.loads(line)
            facts_by_kind.setdefault(kind, set()).add(name)
        daemon.kill()
        daemon = cluster.start().ready()
        users = {doc["metadata"]["name"] for doc in json.loads(cluster.tctl("get", "users", "--format=json").stdout)}
        assert facts_by_kind["user"] - facts_by_kind.get("leaving", set()) <= users
        assert not facts_by_kind.get("gone", set()) & users
        tokens = cluster.tctl("tokens", "ls").stdout
        assert all(token in tokens for token in facts_by_kind["token"])
        nodes = cluster.tctl("nodes", "ls").stdout
        assert all(uuid in nodes for uuid in facts_by_kind["ping"])
        members = run(sys.executable, MEMBERS, f"127.0.0.1:{cluster.auth}", tmp_path / "hosts").stdout
        assert facts_by_kind["host"] <= set(members.split())
        link = found(r"https://\S+/web/newuser/\S+", cluster.tctl("users", "reset", "joe").stdout)[0]
        secret = home.sign_up(link, pin)
        code = totp(secret, time.time() + 30)
        home.log_in(*proxy, code=code)
        daemon.kill()
        daemon = cluster.start().ready()
        # A code that let somebody in does not let anybody in a second time, over a kill too.
        assert home.log_in(*proxy, code=code, check=False).returncode == 1
        count = {kind: len(names) for kind, names in facts_by_kind.items()}
        assert min(count[kind] for kind in ("user", "token", "host", "ping")) >= 3, count
        assert run(BIN / "tctl", "-c", cluster.config, "status").stdout
    finally:
        load.kill()
        load.communicate()
        daemon.kill()


def test_ten_kills(tmp_path: Path) -> None:
    """An administrator's command, a join or a ping that was answered before the power went is not forgotten."""
    _survives(tmp_path, 10, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 6))
def test_kills(tmp_path: Path, seed: int) -> None:
    """The same, forty times more."""
    _survives(tmp_path, 10, seed)
