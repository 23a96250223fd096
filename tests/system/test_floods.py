"""What one user or stranger can fill is bounded: others log in meanwhile, directly and through the proxy."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.worlds.checks import found
from tests.worlds.cluster import Daemon, run
from tests.worlds.pair import ME, Pair

RSS_MAX = 300 << 20
NICE = os.environ.get("FLOODS_NICE", "19")  # of the attackers
pytestmark = pytest.mark.program("ssh")


class Attacked(Pair):
    """A pair, and ``identity``, the file of a user who attacks it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.cluster.tctl("users", "add", "mallory", ME)
        self.identity = self.cluster.folder / "mallory.pem"
        self.cluster.tctl("auth", "sign", "--user=mallory", "--format=file", f"--out={self.identity}")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    made = Attacked(tmp_path_factory.mktemp("floods"))
    yield made
    made.stop()


class Attacker:
    """One of ``attackers.py``, in a process of its own, which ends by itself after ``seconds``.

    Attackers have machines of their own. Here they share one with those whom they attack, so they get what CPU the
    others leave: otherwise a test measures how much of it the attackers used.
    """

    def __init__(self, seconds: float, *arguments: object) -> None:
        program = [sys.executable, str(Path(__file__).parent / "attackers.py")]
        self.process = subprocess.Popen(
            ["nice", "-n", NICE, *program, str(seconds), *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "TELECONCH_TEST_DAEMON": "1"},
        )  # fmt: skip
        self.arguments = arguments

    def full(self) -> Attacker:
        line = self.process.stdout.readline()
        assert line == "full\n", (self.arguments, line, self.process.stderr.read())
        return self

    def end(self) -> dict[str, int]:
        self.process.terminate()
        out, err = self.process.communicate(timeout=30)
        assert not err, (self.arguments, err)
        told: dict[str, int] = json.loads(out.splitlines()[-1])
        return told


Attack = Callable[..., Attacker]


@pytest.fixture
def attack() -> Iterator[Attack]:
    begun: list[Attacker] = []

    def attack(seconds: float, *arguments: object) -> Attacker:
        begun.append(Attacker(seconds, *arguments))
        return begun[-1]

    yield attack
    for each in begun:
        each.process.kill()
        each.process.communicate()


def rss(daemon: Daemon) -> int:
    """Resident memory of one process, in bytes."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(found(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


def log_in(pair: Attacked, road: str, times: int) -> list[float]:
    """Logins one after the other; how long each took. Each must succeed."""
    took = []
    for _ in range(times):
        began = time.monotonic()
        run(*getattr(pair, road), "true", timeout=60)
        took.append(time.monotonic() - began)
    return took


def test_silent_dials(pair: Attacked, attack: Attack) -> None:
    """A user who dials a node through the proxy without end, and says nothing, keeps nobody else from that node."""
    flood = attack(120, "dials", pair.cluster.proxy, pair.identity, "node1", 1200, 2000).full()
    log_in(pair, "jump", 5)
    log_in(pair, "direct", 2)
    told = flood.end()
    assert told["begun"] >= 1000
    assert told["most"] <= 1200
    assert rss(pair.node) < RSS_MAX
    assert rss(pair.front) < RSS_MAX
    held = re.findall(r"connection refused: too many connections have not logged in", pair.node.output())
    assert not held, "the proxy holds a user's dials back, so that the node has to end none"


def test_silent_connections(pair: Attacked, attack: Attack) -> None:
    """Connections that say nothing, to every port at once and from the same address, shut none of them."""
    cluster = pair.cluster
    ports = (cluster.node, cluster.proxy, cluster.web, cluster.auth)
    flood = attack(120, "silent", ",".join(map(str, ports)), 5200, 300).full()
    log_in(pair, "jump", 3)
    log_in(pair, "direct", 3)
    run("curl", "-skf", f"https://localhost:{cluster.web}/webapi/ping", timeout=60)
    cluster.tctl("status")
    assert flood.end()["ended"] >= 5200 - 2 * 1000 - 2 * 500, "the oldest make room"
    assert max(rss(pair.node), rss(pair.front)) < RSS_MAX


def test_api_connections_of_one_user(pair: Attacked, attack: Attack) -> None:
    """One user's connections to the auth API are bounded, and keep neither nodes nor administrators out."""
    flood = attack(120, "api", pair.cluster.auth, pair.identity, 200, 200).full()
    pair.cluster.tctl("nodes", "ls")
    log_in(pair, "jump", 2)
    told = flood.end()
    assert told["standing"] <= 48 + 50, "with those that were just opened"
    assert told["ended"] > 0


def all_at_once(pair: Attacked, attack: Attack, seconds: float) -> list[Attacker]:
    """Strangers come from addresses of their own here, as they would."""
    cluster = pair.cluster
    floods = [attack(seconds, "silent", port, 2000, 500, 4) for port in (cluster.node, cluster.proxy, cluster.web)]
    floods += [
        attack(seconds, "version", cluster.node, 1000, 200, 4),
        attack(seconds, "dials", cluster.proxy, pair.identity, "node1", 1000, 400),
        attack(seconds, "windows", cluster.node, pair.identity, 2000, 200),
        attack(seconds, "api", cluster.auth, pair.identity, 500, 50),
        attack(seconds, "logins", cluster.web, 50, 20),
    ]
    return floods


@pytest.mark.soak
def test_every_flood_at_once(pair: Attacked, attack: Attack) -> None:
    """Under every flood at once, 40 of 40 people log in on each road, p99 within five times that at rest, and no
    process takes more than 300 MiB."""
    rest = {road: log_in(pair, road, 40) for road in ("direct", "jump")}
    floods = all_at_once(pair, attack, 600)
    for each in floods:
        each.full()
    most = [0, 0]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            most[:] = [max(most[0], rss(pair.node)), max(most[1], rss(pair.front))]

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    began = time.monotonic()
    try:
        loaded = {road: log_in(pair, road, 40) for road in ("direct", "jump")}
    finally:
        over.set()
        watching.join()
    seconds = time.monotonic() - began
    told = [(each.arguments[0], each.end()) for each in floods]
    figures = {road: (max(rest[road]), max(loaded[road])) for road in rest}
    sys.stdout.write(f"{figures} {[each >> 20 for each in most]} MiB {seconds:.0f} s {told}\n")
    for which, held, rate in ((2, 2000, 500), (-2, 500, 50), (-1, 50, 20)):  # those whose connections are ended
        assert told[which][1]["begun"] - held >= rate * seconds / 3, "the attackers had no CPU to attack with"
    assert max(most) <= RSS_MAX, most
    for road, (before, meanwhile) in figures.items():
        assert meanwhile <= 5 * before, (road, figures)
