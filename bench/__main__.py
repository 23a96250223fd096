"""Runs the measures in alternating rounds, prints a table of medians with ratios, writes JSON."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench import report
from bench.figures import Figures
from bench.measures import MEASURES
from bench.peer_scripts import AsyncSSH, Go, StockConch
from bench.peer_teleconch import Teleconch
from bench.peers import Missing, OpenSSH, Peer
from bench.processes import NotReady
from bench.workspace import MIB, Workspace, workspace

PEERS: tuple[type[Peer], ...] = (Teleconch, OpenSSH, StockConch, AsyncSSH, Go)


def _words(text: str) -> set[str]:
    return set(text.lower().split())


def chosen_peers(text: str) -> list[type[Peer]]:
    """Each part between commas names the peers that have all of its words. ArgumentTypeError."""
    parts = [part for part in text.split(",") if part.strip()]
    found = [kind for kind in PEERS if not parts or any(_words(part) <= _words(kind.name) for part in parts)]
    for part in parts:
        if not any(_words(part) <= _words(kind.name) for kind in PEERS):
            names = ", ".join(kind.name for kind in PEERS)
            raise argparse.ArgumentTypeError(f"no peer is called {part.strip()!r}; there are: {names}")
    return found


def chosen_measures(text: str) -> list[str]:
    """ArgumentTypeError."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in MEASURES:
            raise argparse.ArgumentTypeError(f"no measure is called {name!r}; there are: {', '.join(MEASURES)}")
    return [name for name in MEASURES if name in names or not names]


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="default %(default)s")
    parser.add_argument("--size", type=int, default=256, help="MiB of a transfer, default %(default)s")
    parser.add_argument("--only", type=chosen_measures, default="", help=f"some of: {','.join(MEASURES)}")
    parser.add_argument("--peers", type=chosen_peers, default="", help="words of peers' names, with commas between")
    parser.add_argument("--json", type=Path, default=Path("bench-results.json"), help="default %(default)s")
    return parser.parse_args(arguments)


def start(kinds: Sequence[type[Peer]], space: Workspace) -> list[Peer]:
    """The peers that can run here; of the others it says why not."""
    peers = []
    for kind in kinds:
        try:
            peers.append(kind(space))
        except (Missing, NotReady) as reason:
            print(f"left out: {reason}", file=sys.stderr)
    return peers


def measure(peers: Sequence[Peer], names: Sequence[str], rounds: int) -> Figures:
    """All rounds; every other one takes the peers backwards."""
    figures = Figures()
    for number in range(rounds):
        for name in names:
            each = MEASURES[name]
            if (each.once and not each.last and number) or (each.last and number < rounds - 1):
                continue
            for peer in peers if number % 2 == 0 else reversed(peers):
                if sys.stderr.isatty():
                    print(f"\r\033[Kround {number + 1}: {name}: {peer.name}", end="", file=sys.stderr, flush=True)
                each.run(peer, figures)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    return figures


def main(arguments: Sequence[str]) -> None:
    options = _options(arguments)
    begin, before = time.monotonic(), report.load()
    with workspace(options.size * MIB) as space:
        peers = start(options.peers, space)
        if not peers:
            sys.exit("There is nobody to measure.")
        figures = measure(peers, options.only, options.rounds)
    seconds, after = time.monotonic() - begin, report.load()
    machine = report.machine()
    report.tell(
        figures,
        peers,
        f"{machine['client']}; Python {machine['python']}; Linux {machine['kernel']}; {machine['cpu']}; "
        f"{options.size} MiB, {options.rounds} rounds, {seconds:.0f} s; load {before:.1f} before, {after:.1f} after",
    )
    report.write_json(options.json, figures, options.size * MIB, (before, after))


if __name__ == "__main__":
    main(sys.argv[1:])
