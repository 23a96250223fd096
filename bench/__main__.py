"""Runs the measures in alternating rounds, prints a table of medians with ratios, writes JSON."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.measures import MEASURES, Wrong
from bench.peers import PEERS, Missing, Peer
from bench.workspace import workspace


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=512, help="MiB of each transfer")
    parser.add_argument("--only", default=",".join(MEASURES), help="measures, with commas between")
    parser.add_argument("--peers", default="", help="parts of peers' names, with commas between")
    parser.add_argument("--json", type=Path, default=Path("bench-results.json"))
    options = parser.parse_args()
    wanted = [part for part in options.peers.lower().split(",") if part]
    rows: dict[str, dict[str, list[float]]] = {}
    wrong: list[str] = []
    with workspace(options.size << 20) as space:
        peers: list[Peer] = []
        for kind in PEERS:
            if wanted and not any(part in kind.name.lower() for part in wanted):
                continue
            try:
                peers.append(kind(space))
            except Missing as reason:
                print(f"left out: {reason}", file=sys.stderr)
        for number in range(options.rounds):
            for name in options.only.split(","):
                for peer in peers if number % 2 == 0 else reversed(peers):
                    print(f"round {number + 1}: {name}: {peer.name}      ", end="\r", file=sys.stderr, flush=True)
                    try:
                        figures = MEASURES[name](peer)
                    except (Wrong, subprocess.CalledProcessError) as problem:
                        wrong.append(f"{name}, round {number + 1}: {problem}")
                        continue
                    for figure, value in figures.items():
                        rows.setdefault(figure, {}).setdefault(peer.name, []).append(value)
    for sentence in wrong:
        print(sentence)
    report(rows, [peer.name for peer in peers], options)


def report(rows: dict[str, dict[str, list[float]]], peers: list[str], options: argparse.Namespace) -> None:
    version = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr.strip()
    table = Table(title=f"{version}; Python {platform.python_version()}; {options.rounds} rounds, medians")
    table.add_column("measure")
    for peer in peers:
        table.add_column(peer, justify="right")
    others = peers[1:] if peers and peers[0] == "teleconch" else []
    for peer in others:
        table.add_column(f"ratio to {peer}", justify="right")
    medians = {
        figure: {peer: statistics.median(values) for peer, values in by_peer.items()}
        for figure, by_peer in rows.items()
    }
    for figure, by_peer in medians.items():
        ours = by_peer.get("teleconch")
        table.add_row(
            figure,
            *(f"{by_peer[peer]:.1f}" if peer in by_peer else "-" for peer in peers),
            *(f"{ours / by_peer[peer]:.2f}" if ours and by_peer.get(peer) else "-" for peer in others),
        )
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    options.json.write_text(
        json.dumps(
            {"time": time.time(), "client": version, "size": options.size, "rounds": rows, "medians": medians}, indent=1
        )
    )


main()
