"""The benchmark's servers and measures work, on tiny sizes. Nothing here is about speed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import __main__ as program
from bench import echo, idle, logins, report
from bench.figures import Figures, Wrong
from bench.peer_scripts import Go, StockConch
from bench.peer_teleconch import Teleconch
from bench.peers import Missing, OpenSSH, Peer
from bench.targets import TARGETS, Target
from bench.transfers import four_streams, jump, one_stream
from bench.workspace import MIB, Workspace, workspace

pytestmark = pytest.mark.program("ssh", "sshd", "ssh-keygen")
# Go is a whole tool chain: nobody needs it for the tests, and the benchmark says a word where it is missing.
KINDS = tuple(kind for kind in program.PEERS if kind is not Go)


@pytest.fixture(scope="module")
def space() -> Iterator[Workspace]:
    with workspace(MIB) as made:
        daemon = made.daemon

        def marked(port: int, *arguments: str | Path, env: dict[str, str] | None = None) -> int:
            """Servers outlive one test; see the fixture that looks for what a test left."""
            return daemon(port, *arguments, env={**(os.environ if env is None else env), "TELECONCH_TEST_DAEMON": "1"})

        made.daemon = marked
        yield made


@pytest.fixture(scope="module")
def started(space: Workspace) -> dict[type[Peer], Peer]:
    return {}


@pytest.fixture(scope="module")  # started before a test begins, so that it is not taken for something the test left
def peer(request: pytest.FixtureRequest, space: Workspace, started: dict[type[Peer], Peer]) -> Peer:
    kind = request.param
    if kind not in started:
        try:
            started[kind] = kind(space)
        except Missing as reason:
            pytest.fail(str(reason))
    return started[kind]


def whole(figures: Figures, *names: str) -> None:
    assert not figures.wrong
    assert set(names) <= set(figures.values)
    assert all(value > 0 for name in names for values in figures.values[name].values() for value in values)


@pytest.mark.parametrize("peer", KINDS, indirect=True)
def test_transfers_arrive_whole(peer: Peer) -> None:
    """Each peer moves each file whole, both ways, with each cipher, four at once and through its jump host."""
    figures = Figures()
    for measure in (one_stream, four_streams, jump):
        measure(peer, figures)
    whole(figures, "four streams down", "jump up", *(f"up {c.split('@')[0].split('-poly')[0]}" for c in peer.ciphers))


@pytest.mark.parametrize("peer", [Teleconch, StockConch], indirect=True)
def test_logins_echo_and_memory(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logins are counted only if they succeeded; echo, memory and `true` give figures."""
    monkeypatch.setattr(echo, "STROKES", 5)
    monkeypatch.setattr(idle, "FEW", 3)
    figures = Figures()
    logins.connections(peer, figures, seconds=0.2)
    logins.run_true(peer, figures, count=1)
    echo.echo(peer, figures)
    idle.idle(peer, figures)
    whole(figures, "logins per CPU second", "ssh HOST true", "keystroke echo p99")


@pytest.mark.parametrize("peer", [Teleconch], indirect=True)
def test_own_measures(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """tsh is measured beside ssh -J, and the light client holds its connections while ssh logs in."""
    monkeypatch.setattr(logins, "TSH_RUNS", 1)
    monkeypatch.setattr(idle, "_LOGINS", 1)
    figures = Figures()
    logins.tsh(peer, figures)
    idle.many(peer, figures, count=20)
    whole(figures, "tsh ÷ ssh -J", "ssh HOST true beside 20")


@pytest.mark.parametrize("peer", [OpenSSH], indirect=True)
def test_bad_transfers_are_told(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transfer that loses or changes bytes gives no figure but a failure, in the table and in the JSON."""
    monkeypatch.setattr(peer, "ciphers", peer.ciphers[:1])
    data, changed = peer.space.data(MIB), peer.folder / "changed"
    changed.write_bytes(bytes([data.read_bytes()[0] ^ 1]) + data.read_bytes()[1:])
    monkeypatch.setattr(peer.space, "same", lambda path, size: path.read_bytes() == changed.read_bytes())
    figures = Figures()
    one_stream(peer, figures)
    assert figures.wrong["down aes128-gcm"] == {"OpenSSH sshd": ["other bytes arrived than were sent"]}
    assert "down aes128-gcm" not in figures.values


def test_failures_stand_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A reader sees how many rounds failed beside the median of the rest, and why."""

    class Named:
        name, short, remarks = "teleconch", "teleconch", ("a remark",)

    def broken() -> float:
        raise Wrong("of 10 bytes 9 arrived")

    figures = Figures()
    figures.take("teleconch", lambda: 3.0, "MB/s", "down aes128-gcm", more=True)
    figures.take("teleconch", broken, "MB/s", "down aes128-gcm", more=True)
    report.tell(figures, [Named()], "title")  # type: ignore[list-item]
    told = capsys.readouterr().out
    assert "3.00 (1 of 2 failed)" in told
    assert "of 10 bytes 9 arrived" in told
    assert "a remark" in told
    report.write_json(tmp_path / "out.json", figures, MIB, (0.0, 0.0))
    assert json.loads((tmp_path / "out.json").read_text())["failures"]["down aes128-gcm"]


def test_targets() -> None:
    """Each target is judged in its own direction, and left open where a figure is missing."""
    figures = Figures()
    figures.take("teleconch", lambda: 10.0, "ms", "x")
    figures.take("OpenSSH sshd", lambda: 8.0, "ms", "x")
    at_most, at_least = Target("x", "≤", 1.2, "OpenSSH sshd"), Target("x", "≥", 1.2, "OpenSSH sshd")
    assert at_most.reached(figures) == 1.25
    assert (at_most.met(1.25), at_least.met(1.25)) == (False, True)
    assert all(target.reached(figures) is None for target in TARGETS)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("conch", ["stock Conch"]),
        ("sshd,go", ["OpenSSH sshd", "Go x/crypto/ssh"]),
        ("stock conch", ["stock Conch"]),
        ("", [kind.name for kind in program.PEERS]),
    ],
)
def test_peers_are_chosen_by_whole_words(text: str, names: list[str]) -> None:
    """`--peers conch` means stock Conch and not teleconch."""
    assert [kind.name for kind in program.chosen_peers(text)] == names


@pytest.mark.parametrize("arguments", [["--peers", "nosuch"], ["--only", "nosuch"]])
def test_unknown_names_are_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A name that nobody has is told with the names that there are; nothing runs."""
    with pytest.raises(SystemExit):
        program.main(arguments)
    assert "nosuch" in capsys.readouterr().err


def test_missing_peers_are_left_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without Go the rest is measured, and one line says what to install."""
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with workspace(MIB) as empty:
        assert program.start([Go], empty) == []
    assert "left out: Go x/crypto/ssh: apt-get install golang-go" in capsys.readouterr().err
