"""The tables and the JSON of a run."""

from __future__ import annotations

import json
import os
import platform
import pwd
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from bench.figures import Figures
from bench.peers import Peer
from bench.targets import OURS, TARGETS

_WIDTH = 150
_SLOW_SHELL = 20  # ms


def machine() -> dict[str, str]:
    """What the figures belong to."""
    client = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr.strip()
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "client": client.split(",")[0],
        "python": platform.python_version(),
        "kernel": platform.release().split("-")[0],
        "cpu": f"{os.cpu_count()} × {models[0].partition(':')[2].strip()}" if models else str(os.cpu_count()),
    }


def shell_ms() -> float:
    """How long the login shell takes to run nothing, as servers start it: bash then reads its start-up file; median."""
    user = pwd.getpwuid(os.getuid())
    env = {"HOME": user.pw_dir, "PATH": os.defpath, "SSH_CLIENT": "127.0.0.1 0 0"}
    took = []
    for _ in range(5):
        begin = time.perf_counter()
        subprocess.run([user.pw_shell, "-c", "true"], env=env, stdin=subprocess.DEVNULL, check=False)
        took.append((time.perf_counter() - begin) * 1000)
    return statistics.median(took)


def load() -> float:
    """Load average of the last minute."""
    return os.getloadavg()[0]


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _cell(figures: Figures, figure: str, peer: str) -> str:
    value, wrong = figures.median(figure, peer), len(figures.wrong.get(figure, {}).get(peer, ()))
    text = "" if value is None else _number(value)
    if not wrong:
        return text or "-"
    tried = wrong + len(figures.values.get(figure, {}).get(peer, ()))
    return f"{text} ({wrong} of {tried} failed)".strip()


def figures_table(figures: Figures, peers: Mapping[str, str]) -> Table:
    """Medians by peer (name and short name), then teleconch's as a multiple of each other's."""
    table = Table(box=box.ASCII2)
    table.add_column("median", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for short in peers.values():
        table.add_column(short, justify="right")
    others = [peer for peer in peers if peer != OURS] if OURS in peers else []
    for peer in others:
        table.add_column(f"× {peers[peer]}", justify="right", no_wrap=True)
    for figure, (unit, more) in figures.units.items():
        ours = figures.median(figure, OURS)
        ratios = []
        for peer in others:
            theirs = figures.median(figure, peer)
            ratios.append(f"{ours / theirs:.2f}" if ours and theirs else "-")
        table.add_row(
            figure,
            unit if more else f"{unit} (less is better)",
            *(_cell(figures, figure, peer) for peer in peers),
            *ratios,
        )
    return table


def targets_table(figures: Figures) -> Table | None:
    """Each target that this run can tell of; of the same run's medians."""
    table = Table(box=box.ASCII2)
    for name in ("target", "wanted", "reached", ""):
        table.add_column(name)
    for target in TARGETS:
        reached = target.reached(figures)
        if reached is not None:
            table.add_row(target.figure, target.wanted(), _number(reached), "met" if target.met(reached) else "MISSED")
    return table if table.row_count else None


def tell(figures: Figures, peers: Sequence[Peer], title: str) -> None:
    """Print everything that a reader needs."""
    width = max(_WIDTH, shutil.get_terminal_size().columns)
    console = Console(width=width, highlight=False, markup=False, file=sys.stdout)
    console.print(title, soft_wrap=True)
    console.print(figures_table(figures, {peer.name: peer.short for peer in peers}))
    targets = targets_table(figures)
    if targets is not None:
        console.print(targets)
    if (shell := shell_ms()) > _SLOW_SHELL:
        console.print(
            f"! The login shell takes {shell:.0f} ms to start (its start-up files?): part of each transfer and of "
            "`ssh HOST true`, for every peer, so that their ratios say less.",
            soft_wrap=True,
        )
    for remark in dict.fromkeys(remark for peer in peers for remark in peer.remarks):
        console.print(f"- {remark}", soft_wrap=True)
    for figure, by_peer in figures.wrong.items():
        for peer, sentences in by_peer.items():
            console.print(f"! {peer}, {figure}: {'; '.join(sorted(set(sentences)))}", soft_wrap=True)


def write_json(path: Path, figures: Figures, size: int, loads: Sequence[float]) -> None:
    medians = {
        figure: {peer: figures.median(figure, peer) for peer in by_peer} for figure, by_peer in figures.values.items()
    }
    whole = {
        "time": time.time(), "machine": machine(), "bytes": size, "load": list(loads),
        "units": {figure: {"unit": unit, "more_is_better": more} for figure, (unit, more) in figures.units.items()},
        "medians": medians, "rounds": figures.values, "failures": figures.wrong,
        "targets": [
            {"figure": each.figure, "wanted": each.wanted(), "reached": reached, "met": each.met(reached)}
            for each in TARGETS if (reached := each.reached(figures)) is not None
        ],
    }  # fmt: skip
    path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
